import { INIT_FLAG_BITS, type InitFlag } from './constants.ts';
import { REQUEST_HEADER_BYTES } from './header.ts';
import { expectAtLeast, expectSize } from './wire.ts';

// struct fuse_init_in (linux/fuse.h): 64 bytes, 16 before 7.36; may grow again unannounced.
export const INIT_IN_BYTES = 64;
const SHORT_INIT_IN_BYTES = 16;
const IN_MAJOR = 0; // u32
const IN_MINOR = 4; // u32
const IN_MAX_READAHEAD = 8; // u32, bytes
const IN_FLAGS = 12; // u32
const IN_FLAGS2 = 16; // u32

// struct fuse_init_out: 64 bytes.
export const INIT_OUT_BYTES = 64;
const OUT_MAJOR = 0; // u32
const OUT_MINOR = 4; // u32
const OUT_MAX_READAHEAD = 8; // u32, bytes
const OUT_FLAGS = 12; // u32
const OUT_MAX_BACKGROUND = 16; // u16
const OUT_CONGESTION_THRESHOLD = 18; // u16
const OUT_MAX_WRITE = 20; // u32, bytes
const OUT_TIME_GRAN = 24; // u32, nanoseconds
const OUT_MAX_PAGES = 28; // u16
const OUT_FLAGS2 = 32; // u32, read by the kernel only with INIT_EXT
const OUT_MAX_STACK_DEPTH = 36; // u32, read by the kernel only with PASSTHROUGH

const FLAGS_PER_WORD = 32;

/** What the kernel offers. */
export interface InitIn {
  major: number;
  minor: number;
  maxReadaheadBytes: number;
  /** Flags this file does not know are left out. */
  flags: InitFlag[];
}

/** What we make of it. */
export interface InitOut extends InitIn {
  /** How many requests nobody waits for may be under way. */
  maxBackground: number;
  /** How many of them make the kernel call us congested. */
  congestionThreshold: number;
  maxWriteBytes: number;
  /** Granularity of timestamps in nanoseconds. */
  timeGranNsec: number;
  /** Largest request in pages of 4 KiB; counts only with MAX_PAGES. */
  maxPages: number;
  /**
   * How many filesystems may lie on one another below a file that is passed through, this one included; 0 without
   * PASSTHROUGH. The kernel knows 1 and 2.
   */
  maxStackDepth: number;
}

/** @throws ProtocolError when the request is cut off */
export function decodeInitIn(request: Buffer): InitIn {
  const body = request.subarray(REQUEST_HEADER_BYTES);
  expectAtLeast(body, SHORT_INIT_IN_BYTES, 'init_in');
  const flags2 = body.length >= INIT_IN_BYTES ? body.readUInt32LE(IN_FLAGS2) : 0;
  return {
    major: body.readUInt32LE(IN_MAJOR),
    minor: body.readUInt32LE(IN_MINOR),
    maxReadaheadBytes: body.readUInt32LE(IN_MAX_READAHEAD),
    flags: flagNames(body.readUInt32LE(IN_FLAGS), flags2),
  };
}

export function encodeInitIn(out: Buffer, at: number, init: InitIn): number {
  out.fill(0, at, at + INIT_IN_BYTES);
  out.writeUInt32LE(init.major, at + IN_MAJOR);
  out.writeUInt32LE(init.minor, at + IN_MINOR);
  out.writeUInt32LE(init.maxReadaheadBytes, at + IN_MAX_READAHEAD);
  out.writeUInt32LE(flagWord(init.flags, 0), at + IN_FLAGS);
  out.writeUInt32LE(flagWord(init.flags, 1), at + IN_FLAGS2);
  return INIT_IN_BYTES;
}

export function encodeInitOut(out: Buffer, at: number, init: InitOut): number {
  out.fill(0, at, at + INIT_OUT_BYTES);
  out.writeUInt32LE(init.major, at + OUT_MAJOR);
  out.writeUInt32LE(init.minor, at + OUT_MINOR);
  out.writeUInt32LE(init.maxReadaheadBytes, at + OUT_MAX_READAHEAD);
  out.writeUInt32LE(flagWord(init.flags, 0), at + OUT_FLAGS);
  out.writeUInt16LE(init.maxBackground, at + OUT_MAX_BACKGROUND);
  out.writeUInt16LE(init.congestionThreshold, at + OUT_CONGESTION_THRESHOLD);
  out.writeUInt32LE(init.maxWriteBytes, at + OUT_MAX_WRITE);
  out.writeUInt32LE(init.timeGranNsec, at + OUT_TIME_GRAN);
  out.writeUInt16LE(init.maxPages, at + OUT_MAX_PAGES);
  out.writeUInt32LE(flagWord(init.flags, 1), at + OUT_FLAGS2);
  out.writeUInt32LE(init.maxStackDepth, at + OUT_MAX_STACK_DEPTH);
  return INIT_OUT_BYTES;
}

/** @throws ProtocolError when `body` is not 64 bytes long */
export function decodeInitOut(body: Buffer): InitOut {
  expectSize(body, INIT_OUT_BYTES, 'init_out');
  return {
    major: body.readUInt32LE(OUT_MAJOR),
    minor: body.readUInt32LE(OUT_MINOR),
    maxReadaheadBytes: body.readUInt32LE(OUT_MAX_READAHEAD),
    flags: flagNames(body.readUInt32LE(OUT_FLAGS), body.readUInt32LE(OUT_FLAGS2)),
    maxBackground: body.readUInt16LE(OUT_MAX_BACKGROUND),
    congestionThreshold: body.readUInt16LE(OUT_CONGESTION_THRESHOLD),
    maxWriteBytes: body.readUInt32LE(OUT_MAX_WRITE),
    timeGranNsec: body.readUInt32LE(OUT_TIME_GRAN),
    maxPages: body.readUInt16LE(OUT_MAX_PAGES),
    maxStackDepth: body.readUInt32LE(OUT_MAX_STACK_DEPTH),
  };
}

/** One of the two 32-bit words the flags are sent as. */
function flagWord(flags: readonly InitFlag[], index: 0 | 1): number {
  const bits = flags.map((flag) => INIT_FLAG_BITS[flag] - index * FLAGS_PER_WORD);
  return bits.filter(isInWord).reduce((word, bit) => word + 2 ** bit, 0);
}

function flagNames(flags: number, flags2: number): InitFlag[] {
  const names = Object.keys(INIT_FLAG_BITS) as InitFlag[];
  return names.filter((name) => {
    const bit = INIT_FLAG_BITS[name];
    return isInWord(bit) ? isSet(flags, bit) : isSet(flags2, bit - FLAGS_PER_WORD);
  });
}

function isInWord(bit: number): boolean {
  return bit >= 0 && bit < FLAGS_PER_WORD;
}

function isSet(word: number, bit: number): boolean {
  return ((word >>> bit) & 1) === 1;
}
