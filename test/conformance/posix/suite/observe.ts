import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  unlinkSync,
  type BigIntStats,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { toBytes } from '../../../../store/byte-string.ts';
import { attempt, type Outcome, type Path } from '../calls/libc.ts';
import type { Observation } from './check.ts';

const S_IFMT = 0o170000;
const KINDS: Record<number, string> = {
  0o140000: 'socket',
  0o120000: 'symlink',
  0o100000: 'file',
  0o060000: 'block device',
  0o040000: 'directory',
  0o020000: 'char device',
  0o010000: 'fifo',
};
/** Longer contents are told by their digest. */
const TEXT_MAX_BYTES = 100;

/** A fact of lstat(2), or the name of the errno. */
export function fact<T>(path: Path, look: (stats: BigIntStats) => T): T | string {
  return attempt(() => look(lstatSync(toBytes(path), { bigint: true })));
}

export function kind(path: Path): string {
  return fact(path, ({ mode }) => KINDS[Number(mode) & S_IFMT] ?? 'unknown');
}

/** In octal, with suid, sgid and sticky bits. */
export function mode(path: Path): string {
  return fact(path, (stats) => (Number(stats.mode) & 0o7777).toString(8));
}

export function owner(path: Path): string {
  return fact(path, ({ uid, gid }) => `${uid}:${gid}`);
}

export function size(path: Path): Outcome {
  return fact(path, (stats) => Number(stats.size));
}

export function links(path: Path): Outcome {
  return fact(path, ({ nlink }) => Number(nlink));
}

/** Of 512 bytes each. */
export function blocks(path: Path): number {
  return Number(lstatSync(path, { bigint: true }).blocks);
}

/** Which object it is; to be compared, never shown. */
export function identity(path: Path): string {
  return fact(path, ({ dev, ino }) => `${dev}:${ino}`);
}

export function same(one: Path, other: Path): boolean {
  return identity(one) === identity(other);
}

export function mtimeNs(path: Path): string {
  return fact(path, (stats) => stats.mtimeNs.toString());
}

export function atimeNs(path: Path): string {
  return fact(path, (stats) => stats.atimeNs.toString());
}

/** What the file holds; an empty text for a fifo that nobody writes to. */
export function text(path: Path): string {
  return attempt(() => {
    const fd = openSync(toBytes(path), constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      return brief(readFileSync(fd));
    } finally {
      closeSync(fd);
    }
  });
}

export function brief(bytes: Buffer): string {
  if (bytes.length <= TEXT_MAX_BYTES) return bytes.toString('latin1');
  return `${bytes.length} bytes, ${createHash('sha256').update(bytes).digest('hex').slice(0, 12)}`;
}

/** The names in a directory, sorted. */
export function names(dir: Path): readonly string[] | string {
  return attempt(() =>
    readdirSync(toBytes(dir), { encoding: 'buffer' })
      .map((name) => name.toString('latin1'))
      .sort(),
  );
}

/**
 * Which of mtime and ctime an action moves.
 *
 * @param paths - what to look at; `old > new` is an object that has another name afterwards
 */
export function touched(action: () => Observation, paths: readonly string[]): Observation {
  const pairs = paths.map((names) => names.split(' > '));
  const before = pairs.map(([was = '']) => statOf(was));
  waitUntilAfter(before);
  const result = action();
  const changed = pairs.map(([was = '', is = was], at) => [was, changes(before[at], statOf(is))] as const);
  return { result, ...Object.fromEntries(changed) };
}

function statOf(path: Path): BigIntStats | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false });
}

function changes(before: BigIntStats | undefined, after: BigIntStats | undefined): string {
  if (before === undefined || after === undefined) return 'not there';
  const moved = (['mtimeNs', 'ctimeNs'] as const).filter((time) => before[time] !== after[time]);
  return moved.map((time) => time.replace('timeNs', 'time')).join(' ');
}

/** The kernel's clock for files ticks every few milliseconds: goes on when a change now would be seen. */
export function waitUntilAfter(stats: readonly (BigIntStats | undefined)[]): void {
  const latest = stats.reduce((max, found) => bigMax(max, found?.ctimeNs, found?.mtimeNs), 0n);
  const scratch = path.join(tmpdir(), `.tick-${process.pid}`);
  for (;;) {
    closeSync(openSync(scratch, 'w'));
    const now = statSync(scratch, { bigint: true }).ctimeNs;
    unlinkSync(scratch);
    if (now > latest) return;
  }
}

function bigMax(max: bigint, ...others: (bigint | undefined)[]): bigint {
  return others.reduce<bigint>((found, other) => (other !== undefined && other > found ? other : found), max);
}
