import { chmodSync, linkSync, lstatSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import type { ServedNode } from '../../../fs/serving/served-tree.ts';
import { StoreTree, type StoreTreeOptions } from '../../../fs/serving/store-tree.ts';
import { ContentReader } from '../../../fs/contents/content-reader.ts';
import { treeSource, type TreeSource } from '../../../fs/tree/index-checkpoint.ts';
import { saveWorkspace } from '../../../fs/workspace/save.ts';
import type { Workspace } from '../../../fs/workspace/workspace.ts';
import { IndexDatabase } from '../../../index/database.ts';
import { digestOf, hexOf, type Digest } from '../../../store/digest.ts';
import { lsetxattr } from '../../../store/syscalls.ts';
import { indexDraft, type LayerDraft } from '../../fixtures/layers.ts';
import { changeDirectory } from '../../fixtures/random-directory.ts';
import { Random } from '../../fixtures/random.ts';
import { headOf, newSource, newWorkspace } from '../../fixtures/workspaces.ts';

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
  return new StoreTree(own.entries, own.trees, reader, { owner: { uid: 7, gid: 8 }, keepOwners: false, ...options });
}

async function save(workspace: Workspace): Promise<Digest> {
  const { digest } = await saveWorkspace(workspace);
  if (digest === undefined) throw new Error('nothing was saved');
  await headOf(workspace); // opening a checkpoint registers its tree
  return digest;
}

/** A checkpoint of layers without contents, lowest first. */
async function checkpointOf(source: TreeSource, ...drafts: (LayerDraft | Digest)[]): Promise<Digest> {
  const layers: Digest[] = [];
  for (const draft of drafts) layers.push(typeof draft === 'string' ? draft : await indexDraft(source, draft));
  const manifest = digestOf(layers.join());
  source.trees.register(manifest, layers);
  return manifest;
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

// What `stat` shows

/** What ext4 shows: a name, `.`, and a `..` in each directory below. */
function linksOf(path: Buffer): number {
  const stat = lstatSync(path);
  if (!stat.isDirectory()) return stat.nlink;
  return 2 + readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory()).length;
}

/** Writes, links and removes files in a few directories, which come and go themselves. */
function changeLinks(root: string, random: Random): void {
  for (let i = 0; i < 12; i += 1) {
    const dir = join(root, `d${random.below(3)}`, `e${random.below(2)}`);
    if (random.chance(0.1)) rmSync(dir, { recursive: true, force: true });
    mkdirSync(dir, { recursive: true });
    const files = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    const others = files
      .filter(({ name }) => name.startsWith('f'))
      .map(({ parentPath, name }) => join(parentPath, name));
    const path = join(dir, `f${random.below(5)}`);
    const other = others.length > 0 && random.chance(0.6) ? random.pick(others) : undefined;
    if (other === path) continue;
    rmSync(path, { force: true });
    if (other !== undefined) linkSync(other, path);
    else if (random.chance(0.5)) writeFileSync(path, random.bytes(5));
  }
}

test('StoreTree shows as many links as the workspace had, however many layers made a directory or hide a name', async (t) => {
  const random = new Random(11);
  const workspace = await newWorkspace(t);
  const counts = { linked: 0, recounted: 0 };
  for (let i = 0; i < 16; i += 1) {
    changeLinks(workspace.dir, random);
    const manifest = await save(workspace);
    const first = await serve(t, workspace.source, { manifest });
    const another = await serve(t, workspace.source, { manifest });
    for (const [path, node] of listAll(first, 1)) {
      t.is(node.nlink, linksOf(Buffer.from(`${workspace.dir}/${path}`, 'latin1')), path);
      t.deepEqual(another.getattr(node.nodeId), node, path);
      if (node.type === 'file' && node.nlink > 1) counts.linked += 1;
      if (node.type === 'file' && node.nodeId !== node.ino) counts.recounted += 1;
    }
    t.is(first.getattr(1)?.nlink, linksOf(Buffer.from(workspace.dir)));
  }
  t.true(counts.linked > 20 && counts.recounted > 5, JSON.stringify(counts));
});

const LINKED: LayerDraft = {
  entries: [
    { path: 'a', type: 'file', xattrs: new Map([['user.x', Buffer.from('1')]]) },
    { path: 'dir', type: 'dir' },
    { path: 'dir/b', type: 'hardlink', link: 'a' },
    { path: 'dir/c', type: 'hardlink', link: 'a' },
    { path: 'other', type: 'dir' },
    { path: 'other/d', type: 'hardlink', link: 'a' },
  ],
};

