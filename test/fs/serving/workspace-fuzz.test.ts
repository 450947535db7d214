import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { OPCODE, type Operation, operationName } from '../../../fs/protocol/constants.ts';
import { decodeReplyHeader } from '../../../fs/protocol/header.ts';
import { encodeSetattrIn, SETATTR, SETATTR_IN_BYTES } from '../../../fs/protocol/setattr.ts';
import { ProtocolError } from '../../../fs/protocol/wire.ts';
import { answer } from '../../../fs/serving/serve-loop.ts';
import { CowFolder, NO_CHANGE } from '../../fixtures/cow-trees.ts';
import { lowerDir, lowerFile, lowerLink } from '../../fixtures/memory-lower.ts';
import { Random } from '../../fixtures/random.ts';
import { workspaceRequest, WorkspaceServer } from './workspace-server.ts';

const REQUEST_COUNT = 10_000;
const UNANSWERED: ReadonlySet<number> = new Set([
  OPCODE.FORGET,
  OPCODE.BATCH_FORGET,
  OPCODE.INTERRUPT,
  OPCODE.NOTIFY_REPLY,
]);
const NAMES = [
  'a',
  'b',
  'c',
  'large',
  'd',
  'out',
  'new',
  '.',
  '..',
  '../outside',
  '../outside/file',
  '/',
  '',
  'x/../..',
];
/** How long the fields before the names are, and how many names follow; of the others nothing, or anything. */
const SHAPES: Partial<Record<Operation, [fieldBytes: number, names: number]>> = {
  LOOKUP: [0, 1],
  FORGET: [8, 0],
  BATCH_FORGET: [24, 0],
  SETATTR: [88, 0],
  SYMLINK: [0, 2],
  MKNOD: [16, 1],
  MKDIR: [8, 1],
  UNLINK: [0, 1],
  RMDIR: [0, 1],
  RENAME: [8, 2],
  RENAME2: [16, 2],
  LINK: [8, 1],
  OPEN: [8, 0],
  READ: [40, 0],
  WRITE: [40, 0],
  RELEASE: [24, 0],
  FSYNC: [16, 0],
  SETXATTR: [16, 1],
  GETXATTR: [8, 1],
  LISTXATTR: [8, 0],
  REMOVEXATTR: [0, 1],
  READDIR: [40, 0],
  READDIRPLUS: [40, 0],
  CREATE: [16, 1],
  TMPFILE: [16, 1],
  FALLOCATE: [32, 0],
  LSEEK: [24, 0],
  COPY_FILE_RANGE: [56, 0],
};
/** No request shall fill the disk: files are small, or larger than a disk can have. */
const NUMBERS = [0n, 1n, 2n, 7n, 4096n, 65_537n, 1n << 20n, 1n << 50n, (1n << 53n) - 1n, 1n << 63n, (1n << 64n) - 1n];

function newServer(t: ExecutionContext): WorkspaceServer {
  const folder = new CowFolder(
    t,
    lowerDir({
      a: lowerFile('A'),
      large: lowerFile(Buffer.alloc(400_000, 0x61)),
      d: lowerDir({ b: lowerFile('B'), c: lowerDir() }),
    }),
  );
  mkdirSync(join(folder.dir, 'outside'));
  writeFileSync(join(folder.dir, 'outside', 'file'), 'untouched', { mode: 0o640 });
  return new WorkspaceServer(folder);
}

/** What lies beside the workspace. */
function outside(folder: CowFolder): unknown {
  const file = join(folder.dir, 'outside', 'file');
  const { mode, mtimeMs, ctimeMs, nlink } = statSync(file);
  const names = [readdirSync(folder.dir), readdirSync(join(folder.dir, 'outside'))];
  return [names, readFileSync(file, 'utf8'), mode, mtimeMs, ctimeMs, nlink];
}

function oddBody(random: Random, ids: readonly number[], operation: Operation): Buffer {
  const [fieldBytes, nameCount] = SHAPES[operation] ?? [random.below(12) * 8, random.below(3)];
  const fields = Buffer.alloc(random.chance(0.9) ? fieldBytes : random.below(12) * 8);
  for (let at = 0; at < fields.length; at += 8)
    if (random.chance(0.4))
      fields.writeBigUInt64LE(random.chance(0.4) ? BigInt(random.pick(ids)) : random.pick(NUMBERS), at);
    else if (random.chance(0.3)) fields.writeUInt32LE(random.below(64), at);
  const count = random.chance(0.9) ? nameCount : random.below(4);
  const names = Array.from({ length: count }, () => random.pick(NAMES) + (random.chance(0.95) ? '\0' : ''));
  return Buffer.concat([fields, Buffer.from(names.join(''), 'latin1'), random.bytes(random.chance(0.1) ? 20 : 0)]);
}

