import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';

import test, { type ExecutionContext } from 'ava';

import { AllTree } from '../../../fs/serving/all-tree.ts';
import { mountAsRoot, unmount } from '../../../fs/mounts/dev-fuse.ts';
import type { Negotiated } from '../../../fs/serving/serve-loop.ts';
import type { ServedNode } from '../../../fs/serving/served-tree.ts';
import { StoreTree } from '../../../fs/serving/store-tree.ts';
import { ContentReader } from '../../../fs/contents/content-reader.ts';
import { treeSource, type TreeSource } from '../../../fs/tree/index-checkpoint.ts';
import { createConfig, renderNewConfig } from '../../../fs/workspace/config-file.ts';
import { saveWorkspace } from '../../../fs/workspace/save.ts';
import type { Workspace } from '../../../fs/workspace/workspace.ts';
import { IndexDatabase } from '../../../index/database.ts';
import { POSITION_SPAN } from '../../../index/rows.ts';
import { digestOf, type Digest } from '../../../store/digest.ts';
import { KEYS, MEDIA_TYPES } from '../../../store/manifest.ts';
import { Store } from '../../../store/store.ts';
import { testSerialNeeding } from '../../fixtures/external-tools.ts';
import { newFolder, newSource, reopenWorkspace } from '../../fixtures/workspaces.ts';

const testMount = testSerialNeeding({ root: true, fuse: true });

const [APP_ID, LIB_ID] = ['ws-0123456789abcdef', 'ws-fedcba9876543210'];

/** A workspace in a directory of that name. */
async function makeWorkspace(t: ExecutionContext, source: TreeSource, name: string, id: string): Promise<Workspace> {
  const dir = join(newFolder(t), name);
  mkdirSync(dir);
  await createConfig(dir, renderNewConfig({ id, store: source.store.root }));
  return await reopenWorkspace(t, source, { dir, id });
}

async function saveFile(workspace: Workspace, name: string, content: string, tag?: string): Promise<Digest> {
  writeFileSync(join(workspace.dir, name), content);
  const { digest } = await saveWorkspace(workspace, tag === undefined ? {} : { tag });
  if (digest === undefined) throw new Error('nothing was saved');
  return digest;
}

async function untag(workspace: Workspace, ...tags: string[]): Promise<void> {
  await workspace.layout.removeEntries(({ annotations }) => tags.includes(annotations?.[KEYS.refName] ?? ''));
}

/** As a server that has just been started opens it. */
async function openAll(t: ExecutionContext, root: string, nowMs?: () => number): Promise<AllTree> {
  const store = new Store(root);
  const index = await IndexDatabase.open(store.cacheDir);
  const source = treeSource(store, index);
  const reader = new ContentReader(store, source.entries);
  t.teardown(() => {
    reader.close();
    index.close();
  });
  const options = { owner: { uid: 7, gid: 8 }, keepOwners: false };
  return new AllTree(store, new StoreTree(source.entries, source.trees, reader, options), nowMs);
}

function namesIn(tree: AllTree, nodeId: number | undefined): string[] {
  return (tree.readdir(nodeId ?? 0) ?? []).map(({ name }) => name);
}

/** The node at a path, which must be there and known to the index. */
function at(tree: AllTree, path: string): ServedNode {
  let node = tree.getattr(1);
  for (const name of path.split('/')) {
    const found = node && tree.lookup(node.nodeId, name);
    if (found === undefined || found === 'slow') throw new Error(`${path} is ${found ?? 'missing'} at ${name}`);
    node = found;
  }
  if (node === undefined) throw new Error('there is no root');
  return node;
}

function linkAt(tree: AllTree, path: string): string | undefined {
  return tree.readlink(at(tree, path).nodeId)?.toString();
}

/** Brings every checkpoint into the index, as the slow lane does when somebody enters it. */
async function prepareAll(tree: AllTree, source: TreeSource): Promise<void> {
  for (const { name, node } of tree.readdir(1) ?? []) {
    for (const tag of namesIn(tree, node.nodeId)) await tree.prepare(source, at(tree, name).nodeId, tag);
  }
}

// Without a kernel

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

// Through the kernel

interface Served {
  dir: string;
  /** What the server had no time for, as `parent name`. */
  slow: string[];
  errors: string[];
  /** Kills the server and starts another on the same connection. */
  restart: () => Promise<void>;
}

