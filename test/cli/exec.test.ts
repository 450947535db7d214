import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { assertFails, assertTidy, digestOfRef, headOf, saveSmallWorkspace } from '../fixtures/command-checks.ts';
import { testSerialIf, testSerialNeeding } from '../fixtures/external-tools.ts';
import { ofUser, UID, whyNoOrdinaryUser } from '../fixtures/ordinary-user.ts';
import { CLI_PATH, newSandbox, type CommandResult, type Sandbox } from '../fixtures/sandbox.ts';

const test = testSerialNeeding({ root: true, fuse: true });

interface Listed {
  target: string;
  state: string;
  engine: string;
  message?: string;
}

async function withCheckpoint(t: ExecutionContext): Promise<Sandbox> {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  return sandbox;
}

async function listed(sandbox: Sandbox): Promise<Listed[]> {
  return (await sandbox.bento(['mounts', '--json'])).ok().json<Listed[]>();
}

/** Nothing of a throw-away fork is left. */
function assertGone(t: ExecutionContext, sandbox: Sandbox): void {
  assertTidy(t, sandbox);
  t.deepEqual(readdirSync(sandbox.path('tmp')), []);
  t.deepEqual(
    sandbox.mounts().filter((target) => !target.startsWith(sandbox.runtimeDir)),
    [],
  );
}

