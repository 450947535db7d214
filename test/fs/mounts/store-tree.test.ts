import { chmodSync, linkSync, lstatSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import type { ServedNode } from '../../../fs/mounts/served-tree.ts';
import { StoreTree, type StoreTreeOptions } from '../../../fs/mounts/store-tree.ts';
import { ContentReader } from '../../../fs/tree/content-reader.ts';
import { treeSource, type TreeSource } from '../../../fs/tree/index-checkpoint.ts';
import { saveWorkspace } from '../../../fs/workspace/save.ts';
import type { Workspace } from '../../../fs/workspace/workspace.ts';
import { IndexDatabase } from '../../../index/database.ts';
import { hexOf, type Digest } from '../../../store/digest.ts';
import { lsetxattr } from '../../../store/syscalls.ts';
import { changeDirectory } from '../../fixtures/random-directory.ts';
import { Random } from '../../fixtures/random.ts';
import { headOf, newWorkspace } from '../../fixtures/workspaces.ts';

interface Teardown {
  teardown: (fn: () => void) => void;
}

/** As a daemon that has just been started opens it. */
async function serve(t: Teardown, source: TreeSource, options: Partial<StoreTreeOptions> = {}): Promise<StoreTree> {
  const index = await IndexDatabase.open(source.store.cacheDir);
  const own = treeSource(source.store, index);
  const reader = new ContentReader(own.store, own.entries);
  t.teardown(() => {
    reader.close();
    index.close();
  });
  return new StoreTree(own.entries, own.trees, reader, { owner: { uid: 7, gid: 8 }, ...options });
}

async function save(workspace: Workspace): Promise<Digest> {
  const { digest } = await saveWorkspace(workspace);
  if (digest === undefined) throw new Error('nothing was saved');
  await headOf(workspace); // opening a checkpoint registers its tree
  return digest;
}

/** Path to node, by listing. */
function listAll(tree: StoreTree, nodeId: number, path = ''): Map<string, ServedNode> {
  const all = new Map<string, ServedNode>();
  for (const { name, node } of tree.readdir(nodeId) ?? []) {
    const below = path === '' ? name : `${path}/${name}`;
    all.set(below, node);
    if (node.type === 'dir') for (const [inside, its] of listAll(tree, node.nodeId, below)) all.set(inside, its);
  }
  return all;
}

test('StoreTree gives every object the node id its predecessor gave it, and knows it by that alone', async (t) => {
  const random = new Random(5);
  const workspace = await newWorkspace(t);
  const manifests: Digest[] = [];
  for (let i = 0; i < 6; i += 1) {
    changeDirectory(workspace.dir, random, 12);
    manifests.push(await save(workspace));
  }
  const first = await serve(t, workspace.source);
  const known = listAll(first, 1);
  t.true(known.size > 20, `${known.size} objects`);
  t.deepEqual([...known.keys()].filter((path) => !path.includes('/')).sort(), manifests.map(hexOf).sort());

  const successor = await serve(t, workspace.source);
  for (const [path, node] of [...known].reverse()) {
    t.deepEqual(successor.getattr(node.nodeId), node, path);
    if (node.type === 'dir') t.deepEqual(successor.readdir(node.nodeId), first.readdir(node.nodeId), path);
  }
  const another = await serve(t, workspace.source);
  for (const [path, node] of known) {
    const slash = path.lastIndexOf('/');
    const parent = slash < 0 ? 1 : (known.get(path.slice(0, slash))?.nodeId ?? 0);
    t.deepEqual(another.lookup(parent, path.slice(slash + 1)), node, path);
  }
});

test('StoreTree gives equal node ids to the same file in two checkpoints, and to no two directories', async (t) => {
  const workspace = await newWorkspace(t);
  mkdirSync(join(workspace.dir, 'dir'));
  writeFileSync(join(workspace.dir, 'dir/same'), 'same');
  writeFileSync(join(workspace.dir, 'other'), 'one');
  const first = await save(workspace);
  writeFileSync(join(workspace.dir, 'other'), 'two');
  const second = await save(workspace);
  const tree = await serve(t, workspace.source);
  const [a, b] = [first, second].map((digest) => listAll(tree, tree.lookup(1, hexOf(digest))?.nodeId ?? 0));
  t.is(a?.get('dir/same')?.nodeId, b?.get('dir/same')?.nodeId);
  t.not(a?.get('other')?.nodeId, b?.get('other')?.nodeId);
  t.not(a?.get('dir')?.nodeId, b?.get('dir')?.nodeId, 'one shows more than the other may');
  const all = [...listAll(tree, 1).values()];
  const dirs = all.filter(({ type }) => type === 'dir').map(({ nodeId }) => nodeId);
  t.is(new Set(dirs).size, dirs.length);
  t.true(all.every(({ nodeId }) => Number.isSafeInteger(nodeId) && nodeId > 1));
});

test('StoreTree of one checkpoint serves it as the root', async (t) => {
  const workspace = await newWorkspace(t);
  const at = (path: string): string => join(workspace.dir, path);
  mkdirSync(at('dir'));
  writeFileSync(at('dir/file'), 'content of the file');
  chmodSync(at('dir/file'), 0o640);
  linkSync(at('dir/file'), at('second-name'));
  symlinkSync('dir/file', at('link'));
  lsetxattr(at('dir'), 'user.note', Buffer.from('on a directory'));
  const tree = await serve(t, workspace.source, { manifest: await save(workspace) });
  const root = tree.getattr(1);
  t.like(root, { nodeId: 1, type: 'dir', uid: 7, gid: 8, mode: lstatSync(workspace.dir).mode & 0o7777 });
  t.deepEqual(
    tree.readdir(1)?.map(({ name }) => name),
    ['dir', 'link', 'second-name'],
  );
  const dir = tree.lookup(1, 'dir');
  const file = tree.lookup(dir?.nodeId ?? 0, 'file');
  if (dir === undefined || file === undefined) return t.fail();
  t.like(file, { type: 'file', mode: 0o640, uid: 7, sizeBytes: 19, nlink: 2 });
  t.is(tree.lookup(1, 'second-name')?.ino, file.ino);
  t.is(tree.readlink(tree.lookup(1, 'link')?.nodeId ?? 0)?.toString(), 'dir/file');
  t.is(tree.xattrs(dir.nodeId)?.get('user.note')?.toString(), 'on a directory');
  t.is(tree.xattrs(file.nodeId), undefined);
  const out = Buffer.alloc(8);
  t.is(tree.read(file.nodeId, 11, out), 8);
  t.is(out.toString(), 'the file');
  t.is(tree.read(file.nodeId, 15, out), 4);
  t.is(tree.read(file.nodeId, 19, out), 0);
  t.is(tree.read(file.nodeId, 1000, out), 0);
  t.is(tree.lookup(1, 'missing'), undefined);
  t.is(tree.lookup(file.nodeId, 'below a file'), undefined);
  t.is(tree.readdir(file.nodeId), undefined);
});

test('StoreTree knows nothing of ids that it never gave out', async (t) => {
  const workspace = await newWorkspace(t);
  writeFileSync(join(workspace.dir, 'file'), 'x');
  await save(workspace);
  const tree = await serve(t, workspace.source);
  for (const nodeId of [0, 2, 2 ** 32, 2 ** 33 - 1, 999 * 2 ** 32 + 1, Number.MAX_SAFE_INTEGER]) {
    t.is(tree.getattr(nodeId), undefined, String(nodeId));
    t.is(tree.readdir(nodeId), undefined);
    t.is(tree.lookup(nodeId, 'file'), undefined);
    t.is(tree.readlink(nodeId), undefined);
  }
  for (const name of ['', 'x', 'sha256:', '0'.repeat(64), '..']) t.is(tree.lookup(1, name), undefined, name);
});

test('StoreTree sees a checkpoint that was saved after it was opened', async (t) => {
  const workspace = await newWorkspace(t);
  writeFileSync(join(workspace.dir, 'file'), 'one');
  const first = await save(workspace);
  const tree = await serve(t, workspace.source);
  t.deepEqual(
    tree.readdir(1)?.map(({ name }) => name),
    [hexOf(first)],
  );
  rmSync(join(workspace.dir, 'file'));
  const second = await save(workspace);
  t.deepEqual(
    tree
      .readdir(1)
      ?.map(({ name }) => name)
      .sort(),
    [hexOf(first), hexOf(second)].sort(),
  );
  t.deepEqual(listAll(tree, tree.lookup(1, hexOf(second))?.nodeId ?? 0), new Map());
});
