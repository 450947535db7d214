import test, { type ExecutionContext } from 'ava';

import type { Operation } from '../../../fs/protocol/constants.ts';
import { decodeEntryOut, ENTRY_OUT_BYTES } from '../../../fs/protocol/attr.ts';
import {
  encodeCreateIn,
  encodeLinkIn,
  encodeMkdirIn,
  encodeMknodIn,
  encodeRename2In,
  encodeSymlink,
} from '../../../fs/protocol/names.ts';
import { encodeOpenIn } from '../../../fs/protocol/open.ts';
import { encodeSetxattrIn } from '../../../fs/protocol/xattr.ts';
import { RENAME_EXCHANGE, RENAME_NOREPLACE } from '../../../store/file-calls.ts';
import { CowFolder } from '../../fixtures/cow-trees.ts';
import { lowerDir, lowerFile, lowerLink } from '../../fixtures/memory-lower.ts';
import { factsOfCow } from '../overlay/cow-facts.ts';
import { nameBody } from './requests.ts';
import { workspaceRequest, WorkspaceServer, type WorkspaceReply } from './workspace-server.ts';

const ROOT = 1;
const O_RDWR = 2;
const UNIQUE = 100;
/** In an entry_out. */
const ATIME_AT = [
  [64, 72],
  [88, 92],
] as const;
const RELEASE_BODY = Buffer.alloc(24);

function newServer(t: ExecutionContext): WorkspaceServer {
  const xattrs = new Map([['user.there', Buffer.from('v')]]);
  const folder = new CowFolder(
    t,
    lowerDir({
      a: { ...lowerFile('A'), xattrs },
      b: lowerFile('B'),
      dir: lowerDir({ x: lowerFile('X') }),
      empty: lowerDir(),
      link: lowerLink('a'),
    }),
  );
  return new WorkspaceServer(folder);
}

function body(encode: (out: Buffer) => number): Buffer {
  const out = Buffer.alloc(4096);
  return Buffer.from(out.subarray(0, encode(out)));
}

function renameBody(name: string, newName: string, flags = 0): Buffer {
  return body((out) => encodeRename2In(out, 0, { newDir: ROOT, flags, name, newName }));
}

function setxattrBody(name: string, flags: number): Buffer {
  const xattr = { flags, killsSetgid: false, name, value: Buffer.from('v') };
  return body((out) => encodeSetxattrIn(out, 0, xattr));
}

const MAKE = { mode: 0o100644, umask: 0o022, name: 'new' };

interface Case {
  operation: Operation;
  /** Of the object asked about; '' is the root. */
  path?: string;
  body: (server: WorkspaceServer) => Buffer;
}

const CASES: Record<string, Case> = {
  mkdir: { operation: 'MKDIR', body: () => body((out) => encodeMkdirIn(out, 0, { ...MAKE, mode: 0o755 })) },
  mknod: { operation: 'MKNOD', body: () => body((out) => encodeMknodIn(out, 0, { ...MAKE, rdev: 0 })) },
  'mknod of a fifo': {
    operation: 'MKNOD',
    body: () => body((out) => encodeMknodIn(out, 0, { ...MAKE, mode: 0o010600, rdev: 0 })),
  },
  symlink: { operation: 'SYMLINK', body: () => body((out) => encodeSymlink(out, 0, { name: 'new', target: 'to' })) },
  link: {
    operation: 'LINK',
    body: (server) => body((out) => encodeLinkIn(out, 0, { nodeId: server.id('a'), name: 'new' })),
  },
  create: { operation: 'CREATE', body: () => body((out) => encodeCreateIn(out, 0, { ...MAKE, flags: O_RDWR })) },
  unlink: { operation: 'UNLINK', body: () => nameBody('a') },
  rmdir: { operation: 'RMDIR', body: () => nameBody('empty') },
  rename: { operation: 'RENAME2', body: () => renameBody('a', 'new') },
  'rename over another': { operation: 'RENAME2', body: () => renameBody('a', 'b') },
  'rename of a directory': { operation: 'RENAME2', body: () => renameBody('dir', 'empty') },
  'rename without replacing': { operation: 'RENAME2', body: () => renameBody('a', 'new', RENAME_NOREPLACE) },
  exchange: { operation: 'RENAME2', body: () => renameBody('a', 'dir', RENAME_EXCHANGE) },
  'setxattr that makes': { operation: 'SETXATTR', path: 'a', body: () => setxattrBody('user.new', 1) },
  removexattr: { operation: 'REMOVEXATTR', path: 'a', body: () => nameBody('user.there') },
  'open for writing': {
    operation: 'OPEN',
    path: 'a',
    body: () => body((out) => encodeOpenIn(out, 0, { flags: O_RDWR, killsSetuid: false })),
  },
};

