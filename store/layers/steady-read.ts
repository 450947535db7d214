import { fstatSync, readSync, type BigIntStats } from 'node:fs';

import { mtimeOf } from '../regular-file.ts';

/** What `stat` said about a file when it was planned. */
export interface FileTimes {
  sizeBytes: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
}

/** A file as it stood when it was read, where that is not what was planned. */
export interface ChangedFile {
  mode: number;
  mtimeSec: number;
  mtimeNsec: number;
  /** It was still being written when we gave up waiting for a quiet moment. */
  isUnsteady: boolean;
}

/** How often a file that changes under the reader is read; then it is taken as it is. */
export const READ_ATTEMPTS = 3;

/** Bytes with room for more. */
export class GrowingBuffer {
  bytes: Buffer;

  /** @param room - memory to begin with, or how much of it */
  constructor(room: number | SharedArrayBuffer) {
    this.bytes = typeof room === 'number' ? Buffer.allocUnsafeSlow(room) : Buffer.from(room);
  }

  /** Makes sure that `length` bytes fit behind `at`; what lies before `at` is kept. */
  reserve(at: number, length: number): void {
    if (at + length <= this.bytes.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(at + length, this.bytes.length * 2));
    this.bytes.copy(larger, 0, 0, at);
    this.bytes = larger;
  }
}

/**
 * Reads a small file as it is at one moment: when anything `stat` tells is different after reading, it is read again.
 *
 * @param at - where in `out` its bytes go
 * @param planned - absent: whatever is there is right
 * @returns how many bytes, and how the file differs from what was planned, if it does
 */
export function readSteadily(
  fd: number,
  out: GrowingBuffer,
  at: number,
  planned: FileTimes | undefined,
): { sizeBytes: number; changed?: ChangedFile } {
  if (planned !== undefined) {
    // One byte more than the file has: a read that comes back with exactly the file's size has reached the end.
    out.reserve(at, planned.sizeBytes + 1);
    const sizeBytes = readFully(fd, out.bytes, at, planned.sizeBytes + 1);
    if (sizeBytes === planned.sizeBytes && isAsPlanned(fd, planned)) return { sizeBytes };
  }
  return readAgain(fd, out, at, planned);
}

function readAgain(
  fd: number,
  out: GrowingBuffer,
  at: number,
  planned: FileTimes | undefined,
): { sizeBytes: number; changed?: ChangedFile } {
  for (let attempt = 1; ; attempt += 1) {
    const before = fstatSync(fd, { bigint: true });
    const length = Number(before.size);
    out.reserve(at, length + 1);
    const sizeBytes = readFully(fd, out.bytes, at, length + 1);
    const after = fstatSync(fd, { bigint: true });
    const isSteady = sizeBytes === length && isSameFile(before, after);
    if (!isSteady && attempt < READ_ATTEMPTS) continue;
    const changed = { ...changedFile(after), isUnsteady: !isSteady };
    return planned === undefined && isSteady ? { sizeBytes } : { sizeBytes: Math.min(sizeBytes, length), changed };
  }
}

/** Reads until `length` bytes or the end of the file, from its beginning. */
function readFully(fd: number, bytes: Buffer, at: number, length: number): number {
  let done = 0;
  while (done < length) {
    const read = readSync(fd, bytes, at + done, length - done, done);
    if (read === 0) break;
    done += read;
    if (done === length - 1) break; // all of it; whether there is more, `stat` tells
  }
  return done;
}

/** Compares in the doubles that a cheap `fstat` gives; they resolve a quarter of a microsecond. */
export function isAsPlanned(fd: number, planned: FileTimes): boolean {
  const { size, mtimeMs, ctimeMs } = fstatSync(fd);
  return (
    size === planned.sizeBytes &&
    mtimeMs === planned.mtimeSec * 1000 + planned.mtimeNsec / 1e6 &&
    ctimeMs === planned.ctimeSec * 1000 + planned.ctimeNsec / 1e6
  );
}

export function isSameFile(a: BigIntStats, b: BigIntStats): boolean {
  return a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs;
}

export function changedFile(stat: BigIntStats): ChangedFile {
  return { mode: Number(stat.mode & 0o7777n), ...mtimeOf(stat), isUnsteady: false };
}