test('StoreTree counts the names of a file that show, and keeps apart what has another count elsewhere', async (t) => {
  const source = await newSource(t);
  const lower = await indexDraft(source, LINKED);
  const whole = await checkpointOf(source, lower);
  const removed = await checkpointOf(source, lower, {
    entries: [
      { path: 'dir/b', type: 'whiteout' },
      { path: 'new', type: 'file' },
    ],
  });
  const hidden = await checkpointOf(source, lower, { entries: [{ path: 'dir', type: 'dir' }], opaque: ['dir'] });
  const replaced = await checkpointOf(source, lower, {
    entries: [
      { path: 'dir', type: 'symlink', link: 'x' },
      { path: 'other/d', type: 'file' },
    ],
  });
  const tree = await serve(t, source);
  const at = (manifest: Digest): ServedNode | undefined =>
    tree.lookup(tree.lookup(1, hexOf(manifest))?.nodeId ?? 0, 'a');
  const nodes = [whole, removed, hidden, replaced].map(at);
  t.deepEqual(
    nodes.map((node) => node?.nlink),
    [4, 3, 2, 1],
  );
  t.is(new Set(nodes.map((node) => node?.nodeId)).size, 4);
  t.is(new Set(nodes.map((node) => node?.ino)).size, 1);
  const successor = await serve(t, source);
  for (const node of nodes) {
    t.deepEqual(successor.getattr(node?.nodeId ?? 0), node);
    t.is(
      successor
        .xattrs(node?.nodeId ?? 0)
        ?.get('user.x')
        ?.toString(),
      '1',
    );
  }
  const listed = listAll(tree, tree.lookup(1, hexOf(removed))?.nodeId ?? 0);
  t.deepEqual([...listed.keys()].sort(), ['a', 'dir', 'dir/c', 'new', 'other', 'other/d']);
  for (const name of ['dir/c', 'other/d']) t.deepEqual(listed.get(name), nodes[1], name);
});

test('StoreTree reads a file of which other names are hidden', async (t) => {
  const workspace = await newWorkspace(t);
  const at = (name: string): string => join(workspace.dir, name);
  writeFileSync(at('one'), 'content');
  linkSync(at('one'), at('two'));
  await save(workspace);
  rmSync(at('one'));
  const tree = await serve(t, workspace.source, { manifest: await save(workspace) });
  const two = tree.lookup(1, 'two');
  t.is(two?.nlink, 1);
  const out = Buffer.alloc(100);
  t.is(tree.read(two?.nodeId ?? 0, 0, out), 7);
  t.is(out.toString('utf8', 0, 7), 'content');
});

test('StoreTree does not count the directories of a directory over which much is listed', async (t) => {
  const source = await newSource(t);
  const names = Array.from({ length: 500 }, (_, i) => ({ path: `dir/${i}`, type: 'file' as const }));
  const few = { entries: names.slice(0, 5) };
  const lower: LayerDraft = { entries: [{ path: 'dir/below/x', type: 'file' }] };
  const tree = await serve(t, source);
  const linksWith = async (upper: LayerDraft): Promise<number | undefined> => {
    const root = tree.lookup(1, hexOf(await checkpointOf(source, lower, upper)));
    return tree.lookup(root?.nodeId ?? 0, 'dir')?.nlink;
  };
  t.is(await linksWith(few), 3);
  t.is(await linksWith({ entries: names }), 1);
});

const OWNED: LayerDraft = {
  entries: [
    { path: 'mine', type: 'dir' },
    { path: 'mine/theirs', type: 'file', uid: 1234, gid: 5678 },
    { path: 'mine/group', type: 'file', gid: 5678 },
    { path: 'theirs', type: 'dir', uid: 1234 },
  ],
};

test('StoreTree shows the mounting user as the owner of everything, or the owners that are recorded', async (t) => {
  const source = await newSource(t);
  const upper: LayerDraft = { entries: [{ path: 'theirs/x', type: 'symlink', link: 'y', uid: 9 }] };
  const manifest = await checkpointOf(source, OWNED, upper);
  const owners = (tree: StoreTree): Record<string, string> =>
    Object.fromEntries([...listAll(tree, 1)].map(([path, { uid, gid }]) => [path, `${uid}:${gid}`]));
  const mapped = owners(await serve(t, source, { manifest }));
  t.deepEqual(new Set(Object.values(mapped)), new Set(['7:8']));
  const kept = await serve(t, source, { manifest, keepOwners: true });
  t.deepEqual(owners(kept), {
    mine: '7:8',
    'mine/group': '7:5678',
    'mine/theirs': '1234:5678',
    theirs: '1234:8',
    'theirs/x': '9:8',
  });
  for (const [path, node] of listAll(kept, 1)) {
    const parent = path.includes('/') ? kept.lookup(1, path.split('/')[0] ?? '') : kept.getattr(1);
    t.deepEqual(kept.lookup(parent?.nodeId ?? 0, path.split('/').at(-1) ?? ''), node);
    t.deepEqual((await serve(t, source, { manifest, keepOwners: true })).getattr(node.nodeId), node);
  }
});

