/** Calls on open files. */
import { constants } from 'node:fs';

import { AT_FDCWD } from './names.ts';
import { asFd, cString, declare, type Outcome, type Path } from './libc.ts';

export const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_DIRECTORY, O_NOFOLLOW } = constants;
export const { O_NONBLOCK, O_SYNC, O_DSYNC, O_DIRECT, O_NOATIME } = constants;
export const O_PATH = 0o10000000;
export const O_TMPFILE = 0o20000000 | O_DIRECTORY;
const O_CLOEXEC = 0o2000000;

export const SEEK_SET = 0;
export const SEEK_CUR = 1;
export const SEEK_END = 2;
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

export const FALLOC_FL_KEEP_SIZE = 1;
export const FALLOC_FL_PUNCH_HOLE = 2;
export const FALLOC_FL_COLLAPSE_RANGE = 8;
export const FALLOC_FL_ZERO_RANGE = 16;
export const FALLOC_FL_INSERT_RANGE = 32;

const openCall = declare('openat', 'int', ['int', 'void*', 'int', 'uint']);
const closeCall = declare('close', 'int', ['int']);
const dupCall = declare('dup', 'int', ['int']);
const readCall = declare('read', 'long', ['int', 'void*', 'ulong']);
const writeCall = declare('write', 'long', ['int', 'void*', 'ulong']);
const preadCall = declare('pread', 'long', ['int', 'void*', 'ulong', 'long']);
const pwriteCall = declare('pwrite', 'long', ['int', 'void*', 'ulong', 'long']);
const lseekCall = declare('lseek', 'long', ['int', 'long', 'int']);
const truncateCall = declare('truncate', 'int', ['void*', 'long']);
const ftruncateCall = declare('ftruncate', 'int', ['int', 'long']);
const fallocateCall = declare('fallocate', 'int', ['int', 'int', 'long', 'long']);
const copyFileRangeCall = declare('copy_file_range', 'long', ['int', 'void*', 'int', 'void*', 'ulong', 'uint']);
const sendfileCall = declare('sendfile', 'long', ['int', 'int', 'void*', 'ulong']);
const fsyncCall = declare('fsync', 'int', ['int']);
const fdatasyncCall = declare('fdatasync', 'int', ['int']);
const syncfsCall = declare('syncfs', 'int', ['int']);
const ioctlCall = declare('ioctl', 'int', ['int', 'ulong', 'void*']);

/** Descriptors that a check opened; what it leaves open is closed behind it. */
const openFds = new Set<number>();

export function open(path: Path, flags: number, mode = 0o644): Outcome {
  return openat(AT_FDCWD, path, flags, mode);
}

export function openat(dirFd: number, path: Path, flags: number, mode = 0o644): Outcome {
  const fd = openCall(dirFd, cString(path), flags | O_CLOEXEC, mode);
  if (typeof fd === 'number') openFds.add(fd);
  return fd;
}

export function close(fd: Outcome): Outcome {
  openFds.delete(asFd(fd));
  return closeCall(asFd(fd));
}

export function closeAll(): void {
  for (const fd of openFds) close(fd);
}

export function dup(fd: Outcome): Outcome {
  const copy = dupCall(asFd(fd));
  if (typeof copy === 'number') openFds.add(copy);
  return copy;
}

/** Opens, and closes again: 0, or why not. */
export function tryOpen(path: Path, flags: number, mode = 0o644): Outcome {
  const fd = open(path, flags, mode);
  return typeof fd === 'string' ? fd : close(fd);
}

/** The bytes as a string, shorter at the end of the file. */
export function read(fd: Outcome, lengthBytes: number): string {
  const out = Buffer.alloc(lengthBytes);
  const length = readCall(asFd(fd), out, lengthBytes);
  return typeof length === 'string' ? length : out.toString('latin1', 0, length);
}

export function pread(fd: Outcome, lengthBytes: number, offset: number): string {
  const out = preadBytes(fd, lengthBytes, offset);
  return typeof out === 'string' ? out : out.toString('latin1');
}

export function preadBytes(fd: Outcome, lengthBytes: number, offset: number): Buffer | string {
  const out = Buffer.alloc(lengthBytes);
  const length = preadCall(asFd(fd), out, lengthBytes, offset);
  return typeof length === 'string' ? length : out.subarray(0, length);
}

export function write(fd: Outcome, data: string | Buffer): Outcome {
  const bytes = typeof data === 'string' ? Buffer.from(data, 'latin1') : data;
  return writeCall(asFd(fd), bytes, bytes.length);
}

export function pwrite(fd: Outcome, data: string | Buffer, offset: number): Outcome {
  const bytes = typeof data === 'string' ? Buffer.from(data, 'latin1') : data;
  return pwriteCall(asFd(fd), bytes, bytes.length, offset);
}

export function lseek(fd: Outcome, offset: number, whence: number): Outcome {
  return lseekCall(asFd(fd), offset, whence);
}

export function truncate(path: Path, sizeBytes: number): Outcome {
  return truncateCall(cString(path), sizeBytes);
}

export function ftruncate(fd: Outcome, sizeBytes: number): Outcome {
  return ftruncateCall(asFd(fd), sizeBytes);
}

export function fallocate(fd: Outcome, mode: number, offset: number, lengthBytes: number): Outcome {
  return fallocateCall(asFd(fd), mode, offset, lengthBytes);
}

export function copyFileRange(
  from: { fd: Outcome; offset: number },
  to: { fd: Outcome; offset: number },
  lengthBytes: number,
): Outcome {
  const offsets = [from, to].map(({ offset }) => {
    const out = Buffer.alloc(8);
    out.writeBigInt64LE(BigInt(offset));
    return out;
  });
  return copyFileRangeCall(asFd(from.fd), offsets[0] ?? null, asFd(to.fd), offsets[1] ?? null, lengthBytes, 0);
}

export function sendfile(to: Outcome, from: Outcome, lengthBytes: number): Outcome {
  return sendfileCall(asFd(to), asFd(from), null, lengthBytes);
}

export function fsync(fd: Outcome): Outcome {
  return fsyncCall(asFd(fd));
}

export function fdatasync(fd: Outcome): Outcome {
  return fdatasyncCall(asFd(fd));
}

export function syncfs(fd: Outcome): Outcome {
  return syncfsCall(asFd(fd));
}

export function ioctl(fd: Outcome, request: number, argument: Buffer): Outcome {
  return ioctlCall(asFd(fd), request, argument);
}
