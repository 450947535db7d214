import path from 'node:path';

import { dropCaches, formatBytes, formatMs, measure, run, type Arm, type Goal } from './measure.ts';
import { type Report, type Timing } from './measure.ts';
import { otherMounts } from './other-mounts.ts';
import { sizeOfProcesses } from './process-size.ts';
import { FEW, MANY, shell, Subject } from './reading-subject.ts';
import { git, gitEnv, LARGE_MIB, PART } from './reading-tree.ts';
import type { BenchOptions } from './run.ts';

/** The goals. Speeds are ext4's time divided by the mount's. */
const WANTED = {
  node: 0.9,
  gitStatus: 0.8,
  mountMs: 100,
  mountFlat: 1.3,
  memoryBytes: 200e6,
  descriptors: 500,
};

interface Workload {
  what: string;
  /** Where in the tree it runs. */
  part: '.' | 'app';
  command: string;
  /** The least speed, ext4's being 1. */
  cold?: number;
  warm: number;
}

const WORKLOADS: readonly Workload[] = [
  { what: 'find . -ls', part: '.', command: 'find . -ls > /dev/null', cold: 0.4, warm: 0.8 },
  { what: 'tar cf - . of the many files', part: 'app', command: 'tar cf - . | wc -c', cold: 0.4, warm: 0.8 },
  { what: `cat ${LARGE_MIB} MB`, part: '.', command: `cat ${PART.large} | wc -c`, cold: 0.7, warm: 0.9 },
  {
    what: `dd bs=1M ${LARGE_MIB} MB`,
    part: '.',
    command: `dd if=${PART.large} of=/dev/null bs=1M status=none`,
    cold: 0.7,
    warm: 0.9,
  },
  {
    what: `node -e "require('typescript')"`,
    part: 'app',
    command: `node -e "require('typescript')"`,
    warm: WANTED.node,
  },
];
/** Loads the programs themselves, so that a cold start is about the tree. */
const WARM_TOOLS =
  'find --version; tar --version; wc --version; cat --version; dd --version; node --version; sort --version';

const EXT4 = 'ext4';
const OURS = 'bento mount';
const MOUNT_COUNT = 50;
/** Every so manieth file is compared, byte for byte. */
const SAMPLE_EVERY = 97;

/** The same tree, in a directory of its own kind. */
interface Place {
  name: string;
  dir: string;
}

/** Reading a mounted checkpoint with the programs that people use, next to ext4 and to other mounts of the same tree. */
export async function reading({ fileCounts, rounds }: BenchOptions): Promise<Report> {
  await using subject = new Subject(fileCounts[1]);
  const results = new Results(rounds);
  mountTimes(subject, results);
  firstRead(subject, results);
  indexAnew(subject, results);
  const missing = readEverywhere(subject, results);
  gitStatus(subject, results);
  daemonSize(subject, results);
  const { tree } = subject;
  const about =
    `A tree of ${tree.fileCount} files (${formatBytes(tree.sizeBytes)}): many files like a project with its node_modules and ` +
    `the package typescript, a git repository, and one file of ${LARGE_MIB} MiB, half random bytes and half text, in turns of a ` +
    'MiB. Speed is the time on ext4 divided by the time of the row; cold is after `sync` and `echo 3 > ' +
    '/proc/sys/vm/drop_caches`, with the daemon running and the programs loaded.' +
    (subject.largeIsOnItsOwn ? '' : ' The large file was not mounted on its own.') +
    missing.map((what) => ` Not compared: ${what}.`).join('');
  const columns = ['What', 'By', 'Median', 'Fastest', 'Speed'];
  return { name: 'reading', about, columns, rows: results.rows, goals: results.goals, timings: results.timings };
}

/** What was measured, as it goes into the report. */
class Results {
  readonly rounds: number;
  readonly rows: string[][] = [];
  readonly goals: Goal[] = [];
  readonly timings: Record<string, Timing> = {};

  constructor(rounds: number) {
    this.rounds = rounds;
  }

  measure(what: string, arms: Readonly<Record<string, Arm>>): Record<string, Timing> {
    process.stderr.write(`${what}\n`);
    const timings = measure(arms, this.rounds);
    for (const [name, timing] of Object.entries(timings)) {
      this.timings[`${what}: ${name}`] = timing;
      const speed = name === EXT4 || timings[EXT4] === undefined ? '' : speedOf(timings, name).toFixed(2);
      this.rows.push([what, name, formatMs(timing), formatMs({ ...timing, medianMs: timing.minMs }), speed]);
    }
    return timings;
  }

