/**
 * File system calls for whoever makes thousands a second and takes failure as an answer: they return what the kernel returns,
 * or a negated errno, and never throw. Paths are byte strings and may be as long as the kernel allows.
 */
import { constants } from 'node:fs';
import { constants as system } from 'node:os';

import type { ByteString } from './byte-string.ts';
import { declare, lastErrno, type NativeCall } from './libc.ts';

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_EMPTY_PATH = 0x1000;
const PATH_MAX = 4096;
const { errno } = system;

/** Where a path is put for the kernel to read, and the directory that a path too long for it is seen from. */
interface Slot {
  bytes: Buffer;
  dirFd: number;
}

const slotA: Slot = { bytes: Buffer.alloc(PATH_MAX), dirFd: -1 };
const slotB: Slot = { bytes: Buffer.alloc(PATH_MAX), dirFd: -1 };

function put(slot: Slot, path: ByteString): Buffer {
  const { bytes } = slot;
  const length = bytes.write(path.length < PATH_MAX ? path : shortened(slot, path), 0, PATH_MAX - 1, 'latin1');
  bytes[length] = 0;
  return bytes;
}

/** What is no path: the name of an attribute, or where a symlink leads. Of what is too long, as much as the kernel refuses. */
function putText(slot: Slot, text: ByteString): Buffer {
  const length = slot.bytes.write(text, 0, PATH_MAX - 1, 'latin1');
  slot.bytes[length] = 0;
  return slot.bytes;
}

/** `/proc/self/fd/` and a number: going by way of this again makes no path shorter. */
const FD_PATH_MAX = 24;

/** The same place by way of an open directory: our own prefix must not make a path too long that is not for its user. */
function shortened(slot: Slot, path: ByteString): ByteString {
  let rest = path;
  while (rest.length >= PATH_MAX) {
    const slash = rest.lastIndexOf('/', PATH_MAX - 1);
    if (slash <= FD_PATH_MAX) return rest; // a name longer than any may be: the kernel says so
    const bytes = Buffer.from(`${rest.slice(0, slash)}\0`, 'latin1');
    const fd = openCall(bytes, O_PATH | O_CLOEXEC, 0);
    if (slot.dirFd >= 0) closeCall(slot.dirFd);
    slot.dirFd = fd;
    if (fd < 0) return rest.slice(0, slash); // whatever is wrong with it is what is wrong with the path
    rest = `/proc/self/fd/${fd}${rest.slice(slash)}`;
  }
  return rest;
}

/** A path that others can use until the next call here: of one that is too long, a shorter way to the same place. */
export function withinReach(path: ByteString): ByteString {
  return path.length < PATH_MAX ? path : shortened(slotA, path);
}

function result(value: number): number {
  return value < 0 ? -lastErrno() : value;
}

function declareByNumber(numbers: { x64: number; arm64: number }, parameters: readonly string[]): NativeCall {
  const number = process.arch === 'arm64' ? numbers.arm64 : numbers.x64;
  const call = declare('syscall', 'long', ['long', ...(parameters as ('int' | 'void*')[])]);
  return (...args) => call(number, ...args);
}

// What there is

// struct statx (linux/stat.h), 256 bytes.
const STATX_BYTES = 256;
const STATX_BASIC_AND_BTIME = 0xfff;
const BLKSIZE = 4;
const NLINK = 16;
const UID = 20;
const GID = 24;
const MODE = 28;
const INO = 32;
const SIZE = 40;
const BLOCKS = 48;
const ATIME = 64;
const BTIME = 80;
const CTIME = 96;
const MTIME = 112;
const NSEC = 8;
const RDEV_MAJOR = 128;
const RDEV_MINOR = 132;
const WORD = 2 ** 32;

/** What `lstat` says, and when the object was made. */
export class FileStat {
  /** With the type's bits. */
  mode = 0;
  nlink = 0;
  uid = 0;
  gid = 0;
  ino = 0;
  sizeBytes = 0;
  /** Units of 512 bytes. */
  blocks = 0;
  blksizeBytes = 0;
  atimeSec = 0;
  atimeNsec = 0;
  btimeSec = 0;
  btimeNsec = 0;
  ctimeSec = 0;
  ctimeNsec = 0;
  mtimeSec = 0;
  mtimeNsec = 0;
  rdevMajor = 0;
  rdevMinor = 0;
}

const statxCall = declare('statx', 'int', ['int', 'void*', 'int', 'uint', 'void*']);
const statxOut = Buffer.alloc(STATX_BYTES);

