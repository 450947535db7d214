import path from 'node:path';

import { WRITING_ENGINES, type WritingEngine } from '../test/fixtures/fork-engines.ts';
import { dropCaches, formatBytes, formatMs, measure, type Arm, type Goal } from './measure.ts';
import { type Report, type Timing } from './measure.ts';
import { git } from './reading-tree.ts';
import { shell } from './reading-subject.ts';
import type { BenchOptions } from './run.ts';
import { ForkSubject, growthOfSmallChange, manyForks, timeForks, timeOpening } from './writing-forks.ts';
import { npmCi, readNpmCache } from './writing-npm.ts';
import { EXT4, WritingPlaces, type Place } from './writing-places.ts';
import { writingSize, type WritingSize } from './writing-size.ts';

type Limits = Readonly<Record<WritingEngine, number>>;

/** The goals: how many times as long as on ext4 it may take. */
const TIMES: Readonly<Record<'untar' | 'npm' | 'status' | 'checkout' | 'sequential', Limits>> = {
  untar: { overlay: 1.5, cow: 5 },
  npm: { overlay: 1.3, cow: 2.5 },
  status: { overlay: 1.3, cow: 1.5 },
  checkout: { overlay: 1.5, cow: 3 },
  sequential: { overlay: 1.1, cow: 1.5 },
};
const FORK_MS: Limits = { overlay: 10, cow: 20 };
const FORK_FLAT = 1.3;
const FORKS_MS = 5_000;
const FORK_DISK_BYTES = 1e6;
const FORKS_MEMORY_BYTES = 200e6;
const CHANGE_BYTES = 1e6;
/** Of our own engine. */
const OPEN_MS = 1_000;

interface Workload {
  what: string;
  /** Absent: for information. */
  limits?: Limits;
  prepare: (place: Place) => void;
  run: (place: Place) => void;
  cleanUp?: (place: Place) => void;
}

/** Writing in forks of each engine with the programs that people use, next to the same on ext4; and what forks cost. */
export async function writing({ fileCounts, rounds }: BenchOptions): Promise<Report> {
  const size = writingSize(fileCounts);
  const results = new Results(rounds);
  const about = await workInPlaces(size, results);
  await costOfForks(size, results);
  for (const engine of WRITING_ENGINES) {
    await smallChange(engine, size, results);
    await opening(engine, size, results);
  }
  const columns = ['What', 'By', 'Median', 'Fastest', 'Times ext4'];
  return { name: 'writing', about, columns, rows: results.rows, goals: results.goals, timings: results.timings };
}

class Results {
  readonly rounds: number;
  readonly rows: string[][] = [];
  readonly goals: Goal[] = [];
  readonly timings: Record<string, Timing> = {};

  constructor(rounds: number) {
    this.rounds = rounds;
  }

  note(what: string, by: string, timing: Timing, times = ''): void {
    this.timings[`${what}: ${by}`] = timing;
    this.rows.push([what, by, formatMs(timing), formatMs({ ...timing, medianMs: timing.minMs }), times]);
  }

  /** @returns how many times as long as on ext4 each place took */
  compare(what: string, arms: Readonly<Record<string, Arm>>): Map<string, number> {
    process.stderr.write(`${what}\n`);
    const timings = measure(arms, this.rounds);
    const ext4Ms = timings[EXT4]?.medianMs ?? NaN;
    const times = new Map(Object.entries(timings).map(([name, { medianMs }]) => [name, medianMs / ext4Ms]));
    for (const [name, timing] of Object.entries(timings))
      this.note(what, name, timing, name === EXT4 ? '' : (times.get(name)?.toFixed(2) ?? ''));
    return times;
  }

  under(what: string, value: number, limit: number, format: (value: number) => string): void {
    this.goals.push({ what, goal: `at most ${format(limit)}`, measured: format(value), met: value <= limit });
  }
}

async function workInPlaces(size: WritingSize, results: Results): Promise<string> {
  await using subject = new WritingPlaces(size);
  for (const workload of workloads(subject, size)) {
    const arms = subject.places.map((place): [string, Arm] => [
      place.name,
      {
        prepare: () => workload.prepare(place),
        run: () => workload.run(place),
        cleanUp: () => workload.cleanUp?.(place),
      },
    ]);
    const times = results.compare(workload.what, Object.fromEntries(arms));
    if (workload.limits === undefined) continue;
    for (const { name, engine } of subject.places) {
      if (engine === undefined) continue;
      const found = times.get(name) ?? NaN;
      results.under(`${workload.what}, ${engine}, times ext4`, found, workload.limits[engine], asRatio);
    }
  }
  return (
    `A checkpoint with a git repository of ${size.repoFiles} files and a project of ${subject.npm.fileCount} files in its ` +
    'node_modules once they are installed. Before work that makes files, `sync` and `echo 3 > /proc/sys/vm/drop_caches`, ' +
    "and npm's cache read once; git is warm. Forks are timed in one process, by the functions that the command calls." +
    subject.missing.map((what) => ` Not compared: ${what}.`).join('')
  );
}

