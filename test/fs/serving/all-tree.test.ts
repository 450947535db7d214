import { mkdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import type { ServedNode } from '../../../fs/serving/served-tree.ts';
import { POSITION_SPAN } from '../../../index/rows.ts';
import { digestOf, type Digest } from '../../../store/digest.ts';
import { KEYS, MEDIA_TYPES } from '../../../store/manifest.ts';
import { newFolder, newSource } from '../../fixtures/workspaces.ts';
import {
  APP_ID,
  LIB_ID,
  makeWorkspace,
  saveFile,
  untag,
  openAll,
  namesIn,
  at,
  linkAt,
  prepareAll,
} from './all-tree-fixtures.ts';

test('AllTree shows workspaces by the names of their directories, and one checkpoint at one place', async (t) => {
  const source = await newSource(t);
  const app = await makeWorkspace(t, source, 'app', APP_ID);
  await saveFile(app, 'file', 'one');
  const second = await saveFile(app, 'file', 'two', 'release');
  await app.layout.setTags(['also'], { digest: second, size: 1 });
  const lib = await makeWorkspace(t, source, 'lib', LIB_ID);
  await saveFile(lib, 'other', 'x');
  await lib.layout.setTags(['theirs'], { digest: second, size: 1 });

  const tree = await openAll(t, source.store.root);
  await prepareAll(tree, source);
  t.deepEqual(namesIn(tree, 1), ['app', 'lib']);
  t.deepEqual(namesIn(tree, at(tree, 'app').nodeId), ['release', 'latest', 'cp-1', 'also']);
  t.deepEqual(namesIn(tree, at(tree, 'lib').nodeId), ['latest', 'theirs', 'cp-1']);
  t.is(linkAt(tree, 'app/latest'), 'also');
  t.is(linkAt(tree, 'app/release'), 'also');
  t.is(linkAt(tree, 'lib/theirs'), '../app/also');
  t.is(linkAt(tree, 'lib/latest'), 'cp-1');
  t.like(at(tree, 'app/latest'), { type: 'symlink', mode: 0o777, sizeBytes: 4, uid: 7, gid: 8 });
  t.like(at(tree, 'app'), { type: 'dir', mode: 0o755, uid: 7, gid: 8 });
  const out = Buffer.alloc(3);
  t.is(tree.read(at(tree, 'app/also/file').nodeId, 0, out), 3);
  t.is(out.toString(), 'two');
  t.is(tree.lookup(1, 'missing'), undefined);
  t.is(tree.lookup(at(tree, 'app').nodeId, 'cp-9'), undefined);
  t.is(tree.readdir(at(tree, 'app/latest').nodeId), undefined);
});

test('AllTree gives ids that a successor gives too, below all others, and knows them by themselves', async (t) => {
  const source = await newSource(t);
  const app = await makeWorkspace(t, source, 'app', APP_ID);
  await saveFile(app, 'file', 'one');
  await saveFile(app, 'file', 'two', 'release');
  const first = await openAll(t, source.store.root);
  await prepareAll(first, source);
  const paths = ['app', 'app/latest', 'app/release', 'app/cp-1', 'app/cp-1/file'];
  const nodes = paths.map((path) => at(first, path));
  const successor = await openAll(t, source.store.root);
  for (const node of [...nodes].reverse()) t.deepEqual(successor.getattr(node.nodeId), node);
  t.is(successor.readlink(nodes[1]?.nodeId ?? 0)?.toString(), 'release');
  t.is(new Set(nodes.map(({ nodeId }) => nodeId)).size, nodes.length);
  t.true(nodes.slice(0, 2).every(({ nodeId }) => nodeId > 1 && nodeId < POSITION_SPAN && first.mayGrow(nodeId)));
  t.false(first.mayGrow(nodes[3]?.nodeId ?? 0), 'a checkpoint never changes');
  t.true(first.mayGrow(1));
  t.is(successor.getattr(12345), undefined);
  t.is(successor.readdir(12345), undefined);
});

test('AllTree finds a name that is made between two looks, and forgets one that was removed', async (t) => {
  const source = await newSource(t);
  const app = await makeWorkspace(t, source, 'app', APP_ID);
  await saveFile(app, 'file', 'one');
  let nowMs = 0;
  const tree = await openAll(t, source.store.root, () => nowMs);
  const folder = at(tree, 'app');
  t.is(tree.lookup(folder.nodeId, 'cp-2'), undefined);
  await saveFile(app, 'file', 'two');
  t.is(tree.lookup(folder.nodeId, 'cp-2'), 'slow', 'there, and not yet known to the index');
  t.deepEqual(namesIn(tree, folder.nodeId), ['latest', 'cp-1', 'cp-2']);
  const oldLink = at(tree, 'app/latest');
  await untag(app, 'cp-1');
  await saveFile(app, 'file', 'three');
  nowMs += 1000;
  t.is(tree.lookup(folder.nodeId, 'cp-1'), undefined);
  t.is(linkAt(tree, 'app/latest'), 'cp-3');
  t.not(at(tree, 'app/latest').nodeId, oldLink.nodeId, 'the kernel remembers what a link says');
  t.is(tree.readlink(oldLink.nodeId), undefined);
  const lib = await makeWorkspace(t, source, 'lib', LIB_ID);
  t.deepEqual(namesIn(tree, 1), ['app']);
  await saveFile(lib, 'file', 'x');
  t.deepEqual(namesIn(tree, 1), ['app', 'lib']);
  rmSync(app.layout.dir, { recursive: true });
  t.deepEqual(namesIn(tree, 1), ['lib']);
  t.is(tree.getattr(folder.nodeId), undefined);
});

test('AllTree does not list an unindexed checkpoint with an id, and prepare() gives it one', async (t) => {
  const source = await newSource(t);
  const app = await makeWorkspace(t, source, 'app', APP_ID);
  await saveFile(app, 'file', 'one');
  const tree = await openAll(t, source.store.root);
  const { nodeId } = at(tree, 'app');
  const listed = (): ServedNode | undefined => tree.readdir(nodeId)?.find(({ name }) => name === 'cp-1')?.node;
  t.like(listed(), { nodeId: 0, type: 'dir' });
  t.is(tree.lookup(nodeId, 'cp-1'), 'slow');
  await tree.prepare(source, nodeId, 'cp-1');
  const root = tree.lookup(nodeId, 'cp-1');
  t.deepEqual(listed(), root as ServedNode);
  t.true((listed()?.nodeId ?? 0) > POSITION_SPAN);
  await tree.prepare(source, nodeId, 'missing');
  await tree.prepare(source, 12345, 'cp-1');
  const missing = digestOf('no such blob');
  await app.layout.setTags(['lost'], { digest: missing, size: 1 });
  t.is(tree.lookup(nodeId, 'lost'), 'slow');
  await t.throwsAsync(tree.prepare(source, nodeId, 'lost'), { message: new RegExp(missing) });
});

test('AllTree gives two workspaces whose hashes are equal different ids', async (t) => {
  const root = newFolder(t);
  writeLayout(root, 'w34207', { 'cp-1': ONE });
  writeLayout(root, 'w40620', { 'cp-2': TWO });
  const [first, second] = [await openAll(t, root), await openAll(t, root)];
  const ids = ['w34207', 'w40620'].map((name) => at(first, name).nodeId);
  t.deepEqual(ids, [3657996895, 3657996896]);
  t.deepEqual(
    [...ids].reverse().map((id) => namesIn(second, id)),
    [['cp-2'], ['cp-1']],
  );
});

/** A layout as anybody might have written it. */
function writeLayout(root: string, id: string, tags: Record<string, Digest>, dirs: readonly string[] = []): void {
  mkdirSync(join(root, id, 'heads'), { recursive: true });
  const manifests = Object.entries(tags).map(([tag, digest]) => ({
    mediaType: MEDIA_TYPES.manifest,
    digest,
    size: 1,
    annotations: { [KEYS.refName]: tag },
  }));
  writeFileSync(join(root, id, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
  dirs.forEach((dir, i) => writeFileSync(join(root, id, 'heads', `${i}.json`), JSON.stringify({ dir })));
}

const [ONE, TWO, THREE] = [digestOf('1'), digestOf('2'), digestOf('3')];

test('AllTree tells workspaces of one name apart, and names no directory that is a fork', async (t) => {
  const root = newFolder(t);
  writeLayout(root, APP_ID, { 'cp-1': ONE }, ['/home/a/app']);
  writeLayout(root, LIB_ID, { 'cp-1': TWO }, ['/home/b/app', '/home/a/fork', '/home/z/other']);
  writeLayout(root, 'chosen', { 'cp-1': THREE }, ['/home/c/app']);
  writeLayout(root, 'ws-00000000000000aa', { 'cp-1': THREE }, ['/home/d/näme\n\u001b[31m']);
  writeLayout(root, 'ws-00000000000000bb', { 'cp-1': THREE }, ['/']);
  mkdirSync(join(root, 'ws-00000000000000cc'));
  mkdirSync(join(root, 'mounts'));
  writeFileSync(join(root, 'mounts', 'x.json'), JSON.stringify({ kind: 'fork', target: '/home/a/fork' }));
  writeFileSync(join(root, 'mounts', 'y.json'), '{ torn');
  const tree = await openAll(t, root);
  const names = (): string[] => namesIn(tree, 1).map((name) => Buffer.from(name, 'latin1').toString());
  t.deepEqual(names().sort(), ['app-01234567', 'app-fedcba98', 'chosen', 'näme__[31m', 'ws-00000000000000bb']);
  rmSync(join(root, 'mounts', 'x.json'));
  t.true(names().includes('fork'), 'a fork that was closed by hand');
});

test('AllTree makes file names of tags that are none, each its own', async (t) => {
  const root = newFolder(t);
  const tags = { 'docker.io/library/x:1': ONE, 'docker.io/library_x:1': TWO, '..': THREE, ['l'.repeat(300)]: THREE };
  writeLayout(root, 'chosen', tags);
  const tree = await openAll(t, root);
  const names = namesIn(tree, at(tree, 'chosen').nodeId);
  t.is(new Set(names).size, 4);
  t.true(names.includes('docker.io_library_x:1'));
  t.true(names.includes(`docker.io_library_x:1-${TWO.slice(7, 15)}`), names.join());
  t.true(names.every((name) => name.length <= 255 && !name.includes('/') && name !== '..'));
});

test('AllTree gives a folder another time with every change, also within one tick of the clock', async (t) => {
  const root = newFolder(t);
  writeLayout(root, APP_ID, { 'cp-1': ONE }, ['/home/app']);
  writeLayout(root, LIB_ID, { 'cp-1': TWO, shared: ONE }, ['/home/lib']);
  let nowMs = 0;
  const tree = await openAll(t, root, () => (nowMs += 1000));
  const timeOf = (path: string): string => {
    const { mtimeSec, mtimeNsec } = at(tree, path);
    return `${mtimeSec}.${mtimeNsec}`;
  };
  const seen = new Set([timeOf('app')]);
  const stopped = new Date(1_700_000_000_000);
  for (let i = 2; i < 6; i += 1) {
    writeLayout(root, APP_ID, { 'cp-1': ONE, [`cp-${i}`]: THREE }, ['/home/app']);
    utimesSync(join(root, APP_ID, 'index.json'), stopped, stopped);
    seen.add(timeOf('app'));
  }
  t.is(seen.size, 5);
  const before = timeOf('lib');
  t.is(linkAt(tree, 'lib/shared'), '../app/cp-1');
  writeLayout(root, APP_ID, { 'cp-2': THREE }, ['/home/app']);
  t.is(tree.lookup(at(tree, 'lib').nodeId, 'shared'), 'slow', 'now at home here');
  t.not(timeOf('lib'), before, 'although its own index.json is as it was');
});

test('AllTree says of a workspace that cannot be read what is wrong, and goes on showing the others', async (t) => {
  const root = newFolder(t);
  writeLayout(root, APP_ID, { 'cp-1': ONE }, ['/home/app']);
  writeLayout(root, LIB_ID, { 'cp-1': TWO }, ['/home/lib']);
  writeFileSync(join(root, LIB_ID, 'index.json'), '{"manifests": 5}');
  const tree = await openAll(t, root);
  t.deepEqual(namesIn(tree, 1), ['app', 'lib']);
  t.deepEqual(namesIn(tree, at(tree, 'app').nodeId), ['cp-1']);
  const broken = at(tree, 'lib').nodeId;
  const complaint = { code: 'FORMAT_INVALID', message: /index\.json lists no manifests/ };
  t.throws(() => tree.readdir(broken), complaint);
  t.throws(() => tree.lookup(broken, 'cp-1'), complaint);
  writeLayout(root, LIB_ID, { 'cp-1': TWO });
  t.deepEqual(namesIn(tree, broken), ['cp-1']);
});