/** Names that are there, or not, as a kernel sees to before it asks, are left out. */
const REFUSED: Record<string, Case> = {
  'rmdir of what is not empty': { operation: 'RMDIR', body: () => nameBody('dir') },
  'rename onto what may not be replaced': {
    operation: 'RENAME2',
    body: () => renameBody('a', 'b', RENAME_NOREPLACE),
  },
  'setxattr that makes what is there': { operation: 'SETXATTR', path: 'a', body: () => setxattrBody('user.there', 1) },
  'removexattr of what is not there': { operation: 'REMOVEXATTR', path: 'a', body: () => nameBody('user.none') },
};

/** What is on disk, seen by somebody who comes new to it, and what is open. */
function stateOf({ folder, workspace }: WorkspaceServer): unknown {
  return { facts: factsOfCow(folder.open()), open: [...workspace.log.openNodes] };
}

function send(server: WorkspaceServer, { operation, path = '', body: make }: Case, resent: boolean): WorkspaceReply {
  const reply = server.ask(workspaceRequest(operation, server.id(path), make(server), { unique: UNIQUE, resent }));
  if (reply.body.length >= ENTRY_OUT_BYTES) for (const [at, end] of ATIME_AT) reply.body.fill(0, at, end); // we looked
  return reply;
}

for (const [what, request] of Object.entries(CASES)) {
  test(`${what}: carried out, killed before the reply, sent again: answered as the first time, and done once`, (t) => {
    const server = newServer(t);
    const before = stateOf(server);
    const first = send(server, request, false);
    t.is(first.error, 0);
    const after = stateOf(server);
    t.notDeepEqual(after, before);
    const next = server.killed();
    t.deepEqual(send(next, request, true), first);
    t.deepEqual(stateOf(next), after);
    const third = next.killed();
    t.deepEqual(send(third, request, true), first, 'and once more');
    t.deepEqual(stateOf(third), after);
  });

  test(`${what}: begun, killed before anything was done, sent again: carried out`, (t) => {
    const [server, other] = [newServer(t), newServer(t)];
    send(other, request, false);
    server.workspace.log.begin(BigInt(UNIQUE));
    const next = server.killed();
    t.is(send(next, request, true).error, 0);
    t.is(String(stateOf(next)), String(stateOf(other)));
    t.deepEqual(factsOfCow(next.folder.open()), factsOfCow(other.folder.open()));
  });
}

for (const [what, request] of Object.entries(REFUSED)) {
  test(`${what}: refused, killed before the reply, sent again: refused in the same way`, (t) => {
    const server = newServer(t);
    const before = stateOf(server);
    const first = send(server, request, false);
    t.true(first.error < 0);
    const next = server.killed();
    t.deepEqual(send(next, request, true), first);
    t.deepEqual(stateOf(next), before);
  });
}

test('RELEASE: carried out, killed before the reply, sent again: one that is open is left', (t) => {
  const server = newServer(t);
  const id = server.id('a');
  const open = body((out) => encodeOpenIn(out, 0, { flags: O_RDWR, killsSetuid: false }));
  for (const unique of [1, 2]) t.is(server.ask(workspaceRequest('OPEN', id, open, { unique })).error, 0);
  t.is(server.ask(workspaceRequest('UNLINK', ROOT, nameBody('a'), { unique: 3 })).error, 0);
  t.is(server.ask(workspaceRequest('RELEASE', id, RELEASE_BODY, { unique: 4 })).error, 0);
  const next = server.killed();
  t.is(next.ask(workspaceRequest('RELEASE', id, RELEASE_BODY, { unique: 4, resent: true })).error, 0);
  t.deepEqual([...next.workspace.log.openNodes], [[id, { count: 1, backingId: 0 }]]);
  const { tree, files } = next.workspace;
  t.deepEqual(tree.scratch.orphans(), [String(id)]);
  t.is(next.ask(workspaceRequest('GETATTR', id, Buffer.alloc(16), { unique: 5 })).error, 0);
  const node = tree.known(id);
  if (node === undefined) return t.fail();
  t.is(files.read(node, 0, Buffer.alloc(5)), 1);
  t.is(next.ask(workspaceRequest('RELEASE', id, RELEASE_BODY, { unique: 6 })).error, 0);
  t.deepEqual(tree.scratch.orphans(), []);
});

