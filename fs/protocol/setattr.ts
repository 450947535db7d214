import { REQUEST_HEADER_BYTES } from './header.ts';
import { expectSize, readI64, readU64, writeI64, writeU64 } from './wire.ts';

// struct fuse_setattr_in (linux/fuse.h): 88 bytes.
export const SETATTR_IN_BYTES = 88;
const VALID = 0; // u32, SETATTR bits
const SIZE = 16; // u64
const ATIME = 32; // i64 in a u64 field: seconds
const MTIME = 40;
const ATIME_NSEC = 56; // u32
const MTIME_NSEC = 60;
const MODE = 68; // u32
const UID = 76; // u32
const GID = 80;

/** FATTR_*: which fields count. */
export const SETATTR = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
  CTIME: 1 << 10,
  /** Whoever truncates may not keep the setuid and setgid bits. */
  KILL_SUIDGID: 1 << 11,
} as const;

export interface SetattrIn {
  valid: number;
  sizeBytes: number;
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
  mode: number;
  uid: number;
  gid: number;
}

/** @throws ProtocolError when the request is not exactly this long */
export function decodeSetattrIn(request: Buffer): SetattrIn {
  const at = REQUEST_HEADER_BYTES;
  expectSize(request, at + SETATTR_IN_BYTES, 'setattr_in');
  return {
    valid: request.readUInt32LE(at + VALID),
    sizeBytes: readU64(request, at + SIZE),
    atimeSec: readI64(request, at + ATIME),
    atimeNsec: request.readUInt32LE(at + ATIME_NSEC),
    mtimeSec: readI64(request, at + MTIME),
    mtimeNsec: request.readUInt32LE(at + MTIME_NSEC),
    mode: request.readUInt32LE(at + MODE),
    uid: request.readUInt32LE(at + UID),
    gid: request.readUInt32LE(at + GID),
  };
}

export function encodeSetattrIn(out: Buffer, at: number, setattr: SetattrIn): number {
  out.fill(0, at, at + SETATTR_IN_BYTES);
  out.writeUInt32LE(setattr.valid, at + VALID);
  writeU64(out, at + SIZE, setattr.sizeBytes);
  writeI64(out, at + ATIME, setattr.atimeSec);
  out.writeUInt32LE(setattr.atimeNsec, at + ATIME_NSEC);
  writeI64(out, at + MTIME, setattr.mtimeSec);
  out.writeUInt32LE(setattr.mtimeNsec, at + MTIME_NSEC);
  out.writeUInt32LE(setattr.mode, at + MODE);
  out.writeUInt32LE(setattr.uid, at + UID);
  out.writeUInt32LE(setattr.gid, at + GID);
  return SETATTR_IN_BYTES;
}
