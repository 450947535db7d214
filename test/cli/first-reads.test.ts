import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';

import type { ExecutionContext } from 'ava';

import { blobPath, readManifest, writeFiles } from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { askDaemon } from '../fixtures/daemon.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { forkWith, WRITING_ENGINES } from '../fixtures/fork-engines.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const testMounting = testSerialNeeding({ root: true, fuse: true, tools: ['tar'] });
const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];
const LANDMARKS = ['.prefetch.landmark', '.no.prefetch.landmark'];
/** Header, a position for each file, checksum. */
const RECORD_BYTES = 40;
const POSITION_BYTES = 4;

async function saved(t: ExecutionContext, moduleCount = 40): Promise<Sandbox> {
  const sandbox = newSandbox(t);
  const sources = Array.from({ length: 40 }, (_, i): [string, string] => [
    `src/${i}.js`,
    `module ${i}\n`.repeat(i + 1),
  ]);
  const modules = Array.from({ length: moduleCount }, (_, i): [string, string] => [
    `node_modules/m${i}/index.js`,
    `exports ${i}\n`,
  ]);
  writeFiles(sandbox.workspace, { ...Object.fromEntries([...sources, ...modules]), 'package.json': '{}\n' });
  (await sandbox.bento(['init'])).ok();
  (await sandbox.bento(['save'])).ok();
  return sandbox;
}

function read(dir: string, names: readonly string[]): void {
  for (const name of names) readFileSync(path.join(dir, name));
}

/** Waits until so many files are on record, or more, of all layers together: the daemon writes them down every few seconds. */
async function recorded(t: ExecutionContext, { storePath }: Sandbox, count: number): Promise<void> {
  const dir = path.join(storePath, 'cache/first-reads');
  const counted = (): number => {
    const names = existsSync(dir) ? readdirSync(dir).filter((name) => !name.startsWith('.')) : [];
    const sizes = names.map((name) => readFileSync(path.join(dir, name)).length);
    return sizes.reduce((sum, bytes) => sum + (bytes - RECORD_BYTES) / POSITION_BYTES, 0);
  };
  for (let tries = 0; tries < 1200 && counted() < count; tries += 1) await setTimeout(50);
  t.true(counted() >= count);
}

/** Names of the topmost layer of a title as `tar` lists them, up to its landmark. */
function firstNames(sandbox: Sandbox, digest: string, title: string): string[] {
  const { layers } = readManifest(sandbox, digest);
  const layer = layers.filter(({ annotations }) => annotations['org.opencontainers.image.title'] === title).at(-1);
  const listed = execFileSync('tar', ['-tzf', blobPath(sandbox, layer?.digest ?? '')], { encoding: 'utf8' }).split(
    '\n',
  );
  return listed.slice(
    0,
    listed.findIndex((name) => LANDMARKS.includes(name)),
  );
}

async function save(sandbox: Sandbox, cwd: string, ...args: string[]): Promise<{ saved: boolean; digest: string }> {
  return (await sandbox.bento(['save', '--json', ...args], { cwd })).ok().json();
}

testMounting('what is read first of a mount comes first in the next layers of an opened workspace', async (t) => {
  const sandbox = await saved(t);
  const look = sandbox.makeFolder('look');
  (await sandbox.bento(['mount', 'cp-1', look])).ok();
  read(look, [
    'src/30.js',
    'node_modules/m7/index.js',
    'src/2.js',
    'src/30.js',
    'src/11.js',
    'node_modules/m3/index.js',
  ]);
  await recorded(t, sandbox, 5);
  (await sandbox.bento(['unmount', look])).ok();

  t.false((await save(sandbox, sandbox.workspace)).saved, 'an order alone is nothing to save');
  writeFileSync(path.join(sandbox.workspace, 'src/11.js'), 'changed\n');
  writeFileSync(path.join(sandbox.workspace, 'src/12.js'), 'changed\n');
  const delta = await save(sandbox, sandbox.workspace);
  t.deepEqual(firstNames(sandbox, delta.digest, 'project'), ['src/11.js']);
  const anew = await save(sandbox, sandbox.workspace, '--flat');
  t.deepEqual(firstNames(sandbox, anew.digest, 'project'), ['src/30.js', 'src/2.js', 'src/11.js', 'package.json']);
  const layersOf = (digest: string): string[] => readManifest(sandbox, digest).layers.map((layer) => layer.digest);
  t.is(layersOf(anew.digest)[0], layersOf(delta.digest)[0], 'nothing changed in deps');

  (await sandbox.bento(['mount', 'latest', look])).ok();
  t.deepEqual(compareByWalk(sandbox.workspace, look, { ignore: OWN_FILES }), []);
  (await sandbox.bento(['verify'])).ok();
});

for (const engine of WRITING_ENGINES) {
  testMounting(`what is read first of a fork comes first when it is saved (${engine})`, async (t) => {
    const sandbox = await saved(t, 1500); // more than is indexed in one step
    const fork = sandbox.path('fork');
    await forkWith(sandbox, engine, { target: fork });
    read(fork, ['node_modules/m900/index.js', 'src/9.js', 'node_modules/m4/index.js']);
    await recorded(t, sandbox, 3);
    writeFileSync(path.join(fork, 'node_modules/m4/index.js'), 'changed\n');
    writeFileSync(path.join(fork, 'node_modules/m5/index.js'), 'changed\n');
    const delta = await save(sandbox, fork);
    t.deepEqual(firstNames(sandbox, delta.digest, 'deps'), ['node_modules/m4/index.js']);
    const anew = await save(sandbox, fork, '--flat');
    t.deepEqual(firstNames(sandbox, anew.digest, 'deps'), ['node_modules/m900/index.js', 'node_modules/m4/index.js']);
    (await sandbox.bento(['verify'])).ok();
    (await sandbox.bento(['open', '--copy', anew.digest, '../opened'])).ok();
    t.deepEqual(compareByWalk(fork, sandbox.path('opened'), { ignore: OWN_FILES }), []);
  });
}

testMounting('a killed server, and a record that is gone or damaged, cost the order and nothing else', async (t) => {
  const sandbox = await saved(t);
  const look = sandbox.makeFolder('look');
  (await sandbox.bento(['mount', 'cp-1', look])).ok();
  read(look, ['src/3.js', 'src/1.js']);
  await recorded(t, sandbox, 2);
  const { serverPid } = (await askDaemon(sandbox, { op: 'hello' })).health;
  read(look, ['src/8.js']);
  process.kill(Number(serverPid), 'SIGKILL');
  read(look, ['src/5.js', 'src/4.js']);
  await recorded(t, sandbox, 4);

  const dir = path.join(sandbox.storePath, 'cache/first-reads');
  for (const name of readdirSync(dir)) writeFileSync(path.join(dir, name), 'nonsense');
  writeFileSync(path.join(sandbox.workspace, 'src/1.js'), 'changed\n');
  const first = await save(sandbox, sandbox.workspace);
  t.deepEqual(firstNames(sandbox, first.digest, 'project'), []);
  rmSync(dir, { recursive: true });
  read(look, ['src/6.js']);
  await recorded(t, sandbox, 3);
});
