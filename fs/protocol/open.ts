import { REQUEST_HEADER_BYTES } from './header.ts';
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

// struct fuse_open_in: 8 bytes; OPEN and OPENDIR send it.
const OPEN_IN_BYTES = 8;
const OPEN_IN_FLAGS = 0; // u32, as open(2) has them
const OPEN_IN_MORE_FLAGS = 4; // u32
const OPEN_KILL_SUIDGID = 1;

export interface OpenIn {
  flags: number;
  /** Whoever truncates with this open may not keep the setuid and setgid bits. */
  killsSetuid: boolean;
}

/** @throws ProtocolError when the request is not exactly this long */
export function decodeOpenIn(request: Buffer): OpenIn {
  expectSize(request, REQUEST_HEADER_BYTES + OPEN_IN_BYTES, 'open_in');
  return {
    flags: request.readUInt32LE(REQUEST_HEADER_BYTES + OPEN_IN_FLAGS),
    killsSetuid: (request.readUInt32LE(REQUEST_HEADER_BYTES + OPEN_IN_MORE_FLAGS) & OPEN_KILL_SUIDGID) !== 0,
  };
}

export function encodeOpenIn(out: Buffer, at: number, { flags, killsSetuid }: OpenIn): number {
  out.writeUInt32LE(flags, at + OPEN_IN_FLAGS);
  out.writeUInt32LE(killsSetuid ? OPEN_KILL_SUIDGID : 0, at + OPEN_IN_MORE_FLAGS);
  return OPEN_IN_BYTES;
}