test('FORGET of what a process before has counted does not lose what the kernel has looked up since', (t) => {
  const server = newServer(t);
  const ask = (to: WorkspaceServer, operation: Operation, id: number, sent: Buffer): WorkspaceReply =>
    to.ask(workspaceRequest(operation, id, sent, { unique: UNIQUE }));
  const made = ask(
    server,
    'MKDIR',
    ROOT,
    body((out) => encodeMkdirIn(out, 0, { ...MAKE, mode: 0o755 })),
  );
  const { nodeId } = decodeEntryOut(made.body);
  for (let count = 1; count < 4; count += 1) t.is(ask(server, 'LOOKUP', ROOT, nameBody('new')).error, 0);
  const next = server.killed();
  t.is(ask(next, 'GETATTR', nodeId, Buffer.alloc(16)).error, 0);
  // the kernel gave all four back, then looked again, and was answered before that was read
  t.is(ask(next, 'LOOKUP', ROOT, nameBody('new')).error, 0);
  const forget = Buffer.alloc(8);
  forget.writeUInt32LE(4);
  ask(next, 'FORGET', nodeId, forget);
  t.is(ask(next, 'GETATTR', nodeId, Buffer.alloc(16)).error, 0);
});

test('a request that was answered is carried out when its number comes up again without the mark of a resent one', (t) => {
  const server = newServer(t);
  const mkdir = CASES['mkdir'];
  if (mkdir === undefined) return t.fail();
  t.is(send(server, mkdir, false).error, 0);
  t.is(send(server.killed(), mkdir, false).error, -17);
});

test('CREATE answers an entry and an open file, which is counted once', (t) => {
  const server = newServer(t);
  const create = CASES['create'];
  if (create === undefined) return t.fail();
  const reply = send(server, create, false).body;
  const { nodeId } = decodeEntryOut(reply.subarray(0, ENTRY_OUT_BYTES));
  t.is(reply.length, ENTRY_OUT_BYTES + 16);
  t.deepEqual([...server.workspace.log.openNodes], [[nodeId, { count: 1, backingId: 0 }]]);
  const next = server.killed();
  send(next, create, true);
  t.is(next.workspace.tree.known(nodeId)?.opens, 1);
});

const NEW_NAME: Record<string, (name: string) => [Operation, Buffer]> = {
  lookup: (name) => ['LOOKUP', nameBody(name)],
  mkdir: (name) => ['MKDIR', body((out) => encodeMkdirIn(out, 0, { ...MAKE, name }))],
  mknod: (name) => ['MKNOD', body((out) => encodeMknodIn(out, 0, { ...MAKE, rdev: 0, name }))],
  create: (name) => ['CREATE', body((out) => encodeCreateIn(out, 0, { ...MAKE, flags: O_RDWR, name }))],
  symlink: (name) => ['SYMLINK', body((out) => encodeSymlink(out, 0, { name, target: 'x' }))],
  unlink: (name) => ['UNLINK', nameBody(name)],
  rmdir: (name) => ['RMDIR', nameBody(name)],
  'rename from': (name) => ['RENAME2', renameBody(name, 'b')],
  'rename to': (name) => ['RENAME2', renameBody('b', name)],
};

for (const [what, make] of Object.entries(NEW_NAME)) {
  test(`${what}: a name that leads elsewhere is refused`, (t) => {
    const server = newServer(t);
    const before = factsOfCow(server.folder.open());
    for (const name of ['.', '..', '../outside', 'dir/x', '/', '/tmp/outside', '']) {
      const [operation, named] = make(name);
      const replies: unknown[] = [];
      try {
        replies.push(server.ask(workspaceRequest(operation, ROOT, named, { unique: 9 })).error);
      } catch (error) {
        replies.push(String(error)); // ProtocolError: there is no name
      }
      t.true(
        replies[0] === -22 || (name === '' && /ProtocolError/.test(String(replies[0]))),
        `${name}: ${String(replies[0])}`,
      );
    }
    t.deepEqual(factsOfCow(server.folder.open()), before);
  });
}
