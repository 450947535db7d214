import { readdirSync } from 'node:fs';

import test, { type ExecutionContext } from 'ava';

import { copyUp } from '../../../fs/overlay/copy-up.ts';
import { UPPER_ID } from '../../../fs/overlay/cow-node.ts';
import type { CowTree } from '../../../fs/overlay/cow-tree.ts';
import { createEntry, linkEntry, mkdirEntry, mknodEntry } from '../../../fs/overlay/make-entries.ts';
import { OpenFiles } from '../../../fs/overlay/open-files.ts';
import { rmdirEntry, unlinkEntry } from '../../../fs/overlay/remove-entries.ts';
import { renameEntry } from '../../../fs/overlay/rename-entry.ts';
import { getXattr, listXattrs, setXattrOf } from '../../../fs/overlay/set-attributes.ts';
import { SETATTR } from '../../../fs/protocol/setattr.ts';
import { closeFile, RENAME_EXCHANGE, statOf, xattrNamesOf } from '../../../store/file-calls.ts';
import {
  change,
  contentOf,
  CowFolder,
  errnoOfCall,
  MAKING,
  MAKING_DIR,
  markAt,
  namesIn,
  nodeAt,
  placeAt,
  writeTo,
} from '../../fixtures/cow-trees.ts';
import { testNeeding } from '../../fixtures/external-tools.ts';
import { lowerDir, lowerFile, lowerLink, LOWER_TIME_SEC } from '../../fixtures/memory-lower.ts';

const ENOENT = 2;
const EEXIST = 17;
const EPERM = 1;
const ENODATA = 61;

function newFolderOver(t: ExecutionContext): CowFolder {
  const linked = lowerFile('linked');
  return new CowFolder(
    t,
    lowerDir({
      a: lowerFile('A'),
      dir: lowerDir({ x: lowerFile('X'), y: lowerFile('Y'), sub: lowerDir({ deep: lowerFile('D') }), two: linked }),
      empty: lowerDir(),
      link: lowerLink('dir/x'),
      one: linked,
    }),
  );
}

function create(tree: CowTree, path: string): number {
  const { node } = createEntry(tree, placeAt(tree, path), MAKING);
  closeFile(node.fd);
  node.fd = -1;
  return node.id;
}

function rename(tree: CowTree, from: string, to: string, flags = 0): void {
  renameEntry(tree, placeAt(tree, from), placeAt(tree, to), flags);
}

/** Of what is really in the upper directory. */
function upperStat(folder: CowFolder, path: string): ReturnType<typeof statOf> {
  return statOf(`${folder.upper}/${path}`);
}

const WHITEOUT = { mode: 0o020000, rdevMajor: 0, rdevMinor: 0 };

test('lookup() finds what the checkpoint has, by its id, and copies nothing', (t) => {
  const folder = newFolderOver(t);
  const tree = folder.open();
  t.is(nodeAt(tree, 'a').id, folder.lower.lookup(1, 'a')?.id ?? 0);
  t.is(nodeAt(tree, 'dir/sub/deep').lower, nodeAt(tree, 'dir/sub/deep').id);
  t.is(contentOf(tree, 'dir/sub/deep'), 'D');
  t.is(tree.lookup(tree.root, 'missing'), undefined);
  t.is(
    errnoOfCall(() => tree.lookup(nodeAt(tree, 'a'), 'b')),
    20,
  );
  t.deepEqual(readdirSync(folder.upper), []);
});