/** Mounts a store and serves it from another process, for which this one is the slow lane. */
async function mountAll(t: ExecutionContext, source: TreeSource): Promise<Served> {
  const dir = mkdtempSync(join(tmpdir(), 'bento-all-'));
  const fd = mountAsRoot({ target: dir });
  const lane = await openAll(t, source.store.root);
  const served: Served = { dir, slow: [], errors: [], restart };
  let negotiated: Negotiated | undefined;
  let child = start();
  t.teardown(async () => {
    unmount(dir, { lazy: true });
    if (child.exitCode === null) await once(child, 'exit');
    closeSync(fd);
    rmdirSync(dir);
  });
  return served;

  function start(): ChildProcess {
    const script = new URL('all-tree-child.js', import.meta.url).pathname;
    const resume = negotiated === undefined ? [] : [JSON.stringify(negotiated)];
    const args = [script, source.store.root, ...resume];
    const started = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit', fd] });
    if (started.stdout !== null) createInterface({ input: started.stdout }).on('line', (line) => void hear(line));
    return started;
  }

  async function hear(line: string): Promise<void> {
    const message = JSON.parse(line) as Heard;
    if (message.negotiated !== undefined) negotiated = message.negotiated;
    if (message.error !== undefined) served.errors.push(message.error);
    if (message.slow === undefined) return;
    const { parent, name } = message.slow;
    served.slow.push(name);
    const isDone = await lane.prepare(source, parent, name).then(
      () => true,
      () => false,
    );
    child.stdin?.write(isDone ? 'y' : 'n');
  }

  async function restart(): Promise<void> {
    child.kill('SIGKILL');
    await once(child, 'exit');
    child = start();
  }
}

interface Heard {
  negotiated?: Negotiated;
  error?: string;
  slow?: { parent: number; name: string };
}

/** Not synchronously: this process has to answer for the slow lane meanwhile. */
async function run(
  command: string,
  ...args: string[]
): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, LC_ALL: 'C' } });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (piece: Buffer) => (stdout += piece.toString()));
  child.stderr.on('data', (piece: Buffer) => (stderr += piece.toString()));
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, stdout, stderr };
}

async function list(dir: string): Promise<string[]> {
  const { stdout } = await run('ls', '-A', dir);
  return stdout.split('\n').filter((name) => name !== '');
}

/** Waits until something is so: the kernel asks again after a second. */
async function until(isSo: () => Promise<boolean>): Promise<void> {
  while (!(await isSo())) await setTimeout(50);
}

test.after.always('no mount is left behind', (t) => {
  t.false(readFileSync('/proc/mounts', 'latin1').includes('bento-all-'));
});

testMount('a mounted store shows workspaces, checkpoints and links, and brings in what is entered', async (t) => {
  const source = await newSource(t);
  const app = await makeWorkspace(t, source, 'app', APP_ID);
  await saveFile(app, 'file', 'one\n');
  await saveFile(app, 'file', 'two\n');
  const lib = await makeWorkspace(t, source, 'lib', LIB_ID);
  await saveFile(lib, 'other', 'x');
  await lib.layout.setTags(['theirs'], { digest: await saveFile(app, 'file', 'three\n'), size: 1 });
  const { dir, slow, errors } = await mountAll(t, source);
  t.deepEqual(await list(dir), ['app', 'lib']);
  t.deepEqual(await list(join(dir, 'app')), ['cp-1', 'cp-2', 'cp-3', 'latest']);
  t.deepEqual(slow, [], 'names alone cost nothing');
  t.is((await run('cat', join(dir, 'app/cp-1/file'), join(dir, 'app/latest/file'))).stdout, 'one\nthree\n');
  t.deepEqual(slow, ['cp-3'], 'a later save knows the head it was made from');
  t.is((await run('readlink', join(dir, 'lib/theirs'))).stdout, '../app/cp-3\n');
  t.is((await run('cat', join(dir, 'lib/theirs/file'))).stdout, 'three\n');
  const found = await run('find', dir, '-type', 'f', '-name', 'file', '-printf', '%P %U:%G\n');
  t.deepEqual(found.stdout.split('\n').sort(), ['', ...[1, 2, 3].map((n) => `app/cp-${n}/file 7:8`)]);
  t.is(found.stderr, '');
  t.is((await run('stat', '-L', '-c', '%F', join(dir, 'app/latest'))).stdout, 'directory\n');
  const refused = await run('touch', join(dir, 'app/new'));
  t.regex(refused.stderr, /Read-only file system/);
  t.regex((await run('ls', join(dir, 'app/cp-9'))).stderr, /No such file/);
  t.deepEqual(errors, []);
});

testMount('a mounted store shows what is saved, and no longer what is removed', async (t) => {
  const source = await newSource(t);
  const app = await makeWorkspace(t, source, 'app', APP_ID);
  await saveFile(app, 'file', 'one\n');
  const { dir, errors } = await mountAll(t, source);
  t.is((await run('cat', join(dir, 'app/latest/file'))).stdout, 'one\n');
  t.deepEqual(await list(join(dir, 'app')), ['cp-1', 'latest']);
  t.not((await run('cat', join(dir, 'app/cp-2/file'))).status, 0);

  await saveFile(app, 'file', 'two\n');
  t.is((await run('cat', join(dir, 'app/cp-2/file'))).stdout, 'two\n', 'a missing name is not remembered');
  await until(async () => (await run('cat', join(dir, 'app/latest/file'))).stdout === 'two\n');
  await until(async () => (await list(join(dir, 'app'))).join() === 'cp-1,cp-2,latest');
  await saveFile(await makeWorkspace(t, source, 'lib', LIB_ID), 'file', 'x');
  await until(async () => (await list(dir)).join() === 'app,lib');

  await untag(app, 'cp-1');
  await until(async () => (await run('cat', join(dir, 'app/cp-1/file'))).status !== 0);
  await until(async () => (await list(join(dir, 'app'))).join() === 'cp-2,latest');
  t.deepEqual(errors, []);
});

