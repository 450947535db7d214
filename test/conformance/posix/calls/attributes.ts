/** Calls that read and change what stat(2) shows, and extended attributes. */
import { AT_FDCWD } from './names.ts';
import { asFd, cString, declare, type Outcome, type Path } from './libc.ts';

const chmodCall = declare('chmod', 'int', ['void*', 'uint']);
const fchmodCall = declare('fchmod', 'int', ['int', 'uint']);
const fchmodatCall = declare('fchmodat', 'int', ['int', 'void*', 'uint', 'int']);
const fchownatCall = declare('fchownat', 'int', ['int', 'void*', 'uint', 'uint', 'int']);
const fchownCall = declare('fchown', 'int', ['int', 'uint', 'uint']);
const faccessatCall = declare('faccessat', 'int', ['int', 'void*', 'int', 'int']);
const utimensatCall = declare('utimensat', 'int', ['int', 'void*', 'void*', 'int']);
const futimensCall = declare('futimens', 'int', ['int', 'void*']);
const umaskCall = declare('umask', 'int', ['uint']);

const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_EACCESS = 0x200;
/** uid or gid that stays as it is: -1. */
export const SAME = 0xffff_ffff;

export const R_OK = 4;
export const W_OK = 2;
export const X_OK = 1;

export function chmod(path: Path, mode: number): Outcome {
  return chmodCall(cString(path), mode);
}

export function fchmod(fd: Outcome, mode: number): Outcome {
  return fchmodCall(asFd(fd), mode);
}

export function lchmod(path: Path, mode: number): Outcome {
  return fchmodatCall(AT_FDCWD, cString(path), mode, AT_SYMLINK_NOFOLLOW);
}

export function chown(path: Path, uid: number, gid: number): Outcome {
  return fchownatCall(AT_FDCWD, cString(path), uid, gid, 0);
}

export function lchown(path: Path, uid: number, gid: number): Outcome {
  return fchownatCall(AT_FDCWD, cString(path), uid, gid, AT_SYMLINK_NOFOLLOW);
}

export function fchown(fd: Outcome, uid: number, gid: number): Outcome {
  return fchownCall(asFd(fd), uid, gid);
}

/** By the effective user, whom `asUser` changes. */
export function access(path: Path, mode: number): Outcome {
  return faccessatCall(AT_FDCWD, cString(path), mode, AT_EACCESS);
}

export function umask(mask: number): number {
  return asFd(umaskCall(mask));
}

// Times

export type Time = { sec: number; nsec: number };
export const NOW: Time = { sec: 0, nsec: 2 ** 30 - 1 };
export const OMIT: Time = { sec: 0, nsec: 2 ** 30 - 2 };

function timespecs(atime: Time, mtime: Time): Buffer {
  const out = Buffer.alloc(32);
  [atime, mtime].forEach(({ sec, nsec }, at) => {
    out.writeBigInt64LE(BigInt(sec), at * 16);
    out.writeBigInt64LE(BigInt(nsec), at * 16 + 8);
  });
  return out;
}

export function utimens(path: Path, atime: Time, mtime: Time): Outcome {
  return utimensatCall(AT_FDCWD, cString(path), timespecs(atime, mtime), 0);
}

export function lutimens(path: Path, atime: Time, mtime: Time): Outcome {
  return utimensatCall(AT_FDCWD, cString(path), timespecs(atime, mtime), AT_SYMLINK_NOFOLLOW);
}

export function futimens(fd: Outcome, atime: Time, mtime: Time): Outcome {
  return futimensCall(asFd(fd), timespecs(atime, mtime));
}

/** Both times to now, by a null pointer: needs write permission only. */
export function utimesNow(path: Path): Outcome {
  return utimensatCall(AT_FDCWD, cString(path), null, 0);
}

// Extended attributes

export const XATTR_CREATE = 1;
export const XATTR_REPLACE = 2;

