import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import path from 'node:path';
import { performance } from 'node:perf_hooks';

export interface Timing {
  medianMs: number;
  minMs: number;
  maxMs: number;
  samplesMs: number[];
}

/** One of the things that are measured against each other. Only `run` is timed. */
export interface Arm {
  prepare?: () => void;
  run: () => void;
  cleanUp?: () => void;
}

export interface Report {
  name: string;
  /** What was measured on what, in a sentence or two. */
  about: string;
  columns: readonly string[];
  rows: readonly (readonly string[])[];
  goals: readonly Goal[];
  /** Every sample, for the JSON file. */
  timings: Readonly<Record<string, Timing>>;
}

export interface Goal {
  what: string;
  goal: string;
  measured: string;
  met: boolean;
}

const ROUNDS_MIN = 5;

/**
 * Measures all arms in turn, round by round, so that a machine that slows down slows all of them; each round starts
 * with another arm. The first round warms up and does not count.
 *
 * @returns the timing of each arm, by its name
 */
export function measure(arms: Readonly<Record<string, Arm>>, rounds = ROUNDS_MIN): Record<string, Timing> {
  const names = Object.keys(arms);
  const samples = new Map(names.map((name) => [name, [] as number[]]));
  for (let round = 0; round <= rounds; round++) {
    for (let turn = 0; turn < names.length; turn++) {
      const name = names[(round + turn) % names.length] ?? '';
      const sampleMs = sample(arms[name]);
      if (round > 0) samples.get(name)?.push(sampleMs);
    }
    if (process.stderr.isTTY) process.stderr.write(`\r  round ${round} of ${rounds}`);
  }
  if (process.stderr.isTTY) process.stderr.write('\r\u001B[K');
  return Object.fromEntries(names.map((name) => [name, timingOf(samples.get(name) ?? [])]));
}

function sample(arm: Arm | undefined): number {
  arm?.prepare?.();
  const started = performance.now();
  arm?.run();
  const elapsedMs = performance.now() - started;
  arm?.cleanUp?.();
  return elapsedMs;
}

export function timingOf(samplesMs: number[]): Timing {
  const sorted = [...samplesMs].sort((a, b) => a - b);
  const at = (index: number): number => sorted[index] ?? NaN;
  const middle = sorted.length >> 1;
  const medianMs = sorted.length % 2 === 1 ? at(middle) : (at(middle - 1) + at(middle)) / 2;
  return { medianMs, minMs: at(0), maxMs: at(sorted.length - 1), samplesMs };
}

/**
 * Writes dirty pages and, as root, empties the kernel's caches. Before every workload that creates files: after a mass
 * delete ext4 creates files about ten times slower until its caches are dropped.
 */
export function dropCaches(): void {
  spawnSync('sync');
  try {
    writeFileSync('/proc/sys/vm/drop_caches', '3');
  } catch {
    // an ordinary user may not; the report says who measured
  }
}

/** Runs a program and waits for it. @returns what it printed @throws Error when it fails */
export function run(command: string, args: readonly string[], options: RunOptions = {}): string {
  const result = spawnSync(command, args, {
    ...options,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  if (result.error) throw result.error;
  if (result.status !== 0) {
    throw new Error(
      `${command} ${args.join(' ')} exited with ${result.status ?? 'a signal'}\n${result.stderr}${result.stdout}`,
    );
  }
  return result.stdout;
}

export interface RunOptions {
  cwd?: string;
  env?: Readonly<Record<string, string>>;
}

export function formatMs(timing: Timing): string {
  const { medianMs } = timing;
  if (medianMs < 1000) return `${medianMs.toFixed(0)} ms`;
  return `${(medianMs / 1000).toFixed(2)} s`;
}

export function formatBytes(sizeBytes: number): string {
  return sizeBytes < 1e6 ? `${(sizeBytes / 1e3).toFixed(0)} kB` : `${(sizeBytes / 1e6).toFixed(1)} MB`;
}

/** A Markdown table whose columns also line up in a terminal. */
export function formatTable(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = columns.map((column, at) =>
    Math.max(3, ...[column, ...rows.map((row) => row[at] ?? '')].map((cell) => cell.length)),
  );
  const line = (cells: readonly string[]): string =>
    `| ${widths.map((width, at) => (cells[at] ?? '').padEnd(width)).join(' | ')} |`;
  return [line(columns), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n');
}

export function describeMachine(): string {
  const user = process.getuid?.() === 0 ? 'root' : 'an ordinary user (caches not dropped)';
  const memoryGb = (totalmem() / 2 ** 30).toFixed(0);
  return `${cpus().length} CPUs (${cpus()[0]?.model.trim() ?? 'unknown'}), ${memoryGb} GiB, Linux ${release()}, Node ${process.version}, ${user}`;
}

/** The report as Markdown, ready to be pasted into the documentation. */
export function formatReport(report: Report): string {
  const goals = report.goals.map(({ what, goal, measured, met }) => [what, goal, measured, met ? 'yes' : '**no**']);
  return [
    `## ${report.name}`,
    report.about,
    `Medians; ${describeMachine()}.`,
    formatTable(['Goal', 'Wanted', 'Measured', 'Met'], goals),
    formatTable(report.columns, report.rows),
  ].join('\n\n');
}

/** Writes `<name>.md` and, with every single sample, `<name>.json`. @returns the paths */
export function writeReport(folder: string, report: Report): string[] {
  mkdirSync(folder, { recursive: true });
  const files = ['md', 'json'].map((extension) => path.join(folder, `${report.name}.${extension}`));
  const json = JSON.stringify({ ...report, machine: describeMachine(), date: new Date().toISOString() }, undefined, 2);
  writeFileSync(files[0] ?? '', `${formatReport(report)}\n`);
  writeFileSync(files[1] ?? '', `${json}\n`);
  return files;
}