testMount('a mounted store goes on with a new server: same objects, and those who stand in them stay', async (t) => {
  const source = await newSource(t);
  const app = await makeWorkspace(t, source, 'app', APP_ID);
  mkdirSync(join(app.dir, 'deep'));
  await saveFile(app, 'deep/file', 'one\n');
  const { dir, restart, errors } = await mountAll(t, source);
  const identify = async (): Promise<string> =>
    (await run('find', dir, '-printf', '%i %y %s %T@ %P\n')).stdout.split('\n').sort().join('\n');
  const before = await identify();
  t.regex(before, /app\/cp-1\/deep\/file/);
  const inside = spawn('sh', ['-c', 'read _; cat file; cat ../../latest/deep/file; ls ../..'], {
    cwd: join(dir, 'app/latest/deep'),
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await restart();
  let said = '';
  inside.stdout.on('data', (piece: Buffer) => (said += piece.toString()));
  inside.stdin.end('go\n');
  await once(inside, 'close');
  t.is(said, 'one\none\ncp-1\nlatest\n');
  await restart();
  t.is(await identify(), before);
  await restart();
  await saveFile(app, 'deep/file', 'two\n');
  t.is((await run('cat', join(dir, 'app/cp-2/deep/file'))).stdout, 'two\n');
  await until(async () => (await run('cat', join(dir, 'app/latest/deep/file'))).stdout === 'two\n');
  t.deepEqual(errors, []);
});

testMount('a mounted store says EIO for a checkpoint that cannot be read, and for that one only', async (t) => {
  const source = await newSource(t);
  const app = await makeWorkspace(t, source, 'app', APP_ID);
  await saveFile(app, 'file', 'one\n');
  await app.layout.setTags(['lost'], { digest: digestOf('no such blob'), size: 1 });
  const { dir, errors } = await mountAll(t, source);
  t.deepEqual(await list(join(dir, 'app')), ['cp-1', 'latest', 'lost']);
  t.regex((await run('ls', join(dir, 'app/lost'))).stderr, /Input\/output error/);
  t.is((await run('cat', join(dir, 'app/cp-1/file'))).stdout, 'one\n');
  t.is(errors.length, 1);
});

testMount('a checkpoint that moves to another name takes along who stands in it', async (t) => {
  const source = await newSource(t);
  const app = await makeWorkspace(t, source, 'app', APP_ID);
  const digest = await saveFile(app, 'file', 'one\n', 'mine');
  const { dir } = await mountAll(t, source);
  t.is((await run('readlink', join(dir, 'app/latest'))).stdout, 'mine\n');
  t.is((await run('ls', join(dir, 'app/mine'))).stdout, 'file\n'); // spawn() below would wait for us
  const inside = spawn('sh', ['-c', 'echo in; read _; cat file; /bin/pwd -P'], {
    cwd: join(dir, 'app/mine'),
    stdio: 'pipe',
  });
  let said = '';
  inside.stdout.on('data', (piece: Buffer) => (said += piece.toString()));
  await once(inside.stdout, 'data');
  await app.layout.setTags(['cp-1'], { digest, size: 1 });
  await until(async () => (await run('readlink', join(dir, 'app/mine'))).stdout === 'cp-1\n');
  t.is((await run('cat', join(dir, 'app/mine/file'))).stdout, 'one\n');
  inside.stdin.end('go\n');
  await once(inside, 'close');
  t.is(said, `in\none\n${join(dir, 'app/cp-1')}\n`);
});

testMount(
  'a link that gets another target between its lookup and its reading leads somewhere all the same',
  async (t) => {
    const source = await newSource(t);
    const app = await makeWorkspace(t, source, 'app', APP_ID);
    await saveFile(app, 'file', 'one\n');
    const { dir, restart } = await mountAll(t, source);
    const inside = spawn('sh', ['-c', 'test -L latest && echo; read _; cat latest/file'], {
      cwd: join(dir, 'app'),
      stdio: 'pipe',
    });
    await once(inside.stdout, 'data');
    await saveFile(app, 'file', 'two\n');
    await restart();
    let said = '';
    inside.stdout.on('data', (piece: Buffer) => (said += piece.toString()));
    inside.stderr.on('data', (piece: Buffer) => (said += piece.toString()));
    inside.stdin.end('go\n');
    await once(inside, 'close');
    t.is(said, 'two\n');
  },
);