test('copyUp() keeps id, attributes and times, also those of the directories above', (t) => {
  const folder = newFolderOver(t);
  const tree = folder.open();
  const [node, dir] = [nodeAt(tree, 'dir/sub/deep'), nodeAt(tree, 'dir/sub')];
  const { id } = node;
  const facts = (): unknown[] =>
    [tree.stat(dir), tree.stat(node)].map(({ mode, nlink, mtimeSec, mtimeNsec, ino }) => [
      mode,
      nlink,
      mtimeSec,
      mtimeNsec,
      ino,
    ]);
  const before = facts();
  copyUp(tree, node);
  t.like(upperStat(folder, 'dir/sub/deep'), { mode: 0o100644, mtimeSec: LOWER_TIME_SEC, mtimeNsec: 123_456_789 });
  t.deepEqual(facts(), before);
  for (const again of [tree, folder.mountAgain()]) {
    t.is(nodeAt(again, 'dir/sub/deep').id, id);
    t.is(nodeAt(again, 'dir/sub').id, dir.id);
    t.is(contentOf(again, 'dir/sub/deep'), 'D');
  }
});

test('what is made in a workspace goes by ids above all of the index', (t) => {
  const folder = newFolderOver(t);
  const tree = folder.open();
  const id = create(tree, 'dir/new');
  t.true(id >= UPPER_ID);
  const node = nodeAt(folder.mountAgain(), 'dir/new');
  t.is(node.id, id);
  t.is(node.generation, nodeAt(tree, 'dir/new').generation);
});

test('a name that was removed is gone, on disk by a whiteout, and can be used again', (t) => {
  const folder = newFolderOver(t);
  let tree = folder.open();
  unlinkEntry(tree, placeAt(tree, 'dir/x'));
  t.like(upperStat(folder, 'dir/x'), WHITEOUT);
  for (tree of [tree, folder.mountAgain()]) {
    t.is(tree.lookup(nodeAt(tree, 'dir'), 'x'), undefined);
    t.deepEqual(namesIn(tree, 'dir'), ['sub', 'two', 'y']);
    t.is(
      errnoOfCall(() => unlinkEntry(tree, placeAt(tree, 'dir/x'))),
      ENOENT,
    );
  }
  create(tree, 'dir/x');
  t.is(contentOf(tree, 'dir/x'), '');
  t.true(nodeAt(tree, 'dir/x').id >= UPPER_ID);
  unlinkEntry(tree, placeAt(tree, 'dir/x'));
  t.like(upperStat(folder, 'dir/x'), WHITEOUT);
});

test('mkdir over a name that was removed makes a directory in which nothing of the checkpoint shows', (t) => {
  const folder = newFolderOver(t);
  let tree = folder.open();
  for (const name of ['x', 'y', 'two', 'sub/deep']) unlinkEntry(tree, placeAt(tree, `dir/${name}`));
  rmdirEntry(tree, placeAt(tree, 'dir/sub'));
  rmdirEntry(tree, placeAt(tree, 'dir'));
  t.like(upperStat(folder, 'dir'), WHITEOUT);
  mkdirEntry(tree, placeAt(tree, 'dir'), MAKING_DIR);
  t.is(markAt(tree, 'dir', 'opaque')?.toString(), 'y');
  for (tree of [tree, folder.mountAgain()]) {
    t.deepEqual(namesIn(tree, 'dir'), []);
    t.is(tree.lookup(nodeAt(tree, 'dir'), 'x'), undefined);
    t.is(tree.stat(nodeAt(tree, 'dir')).nlink, 2);
  }
  mkdirEntry(tree, placeAt(tree, 'fresh'), MAKING_DIR);
  t.is(markAt(tree, 'fresh', 'opaque'), undefined);
});

test('a directory is not removed while anything shows in it', (t) => {
  const tree = newFolderOver(t).open();
  t.is(
    errnoOfCall(() => rmdirEntry(tree, placeAt(tree, 'dir'))),
    39,
  );
  t.is(
    errnoOfCall(() => rmdirEntry(tree, placeAt(tree, 'a'))),
    20,
  );
  t.is(
    errnoOfCall(() => unlinkEntry(tree, placeAt(tree, 'dir'))),
    21,
  );
  rmdirEntry(tree, placeAt(tree, 'empty'));
  t.is(tree.lookup(tree.root, 'empty'), undefined);
});