function workloads(subject: WritingPlaces, size: WritingSize): Workload[] {
  const inPlace = ({ dir }: Place, name: string): string => path.join(dir, name);
  const remove = (name: string) => (place: Place) => void shell(`rm -rf ${name}`, place.dir);
  const sequential = (more: string): Omit<Workload, 'what'> => ({
    prepare: (place) => {
      remove('large.bin')(place);
      dropCaches();
    },
    run: ({ dir }) => shell(`dd if=/dev/zero of=large.bin bs=1M count=${size.sequentialMib} ${more} status=none`, dir),
    cleanUp: remove('large.bin'),
  });
  return [
    {
      what: `tar x of ${size.untarFiles} small files`,
      limits: TIMES.untar,
      prepare: (place) => {
        shell('rm -rf untar && mkdir untar', place.dir);
        dropCaches();
        shell(`cat ${subject.archive} > /dev/null`, '/');
      },
      run: (place) => shell(`tar -xf ${subject.archive}`, inPlace(place, 'untar')),
      cleanUp: remove('untar'),
    },
    {
      what: `npm ci of ${subject.npm.fileCount} files`,
      limits: TIMES.npm,
      prepare: (place) => {
        remove('npm/node_modules')(place);
        dropCaches();
        readNpmCache();
      },
      run: (place) => npmCi(inPlace(place, 'npm')),
      cleanUp: remove('npm/node_modules'),
    },
    {
      what: 'git status, warm',
      limits: TIMES.status,
      prepare: () => undefined,
      run: (place) => {
        const changed = git(inPlace(place, 'repo'), 'status', '--porcelain');
        if (changed !== '') throw new Error(`git sees changes in ${place.name}:\n${changed}`);
      },
    },
    {
      what: 'git checkout of another branch, warm',
      limits: TIMES.checkout,
      prepare: () => undefined,
      run: (place) => void git(inPlace(place, 'repo'), 'checkout', '-q', '-'),
      cleanUp: (place) => void git(inPlace(place, 'repo'), 'status'),
    },
    { what: `dd bs=1M, ${size.sequentialMib} MB`, limits: TIMES.sequential, ...sequential('') },
    { what: `dd bs=1M conv=fsync, ${size.sequentialMib} MB`, ...sequential('conv=fsync') },
  ];
}

async function costOfForks(size: WritingSize, results: Results): Promise<void> {
  process.stderr.write('forks\n');
  await using few = new ForkSubject(size.few);
  await using many = new ForkSubject(size.many);
  for (const engine of WRITING_ENGINES) {
    const [small, large] = await timeForks([few, many], { engine, rounds: results.rounds });
    if (small === undefined || large === undefined) throw new RangeError('nothing was measured');
    results.note(`fork of ${few.fileCount} files, daemon running`, engine, small);
    results.note(`fork of ${many.fileCount} files, daemon running`, engine, large);
    for (const [files, timing] of [[few.fileCount, small] as const, [many.fileCount, large] as const])
      results.under(`fork of ${files} files, ${engine}`, timing.medianMs, FORK_MS[engine], asMs);
    results.under(`the same, large to small`, large.medianMs / small.medianMs, FORK_FLAT, asRatio);

    const forks = manyForks(many, { engine, rounds: results.rounds, size });
    const what = `${size.forkCount} forks of ${many.fileCount} files in one command`;
    results.note(what, engine, forks.timing);
    results.under(`${what}, ${engine}`, forks.timing.medianMs, FORKS_MS, asMs);
    results.under(`${what}, ${engine}: disk for each`, forks.diskBytesEach, FORK_DISK_BYTES, formatBytes);
    const processes = `memory of ${forks.processCount} daemon processes (Pss)`;
    results.under(`${what}, ${engine}: ${processes}`, forks.memoryBytes, FORKS_MEMORY_BYTES, formatBytes);
  }
}

/** The kernel's overlay copies a whole file when it is first written to; our own engine does not. */
async function smallChange(engine: WritingEngine, size: WritingSize, results: Results): Promise<void> {
  const { byWritingBytes, bySavingBytes } = await growthOfSmallChange(engine, size);
  const what = `4 KiB changed in ${size.changedMib} MB of random bytes, growth of the store, ${engine}`;
  results.under(`${what}: by saving`, bySavingBytes, CHANGE_BYTES, formatBytes);
  if (engine === 'cow') results.under(`${what}: by writing`, byWritingBytes, CHANGE_BYTES, formatBytes);
}

async function opening(engine: WritingEngine, size: WritingSize, results: Results): Promise<void> {
  process.stderr.write(`opening in place, ${engine}\n`);
  const { open, undo } = await timeOpening(engine, { rounds: results.rounds, size });
  const what = `open cp-1 in a fork of ${size.openFiles} files`;
  results.note(what, engine, open);
  results.note(`${what}, open undo`, engine, undo);
  if (engine !== 'cow') return;
  results.under(`${what}, ${engine}`, open.medianMs, OPEN_MS, asMs);
  results.under(`${what}, open undo, ${engine}`, undo.medianMs, OPEN_MS, asMs);
}

function asMs(ms: number): string {
  return `${ms.toFixed(1)} ms`;
}

function asRatio(value: number): string {
  return value.toFixed(2);
}