const OPERATIONS = Object.keys(OPCODE) as Operation[];

function oddRequest(random: Random, ids: readonly number[], unique: number): Buffer {
  const operation = random.pick(OPERATIONS);
  const body = oddBody(random, ids, operation);
  const request = workspaceRequest(operation, random.pick(ids), body, { unique, resent: random.chance(0.1) });
  if (random.chance(0.1)) return request.subarray(0, random.below(request.length)); // its header does not say so
  if (random.chance(0.05)) return Buffer.concat([request, Buffer.alloc(random.below(5000), 0x61)]);
  return request;
}

/** What is known, and a few numbers that mean nothing. */
function idsOf({ workspace }: WorkspaceServer): number[] {
  return [1, 1, 0, 2 ** 52, 2 ** 53 - 1, 99, ...[...workspace.tree.nodes].map(({ id }) => id)];
}

for (const seed of [1, 2]) {
  test(`ten thousand requests for a workspace are answered, and touch nothing else (seed ${seed})`, (t) => {
    const random = new Random(seed);
    const server = newServer(t);
    const before = outside(server.folder);
    const succeeded = new Set<number>();
    let refused = 0;
    for (const path of ['a', 'large', 'd/b', 'd/c']) server.id(path);
    for (let i = 0; i < REQUEST_COUNT; i += 1) {
      const request = oddRequest(random, idsOf(server), i + 1);
      const opcode = request.length >= 40 ? request.readUInt32LE(4) : -1;
      const replyBytes = answer(server.session, request, (error) => {
        if (!(error instanceof ProtocolError))
          throw new Error(`${operationName(opcode)}: ${String(error)}`, { cause: error });
        refused += 1;
      });
      if (replyBytes === 'slow') return t.fail('nothing here is slow');
      if (replyBytes === 0) {
        if (request.length >= 16 && !UNANSWERED.has(opcode)) t.fail(`nobody answers ${operationName(opcode)}`);
        continue;
      }
      const { error } = decodeReplyHeader(server.session.reply.subarray(0, replyBytes));
      t.true(error <= 0 && error > -1000, `${operationName(opcode)}: ${error}`);
      if (error === 0) succeeded.add(opcode);
    }
    t.deepEqual(outside(server.folder), before);
    t.true(refused > REQUEST_COUNT / 20, `${refused} were refused`);
    for (const name of ['LOOKUP', 'MKDIR', 'CREATE', 'UNLINK', 'OPEN', 'SETATTR', 'WRITE', 'READDIRPLUS'] as const)
      t.true(succeeded.has(OPCODE[name]), name);
  });
}

test('requests for a symlink do not reach what it leads to', (t) => {
  const base = newServer(t);
  const target = join(base.folder.dir, 'outside', 'file');
  const folder = new CowFolder(t, lowerDir({ out: lowerLink(target) }));
  const server = new WorkspaceServer(folder);
  const before = outside(base.folder);
  const id = server.id('out');
  const setattr = (wanted: Partial<typeof NO_CHANGE>): Buffer => {
    const out = Buffer.alloc(SETATTR_IN_BYTES);
    encodeSetattrIn(out, 0, { ...NO_CHANGE, ...wanted });
    return out;
  };
  const write = Buffer.alloc(44);
  write.writeUInt32LE(4, 16);
  const fallocate = Buffer.alloc(32);
  fallocate.writeUInt32LE(100, 16);
  const open = Buffer.alloc(8);
  open.writeUInt32LE(0o1002);
  const requests = [
    ['SETATTR', setattr({ valid: SETATTR.MODE, mode: 0o777 })],
    ['SETATTR', setattr({ valid: SETATTR.SIZE, sizeBytes: 1 })],
    ['OPEN', open],
    ['WRITE', write],
    ['FALLOCATE', fallocate],
  ] as const;
  for (const [i, [operation, body]] of requests.entries())
    t.true(server.ask(workspaceRequest(operation, id, body, { unique: i + 1 })).error < 0, operation);
  t.is(
    server.ask(workspaceRequest('SETATTR', id, setattr({ valid: SETATTR.MTIME, mtimeSec: 5 }), { unique: 9 })).error,
    0,
  );
  t.deepEqual(outside(base.folder), before);
});
