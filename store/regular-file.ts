import { closeSync, constants, fstatSync, openSync, type BigIntStats } from 'node:fs';

import { toFsPath, toText, type ByteString } from './byte-string.ts';
import { describeSystemError, errnoOf } from './errors.ts';

/**
 * Whether an object that was there a moment ago is gone, or something else stands in its place: a parent that is no
 * directory any more, a symlink or a fifo where a file was, a file where a symlink was (`readlink`).
 */
export function isGone(error: unknown): boolean {
  const code = errnoOf(error);
  if (code === 'EINVAL') return (error as NodeJS.ErrnoException).syscall === 'readlink';
  return code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP' || code === 'ENXIO';
}

/**
 * Opens a regular file for reading: through no symlink, and without waiting for anybody to write into a fifo, that took
 * the file's place meanwhile.
 *
 * @returns undefined when there is no such file any more
 */
export function openRegular(absolute: ByteString): number | undefined {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  let fd: number;
  try {
    fd = openSync(toFsPath(absolute), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    if (isGone(error)) return undefined;
    throw describeSystemError(error, `reading ${toText(absolute)}`);
  }
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  return undefined;
}

const NSEC = 1_000_000_000n;

/** A time before 1970 counts its nanoseconds forward, too. */
export function mtimeOf(stat: BigIntStats): { mtimeSec: number; mtimeNsec: number } {
  const nsec = ((stat.mtimeNs % NSEC) + NSEC) % NSEC;
  return { mtimeSec: Number((stat.mtimeNs - nsec) / NSEC), mtimeNsec: Number(nsec) };
}
