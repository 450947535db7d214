import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import type { ExecutionContext } from 'ava';

import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { OddRegistry } from '../fixtures/registry/odd-registry.ts';
import { ShapedProxy } from '../fixtures/registry/shaped-proxy.ts';
import { CLI_PATH, newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const test = testSerialNeeding({ tools: ['script', 'stty'] });

const COLUMNS = 100;
const CLEAR_LINE = '\r\x1b[2K';
/** More than the buffers on the way take at once. */
const SIZE_BYTES = 24_000_000;
/** So that it takes long enough to guess the time left. */
const BYTES_PER_SEC = 6_000_000;
/** What a command writes to a terminal to draw its line, before more of it or the end. */
const DRAWN = /^(\w+): (\S+)\/\S+[KM]B(?: \((\S+B)\/s\))?(?:, (\d+ s) left)?$/;

/** Runs bento at a terminal of its own. @returns what came out of it, and the exit status */
async function atTerminal(
  box: Sandbox,
  args: readonly string[],
  { columns = COLUMNS, stdoutTo }: { columns?: number; stdoutTo?: string } = {},
): Promise<{ code: number; screen: string }> {
  const words = [process.execPath, CLI_PATH, ...args].map((word) => `'${word}'`).join(' ');
  const command = `stty cols ${columns}; exec ${words}${stdoutTo === undefined ? '' : ` > '${stdoutTo}'`}`;
  const child = spawn('script', ['-qec', command, '/dev/null'], {
    cwd: box.workspace,
    env: { ...box.env, SHELL: '/bin/sh', TERM: 'xterm' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let screen = '';
  child.stdout.on('data', (chunk: Buffer) => (screen += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number];
  return { code, screen };
}

/** What was drawn, one state of the line after the other. */
function statesOf(screen: string): string[] {
  return screen.split(CLEAR_LINE).slice(1);
}

function assertDrawn(t: ExecutionContext, { code, screen }: { code: number; screen: string }, label: string): void {
  t.is(code, 0, screen);
  const states = statesOf(screen);
  const drawn = states.flatMap((state) => DRAWN.exec(state) ?? []).length / 5;
  t.true(drawn >= 5, screen);
  t.true(
    states.some((state) => DRAWN.exec(state)?.[1] === label),
    screen,
  );
  t.true(
    states.some((state) => DRAWN.exec(state)?.[3] !== undefined),
    'a rate',
  );
  t.true(
    states.some((state) => DRAWN.exec(state)?.[4] !== undefined),
    'the time left',
  );
  const [before = ''] = screen.split(CLEAR_LINE);
  t.notRegex(before, /[KM]B\//, 'nothing is drawn without clearing the line before');
  // Lines that stay come after the line was cleared, and never behind a state of it.
  for (const state of states) t.notRegex(state, /left.*\S\r?\n|\/s\).*\r?\n/, JSON.stringify(state));
}

interface World {
  here: Sandbox;
  there: Sandbox;
  remote: string;
  registry: OddRegistry;
}

async function startWorld(t: ExecutionContext): Promise<World> {
  const registry = await OddRegistry.start();
  const rates = { upBytesPerSec: BYTES_PER_SEC, downBytesPerSec: BYTES_PER_SEC };
  const proxy = await ShapedProxy.start(registry.host, rates);
  t.teardown(async () => {
    await proxy.stop();
    await registry.stop();
  });
  const here = newSandbox(t);
  (await here.bento(['init'])).ok();
  writeFileSync(path.join(here.workspace, 'large'), randomBytes(SIZE_BYTES));
  (await here.bento(['save'])).ok();
  const there = newSandbox(t);
  const id = /^id: (\S+)$/m.exec(readFileSync(path.join(here.workspace, 'bento.yaml'), 'utf8'))?.[1] ?? '';
  (await there.bento(['init', '--id', id])).ok();
  return { here, there, remote: `${proxy.host}/me/ws`, registry };
}

test('push, pull and open draw one line at a terminal: bytes, rate and time left', async (t) => {
  const { here, there, remote } = await startWorld(t);
  assertDrawn(t, await atTerminal(here, ['push', remote]), 'Pushing');
  assertDrawn(t, await atTerminal(there, ['pull', remote]), 'Pulling');
  const stranger = newSandbox(t);
  assertDrawn(t, await atTerminal(stranger, ['open', `${remote}:cp-1`, stranger.path('new'), '--copy']), 'Fetching');
});

test('with --json stdout is JSON alone, whether stderr is a terminal or not', async (t) => {
  const { here, there, remote } = await startWorld(t);
  const stdoutTo = here.path('out.json');
  assertDrawn(t, await atTerminal(here, ['push', remote, '--json'], { stdoutTo }), 'Pushing');
  t.like(JSON.parse(readFileSync(stdoutTo, 'utf8')), { remote });
  const pulled = (await there.bento(['pull', remote, '--json'])).ok();
  t.like(pulled.json(), { remote });
  t.is(pulled.stderr, '');
});

test('where stderr is no terminal nothing is drawn', async (t) => {
  const { here, there, remote } = await startWorld(t);
  const pushed = (await here.bento(['push', remote])).ok();
  const pulled = (await there.bento(['pull', remote])).ok();
  const stranger = newSandbox(t);
  const opened = (await stranger.bento(['open', `${remote}:cp-1`, stranger.path('new'), '--copy'])).ok();
  for (const { stdout, stderr } of [pushed, pulled, opened]) {
    t.is(stderr, '');
    t.false(stdout.includes('\x1b') || stdout.includes('\r'));
  }
});

test('the line is no longer than the terminal is wide, and is drawn where nobody knows the width', async (t) => {
  const { here, there, remote } = await startWorld(t);
  const narrow = await atTerminal(here, ['push', remote], { columns: 30 });
  const states = statesOf(narrow.screen).filter((state) => state.startsWith('Pushing: '));
  t.true(states.length > 5, narrow.screen);
  for (const state of states) t.true((state.split('\r')[0] ?? '').length < 30, JSON.stringify(state));
  assertDrawn(t, await atTerminal(there, ['pull', remote], { columns: 0 }), 'Pulling');
});