/** `bento exec` with a command that says when it runs, and then waits. */
async function startWaiting(t: ExecutionContext, sandbox: Sandbox, script: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, [CLI_PATH, 'exec', 'cp-1', '--', 'sh', '-c', script], {
    cwd: sandbox.workspace,
    env: { ...sandbox.env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  while (processesOnRecord(sandbox) < 2) await setTimeout(5); // bento's own, and the command's
  return child;
}

function processesOnRecord(sandbox: Sandbox): number {
  const dir = path.join(sandbox.storePath, 'mounts');
  const records = readdirSync(dir).filter((name) => name.endsWith('.json'));
  const [record] = records.map(
    (name) => JSON.parse(readFileSync(path.join(dir, name), 'utf8')) as { exec?: unknown[] },
  );
  return record?.exec?.length ?? 0;
}

/** Says its number, and what signal it got. */
const TELL =
  'trap "echo got-term > ../../told; exit 7" TERM; trap "echo got-int > ../../told; exit 8" INT; echo $$; while :; do sleep 0.05; done';

test('exec runs a command in a throw-away fork: its output and exit code, and nothing else', async (t) => {
  const sandbox = await withCheckpoint(t);
  const digest = await digestOfRef(sandbox, 'cp-1');
  const script =
    'cat CLAUDE.md; cat; echo gone > src/main.js; echo err >&2; printf "%s %s %s" "$BENTO_WORKSPACE" "$BENTO_REF" "$BENTO_CHECKPOINT"; test "$PWD" = "$BENTO_WORKSPACE"; exit 5';
  const result = await sandbox.bento(['exec', 'cp-1', '--', 'sh', '-c', script], { input: 'from stdin\n' });
  t.is(result.code, 5, result.toString());
  t.regex(result.stdout, new RegExp(`^# notes\nfrom stdin\n${sandbox.path('tmp')}/\\S+ cp-1 ${digest}$`));
  t.is(result.stderr, 'err\n');
  t.is(readFileSync(path.join(sandbox.workspace, 'src/main.js'), 'utf8'), 'first line\nsecond line\n');
  t.is((await sandbox.bento(['list', '--json'])).json<unknown[]>().length, 1);
  assertGone(t, sandbox);
});

test('exec passes flags on, and exits as shells do', async (t) => {
  const sandbox = await withCheckpoint(t);
  t.is(
    (await sandbox.bento(['exec', 'cp-1', '--', 'echo', '--json', '-m', '--', '--version'])).ok().stdout,
    '--json -m -- --version\n',
  );
  const cases: [string[], number, RegExp][] = [
    [['no-such-command'], 127, /^bento: no-such-command: command not found\n$/],
    [['./src/main.js'], 126, /^bento: \.\/src\/main\.js cannot be executed\n$/],
    [['./src'], 126, /cannot be executed/],
    [['sh', '-c', 'kill -KILL $$'], 137, /^$/],
    [['sh', '-c', 'kill -TERM $$'], 143, /^$/],
    [['true'], 0, /^$/],
  ];
  for (const [command, code, says] of cases) {
    const result = await sandbox.bento(['exec', 'cp-1', '--', ...command]);
    t.is(result.code, code, result.toString());
    t.regex(result.stderr, says);
    t.is(result.stdout, '');
  }
  assertGone(t, sandbox);
});

test('exec refuses what makes no sense, and makes nothing', async (t) => {
  const sandbox = await withCheckpoint(t);
  const cases: [string[], RegExp][] = [
    [['cp-1'], /no command/],
    [['cp-1', '--'], /no command/],
    [['cp-1', 'ls'], /received 2/],
    [['--', 'ls'], /received 0/],
    [['cp-1', '-m', 'x', '--', 'ls'], /--save/],
    [['cp-1', '--engine', 'warp', '--', 'ls'], /no engine warp/],
  ];
  for (const [args, says] of cases) assertFails(t, await sandbox.bento(['exec', ...args]), { code: 'USAGE', says });
  t.is((await sandbox.bento(['exec', 'cp-1', '--json', '--', 'ls'])).code, 2);
  assertFails(t, await sandbox.bento(['exec', 'cp-9', '--', 'ls']), { code: 'REF_NOT_FOUND', says: /cp-9/ });
  const full = sandbox.makeFolder('full');
  writeFileSync(path.join(full, 'precious'), '');
  const refused = await sandbox.bento(['exec', 'cp-1', '--keep', full, '--', 'touch', 'x']);
  assertFails(t, refused, { code: 'TARGET_NOT_EMPTY', says: /full is not empty/ });
  t.deepEqual(readdirSync(full), ['precious']);
  assertGone(t, sandbox);
});

test('exec --save makes a checkpoint of what a command that succeeds changed, and of nothing else', async (t) => {
  const sandbox = await withCheckpoint(t);
  const parent = headOf(sandbox.workspace);
  const saved = (
    await sandbox.bento(['exec', 'cp-1', '--save', '-m', 'built', '--', 'sh', '-c', 'echo done > built; rm CLAUDE.md'])
  ).ok();
  t.regex(saved.stderr, /^Saved cp-2 \(sha256:[0-9a-f]+\.\.\.\)\n$/);
  const { message, parent: from } = (await sandbox.bento(['inspect', 'cp-2', '--json']))
    .ok()
    .json<{ message: string; parent: string }>();
  t.deepEqual([message, from], ['built', parent]);
  t.is(await digestOfRef(sandbox, 'latest'), await digestOfRef(sandbox, 'cp-2'));
  t.is(headOf(sandbox.workspace), parent, 'the workspace stays where it is');
  const names = (await sandbox.bento(['diff', 'cp-1', 'cp-2', '--name-only'])).ok().stdout;
  t.deepEqual(names.trim().split('\n').sort(), ['CLAUDE.md', 'built']);

  const failed = await sandbox.bento(['exec', 'cp-1', '--save', '--', 'sh', '-c', 'echo half > built; exit 3']);
  t.deepEqual([failed.code, failed.stderr], [3, 'note: nothing is saved, for the command ended with 3\n']);
  const idle = (await sandbox.bento(['exec', 'cp-2', '--save', '--', 'cat', 'built'])).ok();
  t.deepEqual([idle.stdout, idle.stderr], ['done\n', 'The command changed nothing, so nothing is saved.\n']);
  t.is((await sandbox.bento(['list', '--json'])).json<unknown[]>().length, 2);
  assertGone(t, sandbox);
});

test('exec --save leaves the fork when it cannot be saved', async (t) => {
  const sandbox = await withCheckpoint(t);
  const script = 'echo work > work; echo "not: [yaml" > bento.yaml';
  const result = await sandbox.bento(['exec', 'cp-1', '--save', '--', 'sh', '-c', script]);
  t.is(result.code, 4, result.toString());
  const [fork] = await listed(sandbox);
  t.like(fork, { state: 'mounted', engine: 'overlay' });
  t.true(result.stderr.includes(`the fork stays in ${fork?.target}`), result.stderr);
  t.is(readFileSync(path.join(fork?.target ?? '', 'work'), 'utf8'), 'work\n');
  (await sandbox.bento(['close', '--discard', fork?.target ?? ''])).ok();
  assertGone(t, sandbox);
});

test('exec --keep leaves the fork where it was told to, whatever the exit code', async (t) => {
  const sandbox = await withCheckpoint(t);
  const result = await sandbox.bento([
    'exec',
    'cp-1',
    '--keep',
    '../kept',
    '--',
    'sh',
    '-c',
    'pwd; echo x > made; exit 9',
  ]);
  t.is(result.code, 9);
  t.is(result.stdout, `${sandbox.path('kept')}\n`);
  t.is(result.stderr, `Kept in ${sandbox.path('kept')}\n`);
  t.is(readFileSync(sandbox.path('kept/made'), 'utf8'), 'x\n');
  t.like((await listed(sandbox))[0], {
    target: sandbox.path('kept'),
    state: 'mounted',
    message: 'exec: sh -c pwd; echo x > made; exit 9',
  });
  t.is((await sandbox.bento(['close', '../kept'])).code, 22, 'unsaved');
  (await sandbox.bento(['close', '--discard', '../kept'])).ok();
  assertGone(t, sandbox);
});

test('exec of a workspace has what is not saved in it', async (t) => {
  const sandbox = await withCheckpoint(t);
  writeFileSync(path.join(sandbox.workspace, 'src/main.js'), 'unsaved\n');
  const result = (await sandbox.bento(['exec', '.', '--', 'sh', '-c', 'cat src/main.js; echo $BENTO_REF'])).ok();
  t.is(result.stdout, 'unsaved\ncp-1+unsaved\n');
  assertGone(t, sandbox);
});

for (const [signal, code, told] of [
  ['SIGTERM', 7, 'got-term'],
  ['SIGINT', 8, 'got-int'],
] as const) {
  test(`${signal} to exec reaches the command, and its fork is cleared away when it has ended`, async (t) => {
    const sandbox = await withCheckpoint(t);
    const child = await startWaiting(t, sandbox, TELL);
    const [running] = await listed(sandbox);
    t.like(running, { state: 'running', engine: 'overlay' });
    const ended = once(child, 'exit');
    child.kill(signal);
    t.deepEqual(await ended, [code, null]);
    t.is(readFileSync(sandbox.path('tmp/told'), 'utf8').trim(), told);
    (await sandbox.bento(['exec', 'cp-1', '--', 'rm', sandbox.path('tmp/told')])).ok();
    assertGone(t, sandbox);
  });
}

test('what a killed exec leaves is said to be that, stays while the command runs, and goes with the next command', async (t) => {
  for (const clear of [['mounts', '--prune'], ['exec', 'cp-1', '--', 'true'], ['unmount', '--all'], ['close']]) {
    const sandbox = await withCheckpoint(t);
    const child = await startWaiting(t, sandbox, 'echo $$ > ../../pid; echo; exec sleep 600');
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
    const pid = Number(readFileSync(sandbox.path('tmp/pid'), 'utf8'));
    const [fork] = await listed(sandbox);
    t.like(fork, { state: 'running' }, 'the command goes on');
    (await sandbox.bento(['mounts', '--prune'])).ok();
    assertFails(t, await sandbox.bento(['close', fork?.target ?? '']), {
      code: 'MOUNT_POINT_BUSY',
      says: /bento exec/,
    });
    assertFails(t, await sandbox.bento(['unmount', fork?.target ?? '']), {
      code: 'TARGET_INVALID',
      says: /bento exec/,
    });
    process.kill(pid, 'SIGKILL');
    for (let tries = 0; tries < 200 && existsSync(`/proc/${pid}/cwd`); tries++) await setTimeout(20);
    t.like((await listed(sandbox))[0], { state: 'left over' });
    (await sandbox.bento(clear[0] === 'close' ? ['close', fork?.target ?? ''] : clear)).ok();
    t.deepEqual(await listed(sandbox), []);
    t.deepEqual(readdirSync(sandbox.path('tmp')), ['pid']);
    assertTidy(t, sandbox);
  }
});

test('eight execs at once do not see each other', async (t) => {
  const sandbox = await withCheckpoint(t);
  const numbers = Array.from({ length: 8 }, (_, number) => number);
  const results = await Promise.all(
    numbers.map(
      async (number) => await sandbox.bento(['exec', 'cp-1', '--', 'sh', '-c', `echo ${number} > mine; ls; cat mine`]),
    ),
  );
  for (const number of numbers)
    t.is(results[number]?.ok().stdout, `CLAUDE.md\nbento.yaml\nmine\nnode_modules\npackage.json\nsrc\n${number}\n`);
  assertGone(t, sandbox);
});

// Everybody

const noUser = whyNoOrdinaryUser();
const testAsUser = testSerialIf(noUser === undefined, noUser ?? '');

testAsUser('an ordinary user execs in a kernel overlay of his own, under his own number', async (t) => {
  const { sandbox, inside } = await ofUser(t, '');
  const exec = async (...args: string[]): Promise<CommandResult> => await inside.bentoAs(UID, ['exec', ...args]);
  const probe = await exec(
    'cp-1',
    '--',
    'sh',
    '-c',
    'id -u; stat -c %u CLAUDE.md; stat -f -c %T .; echo new > src/new; rm CLAUDE.md; mv src moved; ls moved; exit 6',
  );
  t.is(probe.code, 6, probe.toString());
  t.is(probe.stdout, `${UID}\n${UID}\noverlayfs\nmain.js\nnew\nother.js\n`);
  t.is(probe.stderr, '');
  t.is((await exec('cp-1', '--', 'no-such-command')).code, 127);
  t.is((await exec('cp-1', '--', './src/main.js')).code, 126);
  t.is((await exec('cp-1', '--', 'sh', '-c', 'kill -KILL $$')).code, 137);

  const saved = (
    await exec(
      'cp-1',
      '--save',
      '-m',
      'built',
      '--',
      'sh',
      '-c',
      'echo b > built; rm -r src; mkdir src; echo s > src/s',
    )
  ).ok();
  t.regex(saved.stderr, /^Saved cp-2 \(sha256:[0-9a-f]+\.\.\.\)\n$/);
  const names = (await inside.bentoAs(UID, ['diff', 'cp-1', 'cp-2', '--name-only'])).ok().stdout;
  t.deepEqual(names.trim().split('\n').sort(), ['built', 'src/main.js', 'src/other.js', 'src/s']);
  (await inside.runAs(UID, ['sh', '-c', 'echo unsaved > src/main.js'])).ok();
  t.is((await exec('.', '--', 'cat', 'src/main.js')).ok().stdout, 'unsaved\n');
  t.deepEqual((await inside.bentoAs(UID, ['mounts', '--json'])).ok().json(), []);
  (await inside.bentoAs(UID, ['unmount', '--all'])).ok();
  t.deepEqual(readdirSync(sandbox.path('tmp')), []);
  assertTidy(t, sandbox);
});

testAsUser('where user namespaces are not allowed, exec of an ordinary user finds another way', async (t) => {
  const { sandbox, inside } = await ofUser(t, '');
  const bin = sandbox.path('bin');
  mkdirSync(bin);
  writeFileSync(
    path.join(bin, 'unshare'),
    '#!/bin/sh\necho "unshare: unshare failed: Operation not permitted" >&2\nexit 1\n',
    { mode: 0o755 },
  );
  const words = (...args: string[]): string[] => [
    'env',
    `PATH=${bin}:${process.env['PATH'] ?? ''}`,
    process.execPath,
    CLI_PATH,
    'exec',
    ...args,
  ];
  const result = (await inside.runAs(UID, words('cp-1', '--', 'cat', 'CLAUDE.md'))).ok();
  t.is(result.stdout, '# notes\n');
  assertFails(t, await inside.runAs(UID, words('cp-1', '--engine', 'overlay', '--', 'ls')), {
    code: 'MOUNT_FAILED',
    says: /no kernel overlay for an ordinary user here: unshare: unshare failed: Operation not permitted/,
  });
  t.deepEqual((await inside.bentoAs(UID, ['mounts', '--json'])).ok().json(), []);
  t.deepEqual(readdirSync(sandbox.path('tmp')), []);
});
