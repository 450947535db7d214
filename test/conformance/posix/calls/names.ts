/** Calls that make, move and remove names. */
import { cString, declare, type Outcome, type Path } from './libc.ts';

export const AT_FDCWD = -100;
export const AT_SYMLINK_FOLLOW = 0x400;
export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_REMOVEDIR = 0x200;
export const AT_EMPTY_PATH = 0x1000;

export const RENAME_NOREPLACE = 1;
export const RENAME_EXCHANGE = 2;
export const RENAME_WHITEOUT = 4;

const mkdirCall = declare('mkdir', 'int', ['void*', 'uint']);
const mkdiratCall = declare('mkdirat', 'int', ['int', 'void*', 'uint']);
const rmdirCall = declare('rmdir', 'int', ['void*']);
const unlinkCall = declare('unlink', 'int', ['void*']);
const unlinkatCall = declare('unlinkat', 'int', ['int', 'void*', 'int']);
const renameCall = declare('rename', 'int', ['void*', 'void*']);
const renameat2Call = declare('renameat2', 'int', ['int', 'void*', 'int', 'void*', 'uint']);
const linkCall = declare('link', 'int', ['void*', 'void*']);
const linkatCall = declare('linkat', 'int', ['int', 'void*', 'int', 'void*', 'int']);
const symlinkCall = declare('symlink', 'int', ['void*', 'void*']);
const readlinkCall = declare('readlink', 'long', ['void*', 'void*', 'ulong']);
const mknodCall = declare('mknod', 'int', ['void*', 'uint', 'ulong']);
const chdirCall = declare('chdir', 'int', ['void*']);
const getcwdCall = declare('syscall', 'long', ['long', 'void*', 'ulong']);
const fchdirCall = declare('fchdir', 'int', ['int']);

export function mkdir(path: Path, mode = 0o755): Outcome {
  return mkdirCall(cString(path), mode);
}

export function mkdirat(dirFd: number, path: Path, mode = 0o755): Outcome {
  return mkdiratCall(dirFd, cString(path), mode);
}

export function rmdir(path: Path): Outcome {
  return rmdirCall(cString(path));
}

export function unlink(path: Path): Outcome {
  return unlinkCall(cString(path));
}

export function unlinkat(dirFd: number, path: Path, flags = 0): Outcome {
  return unlinkatCall(dirFd, cString(path), flags);
}

export function rename(from: Path, to: Path): Outcome {
  return renameCall(cString(from), cString(to));
}

export function renameat2(from: Path, to: Path, flags: number): Outcome {
  return renameat2Call(AT_FDCWD, cString(from), AT_FDCWD, cString(to), flags);
}

export function exchange(one: Path, other: Path): Outcome {
  return renameat2(one, other, RENAME_EXCHANGE);
}

export function link(existing: Path, created: Path): Outcome {
  return linkCall(cString(existing), cString(created));
}

export function linkat(fromFd: number, existing: Path, created: Path, flags: number): Outcome {
  return linkatCall(fromFd, cString(existing), AT_FDCWD, cString(created), flags);
}

export function symlink(target: Path, path: Path): Outcome {
  return symlinkCall(cString(target), cString(path));
}

export function readlink(path: Path, sizeBytes = 4096): string {
  const out = Buffer.alloc(Math.max(sizeBytes, 1));
  const length = readlinkCall(cString(path), out, sizeBytes);
  return typeof length === 'string' ? length : out.toString('latin1', 0, length);
}

export function mknod(path: Path, mode: number, device = 0): Outcome {
  return mknodCall(cString(path), mode, device);
}

export function chdir(path: Path): Outcome {
  return chdirCall(cString(path));
}

export function fchdir(fd: number): Outcome {
  return fchdirCall(fd);
}

const GETCWD = { x64: 79, arm64: 17 } as const;

/** The kernel's answer: glibc would look for another one when there is none. */
export function getcwd(): string {
  const out = Buffer.alloc(4096);
  const length = getcwdCall(GETCWD[process.arch as keyof typeof GETCWD], out, out.length);
  return typeof length === 'string' ? length : out.toString('latin1', 0, length - 1);
}
