import { chmodSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';

import test from 'ava';

import { writeFiles } from '../fixtures/command-checks.ts';
import { makeOriginalStore } from '../fixtures/original-format.ts';
import { Random } from '../fixtures/random.ts';
import { newSandbox, type RunOptions, type Sandbox } from '../fixtures/sandbox.ts';

/** What the original did wrong and no other test shows; the numbers are those of the list of its weaknesses. */

const FILE_COUNT = 16;
const FILE_BYTES = 256 * 1024;
const DEPS_BYTES = FILE_COUNT * FILE_BYTES;
/** Node.js and bento's own modules are some 800 KB. */
const READ_MAX_BYTES = DEPS_BYTES / 2;
/** Longer than a file's time may be that of a change which was not seen. */
const SETTLE_MS = 80;

interface Traffic {
  readBytes: number;
  writtenBytes: number;
}

/** A workspace whose dependencies outweigh all else by far and do not compress, with two checkpoints. */
async function prepare(sandbox: Sandbox): Promise<void> {
  const random = new Random(8);
  for (let i = 0; i < FILE_COUNT; i += 1) {
    writeFiles(sandbox.workspace, { [`node_modules/p${i}/index.js`]: random.bytes(FILE_BYTES) });
  }
  writeFiles(sandbox.workspace, { 'src/main.js': 'first' });
  (await sandbox.bento(['init'])).ok();
  await setTimeout(SETTLE_MS);
  (await sandbox.bento(['save'])).ok();
  writeFiles(sandbox.workspace, { 'src/main.js': 'second' });
  await setTimeout(SETTLE_MS);
  (await sandbox.bento(['save'])).ok();
}

/** Runs a command and counts the bytes that went through its read and write calls. */
async function trafficOf(sandbox: Sandbox, args: readonly string[], options: RunOptions = {}): Promise<Traffic> {
  const file = sandbox.path('io');
  const reporter = new URL('../fixtures/report-io.js', import.meta.url).href;
  const env = { ...options.env, BENTO_TEST_IO: file, NODE_OPTIONS: `--import ${reporter}` };
  (await sandbox.bento(args, { ...options, env })).ok();
  const io = readFileSync(file, 'utf8');
  return { readBytes: Number(/^rchar: (\d+)/m.exec(io)?.[1]), writtenBytes: Number(/^wchar: (\d+)/m.exec(io)?.[1]) };
}

function storeBytes({ storePath }: Sandbox): number {
  const dir = path.join(storePath, 'blobs', 'sha256');
  return readdirSync(dir).reduce((sum, name) => sum + statSync(path.join(dir, name)).size, 0);
}

// P1: the original read and compressed every file of every layer to learn that nothing had changed.
// P2: it stored the whole layer again, here all of the dependencies.
test('one changed file: save reads little more than it, and adds little more to the store (weaknesses P1, P2)', async (t) => {
  const sandbox = newSandbox(t);
  await prepare(sandbox);
  const before = storeBytes(sandbox);
  t.true(before > DEPS_BYTES && before < 1.1 * DEPS_BYTES, 'the dependencies are there once');
  const nothing = await trafficOf(sandbox, ['save']);
  t.true(nothing.readBytes < READ_MAX_BYTES, `${nothing.readBytes} bytes read to save nothing`);
  t.is(storeBytes(sandbox), before);
  writeFiles(sandbox.workspace, { 'node_modules/p3/index.js': 'patched' });
  const { readBytes, writtenBytes } = await trafficOf(sandbox, ['save']);
  t.true(readBytes < READ_MAX_BYTES, `${readBytes} bytes read`);
  t.true(writtenBytes < READ_MAX_BYTES, `${writtenBytes} bytes written`);
  t.true(storeBytes(sandbox) - before < 16 * 1024, `${storeBytes(sandbox) - before} bytes more`);
});

// P3: the original copied every layer to a temporary file before it looked at anything.
test('inspect, status, diff and list read no layer and copy none (weakness P3)', async (t) => {
  const sandbox = newSandbox(t);
  await prepare(sandbox);
  for (const args of [
    ['inspect', 'cp-1'],
    ['inspect', '--files'],
    ['status'],
    ['diff'],
    ['diff', 'cp-1', 'cp-2'],
    ['list'],
  ]) {
    const { readBytes, writtenBytes } = await trafficOf(sandbox, args);
    t.true(readBytes < READ_MAX_BYTES, `${args.join(' ')}: ${readBytes} bytes read`);
    t.true(writtenBytes < READ_MAX_BYTES, `${args.join(' ')}: ${writtenBytes} bytes written`);
  }
});

// P6: the original looked for repositories in the whole tree, and ran git four times in each.
test('save runs no git, and takes no repository of a dependency for one of the workspace (weakness P6)', async (t) => {
  const sandbox = newSandbox(t);
  const head = { '.git/HEAD': 'ref: refs/heads/main\n', '.git/refs/heads/main': `${'1'.repeat(40)}\n` };
  writeFiles(sandbox.workspace, { ...head, 'src/main.js': 'x' });
  writeFiles(path.join(sandbox.workspace, 'node_modules', 'nested'), head);
  writeFiles(path.join(sandbox.workspace, 'vendor', 'nested'), head);
  const [bin, called] = [sandbox.makeFolder('bin'), sandbox.path('git was called')];
  writeFileSync(path.join(bin, 'git'), `#!/bin/sh\necho "$@" >> '${called}'\n`);
  chmodSync(path.join(bin, 'git'), 0o755);
  const env = { PATH: `${bin}:${process.env['PATH'] ?? ''}` };
  for (const args of [['init'], ['save'], ['status']]) (await sandbox.bento(args, { env })).ok();
  t.false(existsSync(called));
  const { config } = (await sandbox.bento(['inspect', '--json']))
    .ok()
    .json<{ config: { repos: { path: string }[] } }>();
  t.deepEqual(
    config.repos.map((repo) => repo.path),
    ['.'],
  );
});

// D16: the original wrote the agent's files of the checkpoint over those of the user, whole databases of all projects.
test('open touches nothing outside its directory, whatever a checkpoint names there (weakness D16)', async (t) => {
  const sandbox = newSandbox(t);
  const own = path.join(sandbox.home, '.claude.json');
  writeFileSync(own, 'all my projects');
  const external = Object.fromEntries(
    ['~/.claude.json', own.slice(1), '~/.codex/state.sqlite', sandbox.path('planted').slice(1)].map((name) => [
      `__external__/${name}`,
      { content: 'of somebody else' },
    ]),
  );
  const layers = { agent: { 'CLAUDE.md': { content: '# notes\n' }, ...external } };
  await makeOriginalStore(sandbox.storePath, { id: 'ws-original', checkpoints: [{ message: 'external', layers }] });
  const target = sandbox.path('opened');
  (await sandbox.bento(['open', '--copy', 'ws-original:cp-1', target])).ok();
  t.is(readFileSync(path.join(target, 'CLAUDE.md'), 'utf8'), '# notes\n');
  (await sandbox.bento(['open', 'cp-1', '--dir', target])).ok();
  t.is(readFileSync(own, 'utf8'), 'all my projects');
  t.deepEqual(readdirSync(sandbox.home), ['.claude.json']);
  t.false(existsSync(sandbox.path('planted')));
});