  /** Measures a command in all places against ext4; ours has a goal. */
  compare(what: string, arms: Readonly<Record<string, Arm>>, atLeast: number | undefined): void {
    const speed = speedOf(this.measure(what, arms), OURS);
    if (atLeast === undefined) return;
    this.goals.push({ what, goal: `at least ${atLeast}`, measured: speed.toFixed(2), met: speed >= atLeast });
  }

  note(what: string, by: string, value: string): void {
    this.rows.push([what, by, value, '', '']);
  }

  under(what: string, value: number, limit: number, format: (value: number) => string): void {
    this.goals.push({ what, goal: `under ${format(limit)}`, measured: format(value), met: value < limit });
  }
}

function speedOf(timings: Readonly<Record<string, Timing>>, name: string): number {
  return mid(timings, EXT4) / mid(timings, name);
}

function mountTimes(subject: Subject, results: Results): void {
  const target = subject.sandbox.makeFolder('timed-mount');
  const mountOf = (dir: string, prepare: () => void): Arm => ({
    prepare,
    run: () => subject.mount(dir, target),
    cleanUp: () => void subject.bento('unmount', target),
  });
  const again = (dir: string) => (): void => {
    subject.mount(dir, target);
    subject.bento('unmount', target);
  };
  const fresh = (): void => subject.freshDaemon();
  const first = (count: number): string => `mount of ${count} files, not served before`;
  const timings = results.measure('mount, daemon running', {
    'bento --version': { run: () => void subject.bento('--version') },
    [first(FEW)]: mountOf(subject.few, fresh),
    [first(MANY)]: mountOf(subject.many, fresh),
    [`mount of ${FEW} files, again`]: mountOf(subject.few, again(subject.few)),
    [`mount of ${MANY} files, again`]: mountOf(subject.many, again(subject.many)),
  });
  const beyond = (count: number): number => mid(timings, first(count)) - mid(timings, 'bento --version');
  results.under(`${first(MANY)}, beyond process start`, beyond(MANY), WANTED.mountMs, asMs);
  results.note(`${first(FEW)}, beyond process start`, OURS, asMs(beyond(FEW)));
  results.under(`the same, ${MANY} files to ${FEW}`, beyond(MANY) / beyond(FEW), WANTED.mountFlat, asRatio);
}

function firstRead(subject: Subject, results: Results): void {
  const arm = (dir: string, prepare: () => void): Arm => ({
    prepare,
    run: () => shell(`cat ${PART.large} | wc -c`, dir),
  });
  results.compare(
    `cat ${LARGE_MIB} MB, the first time ever`,
    {
      [EXT4]: arm(subject.dir, dropCaches),
      [OURS]: arm(path.join(subject.target, 'tree'), () => subject.mountUnread()),
    },
    undefined,
  );
}

/**
 * What an indexed checkpoint costs is another matter than what indexing costs: that is measured on a daemon of its own,
 * which has to do it after the index was deleted, and which another replaces.
 */
function indexAnew(subject: Subject, results: Results): void {
  for (const dir of [subject.many, subject.few, subject.other]) {
    const target = subject.sandbox.makeFolder('indexed-mount');
    subject.mount(dir, target);
    subject.bento('unmount', target);
  }
  noteSize(subject, results, { when: `after indexing ${MANY} files` });
  subject.unmountAll();
  subject.mount(subject.sandbox.workspace, subject.target);
}

/** @returns programs that were not compared, with the reason */
function readEverywhere(subject: Subject, results: Results): string[] {
  subject.settle();
  subject.bento('fork', 'latest', subject.fork, '--dir', subject.sandbox.workspace);
  const ours = [
    { name: EXT4, dir: subject.dir },
    { name: OURS, dir: path.join(subject.target, 'tree') },
    { name: 'bento fork', dir: path.join(subject.fork, 'tree') },
  ];
  const { mounts, missing } = otherMounts(subject.dir, subject.sandbox.makeFolder('scratch'));
  try {
    const places: Place[] = [...ours, ...mounts];
    assertSame(places);
    for (const workload of WORKLOADS) compareWorkload(workload, places, results);
  } finally {
    for (const mount of mounts) mount[Symbol.dispose]();
  }
  return missing;
}