/** @returns the object itself, not where a symlink leads; or a negated errno */
export function statOf(path: ByteString): FileStat | number {
  const done = statxCall(AT_FDCWD, put(slotA, path), AT_SYMLINK_NOFOLLOW, STATX_BASIC_AND_BTIME, statxOut);
  return done < 0 ? -lastErrno() : decodeStat();
}

const EMPTY = Buffer.alloc(1);

export function fstatOf(fd: number): FileStat | number {
  const done = statxCall(fd, EMPTY, AT_EMPTY_PATH, STATX_BASIC_AND_BTIME, statxOut);
  return done < 0 ? -lastErrno() : decodeStat();
}

function decodeStat(): FileStat {
  const stat = new FileStat();
  const from = statxOut;
  stat.blksizeBytes = from.readUInt32LE(BLKSIZE);
  stat.nlink = from.readUInt32LE(NLINK);
  stat.uid = from.readUInt32LE(UID);
  stat.gid = from.readUInt32LE(GID);
  stat.mode = from.readUInt16LE(MODE);
  stat.ino = u64(INO);
  stat.sizeBytes = u64(SIZE);
  stat.blocks = u64(BLOCKS);
  stat.atimeSec = i64(ATIME);
  stat.atimeNsec = from.readUInt32LE(ATIME + NSEC);
  stat.btimeSec = i64(BTIME);
  stat.btimeNsec = from.readUInt32LE(BTIME + NSEC);
  stat.ctimeSec = i64(CTIME);
  stat.ctimeNsec = from.readUInt32LE(CTIME + NSEC);
  stat.mtimeSec = i64(MTIME);
  stat.mtimeNsec = from.readUInt32LE(MTIME + NSEC);
  stat.rdevMajor = from.readUInt32LE(RDEV_MAJOR);
  stat.rdevMinor = from.readUInt32LE(RDEV_MINOR);
  return stat;
}

function u64(at: number): number {
  return statxOut.readUInt32LE(at + 4) * WORD + statxOut.readUInt32LE(at);
}

function i64(at: number): number {
  return statxOut.readInt32LE(at + 4) * WORD + statxOut.readUInt32LE(at);
}

// Names

const openCall = declare('open', 'int', ['void*', 'int', 'uint']);
const closeCall = declare('close', 'int', ['int']);
const mkdirCall = declare('mkdir', 'int', ['void*', 'uint']);
const rmdirCall = declare('rmdir', 'int', ['void*']);
const unlinkCall = declare('unlink', 'int', ['void*']);
const symlinkCall = declare('symlink', 'int', ['void*', 'void*']);
const linkCall = declare('link', 'int', ['void*', 'void*']);
const renameCall = declareByNumber({ x64: 316, arm64: 276 }, ['int', 'void*', 'int', 'void*', 'uint']);
const mknodCall = declareByNumber({ x64: 259, arm64: 33 }, ['int', 'void*', 'uint', 'ulong']);

/** @param flags - `O_CLOEXEC` is added */
export function openFile(path: ByteString, flags: number, mode = 0): number {
  return result(openCall(put(slotA, path), flags | O_CLOEXEC, mode));
}

export const O_CLOEXEC = 0o2000000;
export const O_PATH = 0o10000000;

export function closeFile(fd: number): void {
  closeCall(fd);
}

export function makeDir(path: ByteString, mode: number): number {
  return result(mkdirCall(put(slotA, path), mode));
}

export function removeDir(path: ByteString): number {
  return result(rmdirCall(put(slotA, path)));
}

export function unlink(path: ByteString): number {
  return result(unlinkCall(put(slotA, path)));
}

export function makeSymlink(target: ByteString, path: ByteString): number {
  if (target.length >= PATH_MAX) return -errno.ENAMETOOLONG;
  return result(symlinkCall(putText(slotB, target), put(slotA, path)));
}

export function link(from: ByteString, to: ByteString): number {
  return result(linkCall(put(slotA, from), put(slotB, to)));
}

export const RENAME_NOREPLACE = 1;
export const RENAME_EXCHANGE = 2;
export const RENAME_WHITEOUT = 4;

export function rename(from: ByteString, to: ByteString, flags = 0): number {
  return result(renameCall(AT_FDCWD, put(slotA, from), AT_FDCWD, put(slotB, to), flags));
}

/** @param mode - type and permission bits; @param rdev - as the kernel packs it in 32 bits */
export function makeNode(path: ByteString, mode: number, rdev = 0): number {
  return result(mknodCall(AT_FDCWD, put(slotA, path), mode, rdev));
}

