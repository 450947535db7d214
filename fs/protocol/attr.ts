import { expectSize, readI64, readU64, writeI64, writeU64 } from './wire.ts';

// struct fuse_attr (linux/fuse.h): 88 bytes.
export const ATTR_BYTES = 88;
const INO = 0; // u64
const SIZE = 8; // u64, bytes
const BLOCKS = 16; // u64, of 512 bytes
const ATIME = 24; // i64 in a u64 field: seconds
const MTIME = 32;
const CTIME = 40;
const ATIME_NSEC = 48; // u32
const MTIME_NSEC = 52; // u32
const CTIME_NSEC = 56; // u32
const MODE = 60; // u32, with the type bits: 0 would make the kernel answer EIO
const NLINK = 64; // u32
const UID = 68; // u32
const GID = 72; // u32
const RDEV = 76; // u32
const BLKSIZE = 80; // u32

// struct fuse_entry_out: 128 bytes.
export const ENTRY_OUT_BYTES = 128;
const ENTRY_NODE_ID = 0; // u64
const ENTRY_GENERATION = 8; // u64
const ENTRY_VALID = 16; // u64, seconds
const ENTRY_ATTR_VALID = 24; // u64, seconds
const ENTRY_ATTR = 40;

// struct fuse_attr_out: 104 bytes.
export const ATTR_OUT_BYTES = 104;
const ATTR_VALID = 0; // u64, seconds
const ATTR_OUT_ATTR = 16;

/** What `stat` shows. */
export interface Attr {
  ino: number;
  sizeBytes: number;
  /** Units of 512 bytes. */
  blocks: number;
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
  /** Type and permission bits. */
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  /** See `encodeRdev`. */
  rdev: number;
  blksizeBytes: number;
}

export interface EntryOut {
  /** 0: there is no such name, and the kernel may remember that for `entryValidSec`. */
  nodeId: number;
  /** Tells two objects apart that have the same nodeId one after the other; absent: 0, for a nodeId that is never used twice. */
  generation?: number;
  entryValidSec: number;
  attrValidSec: number;
  attr: Attr;
}

export interface AttrOut {
  attrValidSec: number;
  attr: Attr;
}

/** A device number as the kernel packs it in 32 bits (new_encode_dev, linux/kdev_t.h). */
export function encodeRdev(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)) >>> 0;
}

export function decodeRdev(rdev: number): { major: number; minor: number } {
  return { major: (rdev >>> 8) & 0xfff, minor: (rdev & 0xff) | ((rdev >>> 12) & 0xf_ff00) };
}

export function encodeAttr(out: Buffer, at: number, attr: Attr): number {
  out.fill(0, at, at + ATTR_BYTES);
  writeU64(out, at + INO, attr.ino);
  writeU64(out, at + SIZE, attr.sizeBytes);
  writeU64(out, at + BLOCKS, attr.blocks);
  writeI64(out, at + ATIME, attr.atimeSec);
  writeI64(out, at + MTIME, attr.mtimeSec);
  writeI64(out, at + CTIME, attr.ctimeSec);
  out.writeUInt32LE(attr.atimeNsec, at + ATIME_NSEC);
  out.writeUInt32LE(attr.mtimeNsec, at + MTIME_NSEC);
  out.writeUInt32LE(attr.ctimeNsec, at + CTIME_NSEC);
  out.writeUInt32LE(attr.mode, at + MODE);
  out.writeUInt32LE(attr.nlink, at + NLINK);
  out.writeUInt32LE(attr.uid, at + UID);
  out.writeUInt32LE(attr.gid, at + GID);
  out.writeUInt32LE(attr.rdev, at + RDEV);
  out.writeUInt32LE(attr.blksizeBytes, at + BLKSIZE);
  return ATTR_BYTES;
}

/** @throws ProtocolError when `bytes` is not 88 bytes long */
export function decodeAttr(bytes: Buffer): Attr {
  expectSize(bytes, ATTR_BYTES, 'attr');
  return {
    ino: readU64(bytes, INO),
    sizeBytes: readU64(bytes, SIZE),
    blocks: readU64(bytes, BLOCKS),
    atimeSec: readI64(bytes, ATIME),
    atimeNsec: bytes.readUInt32LE(ATIME_NSEC),
    mtimeSec: readI64(bytes, MTIME),
    mtimeNsec: bytes.readUInt32LE(MTIME_NSEC),
    ctimeSec: readI64(bytes, CTIME),
    ctimeNsec: bytes.readUInt32LE(CTIME_NSEC),
    mode: bytes.readUInt32LE(MODE),
    nlink: bytes.readUInt32LE(NLINK),
    uid: bytes.readUInt32LE(UID),
    gid: bytes.readUInt32LE(GID),
    rdev: bytes.readUInt32LE(RDEV),
    blksizeBytes: bytes.readUInt32LE(BLKSIZE),
  };
}

export function encodeEntryOut(out: Buffer, at: number, entry: EntryOut): number {
  out.fill(0, at, at + ENTRY_ATTR);
  writeU64(out, at + ENTRY_NODE_ID, entry.nodeId);
  if (entry.generation !== undefined) writeU64(out, at + ENTRY_GENERATION, entry.generation);
  writeU64(out, at + ENTRY_VALID, entry.entryValidSec);
  writeU64(out, at + ENTRY_ATTR_VALID, entry.attrValidSec);
  encodeAttr(out, at + ENTRY_ATTR, entry.attr);
  return ENTRY_OUT_BYTES;
}

/** "No such name", in the form that the kernel remembers; a plain ENOENT it would ask about again. */
export function encodeNegativeEntry(out: Buffer, at: number, entryValidSec: number): number {
  out.fill(0, at, at + ENTRY_OUT_BYTES);
  writeU64(out, at + ENTRY_VALID, entryValidSec);
  return ENTRY_OUT_BYTES;
}

/** @throws ProtocolError when `bytes` is not 128 bytes long */
export function decodeEntryOut(bytes: Buffer): EntryOut {
  expectSize(bytes, ENTRY_OUT_BYTES, 'entry_out');
  return {
    nodeId: readU64(bytes, ENTRY_NODE_ID),
    entryValidSec: readU64(bytes, ENTRY_VALID),
    attrValidSec: readU64(bytes, ENTRY_ATTR_VALID),
    attr: decodeAttr(bytes.subarray(ENTRY_ATTR)),
  };
}

export function encodeAttrOut(out: Buffer, at: number, reply: AttrOut): number {
  out.fill(0, at, at + ATTR_OUT_ATTR);
  writeU64(out, at + ATTR_VALID, reply.attrValidSec);
  encodeAttr(out, at + ATTR_OUT_ATTR, reply.attr);
  return ATTR_OUT_BYTES;
}

/** @throws ProtocolError when `bytes` is not 104 bytes long */
export function decodeAttrOut(bytes: Buffer): AttrOut {
  expectSize(bytes, ATTR_OUT_BYTES, 'attr_out');
  return { attrValidSec: readU64(bytes, ATTR_VALID), attr: decodeAttr(bytes.subarray(ATTR_OUT_ATTR)) };
}