test('a moved directory of the checkpoint says where it comes from, and leaves a whiteout', (t) => {
  const folder = newFolderOver(t);
  let tree = folder.open();
  const { id } = nodeAt(tree, 'dir');
  rename(tree, 'dir', 'empty/moved');
  t.is(markAt(tree, 'empty/moved', 'redirect')?.toString(), '/dir');
  t.like(upperStat(folder, 'dir'), WHITEOUT);
  t.deepEqual(readdirSync(`${folder.upper}/empty/moved`), [], 'nothing in it was copied');
  for (tree of [tree, folder.mountAgain()]) {
    t.is(nodeAt(tree, 'empty/moved').id, id);
    t.is(contentOf(tree, 'empty/moved/sub/deep'), 'D');
    t.is(tree.lookup(tree.root, 'dir'), undefined);
    t.is(tree.findByLowerPath('dir/sub/deep'), nodeAt(tree, 'empty/moved/sub/deep'));
  }
  writeTo(tree, 'empty/moved/sub/deep', 'changed');
  rename(tree, 'empty/moved', 'dir');
  for (tree of [tree, folder.mountAgain()]) {
    t.is(nodeAt(tree, 'dir').id, id);
    t.is(contentOf(tree, 'dir/sub/deep'), 'changed');
    t.is(contentOf(tree, 'dir/x'), 'X');
    t.deepEqual(namesIn(tree, 'empty'), []);
  }
});

test('an exchange makes each show what it is in the other place', (t) => {
  const folder = newFolderOver(t);
  let tree = folder.open();
  mkdirEntry(tree, placeAt(tree, 'new'), MAKING_DIR);
  create(tree, 'new/n');
  rename(tree, 'new', 'dir', RENAME_EXCHANGE);
  rename(tree, 'a', 'empty', RENAME_EXCHANGE);
  for (tree of [tree, folder.mountAgain()]) {
    t.deepEqual(namesIn(tree, 'dir'), ['n']);
    t.is(contentOf(tree, 'new/sub/deep'), 'D');
    t.deepEqual(namesIn(tree, 'a'), []);
    t.is(contentOf(tree, 'empty'), 'A');
    t.is(tree.stat(tree.root).nlink, 5);
  }
  t.is(
    errnoOfCall(() => rename(tree, 'a', 'missing', RENAME_EXCHANGE)),
    ENOENT,
  );
});

test('names of one file of the checkpoint stay names of one file', (t) => {
  const folder = newFolderOver(t);
  let tree = folder.open();
  writeTo(tree, 'one', 'both!!!');
  t.like(upperStat(folder, 'dir/two'), { nlink: 2 });
  for (tree of [tree, folder.mountAgain()]) {
    t.is(contentOf(tree, 'dir/two'), 'both!!!');
    t.is(nodeAt(tree, 'dir/two'), nodeAt(tree, 'one'));
  }
  linkEntry(tree, nodeAt(tree, 'one'), placeAt(tree, 'three'));
  unlinkEntry(tree, placeAt(tree, 'one'));
  t.is(tree.stat(nodeAt(tree, 'three')).nlink, 2);
});

test('names of one file are found in a directory that was moved before the workspace was mounted', (t) => {
  const folder = newFolderOver(t);
  let tree = folder.open();
  rename(tree, 'dir', 'empty/moved');
  tree = folder.mountAgain();
  writeTo(tree, 'one', 'both!!!');
  for (tree of [tree, folder.mountAgain()]) {
    t.is(contentOf(tree, 'empty/moved/two'), 'both!!!');
    t.is(nodeAt(tree, 'empty/moved/two').id, nodeAt(tree, 'one').id);
    t.is(tree.stat(nodeAt(tree, 'one')).nlink, 2);
  }
  unlinkEntry(tree, placeAt(tree, 'empty/moved/two'));
  t.is(tree.stat(nodeAt(tree, 'one')).nlink, 1);
});