/** overlayfs knows a name that is gone by this: a character device 0/0, which everybody may make. */
export function makeWhiteout(path: ByteString): number {
  return makeNode(path, constants.S_IFCHR, 0);
}

// Attributes

const chmodCall = declare('chmod', 'int', ['void*', 'uint']);
const lchownCall = declare('lchown', 'int', ['void*', 'uint', 'uint']);
const truncateCall = declare('truncate', 'int', ['void*', 'long']);
const ftruncateCall = declare('ftruncate', 'int', ['int', 'long']);
const utimensatCall = declare('utimensat', 'int', ['int', 'void*', 'void*', 'int']);

export function changeMode(path: ByteString, mode: number): number {
  return result(chmodCall(put(slotA, path), mode));
}

/** Of -1 either stays as it is. */
export function changeOwner(path: ByteString, uid: number, gid: number): number {
  return result(lchownCall(put(slotA, path), uid >>> 0, gid >>> 0));
}

export function truncateFile(path: ByteString, sizeBytes: number): number {
  return result(truncateCall(put(slotA, path), sizeBytes));
}

export function ftruncateFile(fd: number, sizeBytes: number): number {
  return result(ftruncateCall(fd, sizeBytes));
}

const times = Buffer.alloc(32);
/** Stand for a time's nanoseconds: it stays, or becomes the present. */
export const UTIME_OMIT = 2 ** 30 - 2;
export const UTIME_NOW = 2 ** 30 - 1;

/** Sets access and modification time, of a symlink itself. */
export function setTimes(
  path: ByteString,
  atime: [sec: number, nsec: number],
  mtime: [sec: number, nsec: number],
): number {
  [atime, mtime].forEach(([sec, nsec], i) => {
    times.writeInt32LE(Math.floor(sec / WORD), i * 16 + 4);
    times.writeUInt32LE(sec >>> 0, i * 16);
    times.writeUInt32LE(nsec, i * 16 + 8);
  });
  return result(utimensatCall(AT_FDCWD, put(slotA, path), times, AT_SYMLINK_NOFOLLOW));
}

// Extended attributes

const XATTR_MAX_BYTES = 65_536;
const lgetxattrCall = declare('lgetxattr', 'long', ['void*', 'void*', 'void*', 'ulong']);
const llistxattrCall = declare('llistxattr', 'long', ['void*', 'void*', 'ulong']);
const lsetxattrCall = declare('lsetxattr', 'int', ['void*', 'void*', 'void*', 'ulong', 'int']);
const lremovexattrCall = declare('lremovexattr', 'int', ['void*', 'void*']);
const fsetxattrCall = declare('fsetxattr', 'int', ['int', 'void*', 'void*', 'ulong', 'int']);
const xattrOut = Buffer.alloc(XATTR_MAX_BYTES);

/** @returns a view that the next call overwrites; or a negated errno */
export function xattrOf(path: ByteString, name: ByteString): Buffer | number {
  const sizeBytes = lgetxattrCall(put(slotA, path), putText(slotB, name), xattrOut, XATTR_MAX_BYTES);
  return sizeBytes < 0 ? -lastErrno() : xattrOut.subarray(0, sizeBytes);
}

/** @returns the names, each with a NUL, as a view that the next call overwrites; or a negated errno */
export function xattrNamesOf(path: ByteString): Buffer | number {
  const sizeBytes = llistxattrCall(put(slotA, path), xattrOut, XATTR_MAX_BYTES);
  return sizeBytes < 0 ? -lastErrno() : xattrOut.subarray(0, sizeBytes);
}

export function setXattr(path: ByteString, name: ByteString, value: Buffer, flags = 0): number {
  return result(lsetxattrCall(put(slotA, path), putText(slotB, name), value, value.length, flags));
}

export function fsetXattr(fd: number, name: ByteString, value: Buffer): number {
  return result(fsetxattrCall(fd, putText(slotB, name), value, value.length, 0));
}

export function removeXattr(path: ByteString, name: ByteString): number {
  return result(lremovexattrCall(put(slotA, path), putText(slotB, name)));
}

// Contents

