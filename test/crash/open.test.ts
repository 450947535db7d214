import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { changeDirectory } from '../fixtures/random-directory.ts';
import { Random } from '../fixtures/random.ts';
import { CLI_PATH, newSandbox, type Sandbox } from '../fixtures/sandbox.ts';
import { compareFacts, factsOnDisk, type TreeFacts } from '../fixtures/tree-facts.ts';

const SEEDS = (process.env['BENTO_RANDOM_SEEDS'] ?? '21,22').split(',').map(Number);
const ROUNDS = Number(process.env['BENTO_RANDOM_STEPS'] ?? 6);
const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];
const STAGING = '.bento-restore';
/** Every point at which an `open` in place can be killed; those with a number come once a file or a step. */
const POINTS = [
  'open.backup-made',
  'open.file-written',
  'open.file-written:3',
  'open.staged',
  'open.journal-written',
  'open.step',
  'open.step:3',
  'open.step:6',
  'open.head-moved',
  'open.cleaned',
];

/** Runs a command that a fault point kills. @returns whether it was; otherwise it ended well */
async function runUntil(t: ExecutionContext, sandbox: Sandbox, fault: string, args: string[]): Promise<boolean> {
  const child = spawn(process.execPath, [CLI_PATH, ...args], {
    cwd: sandbox.workspace,
    env: { ...sandbox.env, BENTO_FAULT: fault },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (piece: Buffer) => (stderr += piece.toString()));
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  if (signal !== 'SIGKILL') t.is(code, 0, `${fault}: ${stderr}`);
  return signal === 'SIGKILL';
}

function write(sandbox: Sandbox, name: string, content = name): void {
  const file = path.join(sandbox.workspace, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, content);
}

/** cp-1 and cp-2, at cp-2, with unsaved work: files, a directory that was a file, a symlink that was a directory. */
async function prepare(t: ExecutionContext): Promise<{ sandbox: Sandbox; older: TreeFacts; unsaved: TreeFacts }> {
  const sandbox = newSandbox(t);
  (await sandbox.bento(['init'])).ok();
  for (const name of ['same', 'main', 'gone-later', 'node_modules/a/index.js', 'thing', 'place/inside'])
    write(sandbox, name);
  writeFileSync(path.join(sandbox.workspace, '.bentoignore'), '*.log\n');
  (await sandbox.bento(['save'])).ok();
  const older = facts(sandbox);
  write(sandbox, 'main', 'newer');
  rmSync(path.join(sandbox.workspace, 'gone-later'));
  rmSync(path.join(sandbox.workspace, 'thing'));
  write(sandbox, 'thing/deep/file');
  rmSync(path.join(sandbox.workspace, 'place'), { recursive: true });
  symlinkSync('thing', path.join(sandbox.workspace, 'place'));
  write(sandbox, 'added');
  (await sandbox.bento(['save'])).ok();
  write(sandbox, 'node_modules/a/index.js', 'not saved');
  return { sandbox, older, unsaved: facts(sandbox) };
}

function facts(sandbox: Sandbox): TreeFacts {
  return factsOnDisk(sandbox.workspace, OWN_FILES);
}

function headOf(sandbox: Sandbox): string | undefined {
  return /^head: (.*)$/m.exec(readFileSync(path.join(sandbox.workspace, 'bento.yaml'), 'utf8'))?.[1];
}

/** Every file that is there is one of the two, whole. */
function assertNoneTorn(t: ExecutionContext, found: TreeFacts, either: readonly TreeFacts[], point: string): void {
  for (const [name, line] of found) {
    if (name === STAGING || name.startsWith(`${STAGING}/`) || line.startsWith('directory')) continue;
    t.true(
      either.some((state) => state.get(name) === line),
      `${point}: ${name} is ${line}`,
    );
  }
}

for (const point of POINTS) {
  test(`an open in place killed at ${point}: each file is old or new, the next command ends it, and undo works`, async (t) => {
    const { sandbox, older, unsaved } = await prepare(t);
    const heads = { before: headOf(sandbox), after: (await logOf(sandbox))[0]?.digest };
    t.true(await runUntil(t, sandbox, point, ['open', 'cp-1']), 'it was killed there');
    assertNoneTorn(t, facts(sandbox), [older, unsaved], point);

    const { stderr } = (await sandbox.bento(['diff'])).ok();
    t.false(existsSync(path.join(sandbox.workspace, STAGING)));
    const isNew = compareFacts(older, facts(sandbox)).length === 0;
    if (!isNew) t.deepEqual(compareFacts(unsaved, facts(sandbox)), [], 'neither the one nor the other');
    const notes = stderr.split('\n').filter((line) => line.startsWith('note:'));
    const isSilent = ['open.backup-made', 'open.cleaned'].includes(point);
    t.is(notes.length, isSilent ? 0 : 1, stderr);
    t.is(headOf(sandbox), isNew ? heads.after : heads.before);
    t.is(isNew, POINTS.indexOf(point) >= POINTS.indexOf('open.journal-written'), 'with the journal it is decided');

    (await sandbox.bento(['open', 'undo'])).ok();
    t.deepEqual(compareFacts(unsaved, facts(sandbox)), []);
    t.is(headOf(sandbox), heads.before);
  });
}

/** The digest of cp-1, under which the head is after it was opened. */
async function logOf(sandbox: Sandbox): Promise<{ digest: string }[]> {
  return [(await sandbox.bento(['inspect', 'cp-1', '--json'])).ok().json<{ digest: string }>()];
}

for (const seed of SEEDS) {
  test(`an open between random trees, killed anywhere, gives the one or the other exactly (seed ${seed})`, async (t) => {
    const random = new Random(seed);
    const sandbox = newSandbox(t);
    (await sandbox.bento(['init'])).ok();
    writeFileSync(path.join(sandbox.workspace, '.bentoignore'), '');
    const trees: TreeFacts[] = [];
    while (trees.length < 3) {
      changeDirectory(sandbox.workspace, random, 12);
      const { stdout } = (await sandbox.bento(['save'])).ok();
      if (stdout.includes('Tagged')) trees.push(facts(sandbox));
    }
    let at = trees.length - 1;
    for (let round = 0; round < ROUNDS; round += 1) {
      const next = (at + 1 + random.below(trees.length - 1)) % trees.length;
      const point = random.pick(POINTS).replace(/:.*/, '');
      const fault = `${point}:${1 + random.below(['open.step', 'open.file-written'].includes(point) ? 12 : 1)}`;
      const backup = random.chance(0.5) ? [] : ['--no-backup'];
      await runUntil(t, sandbox, fault, ['open', `cp-${next + 1}`, ...backup]);
      (await sandbox.bento([random.pick(['status', 'diff'])])).ok();
      const [older = new Map(), newer = new Map()] = [trees[at], trees[next]];
      const found = facts(sandbox);
      const isNew = compareFacts(newer, found).length === 0;
      if (!isNew) t.deepEqual(compareFacts(older, found), [], `round ${round}, ${fault}`);
      if (isNew) at = next;
    }
  });
}

test('what somebody wrote after an open was killed stays, and is told', async (t) => {
  const { sandbox } = await prepare(t);
  t.true(await runUntil(t, sandbox, 'open.journal-written', ['open', 'cp-1']));
  write(sandbox, 'main', 'written after the crash');
  write(sandbox, 'added', 'this one, too');
  write(sandbox, 'gone-later', 'in the way of one that is to come');
  const { stderr } = (await sandbox.bento(['diff'])).ok();
  t.regex(stderr, /finished an interrupted `bento open` \(3 changed meanwhile and stayed as they are, first added\)/);
  for (const [name, content] of [
    ['main', 'written after the crash'],
    ['added', 'this one, too'],
    ['gone-later', 'in the way of one that is to come'],
    ['thing', 'thing'],
    ['node_modules/a/index.js', 'node_modules/a/index.js'],
  ] as const) {
    t.is(readFileSync(path.join(sandbox.workspace, name), 'utf8'), content);
  }
});

for (const point of ['open.new-marked', 'open.file-written:3', 'open.new-written']) {
  test(`an open into a new directory killed at ${point} is begun anew by the next one`, async (t) => {
    const { sandbox, older } = await prepare(t);
    const target = sandbox.path('new');
    t.true(await runUntil(t, sandbox, point, ['open', '--copy', 'cp-2', target]));
    t.false(existsSync(path.join(target, 'bento.yaml')), 'it is no workspace yet');
    (await sandbox.bento(['open', '--copy', 'cp-1', target])).ok();
    t.deepEqual(compareFacts(older, factsOnDisk(target, OWN_FILES)), []);
    t.false(existsSync(path.join(target, STAGING)));
    t.is((await sandbox.bento(['diff', '--dir', target])).ok().stderr, '');
  });
}

test('a half-made directory into which somebody put a file is left alone', async (t) => {
  const { sandbox } = await prepare(t);
  const target = sandbox.path('new');
  t.true(await runUntil(t, sandbox, 'open.new-written', ['open', '--copy', 'cp-1', target]));
  writeFileSync(path.join(target, 'letter.txt'), 'dear');
  utimesSync(path.join(target, 'letter.txt'), 1, 1);
  const { code, stderr } = await sandbox.bento(['open', '--copy', 'cp-1', target]);
  t.is(code, 20, stderr);
  t.is(readFileSync(path.join(target, 'letter.txt'), 'utf8'), 'dear');
});
