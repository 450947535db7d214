import { appendFileSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { makeManyFiles, type ManyFiles } from '../test/fixtures/many-files.ts';
import { CLI_PATH, Sandbox } from '../test/fixtures/sandbox.ts';
import {
  dropCaches,
  formatBytes,
  formatMs,
  measure,
  run,
  timingOf,
  type Arm,
  type Goal,
  type Report,
  type Timing,
} from './measure.ts';
import type { BenchOptions } from './run.ts';

const FIRST_LS_MS_MAX = 400;
const RATIO_MAX = 1.3;
const FORK_COUNT = 20;
const FORKS_MS_MAX = 5_000;
const FORKS_BYTES_MAX = 10_000_000;

/**
 * How long from typing `mount` or `fork` to the first `ls`, on a small and a large tree, next to what copying the same
 * tree takes. Each tree has a sandbox, a store and a daemon of its own.
 */
export async function mountAndFork(options: BenchOptions): Promise<Report> {
  await using small = new Subject(options.fileCounts[0]);
  await using large = new Subject(options.fileCounts[1]);
  const timings: Record<string, Timing> = {};
  const rows: string[][] = [];
  for (const [what, armOf] of Object.entries(STEPS)) {
    process.stderr.write(`${what}\n`);
    const timing = measure({ small: armOf(small), large: armOf(large) }, options.rounds);
    const [smallTiming, largeTiming] = [pick(timing, 'small'), pick(timing, 'large')];
    timings[`${what}, small`] = smallTiming;
    timings[`${what}, large`] = largeTiming;
    rows.push([what, formatMs(smallTiming), formatMs(largeTiming), ratio(largeTiming, smallTiming).toFixed(2)]);
  }
  const forks = FORK_WAYS.map((way) => measureForks(large, way, options.rounds));
  for (const { way, timing } of forks) timings[`${FORK_COUNT} forks, ${way}`] = timing;
  return {
    name: 'mount-and-fork',
    about:
      `Trees of ${small.describe()} and ${large.describe()}, like a project with its node_modules. Times of mount and fork ` +
      'run from starting the process to the end of a first `ls -l` of the new directory.',
    columns: ['What', `${small.fileCount} files`, `${large.fileCount} files`, 'Ratio'],
    rows,
    goals: [...firstLsGoals(timings), ...forks.flatMap(forkGoals)],
    timings,
  };
}

/** One tree, saved as one checkpoint, with what is measured on it. */
class Subject {
  readonly sandbox = new Sandbox();
  readonly fileCount: number;
  private readonly made: ManyFiles;

  constructor(fileCount: number) {
    this.fileCount = fileCount;
    this.made = makeManyFiles(this.sandbox.workspace, { fileCount });
    run('tar', ['-C', this.sandbox.workspace, '-cf', this.tarFile, '.']);
    mkdirSync(this.target);
    this.save();
  }

  get tarFile(): string {
    return this.sandbox.path('tree.tar');
  }

  /** Where a mount, a fork or a copy goes. */
  get target(): string {
    return this.sandbox.path('target');
  }

  describe(): string {
    return `${this.made.fileCount} files (${formatBytes(this.made.sizeBytes)})`;
  }

  bento(...args: string[]): string {
    return run(process.execPath, [CLI_PATH, ...args], { cwd: this.sandbox.workspace, env: this.sandbox.env });
  }

  /** An empty store and a workspace that was never saved. */
  forget(): void {
    this.stopDaemon();
    rmSync(this.sandbox.dataHome, { recursive: true, force: true });
    for (const name of ['bento.yaml', '.bentoignore']) rmSync(path.join(this.sandbox.workspace, name), { force: true });
    this.bento('init');
    dropCaches();
  }

  save(): void {
    this.forget();
    this.bento('save', '-m', 'first');
  }

  stopDaemon(): void {
    if (this.sandbox.processes().length === 0) return;
    this.bento('unmount', '--all');
  }

  /** A daemon that serves something else, so that neither its start nor this checkpoint's is behind us. */
  keepDaemon(): void {
    const other = this.sandbox.makeFolder('other');
    const mountPoint = this.sandbox.makeFolder('other-mount');
    if (this.sandbox.mounts().includes(mountPoint)) return;
    rmSync(path.join(other, 'bento.yaml'), { force: true });
    rmSync(path.join(other, '.bentoignore'), { force: true });
    appendFileSync(path.join(other, 'file'), 'another workspace\n');
    this.bento('init', '--dir', other);
    this.bento('save', '--dir', other);
    this.bento('mount', 'latest', mountPoint, '--dir', other);
  }

  emptyTarget(): void {
    rmSync(this.target, { recursive: true, force: true });
    dropCaches();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sandbox.dispose();
  }
}

const FIRST_LS = {
  mountWarm: 'mount to first ls, daemon running',
  mountCold: 'mount to first ls, no daemon yet',
  forkWarm: 'fork to first ls, daemon running',
  forkCold: 'fork to first ls, no daemon yet',
};

const STEPS: Readonly<Record<string, (subject: Subject) => Arm>> = {
  [FIRST_LS.mountWarm]: (subject) => ({ ...mountArm(subject), prepare: () => subject.keepDaemon() }),
  [FIRST_LS.forkWarm]: (subject) => ({ ...forkArm(subject), prepare: () => subject.keepDaemon() }),
  [FIRST_LS.mountCold]: (subject) => ({ ...mountArm(subject), prepare: () => subject.stopDaemon() }),
  [FIRST_LS.forkCold]: (subject) => ({ ...forkArm(subject), prepare: () => subject.stopDaemon() }),
  'tar x of the same tree': (subject) => ({
    prepare: () => {
      subject.emptyTarget();
      mkdirSync(subject.target);
    },
    run: () => run('tar', ['-C', subject.target, '-xf', subject.tarFile]),
  }),
  'cp -a of the same tree': (subject) => ({
    prepare: () => subject.emptyTarget(),
    run: () => run('cp', ['-a', subject.sandbox.workspace, subject.target]),
  }),
  'open into an empty directory': (subject) => ({
    prepare: () => subject.emptyTarget(),
    run: () => subject.bento('open', '--copy', 'cp-1', subject.target),
    cleanUp: () => subject.emptyTarget(),
  }),
  'save, nothing changed': (subject) => ({ run: () => subject.bento('save') }),
  'save, one file changed': (subject) => ({
    prepare: () => appendFileSync(path.join(subject.sandbox.workspace, 'main.js'), '// changed\n'),
    run: () => subject.bento('save'),
  }),
  // last but for the forks: it starts from an empty store each time
  'save, the first': (subject) => ({ prepare: () => subject.forget(), run: () => subject.bento('save') }),
};

function mountArm(subject: Subject): Arm {
  return {
    run: () => {
      subject.bento('mount', 'cp-1', subject.target);
      run('ls', ['-l', subject.target]);
    },
    cleanUp: () => subject.bento('unmount', subject.target),
  };
}

function forkArm(subject: Subject): Arm {
  const fork = subject.sandbox.path('fork');
  return {
    run: () => {
      subject.bento('fork', 'cp-1', fork);
      run('ls', ['-l', fork]);
    },
    cleanUp: () => closeFork(subject, fork),
  };
}

function closeFork(subject: Subject, fork: string): void {
  subject.bento('close', fork, '--discard');
  rmSync(fork, { recursive: true, force: true });
}

const FORK_WAYS = ['a command each', 'one command'] as const;
type ForkWay = (typeof FORK_WAYS)[number];

interface Forks {
  way: ForkWay;
  timing: Timing;
  diskBytes: number;
  independent: boolean;
}

/** Makes all forks, then writes into each: what they cost on disk, and that none sees another's. */
function measureForks(subject: Subject, way: ForkWay, rounds: number): Forks {
  const folders = Array.from({ length: FORK_COUNT }, (_, at) => subject.sandbox.path(`fork-${at}`));
  const diskBytes: number[] = [];
  let independent = true;
  let beforeBytes = 0;
  const timing = measure(
    {
      forks: {
        prepare: () => {
          subject.keepDaemon();
          beforeBytes = diskUse(subject.sandbox.root);
        },
        run: () => {
          if (way === 'one command') subject.bento('fork', 'cp-1', ...folders);
          else for (const folder of folders) subject.bento('fork', 'cp-1', folder);
          for (const folder of folders) run('ls', ['-l', folder]);
        },
        cleanUp: () => {
          diskBytes.push(diskUse(subject.sandbox.root) - beforeBytes);
          independent = independent && areIndependent(folders);
          for (const folder of folders) closeFork(subject, folder);
        },
      },
    },
    rounds,
  );
  return { way, timing: pick(timing, 'forks'), diskBytes: timingOf(diskBytes).medianMs, independent };
}

/** Blocks used in the sandbox's own file system: what is mounted in it does not count. */
function diskUse(folder: string): number {
  return Number(run('du', ['-sxB1', folder]).split('\t')[0]);
}

function areIndependent(folders: readonly string[]): boolean {
  for (const folder of folders) appendFileSync(path.join(folder, 'main.js'), `// ${folder}\n`);
  return folders.every((folder) => {
    const written = readFileSync(path.join(folder, 'main.js'), 'utf8')
      .split('\n')
      .filter((line) => folders.some((other) => line === `// ${other}`));
    return written.length === 1 && written[0] === `// ${folder}`;
  });
}

function firstLsGoals(timings: Readonly<Record<string, Timing>>): Goal[] {
  return Object.values(FIRST_LS).flatMap((what) => {
    const large = pick(timings, `${what}, large`);
    const times = ratio(large, pick(timings, `${what}, small`));
    return [
      { what, goal: `under ${FIRST_LS_MS_MAX} ms`, measured: formatMs(large), met: large.medianMs < FIRST_LS_MS_MAX },
      {
        what: `${what}: large to small`,
        goal: `under ${RATIO_MAX}`,
        measured: times.toFixed(2),
        met: times < RATIO_MAX,
      },
    ];
  });
}

function forkGoals(forks: Forks): Goal[] {
  const what = `${FORK_COUNT} forks of the large tree, ${forks.way}`;
  return [
    {
      what: `${what}, ls of each`,
      goal: `under ${FORKS_MS_MAX / 1000} s`,
      measured: formatMs(forks.timing),
      met: forks.timing.medianMs < FORKS_MS_MAX,
    },
    {
      what: `${what}: disk`,
      goal: `under ${formatBytes(FORKS_BYTES_MAX)}`,
      measured: formatBytes(forks.diskBytes),
      met: forks.diskBytes < FORKS_BYTES_MAX,
    },
    {
      what: `${what}: a write in one shows in no other`,
      goal: 'yes',
      measured: forks.independent ? 'yes' : 'no',
      met: forks.independent,
    },
  ];
}

function ratio(a: Timing, b: Timing): number {
  return a.medianMs / b.medianMs;
}

function pick(timings: Readonly<Record<string, Timing>>, name: string): Timing {
  const timing = timings[name];
  if (!timing) throw new RangeError(`nothing was measured as ${name}`);
  return timing;
}