const readCall = declare('read', 'long', ['int', 'void*', 'ulong']);
const preadCall = declare('pread', 'long', ['int', 'void*', 'ulong', 'long']);
const pwriteCall = declare('pwrite', 'long', ['int', 'void*', 'ulong', 'long']);
const fsyncCall = declare('fsync', 'int', ['int']);
const fdatasyncCall = declare('fdatasync', 'int', ['int']);
const fallocateCall = declare('fallocate', 'int', ['int', 'int', 'long', 'long']);
const lseekCall = declare('lseek', 'long', ['int', 'long', 'int']);
const copyRangeCall = declareByNumber({ x64: 326, arm64: 285 }, ['int', 'void*', 'int', 'void*', 'ulong', 'uint']);
const readlinkCall = declare('readlink', 'long', ['void*', 'void*', 'ulong']);

/** One read(2). @returns how many bytes, or a negated errno: for whom having nothing to read is an everyday answer */
export function readOnce(fd: number, out: Buffer): number {
  const count = readCall(fd, out, out.length);
  return count < 0 ? -lastErrno() : count;
}

/** @returns how many bytes, fewer than there is room for only at the end of the file; or a negated errno */
export function readAt(fd: number, out: Buffer, offset: number): number {
  for (let done = 0; ;) {
    const count = preadCall(fd, done === 0 ? out : out.subarray(done), out.length - done, offset + done);
    if (count < 0) return -lastErrno();
    done += count;
    if (count === 0 || done === out.length) return done;
  }
}

/** @returns how many bytes were written, fewer than there are only when the disk is full; or a negated errno */
export function writeAt(fd: number, bytes: Buffer, offset: number): number {
  for (let done = 0; ;) {
    const count = pwriteCall(fd, done === 0 ? bytes : bytes.subarray(done), bytes.length - done, offset + done);
    if (count < 0) return done > 0 ? done : -lastErrno();
    done += count;
    if (count === 0 || done === bytes.length) return done;
  }
}

export function syncFile(fd: number, dataOnly: boolean): number {
  return result(dataOnly ? fdatasyncCall(fd) : fsyncCall(fd));
}

export const FALLOC_KEEP_SIZE = 1;
export const FALLOC_PUNCH_HOLE = 2;
export const FALLOC_ZERO_RANGE = 16;

export function allocate(fd: number, mode: number, offset: number, lengthBytes: number): number {
  return result(fallocateCall(fd, mode, offset, lengthBytes));
}

export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

/** @returns where data, or a hole, begins at or after an offset; or a negated errno, ENXIO past the end */
export function seek(fd: number, offset: number, whence: typeof SEEK_DATA | typeof SEEK_HOLE): number {
  return result(lseekCall(fd, offset, whence));
}

const rangeOffsets = Buffer.alloc(16);
const offsetIn = rangeOffsets.subarray(0, 8);
const offsetOut = rangeOffsets.subarray(8);

/** Copies within the kernel, sharing blocks where the disk can. */
export function copyRange(
  from: { fd: number; offset: number },
  to: { fd: number; offset: number },
  lengthBytes: number,
): number {
  offsetIn.writeBigInt64LE(BigInt(from.offset));
  offsetOut.writeBigInt64LE(BigInt(to.offset));
  return result(copyRangeCall(from.fd, offsetIn, to.fd, offsetOut, lengthBytes, 0));
}

const linkOut = Buffer.alloc(PATH_MAX);

/** @returns where a symlink leads, as a view that the next call overwrites; or a negated errno */
export function readLink(path: ByteString): Buffer | number {
  const sizeBytes = readlinkCall(put(slotA, path), linkOut, linkOut.length);
  return sizeBytes < 0 ? -lastErrno() : linkOut.subarray(0, sizeBytes);
}

// The file system

// struct statfs (asm-generic/statfs.h), 120 bytes of words of 8.
const STATFS_BYTES = 120;
const statfsCall = declare('statfs', 'int', ['void*', 'void*']);
const statfsOut = Buffer.alloc(STATFS_BYTES);

export interface FileSystemStat {
  /** `*_MAGIC` of linux/magic.h. */
  type: number;
  blockBytes: number;
  blocks: number;
  blocksFree: number;
  blocksAvailable: number;
  files: number;
  filesFree: number;
}

export function statfsOf(path: ByteString): FileSystemStat | number {
  if (statfsCall(put(slotA, path), statfsOut) < 0) return -lastErrno();
  const word = (at: number): number => Number(statfsOut.readBigUInt64LE(at * 8));
  return {
    type: statfsOut.readUInt32LE(0),
    blockBytes: word(1),
    blocks: word(2),
    blocksFree: word(3),
    blocksAvailable: word(4),
    files: word(5),
    filesFree: word(6),
  };
}