test('StoreTree tells devices, links and directories apart in one layer and in several', async (t) => {
  const source = await newSource(t);
  const layer: LayerDraft = {
    entries: [
      { path: 'd/char', type: 'char', rdev: { major: 5, minor: 300 } },
      { path: 'd/fifo', type: 'fifo' },
      { path: 'd/gone', type: 'whiteout' },
      { path: 'd/link', type: 'symlink', mode: 0o777, link: 'xyz\xe9' },
      { path: 'd/sub/file', type: 'file', mtimeSec: -5, mtimeNsec: 999_999_999 },
    ],
  };
  const one = await serve(t, source, { manifest: await checkpointOf(source, layer) });
  const over: LayerDraft = { entries: [{ path: 'd/z', type: 'fifo' }] };
  const two = await serve(t, source, { manifest: await checkpointOf(source, layer, over) });
  for (const tree of [one, two]) {
    const d = tree.lookup(1, 'd')?.nodeId ?? 0;
    t.like(tree.lookup(d, 'char'), { type: 'char', rdev: { major: 5, minor: 300 } });
    t.like(tree.lookup(d, 'link'), { type: 'symlink', sizeBytes: 4 });
    t.is(tree.readlink(tree.lookup(d, 'link')?.nodeId ?? 0)?.toString('latin1'), 'xyz\xe9');
    t.is(tree.lookup(d, 'gone'), undefined);
    const sub = tree.lookup(d, 'sub')?.nodeId ?? 0;
    t.like(tree.lookup(sub, 'file'), { mtimeSec: -5, mtimeNsec: 999_999_999, nlink: 1 });
    for (const { name, node } of tree.readdir(d) ?? []) {
      t.deepEqual(tree.lookup(d, name), node);
      t.deepEqual(tree.getattr(node.nodeId), node);
    }
  }
});

test('StoreTree shows a hard link into a lower layer as the file it names', async (t) => {
  const source = await newSource(t);
  const lower: LayerDraft = { entries: [{ path: 'file', type: 'file' }] };
  const upper: LayerDraft = { entries: [{ path: 'dir/link', type: 'hardlink', link: 'file' }] };
  const tree = await serve(t, source, { manifest: await checkpointOf(source, lower, upper) });
  const dir = tree.lookup(1, 'dir')?.nodeId ?? 0;
  const file = tree.lookup(1, 'file');
  t.deepEqual(tree.lookup(dir, 'link'), file);
  t.deepEqual(tree.readdir(dir), [{ name: 'link', node: file }] as never);
});

test('statfs() answers for the checkpoint that holds an object', async (t) => {
  const source = await newSource(t);
  const small = await checkpointOf(source, { entries: [{ path: 'dir/a', type: 'file', sizeBytes: 10 }] });
  const layers: LayerDraft[] = [5, 7].map((sizeBytes) => ({
    entries: [{ path: `${sizeBytes}`, type: 'file', sizeBytes }],
  }));
  const large = await checkpointOf(source, ...layers);
  const tree = await serve(t, source);
  const [one, two] = [small, large].map((manifest) => tree.lookup(1, hexOf(manifest))?.nodeId ?? 0);
  if (one === undefined || two === undefined) return t.fail();
  t.like(tree.statfs(one), { totalBytes: 10, fileCount: 3 });
  t.like(tree.statfs(two), { totalBytes: 12, fileCount: 4 });
  t.like(tree.statfs(tree.lookup(one, 'dir')?.nodeId ?? 0), { totalBytes: 10 });
  t.like(tree.statfs(tree.lookup(two, '7')?.nodeId ?? 0), { totalBytes: 12 }, 'of a file, some checkpoint that has it');
  t.like(tree.statfs(1), { totalBytes: 22, fileCount: 7 });
});

test('the folder of all checkpoints gets another time whenever they are others', async (t) => {
  const source = await newSource(t);
  const tree = await serve(t, source);
  const times = new Set<string>();
  const look = (): void => {
    const root = tree.getattr(1);
    t.deepEqual(tree.getattr(1), root);
    times.add(`${root?.mtimeSec} ${root?.mtimeNsec}`);
  };
  look();
  for (let i = 0; i < 5; i += 1) {
    await checkpointOf(source, { entries: [{ path: String(i), type: 'fifo' }] });
    look();
  }
  source.index.db.exec('DELETE FROM trees WHERE number = (SELECT min(number) FROM trees)');
  look();
  t.is(times.size, 7);
  t.is(tree.readdir(1)?.length, 4);
});

test('StoreTree knows every object of several layers by its number alone', async (t) => {
  const source = await newSource(t);
  const manifest = await checkpointOf(source, OWNED, { entries: [{ path: 'mine/x/y', type: 'fifo' }] });
  const known = listAll(await serve(t, source, { manifest }), 1);
  for (const [path, node] of known) {
    const tree = await serve(t, source, { manifest });
    t.deepEqual(tree.getattr(node.nodeId), node, path);
  }
});