function compareWorkload(
  { what, part, command, cold, warm }: Workload,
  places: readonly Place[],
  results: Results,
): void {
  const armsWith = (prepare: () => void): Record<string, Arm> =>
    Object.fromEntries(
      places.map(({ name, dir }) => [name, { prepare, run: () => shell(command, path.join(dir, part)) }]),
    );
  results.compare(
    `${what}, warm`,
    armsWith(() => undefined),
    warm,
  );
  if (cold === undefined) return;
  const cool = (): void => {
    dropCaches();
    shell(`(${WARM_TOOLS}) > /dev/null`, '/');
  };
  results.compare(`${what}, cold`, armsWith(cool), cold);
}

/** All places show the same names, sizes and bytes: otherwise their times mean nothing. */
function assertSame(places: readonly Place[]): void {
  process.stderr.write('comparing what is measured\n');
  const commands = [
    'find . ! -type d -printf "%p %s %m %l\\n" | sort | sha256sum',
    `tar cf - ${PART.app} | wc -c`,
    `sha256sum ${PART.large}`,
    `find . -type f | sort | awk 'NR % ${SAMPLE_EVERY} == 0' | tr '\\n' '\\0' | xargs -0 sha256sum | sha256sum`,
  ];
  for (const command of commands) {
    const answers = new Map(places.map(({ name, dir }) => [name, shell(command, dir)]));
    if (new Set(answers.values()).size !== 1)
      throw new Error(`not the same tree everywhere: ${command}\n${[...answers].join('\n')}`);
  }
}

/**
 * A copy of a repository has other inode numbers and change times than its git index says, so git reads every file. In a
 * read-only mount that stays so; the copy on ext4 is kept the same. In a fork git notes the new numbers the first time.
 */
function gitStatus(subject: Subject, results: Results): void {
  const copy = subject.sandbox.path('repo-copy');
  run('cp', ['-a', path.join(subject.dir, PART.repo), copy]);
  const status = (dir: string): Arm => ({
    run: () => {
      const changed = run('git', ['status', '--porcelain'], {
        cwd: dir,
        env: { ...gitEnv(), GIT_OPTIONAL_LOCKS: '0' },
      });
      if (changed !== '') throw new Error(`git sees changes in ${dir}:\n${changed}`);
    },
  });
  const inMount = path.join(subject.target, 'tree', PART.repo);
  const inFork = path.join(subject.fork, 'tree', PART.repo);
  results.compare('git status, index stale, warm', { [EXT4]: status(copy), [OURS]: status(inMount) }, WANTED.gitStatus);
  for (const dir of [copy, inFork]) git(dir, 'status');
  results.measure('git status, index refreshed once, warm', { [EXT4]: status(copy), 'bento fork': status(inFork) });
}

/** What the daemon that was read from takes, after it served the largest tree as well, and with many mounts. */
function daemonSize(subject: Subject, results: Results): void {
  process.stderr.write('memory and descriptors\n');
  const mountAndList = (dir: string, name: string): void => {
    const target = subject.sandbox.makeFolder(name);
    subject.mount(dir, target);
    shell('find . -ls > /dev/null', target);
  };
  mountAndList(subject.many, 'mount-0');
  noteSize(subject, results, { when: 'after all of the above', isGoal: true });
  const dirs = [subject.sandbox.workspace, subject.few, subject.other];
  for (let at = 1; at <= MOUNT_COUNT; at++) mountAndList(dirs[at % dirs.length] ?? subject.few, `mount-${at}`);
  noteSize(subject, results, { when: `with ${MOUNT_COUNT} mounts`, isGoal: true });
}

function noteSize(
  { sandbox }: Subject,
  results: Results,
  { when, isGoal = false }: { when: string; isGoal?: boolean },
): void {
  const { pssBytes, anonymousBytes, rssBytes, descriptors, processCount } = sizeOfProcesses(sandbox.processes());
  const what = `daemon ${when}, ${processCount} processes`;
  results.note(what, 'memory (Pss)', formatBytes(pssBytes));
  results.note(what, 'Pss that is no file', formatBytes(anonymousBytes));
  results.note(what, 'sum of VmRSS', formatBytes(rssBytes));
  results.note(what, 'descriptors', String(descriptors));
  if (!isGoal) return;
  results.under(`memory of the daemon ${when} (Pss)`, pssBytes, WANTED.memoryBytes, formatBytes);
  results.under(`descriptors of the daemon ${when}`, descriptors, WANTED.descriptors, String);
}

function asMs(ms: number): string {
  return `${ms.toFixed(0)} ms`;
}

function asRatio(value: number): string {
  return value.toFixed(2);
}

function mid(timings: Readonly<Record<string, Timing>>, name: string): number {
  return timings[name]?.medianMs ?? NaN;
}
