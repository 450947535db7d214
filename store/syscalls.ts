/**
 * The Linux system calls Node does not offer, called through libc.
 *
 * Paths are bytes: byte strings or Buffers, never text in an encoding. Every
 * function throws an Error like Node's own, with `code`, `errno`, `syscall` and `path`. Structures are those of x86-64
 * and arm64, which agree: 64-bit, little-endian.
 */
import { closeSync, constants as fsConstants, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

import { type ByteString, fromBytes } from './byte-string.ts';
import { check, declare, lastErrno, libc, systemError, toCString, type RawPath } from './libc.ts';

export type { RawPath } from './libc.ts';

const AT_FDCWD = -100;

// Locks

export type LockMode = 'exclusive' | 'shared' | 'unlock';

const LOCK_BITS = { shared: 1, exclusive: 2, unlock: 8 } as const;
const LOCK_NB = 4;
const LOCK_POLL_MIN_MS = 1;
const LOCK_POLL_MAX_MS = 50;

const flockCall = declare('flock', 'int', ['int', 'int']);

/**
 * Takes or drops the advisory lock of an open file (flock(2)); it ends with the last descriptor of that open file.
 *
 * @param options.wait - true blocks the thread until the lock is free; false returns at once
 * @returns false only when `wait` is false and somebody else holds the lock
 */
export function flock(fd: number, mode: LockMode, { wait }: { wait: boolean }): boolean {
  const operation = LOCK_BITS[mode] | (wait ? 0 : LOCK_NB);
  for (;;) {
    if (flockCall(fd, operation) === 0) return true;
    const errno = lastErrno();
    if (errno === constants.errno.EAGAIN) return false;
    if (errno !== constants.errno.EINTR) throw systemError(errno, 'flock');
  }
}

/**
 * Waits for the lock while the event loop runs on.
 *
 * It asks again and again rather than blocking in a pool thread: four blocked waiters would stop all of Node's file
 * system work, perhaps that of the lock's holder too, and `process.exit()` would wait for them.
 *
 * @param options.signal - ends the waiting; the promise rejects with its reason
 */
export async function flockAsync(fd: number, mode: LockMode, options: { signal?: AbortSignal } = {}): Promise<void> {
  let pauseMs = LOCK_POLL_MIN_MS;
  while (!flock(fd, mode, { wait: false })) {
    await sleep(pauseMs, undefined, options);
    pauseMs = Math.min(pauseMs * 2, LOCK_POLL_MAX_MS);
  }
}

// Extended attributes, of symlinks themselves too

export const XATTR_CREATE = 1;
export const XATTR_REPLACE = 2;

/** XATTR_LIST_MAX and XATTR_SIZE_MAX (linux/limits.h): the kernel refuses more, so ERANGE cannot happen. */
const XATTR_MAX_BYTES = 65_536;

let xattrBuffer: Buffer | undefined;

function sharedXattrBuffer(): Buffer {
  return (xattrBuffer ??= Buffer.allocUnsafeSlow(XATTR_MAX_BYTES));
}

const lgetxattrCall = declare('lgetxattr', 'long', ['void*', 'void*', 'void*', 'ulong']);
const llistxattrCall = declare('llistxattr', 'long', ['void*', 'void*', 'ulong']);
const lsetxattrCall = declare('lsetxattr', 'int', ['void*', 'void*', 'void*', 'ulong', 'int']);
const lremovexattrCall = declare('lremovexattr', 'int', ['void*', 'void*']);

/** @throws ENODATA when there is no such attribute */
export function lgetxattr(path: RawPath, name: ByteString): Buffer {
  const out = sharedXattrBuffer();
  const sizeBytes = check(lgetxattrCall(toCString(path), toCString(name), out, out.length), 'lgetxattr', path);
  return Buffer.from(out.subarray(0, sizeBytes));
}

/** The names of all attributes; none on a filesystem that has no attributes. */
export function llistxattr(path: RawPath): ByteString[] {
  const out = sharedXattrBuffer();
  const name = toCString(path);
  // Asked for the length alone, the kernel allocates nothing; nearly all files have no attributes.
  if (llistxattrCall(name, out, 0) === 0) return [];
  const sizeBytes = llistxattrCall(name, out, out.length);
  if (sizeBytes === 0) return [];
  if (sizeBytes < 0 && lastErrno() === constants.errno.ENOTSUP) return [];
  check(sizeBytes, 'llistxattr', path);
  return fromBytes(out.subarray(0, sizeBytes - 1)).split('\0');
}

/** All attributes with their values, or undefined when there are none: then it costs one system call. */
export function readXattrs(path: RawPath): Map<ByteString, Buffer> | undefined {
  const xattrs = new Map<ByteString, Buffer>();
  for (const name of llistxattr(path)) {
    const value = lgetxattrIfAny(path, name);
    if (value !== undefined) xattrs.set(name, value);
  }
  return xattrs.size === 0 ? undefined : xattrs;
}

/** Between listing and asking, an attribute may have been removed. */
function lgetxattrIfAny(path: RawPath, name: ByteString): Buffer | undefined {
  try {
    return lgetxattr(path, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENODATA') return undefined;
    throw error;
  }
}

/** @param flags - 0, XATTR_CREATE (EEXIST when there is one) or XATTR_REPLACE (ENODATA when there is none) */
export function lsetxattr(path: RawPath, name: ByteString, value: Buffer, flags = 0): void {
  check(lsetxattrCall(toCString(path), toCString(name), value, value.length, flags), 'lsetxattr', path);
}

/** @throws ENODATA when there is no such attribute */
export function lremovexattr(path: RawPath, name: ByteString): void {
  check(lremovexattrCall(toCString(path), toCString(name)), 'lremovexattr', path);
}

// Times

export interface Timestamp {
  /** Whole seconds since 1970, negative before. */
  sec: number;
  /** 0 to 999,999,999. */
  nsec: number;
}

const AT_SYMLINK_NOFOLLOW = 0x100;
// struct timespec: 16 bytes, seconds i64 and nanoseconds i64; utimensat takes two, access time first.
const TIMESPEC_BYTES = 16;
const TIMESPEC_NSEC = 8;
const UTIME_OMIT = 2 ** 30 - 2;

const utimensatCall = declare('utimensat', 'int', ['int', 'void*', 'void*', 'int']);

/** Sets times to the nanosecond, of a symlink itself too; a time left out stays as it is. */
export function utimensat(path: RawPath, times: { atime?: Timestamp; mtime?: Timestamp }): void {
  const out = Buffer.alloc(2 * TIMESPEC_BYTES);
  writeTimespec(out, 0, times.atime);
  writeTimespec(out, TIMESPEC_BYTES, times.mtime);
  check(utimensatCall(AT_FDCWD, toCString(path), out, AT_SYMLINK_NOFOLLOW), 'utimensat', path);
}

const futimensCall = declare('futimens', 'int', ['int', 'void*']);
const sharedTimespecs = Buffer.alloc(2 * TIMESPEC_BYTES);

/** Sets an open file's modification time to the nanosecond; its access time stays. */
export function futimens(fd: number, mtime: Timestamp): void {
  writeTimespec(sharedTimespecs, 0);
  writeTimespec(sharedTimespecs, TIMESPEC_BYTES, mtime);
  check(futimensCall(fd, sharedTimespecs), 'futimens');
}

const syncfsCall = declare('syncfs', 'int', ['int']);

/** Waits until everything on the file system that holds this open file is on disk: one call for many files. */
export function syncfs(fd: number): void {
  check(syncfsCall(fd), 'syncfs');
}

function writeTimespec(out: Buffer, at: number, time: Timestamp = { sec: 0, nsec: UTIME_OMIT }): void {
  out.writeBigInt64LE(BigInt(time.sec), at);
  out.writeBigInt64LE(BigInt(time.nsec), at + TIMESPEC_NSEC);
}

// Calls by number: glibc before 2.33 has no `mknod` symbol, and musl no `renameat2`.

const MKNODAT = { x64: 259, arm64: 33 } as const;
const RENAMEAT2 = { x64: 316, arm64: 276 } as const;

function numberOf(numbers: typeof MKNODAT | typeof RENAMEAT2, syscall: string): number {
  if (process.arch === 'x64' || process.arch === 'arm64') return numbers[process.arch];
  throw systemError(constants.errno.ENOSYS, syscall);
}

const mknodatCall = declare('syscall', 'long', ['long', 'int', 'void*', 'uint', 'ulong']);
const renameat2Call = declare('syscall', 'long', ['long', 'int', 'void*', 'int', 'void*', 'uint']);

/**
 * Creates a device, fifo, socket or empty file.
 *
 * @param mode - type and permission bits together, as `S_IFCHR | 0o600`; the umask applies
 */
export function mknod(path: RawPath, mode: number, major: number, minor: number): void {
  const device = ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0; // new_encode_dev, linux/kdev_t.h
  const number = numberOf(MKNODAT, 'mknod');
  check(mknodatCall(number, AT_FDCWD, toCString(path), mode, device), 'mknod', path);
}

export function mkfifo(path: RawPath, permissions: number): void {
  mknod(path, fsConstants.S_IFIFO | permissions, 0, 0);
}

export const RENAME_NOREPLACE = 1;
export const RENAME_EXCHANGE = 2;

/** @throws EEXIST with RENAME_NOREPLACE; EINVAL where the filesystem does not know the flag */
export function renameat2(from: RawPath, to: RawPath, flags: number): void {
  const number = numberOf(RENAMEAT2, 'renameat2');
  check(renameat2Call(number, AT_FDCWD, toCString(from), AT_FDCWD, toCString(to), flags), 'renameat2', from);
}

// Mounting (linux/mount.h)

export const MS_RDONLY = 1;
export const MS_NOSUID = 2;
export const MS_NODEV = 4;
export const MS_NOATIME = 1024;
export const MS_BIND = 4096;
/** Of a mount that is there: what is mounted below it appears in no other copy of it. */
export const MS_PRIVATE = 1 << 18;

/** Lazy: gone from the tree at once, ended when the last user leaves. */
export const MNT_DETACH = 2;
export const UMOUNT_NOFOLLOW = 8;

const mountCall = declare('mount', 'int', ['void*', 'void*', 'void*', 'ulong', 'void*']);
const umount2Call = declare('umount2', 'int', ['void*', 'int']);

/**
 * mount(2), argument by argument.
 *
 * @param source - what `/proc/mounts` shows first; a path for a bind mount
 * @param flags - `MS_*` bits
 * @param data - the filesystem's own options, separated by commas
 * @throws EPERM without CAP_SYS_ADMIN; ENOENT or ENOTDIR for the target; EINVAL for options it does not know
 */
export function mount(source: RawPath, target: RawPath, fstype?: string, flags = 0, data?: ByteString): void {
  const type = fstype === undefined ? null : toCString(fstype);
  const options = data === undefined ? null : toCString(data);
  check(mountCall(toCString(source), toCString(target), type, flags, options), 'mount', target);
}

/** @throws EBUSY while somebody uses it and `flags` lacks MNT_DETACH; EINVAL when nothing is mounted there */
export function umount2(target: RawPath, flags = 0): void {
  check(umount2Call(toCString(target), flags), 'umount2', target);
}

// Passing a descriptor from one process to another

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;

const socketpairCall = declare('socketpair', 'int', ['int', 'int', 'int', 'void*']);

/**
 * Two connected stream sockets. Both are closed on exec, so that no child keeps one by accident; the one a child shall
 * have goes into its `stdio`, which lifts that.
 */
export function socketpair(): { ours: number; theirs: number } {
  const fds = Buffer.alloc(8);
  check(socketpairCall(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 'socketpair');
  return { ours: fds.readInt32LE(0), theirs: fds.readInt32LE(4) };
}

// What recvmsg needs, in one block so that nothing in it can be collected while the kernel writes there.
// struct msghdr (bits/socket.h), 56 bytes, with pointers into the block; one struct iovec; one struct cmsghdr; one byte.
const MSG_IOV = 16; // pointer
const MSG_IOVLEN = 24;
const MSG_CONTROL = 32; // pointer
const MSG_CONTROLLEN = 40;
const IOVEC = 56; // address u64, length u64
const IOVEC_LENGTH = IOVEC + 8;
const CONTROL = 72; // length u64, level i32, type i32, then descriptors of i32 each, room for two
const CONTROL_LEVEL = CONTROL + 8;
const CONTROL_TYPE = CONTROL + 12;
const DESCRIPTOR = CONTROL + 16;
const DATA = 96;
const BLOCK_BYTES = 104;
const CONTROL_BYTES = DATA - CONTROL;
const ONE_DESCRIPTOR_BYTES = 20;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const MSG_NOSIGNAL = 0x4000;

const recvmsgCall = declare('recvmsg', 'long', ['int', 'void*', 'int']);
const sendmsgCall = declare('sendmsg', 'long', ['int', 'void*', 'int']);

/**
 * Receives one byte and the descriptor that comes with it; blocks until they are there.
 *
 * @returns the descriptor, closed on exec
 * @throws ECONNRESET when the other side hung up; EBADMSG when the message carries anything but one descriptor
 */
export function recvFd(socketFd: number): number {
  const block = messageBlock();
  const received = retryInterrupted('recvmsg', () => recvmsgCall(socketFd, block, MSG_CMSG_CLOEXEC));
  if (received === 0) throw systemError(constants.errno.ECONNRESET, 'recvmsg');
  const isRights = block.readInt32LE(CONTROL_LEVEL) === SOL_SOCKET && block.readInt32LE(CONTROL_TYPE) === SCM_RIGHTS;
  const sizeBytes = isRights ? block.readUInt32LE(CONTROL) : 0;
  if (sizeBytes === ONE_DESCRIPTOR_BYTES) return block.readInt32LE(DESCRIPTOR);
  for (let at = DESCRIPTOR; at < CONTROL + sizeBytes; at += 4) closeSync(block.readInt32LE(at));
  throw systemError(constants.errno.EBADMSG, 'recvmsg');
}

/**
 * Sends one byte and a descriptor with it; the receiver gets a descriptor of its own for the same open file.
 *
 * @throws EPIPE or ECONNRESET when the other side hung up
 */
export function sendFd(socketFd: number, fd: number): void {
  const block = messageBlock();
  block.writeUInt32LE(ONE_DESCRIPTOR_BYTES, CONTROL);
  block.writeInt32LE(SOL_SOCKET, CONTROL_LEVEL);
  block.writeInt32LE(SCM_RIGHTS, CONTROL_TYPE);
  block.writeInt32LE(fd, DESCRIPTOR);
  retryInterrupted('sendmsg', () => sendmsgCall(socketFd, block, MSG_NOSIGNAL));
}

function messageBlock(): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  const address = libc().koffi.address(block);
  block.writeBigUInt64LE(address + BigInt(DATA), IOVEC);
  block.writeUInt32LE(1, IOVEC_LENGTH);
  block.writeBigUInt64LE(address + BigInt(IOVEC), MSG_IOV);
  block.writeUInt32LE(1, MSG_IOVLEN);
  block.writeBigUInt64LE(address + BigInt(CONTROL), MSG_CONTROL);
  block.writeUInt32LE(CONTROL_BYTES, MSG_CONTROLLEN);
  return block;
}

function retryInterrupted(syscall: string, call: () => number): number {
  for (;;) {
    const result = call();
    if (result >= 0 || lastErrno() !== constants.errno.EINTR) return check(result, syscall);
  }
}

// Waiting for several descriptors at once

const POLLIN = 1;
const POLLERR = 8;
const POLLHUP = 16;
// struct pollfd: 8 bytes, descriptor i32, events i16, what happened i16.
const POLLFD_BYTES = 8;
const POLLFD_EVENTS = 4;
const POLLFD_HAPPENED = 6;

const pollCall = declare('poll', 'int', ['void*', 'ulong', 'int']);
const eventfdCall = declare('eventfd', 'int', ['uint', 'int']);
const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;

/**
 * Waits for things to read on one of a set of descriptors (poll(2)), blocking the thread.
 *
 * A class, so that the array the kernel reads is made anew only when the set changes.
 */
export class PollSet {
  #fds: readonly number[] = [];
  #block = Buffer.alloc(0);

  set fds(fds: readonly number[]) {
    this.#fds = [...fds];
    this.#block = Buffer.alloc(fds.length * POLLFD_BYTES);
    fds.forEach((fd, at) => {
      this.#block.writeInt32LE(fd, at * POLLFD_BYTES);
      this.#block.writeInt16LE(POLLIN, at * POLLFD_BYTES + POLLFD_EVENTS);
    });
  }

  /** @returns those that can be read, or whose other side is gone */
  wait(): number[] {
    retryInterrupted('poll', () => pollCall(this.#block, this.#fds.length, -1));
    return this.#fds.filter(
      (_, at) => (this.#block.readInt16LE(at * POLLFD_BYTES + POLLFD_HAPPENED) & (POLLIN | POLLERR | POLLHUP)) !== 0,
    );
  }
}

/** A counter to wake a thread that polls: whoever writes 8 bytes (a number) wakes it, reading 8 bytes clears it. */
export function eventfd(): number {
  return check(eventfdCall(0, EFD_CLOEXEC | EFD_NONBLOCK), 'eventfd');
}

/** Wakes whoever polls an eventfd, in this process. */
export function wake(fd: number): void {
  const one = Buffer.alloc(8);
  one.writeBigUInt64LE(1n);
  writeSync(fd, one);
}

// Device requests

const ioctlCall = declare('ioctl', 'int', ['int', 'ulong', 'void*']);
const FIONBIO = 0x5421;

/** @returns what the request returns, 0 for most */
export function ioctl(fd: number, request: number, argument: Buffer): number {
  return check(ioctlCall(fd, request, argument), 'ioctl');
}

/** From now on a read that would have to wait throws EAGAIN, for everybody who shares the open file. */
export function setNonBlocking(fd: number): void {
  const on = Buffer.alloc(4);
  on.writeInt32LE(1);
  ioctl(fd, FIONBIO, on);
}