test('a listing keeps its order and its places while names come and go', (t) => {
  const tree = newFolderOver(t).open();
  const dir = nodeAt(tree, 'dir');
  for (let i = 0; i < 50; i += 1) create(tree, `dir/new-${i}`);
  const before = new Map(tree.list(dir).map(({ name, cookie }) => [name, cookie]));
  const cookies = [...before.values()];
  t.is(new Set(cookies).size, 54);
  t.true(cookies.every((cookie, i) => cookie > (cookies[i - 1] ?? 0) && cookie < 2 ** 53 - 2));
  for (let i = 0; i < 50; i += 2) unlinkEntry(tree, placeAt(tree, `dir/new-${i}`));
  unlinkEntry(tree, placeAt(tree, 'dir/two'));
  writeTo(tree, 'dir/x', 'changed');
  for (let i = 50; i < 99; i += 1) create(tree, `dir/new-${i}`);
  const after = tree.list(dir);
  t.is(after.length, 54 - 26 + 49);
  for (const { name, cookie } of after) t.is(before.get(name) ?? cookie, cookie, name);
  t.true(after.every(({ cookie }, i) => cookie > (after[i - 1]?.cookie ?? 0)));
  t.is(after[0]?.name, 'sub');
});

test('a listing that was not read to its end knows what was copied up since', (t) => {
  const tree = newFolderOver(t).open();
  tree.list(nodeAt(tree, 'dir'));
  const { id } = nodeAt(tree, 'dir/x');
  writeTo(tree, 'dir/x', 'changed');
  tree.forget(id, 1);
  const entry = tree.list(nodeAt(tree, 'dir')).find(({ name }) => name === 'x');
  if (entry === undefined) return t.fail();
  t.true(tree.listed(nodeAt(tree, 'dir'), entry)?.inUpper);
  t.is(contentOf(tree, 'dir/x'), 'changed');
});

test('a file that is unlinked while it is open lives on until it is closed', (t) => {
  const folder = newFolderOver(t);
  const tree = folder.open();
  const files = new OpenFiles(tree, undefined);
  const node = nodeAt(tree, 'dir/x');
  files.prepare(node, { flags: 2, killsSetuid: false });
  files.count(node, 0);
  unlinkEntry(tree, placeAt(tree, 'dir/x'));
  files.write(node, Buffer.from('after'), { offset: 1, killsSetuid: false });
  t.is(tree.stat(node).nlink, 0);
  const out = Buffer.alloc(10);
  t.is(files.read(node, 0, out), 6);
  t.deepEqual(tree.scratch.orphans(), [String(node.id)]);
  files.release(node);
  t.deepEqual(tree.scratch.orphans(), []);
  t.like(tree.stat(node), { nlink: 0, sizeBytes: 6 });
  t.true(node.isGone);
});

test('a file of the checkpoint that is unlinked while it is read is not copied', (t) => {
  const tree = newFolderOver(t).open();
  const files = new OpenFiles(tree, undefined);
  const node = nodeAt(tree, 'dir/x');
  files.count(node, 0);
  unlinkEntry(tree, placeAt(tree, 'dir/x'));
  const out = Buffer.alloc(10);
  t.is(files.read(node, 0, out), 1);
  t.is(tree.stat(node).nlink, 0);
  t.deepEqual(tree.scratch.orphans(), []);
});

test('directories count the directories in them', (t) => {
  const folder = newFolderOver(t);
  let tree = folder.open();
  const nlinks = (): number[] => ['', 'dir', 'empty'].map((path) => tree.stat(nodeAt(tree, path)).nlink);
  t.deepEqual(nlinks(), [4, 3, 2]);
  mkdirEntry(tree, placeAt(tree, 'dir/new'), MAKING_DIR);
  rename(tree, 'dir/sub', 'empty/sub');
  t.deepEqual(nlinks(), [4, 3, 3]);
  rename(tree, 'empty', 'dir/empty');
  rmdirEntry(tree, placeAt(tree, 'dir/new'));
  mkdirEntry(tree, placeAt(tree, 'empty'), MAKING_DIR);
  t.deepEqual(nlinks(), [4, 3, 2]);
  tree = folder.mountAgain();
  t.deepEqual(nlinks(), [4, 3, 2]);
});

