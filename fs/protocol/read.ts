import { REQUEST_HEADER_BYTES } from './header.ts';
import { expectSize, readU64, writeU64 } from './wire.ts';

// struct fuse_read_in (linux/fuse.h): 40 bytes; READ, READDIR and READDIRPLUS send it.
export const READ_IN_BYTES = 40;
const FH = 0; // u64
const OFFSET = 8; // u64, bytes into the file, or the cookie of a listing
const SIZE = 16; // u32, bytes
// After it: read_flags u32, lock_owner u64, open flags u32, padding u32. They do not matter to an immutable file.

export interface ReadIn {
  fh: number;
  offset: number;
  /** How much the kernel has room for. */
  sizeBytes: number;
}

/** @throws ProtocolError when the request is not exactly this long */
export function decodeReadIn(request: Buffer): ReadIn {
  expectSize(request, REQUEST_HEADER_BYTES + READ_IN_BYTES, 'read_in');
  return {
    fh: readU64(request, REQUEST_HEADER_BYTES + FH),
    offset: readU64(request, REQUEST_HEADER_BYTES + OFFSET),
    sizeBytes: request.readUInt32LE(REQUEST_HEADER_BYTES + SIZE),
  };
}

export function encodeReadIn(out: Buffer, at: number, read: ReadIn): number {
  out.fill(0, at, at + READ_IN_BYTES);
  writeU64(out, at + FH, read.fh);
  writeU64(out, at + OFFSET, read.offset);
  out.writeUInt32LE(read.sizeBytes, at + SIZE);
  return READ_IN_BYTES;
}
