import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { makeManyFiles, type ManyFiles } from '../test/fixtures/many-files.ts';
import { CLI_PATH, Sandbox } from '../test/fixtures/sandbox.ts';
import { backupTools, GitRepository, type BackupTool } from './backup-tools.ts';
import { dropCaches, formatBytes, formatMs, measure, run } from './measure.ts';
import { type Arm, type Goal, type Report, type Timing } from './measure.ts';
import type { BenchOptions } from './run.ts';

/** The goals; see docs/benchmarks.md. */
const WANTED = {
  firstToPigz: 0.6,
  sizeToPigz: 1.15,
  unchangedToGit: 1.5,
  changeMs: 150,
  changeBytes: 64 * 1024,
  forkMs: 200,
  flatRatio: 1.3,
  diffMs: 150,
  openToTar: 1.2,
  openInPlaceToUnchanged: 2,
};
const MANY = 100_000;
const CHANGED_BYTES = 4096;
const DIFFERING = 10;

type Timings = Record<string, Timing>;

/** Saving, looking and restoring, next to the programs that people would use instead, on one tree in one run. */
export async function saveEngine({ fileCounts, rounds }: BenchOptions): Promise<Report> {
  const goals: Goal[] = [];
  const timings: Timings = {};
  const rows: string[][] = [];
  const note = (what: string, measured: Timings): void => {
    for (const [name, timing] of Object.entries(measured)) {
      timings[`${what}: ${name}`] = timing;
      rows.push([what, name, formatMs(timing), formatMs({ ...timing, medianMs: timing.minMs })]);
    }
  };
  await using large = new Workspace(fileCounts[1]);
  // Restoring comes first: whatever deletes many files slows down whoever makes many after it.
  const steps = [restore, firstSave, unchanged, oneFile, restoreInPlace];
  for (const step of steps) {
    process.stderr.write(`${step.name}\n`);
    goals.push(...step(large, rounds, note));
  }
  const about = `A tree of ${large.describe()}, like a project with its node_modules, and one of ${MANY} files where it says so.`;
  const unchangedMs = timings['nothing changed: bento save']?.medianMs ?? NaN;
  goals.push(...changeGoals(timings, unchangedMs, large.addedBytes));
  process.stderr.write('forks and checkpoints of many files\n');
  goals.push(...(await manyFiles(fileCounts[0], rounds, note)));
  return { name: 'save-engine', about, columns: ['What', 'By', 'Median', 'Fastest'], rows, goals, timings };
}

/** A tree with a store of its own. */
class Workspace {
  readonly sandbox = new Sandbox();
  readonly tools: BackupTool[];
  readonly #made: ManyFiles;
  #git: GitRepository | undefined;
  #targetCount = 0;
  /** What the last save of one changed file added to the store. */
  addedBytes = NaN;

  constructor(fileCount: number) {
    this.#made = makeManyFiles(this.tree, { fileCount });
    mkdirSync(this.sandbox.path('scratch'));
    this.tools = backupTools({ tree: this.tree, scratch: this.sandbox.path('scratch') });
    this.bento('init');
  }

  get tree(): string {
    return this.sandbox.workspace;
  }

