import { closeSync, constants, copyFileSync, openSync, rmSync, writeSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';

import { errnoOf } from '../../store/errors.ts';
import { flock } from '../../store/syscalls.ts';

/** __O_TMPFILE (asm-generic/fcntl.h); Node does not name it. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;
/** What file systems say that cannot make a file without a name. */
const NO_TMPFILE = new Set(['EOPNOTSUPP', 'ENOTSUP', 'EISDIR', 'EINVAL', 'ENOENT']);
/** A page: less is kept inline by some file systems, and cannot be shared. */
const PAGE = Buffer.alloc(4096);

/** A file that no folder shows, to try something on; nothing is left of it, even when we are killed. */
export class ScratchFile {
  readonly fd: number;

  /** @throws what making or writing a file in `dir` throws */
  constructor(dir: string) {
    this.fd = openUnseen(dir);
    try {
      writeSync(this.fd, PAGE);
    } catch (error) {
      closeSync(this.fd);
      throw error;
    }
  }

  /** Its name in /proc, by which it can be opened once more. */
  get path(): string {
    return `/proc/self/fd/${this.fd}`;
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
  }
}

function openUnseen(dir: string): number {
  try {
    return openSync(dir, O_TMPFILE | constants.O_RDWR, 0o600);
  } catch (error) {
    if (!NO_TMPFILE.has(errnoOf(error) ?? '')) throw error;
  }
  const path = join(dir, `.bento-doctor-${randomBytes(8).toString('hex')}`);
  const fd = openSync(path, 'wx+', 0o600);
  rmSync(path);
  return fd;
}

/** Whether a lock that one open file holds keeps out another. @throws what flock(2) says */
export function locksExclude(dir: string): boolean {
  using file = new ScratchFile(dir);
  flock(file.fd, 'exclusive', { wait: false });
  const second = openSync(file.path, 'r+');
  try {
    return !flock(second, 'exclusive', { wait: false });
  } finally {
    closeSync(second);
  }
}

/** Whether two files can share their blocks. */
export function canReflink(dir: string): boolean {
  using from = new ScratchFile(dir);
  using to = new ScratchFile(dir);
  try {
    copyFileSync(from.path, to.path, constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch {
    return false;
  }
}