const setxattrCall = declare('setxattr', 'int', ['void*', 'void*', 'void*', 'ulong', 'int']);
const lsetxattrCall = declare('lsetxattr', 'int', ['void*', 'void*', 'void*', 'ulong', 'int']);
const fsetxattrCall = declare('fsetxattr', 'int', ['int', 'void*', 'void*', 'ulong', 'int']);
const getxattrCall = declare('getxattr', 'long', ['void*', 'void*', 'void*', 'ulong']);
const lgetxattrCall = declare('lgetxattr', 'long', ['void*', 'void*', 'void*', 'ulong']);
const fgetxattrCall = declare('fgetxattr', 'long', ['int', 'void*', 'void*', 'ulong']);
const listxattrCall = declare('listxattr', 'long', ['void*', 'void*', 'ulong']);
const llistxattrCall = declare('llistxattr', 'long', ['void*', 'void*', 'ulong']);
const removexattrCall = declare('removexattr', 'int', ['void*', 'void*']);
const lremovexattrCall = declare('lremovexattr', 'int', ['void*', 'void*']);
const fremovexattrCall = declare('fremovexattr', 'int', ['int', 'void*']);

export function setxattr(path: Path, name: string, value: string, flags = 0): Outcome {
  const bytes = Buffer.from(value, 'latin1');
  return setxattrCall(cString(path), cString(name), bytes, bytes.length, flags);
}

export function lsetxattr(path: Path, name: string, value: string, flags = 0): Outcome {
  const bytes = Buffer.from(value, 'latin1');
  return lsetxattrCall(cString(path), cString(name), bytes, bytes.length, flags);
}

export function fsetxattr(fd: Outcome, name: string, value: string, flags = 0): Outcome {
  const bytes = Buffer.from(value, 'latin1');
  return fsetxattrCall(asFd(fd), cString(name), bytes, bytes.length, flags);
}

/** @param roomBytes - 0 asks for the size alone, which comes back as a number */
export function getxattr(path: Path, name: string, roomBytes = 65_536): Outcome {
  return answered(roomBytes, (out) => getxattrCall(cString(path), cString(name), out, roomBytes));
}

export function lgetxattr(path: Path, name: string, roomBytes = 65_536): Outcome {
  return answered(roomBytes, (out) => lgetxattrCall(cString(path), cString(name), out, roomBytes));
}

export function fgetxattr(fd: Outcome, name: string, roomBytes = 65_536): Outcome {
  return answered(roomBytes, (out) => fgetxattrCall(asFd(fd), cString(name), out, roomBytes));
}

/** The names, sorted, in one string; security modules may add theirs, which do not count. */
export function listxattr(path: Path, roomBytes = 65_536): Outcome {
  return sortedNames(answered(roomBytes, (out) => listxattrCall(cString(path), out, roomBytes)));
}

export function llistxattr(path: Path, roomBytes = 65_536): Outcome {
  return sortedNames(answered(roomBytes, (out) => llistxattrCall(cString(path), out, roomBytes)));
}

export function removexattr(path: Path, name: string): Outcome {
  return removexattrCall(cString(path), cString(name));
}

export function lremovexattr(path: Path, name: string): Outcome {
  return lremovexattrCall(cString(path), cString(name));
}

export function fremovexattr(fd: Outcome, name: string): Outcome {
  return fremovexattrCall(asFd(fd), cString(name));
}

function answered(roomBytes: number, call: (out: Buffer) => Outcome): Outcome {
  const out = Buffer.alloc(Math.max(roomBytes, 1));
  const length = call(out);
  return typeof length === 'string' || roomBytes === 0 ? length : out.toString('latin1', 0, length);
}

function sortedNames(list: Outcome): Outcome {
  if (typeof list === 'number') return list;
  return list
    .split('\0')
    .filter((name) => name !== '' && !name.startsWith('security.'))
    .sort()
    .join(' ');
}
