import { REQUEST_HEADER_BYTES } from './header.ts';
import { expectAtLeast, expectSize, readU64, writeU64 } from './wire.ts';

// struct fuse_write_in (linux/fuse.h): 40 bytes, then the data.
export const WRITE_IN_BYTES = 40;
const WRITE_OFFSET = 8; // u64
const WRITE_SIZE = 16; // u32
const WRITE_FLAGS = 20; // u32
/** FUSE_WRITE_KILL_SUIDGID: whoever writes may not keep the setuid and setgid bits. */
const KILL_SUIDGID = 4;

export interface WriteIn {
  offset: number;
  killsSetuid: boolean;
  /** A view of the request. */
  data: Buffer;
}

/** @throws ProtocolError when there is not as much data as it says */
export function decodeWriteIn(request: Buffer): WriteIn {
  const at = REQUEST_HEADER_BYTES;
  expectAtLeast(request, at + WRITE_IN_BYTES, 'write_in');
  const sizeBytes = request.readUInt32LE(at + WRITE_SIZE);
  expectSize(request, at + WRITE_IN_BYTES + sizeBytes, 'write_in and its data');
  return {
    offset: readU64(request, at + WRITE_OFFSET),
    killsSetuid: (request.readUInt32LE(at + WRITE_FLAGS) & KILL_SUIDGID) !== 0,
    data: request.subarray(at + WRITE_IN_BYTES),
  };
}

export function encodeWriteIn(out: Buffer, at: number, { offset, killsSetuid, data }: WriteIn): number {
  out.fill(0, at, at + WRITE_IN_BYTES);
  writeU64(out, at + WRITE_OFFSET, offset);
  out.writeUInt32LE(data.length, at + WRITE_SIZE);
  out.writeUInt32LE(killsSetuid ? KILL_SUIDGID : 0, at + WRITE_FLAGS);
  return WRITE_IN_BYTES + data.copy(out, at + WRITE_IN_BYTES);
}

// struct fuse_write_out: 8 bytes; COPY_FILE_RANGE answers it too.
export const WRITE_OUT_BYTES = 8;

export function encodeWriteOut(out: Buffer, at: number, sizeBytes: number): number {
  out.fill(0, at, at + WRITE_OUT_BYTES);
  out.writeUInt32LE(sizeBytes, at);
  return WRITE_OUT_BYTES;
}

// struct fuse_fsync_in: 16 bytes; FSYNC and FSYNCDIR send it.
const FSYNC_IN_BYTES = 16;
const FSYNC_FLAGS = 8; // u32
const FSYNC_DATA_ONLY = 1;

/** @returns whether the data alone is meant @throws ProtocolError when the request is not exactly this long */
export function decodeFsyncIn(request: Buffer): boolean {
  expectSize(request, REQUEST_HEADER_BYTES + FSYNC_IN_BYTES, 'fsync_in');
  return (request.readUInt32LE(REQUEST_HEADER_BYTES + FSYNC_FLAGS) & FSYNC_DATA_ONLY) !== 0;
}

// struct fuse_fallocate_in: 32 bytes.
const FALLOCATE_IN_BYTES = 32;
const FALLOCATE_OFFSET = 8; // u64
const FALLOCATE_LENGTH = 16; // u64
const FALLOCATE_MODE = 24; // u32, FALLOC_FL_*

export interface FallocateIn {
  offset: number;
  lengthBytes: number;
  mode: number;
}

/** @throws ProtocolError when the request is not exactly this long */
export function decodeFallocateIn(request: Buffer): FallocateIn {
  const at = REQUEST_HEADER_BYTES;
  expectSize(request, at + FALLOCATE_IN_BYTES, 'fallocate_in');
  return {
    offset: readU64(request, at + FALLOCATE_OFFSET),
    lengthBytes: readU64(request, at + FALLOCATE_LENGTH),
    mode: request.readUInt32LE(at + FALLOCATE_MODE),
  };
}

export function encodeFallocateIn(out: Buffer, at: number, { offset, lengthBytes, mode }: FallocateIn): number {
  out.fill(0, at, at + FALLOCATE_IN_BYTES);
  writeU64(out, at + FALLOCATE_OFFSET, offset);
  writeU64(out, at + FALLOCATE_LENGTH, lengthBytes);
  out.writeUInt32LE(mode, at + FALLOCATE_MODE);
  return FALLOCATE_IN_BYTES;
}

// struct fuse_lseek_in: 24 bytes; struct fuse_lseek_out: 8 bytes.
const LSEEK_IN_BYTES = 24;
const LSEEK_OFFSET = 8; // u64
const LSEEK_WHENCE = 16; // u32, SEEK_DATA or SEEK_HOLE
export const LSEEK_OUT_BYTES = 8;

/** @throws ProtocolError when the request is not exactly this long */
export function decodeLseekIn(request: Buffer): { offset: number; whence: number } {
  const at = REQUEST_HEADER_BYTES;
  expectSize(request, at + LSEEK_IN_BYTES, 'lseek_in');
  return { offset: readU64(request, at + LSEEK_OFFSET), whence: request.readUInt32LE(at + LSEEK_WHENCE) };
}

export function encodeLseekIn(out: Buffer, at: number, { offset, whence }: { offset: number; whence: number }): number {
  out.fill(0, at, at + LSEEK_IN_BYTES);
  writeU64(out, at + LSEEK_OFFSET, offset);
  out.writeUInt32LE(whence, at + LSEEK_WHENCE);
  return LSEEK_IN_BYTES;
}

export function encodeLseekOut(out: Buffer, at: number, offset: number): number {
  writeU64(out, at, offset);
  return LSEEK_OUT_BYTES;
}

// struct fuse_copy_file_range_in: 56 bytes; the header's node is read from.
const COPY_IN_BYTES = 56;
const COPY_OFFSET_IN = 8; // u64
const COPY_NODE_OUT = 16; // u64
const COPY_OFFSET_OUT = 32; // u64
const COPY_LENGTH = 40; // u64

export interface CopyFileRangeIn {
  offset: number;
  /** What is written to. */
  toNodeId: number;
  toOffset: number;
  lengthBytes: number;
}

/** @throws ProtocolError when the request is not exactly this long */
export function decodeCopyFileRangeIn(request: Buffer): CopyFileRangeIn {
  const at = REQUEST_HEADER_BYTES;
  expectSize(request, at + COPY_IN_BYTES, 'copy_file_range_in');
  return {
    offset: readU64(request, at + COPY_OFFSET_IN),
    toNodeId: readU64(request, at + COPY_NODE_OUT),
    toOffset: readU64(request, at + COPY_OFFSET_OUT),
    lengthBytes: readU64(request, at + COPY_LENGTH),
  };
}

export function encodeCopyFileRangeIn(out: Buffer, at: number, copy: CopyFileRangeIn): number {
  out.fill(0, at, at + COPY_IN_BYTES);
  writeU64(out, at + COPY_OFFSET_IN, copy.offset);
  writeU64(out, at + COPY_NODE_OUT, copy.toNodeId);
  writeU64(out, at + COPY_OFFSET_OUT, copy.toOffset);
  writeU64(out, at + COPY_LENGTH, copy.lengthBytes);
  return COPY_IN_BYTES;
}

// struct fuse_copy_file_range_out: 8 bytes; COPY_FILE_RANGE_64 is answered with it.
export function encodeCopyFileRangeOut(out: Buffer, at: number, sizeBytes: number): number {
  writeU64(out, at, sizeBytes);
  return WRITE_OUT_BYTES;
}