  get git(): GitRepository {
    return (this.#git ??= new GitRepository({ tree: this.tree, scratch: this.sandbox.path('scratch') }));
  }

  describe(): string {
    return `${this.#made.fileCount} files (${formatBytes(this.#made.sizeBytes)})`;
  }

  bento(...args: string[]): string {
    return run(process.execPath, [CLI_PATH, ...args], { cwd: this.tree, env: this.sandbox.env });
  }

  shell(command: string, cwd = this.tree): void {
    run('sh', ['-c', command], { cwd, env: { PATH: process.env['PATH'] ?? '' } });
  }

  /** Blobs alone, whole and thin: the rest of a store is a cache, or as small as a tag. */
  storeBytes(): number {
    const dirs = ['blobs', 'thin'].map((name) => path.join(this.sandbox.storePath, name)).filter(existsSync);
    return dirs.reduce((sum, dir) => sum + Number(run('du', ['-sb', dir]).split('\t')[0]), 0);
  }

  /** As before the first save. */
  forget(): void {
    rmSync(this.sandbox.dataHome, { recursive: true, force: true });
    for (const name of ['bento.yaml', '.bentoignore']) rmSync(path.join(this.tree, name), { force: true });
    this.bento('init');
  }

  /** Gives one file other bytes of the same length. */
  change(name = 'node_modules/package-0007/lib/changed.js'): void {
    writeFileSync(path.join(this.tree, name), randomBytes(CHANGED_BYTES / 2).toString('hex'));
  }

  /** Another one each time: for a minute after a mass delete ext4 makes files several times more slowly. */
  emptyTarget(): string {
    const target = path.join(this.sandbox.path('targets'), String((this.#targetCount += 1)));
    mkdirSync(target, { recursive: true });
    dropCaches();
    return target;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sandbox.dispose();
  }
}

type Note = (what: string, measured: Timings) => void;

function firstSave(ws: Workspace, rounds: number, note: Note): Goal[] {
  const packed = ws.sandbox.path('packed.tgz');
  const arms: Record<string, Arm> = {
    'bento save': { prepare: () => ws.forget(), run: () => void ws.bento('save') },
    'tar to pigz -6': { run: () => ws.shell(`tar c . | pigz -6 > '${packed}'`) },
  };
  for (const tool of ws.tools) arms[tool.name] = { prepare: () => tool.init(), run: () => tool.save() };
  const timing = measure(arms, rounds);
  note('first save', timing);
  const ratio = mid(timing, 'bento save') / mid(timing, 'tar to pigz -6');
  const size = ws.storeBytes() / statSync(packed).size;
  return [
    below('first save, to tar piped into pigz -6', ratio, WANTED.firstToPigz),
    below('size of the store after it, to what pigz wrote', size, WANTED.sizeToPigz),
    ...fasterThan('first save', timing, 'bento save', ws.tools),
  ];
}

function unchanged(ws: Workspace, rounds: number, note: Note): Goal[] {
  ws.bento('save');
  for (const tool of ws.tools) tool.save();
  ws.git.addAndCommit();
  const arms: Record<string, Arm> = {
    'bento save': { run: () => void ws.bento('save') },
    'bento status': { run: () => void ws.bento('status') },
    'bento diff': { run: () => void ws.bento('diff') },
    'git add -A && git commit': { run: () => ws.git.addAndCommit() },
    'git status': { run: () => ws.git.status() },
    'node -e 0': { run: () => void run(process.execPath, ['-e', '0']) },
  };
  for (const tool of ws.tools) arms[tool.name] = { run: () => tool.save() };
  const timing = measure(arms, rounds);
  note('nothing changed', timing);
  const git = mid(timing, 'git add -A && git commit');
  return [
    ...['bento save', 'bento status', 'bento diff'].map((what) =>
      below(`${what}, nothing changed, to git`, mid(timing, what) / git, WANTED.unchangedToGit),
    ),
    ...fasterThan('unchanged save', timing, 'bento save', ws.tools),
  ];
}

function oneFile(ws: Workspace, rounds: number, note: Note): Goal[] {
  let before = 0;
  const arms: Record<string, Arm> = {
    'bento save': {
      prepare: () => {
        ws.change();
        before = ws.storeBytes();
      },
      run: () => void ws.bento('save'),
      cleanUp: () => (ws.addedBytes = ws.storeBytes() - before),
    },
  };
  for (const tool of ws.tools) arms[tool.name] = { prepare: () => ws.change(), run: () => tool.save() };
  const timing = measure(arms, rounds);
  note('one file of 4 KiB changed', timing);
  return fasterThan('one-file save', timing, 'bento save', ws.tools);
}

function changeGoals(timings: Timings, unchangedMs: number, addedBytes: number): Goal[] {
  const extraMs = (timings['one file of 4 KiB changed: bento save']?.medianMs ?? NaN) - unchangedMs;
  return [
    {
      what: 'one file of 4 KiB changed, beyond an unchanged save',
      goal: `at most ${WANTED.changeMs} ms`,
      measured: `${extraMs.toFixed(0)} ms`,
      met: extraMs <= WANTED.changeMs,
    },
    {
      what: 'one file of 4 KiB changed: added to the store',
      goal: `at most ${WANTED.changeBytes / 1024} KiB`,
      measured: `${(addedBytes / 1024).toFixed(1)} KiB`,
      met: addedBytes <= WANTED.changeBytes,
    },
  ];
}

function restore(ws: Workspace, rounds: number, note: Note): Goal[] {
  const tar = ws.sandbox.path('tree.tgz');
  ws.shell(`tar c . | pigz -6 > '${tar}'`);
  ws.bento('save');
  for (const tool of ws.tools) {
    tool.init();
    tool.save();
  }
  let target = '';
  const arm = (into: () => void): Arm => ({ prepare: () => void (target = ws.emptyTarget()), run: into });
  const arms: Record<string, Arm> = {
    'bento open': arm(() => void ws.bento('open', '--copy', 'latest', target)),
    'tar xzf': arm(() => void run('tar', ['xzf', tar, '-C', target])),
  };
  for (const tool of ws.tools) arms[tool.name] = arm(() => tool.restore(target));
  const timing = measure(arms, rounds);
  note('restore into a new directory', timing);
  return [
    below(
      'open into a new directory, to `tar xzf`',
      mid(timing, 'bento open') / mid(timing, 'tar xzf'),
      WANTED.openToTar,
    ),
    ...fasterThan('restore', timing, 'bento open', ws.tools),
  ];
}

function restoreInPlace(ws: Workspace, rounds: number, note: Note): Goal[] {
  const files = Array.from({ length: DIFFERING }, (_, i) => `node_modules/package-0011/lib/differs-${i}.js`);
  const saveWith = (tag: string): void => {
    for (const file of files) ws.change(file);
    ws.bento('save', '--tag', tag);
  };
  saveWith('one');
  saveWith('other');
  let turn = 0;
  const timing = measure(
    {
      'bento open': { run: () => void ws.bento('open', (turn += 1) % 2 === 1 ? 'one' : 'other') },
      'bento save, unchanged': { run: () => void ws.bento('save') },
    },
    rounds,
  );
  note('open in place, ten files differ', timing);
  const ratio = mid(timing, 'bento open') / mid(timing, 'bento save, unchanged');
  return [below('open in place, ten files differ, to an unchanged save', ratio, WANTED.openInPlaceToUnchanged)];
}

/** What must not depend on how many files there are. */
async function manyFiles(smallCount: number, rounds: number, note: Note): Promise<Goal[]> {
  await using small = new Workspace(smallCount);
  await using many = new Workspace(MANY);
  const arms: Record<string, Arm> = { 'node -e 0': { run: () => void run(process.execPath, ['-e', '0']) } };
  for (const [name, ws] of Object.entries({ [`${smallCount} files`]: small, [`${MANY} files`]: many })) {
    ws.bento('save', '--tag', 'a');
    for (let i = 0; i < DIFFERING; i += 1) ws.change(`node_modules/package-0003/lib/differs-${i}.js`);
    ws.bento('save', '--tag', 'b');
    const fork = ws.sandbox.path('fork');
    ws.bento('fork', 'b', fork);
    const inFork = (...args: string[]): string =>
      run(process.execPath, [CLI_PATH, ...args], { cwd: fork, env: ws.sandbox.env });
    arms[`save in a fork, ${name}`] = {
      prepare: () => writeFileSync(path.join(fork, 'main.js'), randomBytes(CHANGED_BYTES)),
      run: () => void inFork('save'),
    };
    arms[`diff of two checkpoints, ${name}`] = { run: () => void ws.bento('diff', 'a', 'b') };
  }
  const timing = measure(arms, rounds);
  note('many files', timing);
  for (const ws of [small, many]) ws.bento('close', ws.sandbox.path('fork'));
  const start = mid(timing, 'node -e 0');
  const beyond = (what: string): number => mid(timing, what) - start;
  const forks = [beyond(`save in a fork, ${smallCount} files`), beyond(`save in a fork, ${MANY} files`)] as const;
  const diffMs = beyond(`diff of two checkpoints, ${MANY} files`);
  return [
    underMs(`save of one file in a fork of ${MANY} files, beyond process start`, forks[1], WANTED.forkMs),
    below(`the same, ${MANY} files to ${smallCount}`, forks[1] / forks[0], WANTED.flatRatio),
    underMs(`diff of two checkpoints, ten changes in ${MANY} files, beyond process start`, diffMs, WANTED.diffMs),
  ];
}

function fasterThan(what: string, timing: Timings, ours: string, tools: readonly BackupTool[]): Goal[] {
  return tools.map(({ name }) => below(`${what}, to ${name}`, mid(timing, ours) / mid(timing, name), 1));
}

function below(what: string, ratio: number, limit: number): Goal {
  return { what, goal: `at most ${limit}`, measured: ratio.toFixed(2), met: ratio <= limit };
}

function underMs(what: string, ms: number, limit: number): Goal {
  return { what, goal: `under ${limit} ms`, measured: `${ms.toFixed(0)} ms`, met: ms < limit };
}

function mid(timings: Timings, name: string): number {
  return timings[name]?.medianMs ?? NaN;
}
