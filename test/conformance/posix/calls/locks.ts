/** Advisory locks: flock(2), fcntl(2) by process and by open file. */
import { asFd, declare, type Outcome } from './libc.ts';

export const LOCK_SH = 1;
export const LOCK_EX = 2;
export const LOCK_UN = 8;
const LOCK_NB = 4;

const F_GETLK = 5;
const F_SETLK = 6;
const F_SETLKW = 7;
const F_OFD_SETLK = 37;

export const F_RDLCK = 0;
export const F_WRLCK = 1;
export const F_UNLCK = 2;

const flockCall = declare('flock', 'int', ['int', 'int']);
const fcntlCall = declare('fcntl', 'int', ['int', 'int', 'void*']);

/** Never waits: EAGAIN when somebody else holds it. */
export function flock(fd: Outcome, operation: number): Outcome {
  return flockCall(asFd(fd), operation | LOCK_NB);
}

/** Waits for it. */
export function flockWaiting(fd: Outcome, operation: number): Outcome {
  return flockCall(asFd(fd), operation);
}

export interface Range {
  start?: number;
  /** 0: to the end of the file, wherever that will be. */
  lengthBytes?: number;
}

// struct flock: l_type i16, l_whence i16, l_start i64 at 8, l_len i64 at 16, l_pid i32 at 24
function lockOf(type: number, { start = 0, lengthBytes = 0 }: Range): Buffer {
  const out = Buffer.alloc(32);
  out.writeInt16LE(type, 0);
  out.writeBigInt64LE(BigInt(start), 8);
  out.writeBigInt64LE(BigInt(lengthBytes), 16);
  return out;
}

export function setLock(fd: Outcome, type: number, range: Range = {}): Outcome {
  return fcntlCall(asFd(fd), F_SETLK, lockOf(type, range));
}

export function setLockWaiting(fd: Outcome, type: number, range: Range = {}): Outcome {
  return fcntlCall(asFd(fd), F_SETLKW, lockOf(type, range));
}

/** Belongs to the open file, not to the process. */
export function setOpenFileLock(fd: Outcome, type: number, range: Range = {}): Outcome {
  return fcntlCall(asFd(fd), F_OFD_SETLK, lockOf(type, range));
}

/** What stands in the way of a lock: its type and range, or `free`; not whose it is. */
export function conflictingLock(fd: Outcome, type: number, range: Range = {}): string {
  const lock = lockOf(type, range);
  const result = fcntlCall(asFd(fd), F_GETLK, lock);
  if (typeof result === 'string') return result;
  const found = ['read', 'write', 'free'][lock.readInt16LE(0)] ?? 'unknown';
  return found === 'free' ? found : `${found} ${lock.readBigInt64LE(8)}+${lock.readBigInt64LE(16)}`;
}