test('nothing can be made over what is there, and a whiteout by nobody', (t) => {
  const tree = newFolderOver(t).open();
  create(tree, 'new');
  t.is(
    errnoOfCall(() => create(tree, 'new')),
    EEXIST,
  );
  const whiteout = { ...MAKING, mode: 0o020000 };
  t.is(
    errnoOfCall(() => mknodEntry(tree, placeAt(tree, 'w'), whiteout, 0)),
    EPERM,
  );
});

test('marks are neither shown, nor set, nor removed', (t) => {
  const tree = newFolderOver(t).open();
  writeTo(tree, 'a', 'B');
  const node = nodeAt(tree, 'a');
  t.not(markAt(tree, 'a', 'origin'), undefined);
  t.is(listXattrs(tree, node, { withTrusted: true }).length, 0);
  for (const name of Object.values(tree.marks) as string[]) {
    t.is(getXattr(tree, node, name), -ENODATA);
    const xattr = { name, value: Buffer.from('y'), flags: 0, killsSetgid: false };
    t.is(
      errnoOfCall(() => setXattrOf(tree, node, xattr)),
      EPERM,
    );
  }
});

test('marks that a checkpoint has mean nothing, and are not copied up', (t) => {
  const xattrs = new Map(
    ['opaque', 'redirect', 'bento.origin'].flatMap((name) => [
      [`user.overlay.${name}`, Buffer.from('y')],
      [`trusted.overlay.${name}`, Buffer.from('y')],
    ]),
  );
  xattrs.set('user.plain', Buffer.from('kept'));
  const folder = new CowFolder(
    t,
    lowerDir({ d: { ...lowerDir({ x: lowerFile('X') }), xattrs }, f: { ...lowerFile('F'), xattrs } }),
  );
  let tree = folder.open();
  const { id } = nodeAt(tree, 'f');
  change(tree, 'd', { valid: SETATTR.MODE, mode: 0o700 });
  change(tree, 'f', { valid: SETATTR.MODE, mode: 0o600 });
  const names = String(xattrNamesOf(`${folder.upper}/d`)).split('\0');
  t.deepEqual(names, ['user.plain', '']);
  for (tree of [tree, folder.mountAgain()]) {
    t.is(contentOf(tree, 'd/x'), 'X');
    t.is(nodeAt(tree, 'f').id, id);
    t.is(String(getXattr(tree, nodeAt(tree, 'f'), 'user.plain')), 'kept');
  }
});

testNeeding({ root: true })('new things belong to who makes them, and in a setgid directory to its group', (t) => {
  const folder = newFolderOver(t);
  const tree = folder.open();
  const making = { uid: 12, gid: 34, mode: 0o644, umask: 0 };
  createEntry(tree, placeAt(tree, 'mine'), making);
  t.like(tree.stat(nodeAt(tree, 'mine')), { uid: 12, gid: 34 });
  change(tree, 'dir', { valid: SETATTR.GID | SETATTR.MODE, gid: 56, mode: 0o2775 });
  createEntry(tree, placeAt(tree, 'dir/mine'), making);
  mkdirEntry(tree, placeAt(tree, 'dir/d'), { ...making, mode: 0o755 });
  t.like(tree.stat(nodeAt(tree, 'dir/mine')), { uid: 12, gid: 56 });
  t.like(tree.stat(nodeAt(tree, 'dir/d')), { uid: 12, gid: 56, mode: 0o042755 });
  for (const path of ['mine', 'dir/mine']) closeFile(nodeAt(tree, path).fd);
});
