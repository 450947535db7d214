import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { mountAsRoot, unmount } from '../../../fs/mounts/dev-fuse.ts';
import type { Negotiated } from '../../../fs/serving/serve-loop.ts';
import type { TreeSource } from '../../../fs/tree/index-checkpoint.ts';
import { digestOf } from '../../../store/digest.ts';
import { testSerialNeeding } from '../../fixtures/external-tools.ts';
import { newSource } from '../../fixtures/workspaces.ts';
import { APP_ID, LIB_ID, makeWorkspace, saveFile, untag, openAll } from './all-tree-fixtures.ts';

const testMount = testSerialNeeding({ root: true, fuse: true });

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
