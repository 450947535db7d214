import { expectSize, readU64, writeU64 } from './wire.ts';

// struct fuse_open_out (linux/fuse.h): 16 bytes; OPEN and OPENDIR answer it.
export const OPEN_OUT_BYTES = 16;
const FH = 0; // u64
const OPEN_FLAGS = 8; // u32, OPEN_FLAG
const BACKING_ID = 12; // i32, only with PASSTHROUGH

export interface OpenOut {
  /** Our name for the open file; comes back in READ and RELEASE. */
  fh: number;
  /** `OPEN_FLAG` bits. */
  openFlags: number;
  backingId: number;
}

export function encodeOpenOut(out: Buffer, at: number, open: OpenOut): number {
  writeU64(out, at + FH, open.fh);
  out.writeUInt32LE(open.openFlags, at + OPEN_FLAGS);
  out.writeInt32LE(open.backingId, at + BACKING_ID);
  return OPEN_OUT_BYTES;
}

/** @throws ProtocolError when `body` is not 16 bytes long */
export function decodeOpenOut(body: Buffer): OpenOut {
  expectSize(body, OPEN_OUT_BYTES, 'open_out');
  return {
    fh: readU64(body, FH),
    openFlags: body.readUInt32LE(OPEN_FLAGS),
    backingId: body.readInt32LE(BACKING_ID),
  };
}
