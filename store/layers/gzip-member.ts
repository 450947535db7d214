import { promisify } from 'node:util';
import { constants, crc32, deflateRaw, deflateRawSync, inflateRaw, inflateRawSync, type ZlibOptions } from 'node:zlib';

import { BentoError, errnoOf } from '../errors.ts';

/**
 * Part of the format: another level gives other bytes, and so other digests for the same files. Level 4 takes 40 % of the
 * time of level 6 and 6 % more room (docs/benchmarks.md).
 */
export const GZIP_LEVEL = 4;
/** The most memory zlib will use: 4 % faster than its default, and part of the format for the same reason. */
const DEFLATE: ZlibOptions = { level: GZIP_LEVEL, memLevel: 9 };

/** Uncompressed bytes of a chunk that are compressed without a look at the rest of it. Part of the format, too. */
export const SEGMENT_BYTES = 128 * 1024;
/** How a segment ends that is not the last: an empty stored block, after which bytes begin anew (zlib's Z_FULL_FLUSH). */
export const SEGMENT_END = Buffer.from('0000ffff', 'hex');

/** RFC 1952: magic, deflate, no flags, no time, no hint, unknown system. The same for every member bento writes. */
export const GZIP_HEADER = Buffer.from('1f8b080000000000' + '00ff', 'hex');
const TRAILER_BYTES = 8; // CRC32 and length modulo 2^32, both u32
const FIXED_HEADER_BYTES = 10;
const FLAGS = 3;
const FHCRC = 1 << 1;
const FEXTRA = 1 << 2;
const FNAME = 1 << 3;
const FCOMMENT = 1 << 4;

/** After a wanted piece a foreign member may run on with tar headers or other files; more than this is a bomb. */
const MEMBER_TAIL_BYTES_MAX = 64 * 1024 * 1024;
/** Up to here the way to a thread and back costs more than compressing (measured: 100 µs against 15 to 60). */
const THREAD_BYTES_MIN = 32 * 1024;
const DEFLATE_CHUNK_BYTES_MIN = 16 * 1024;
const ZLIB_CHUNK_BYTES_MIN = 1024;
/** A chunk of the largest size bento writes comes out in one buffer: pieces would have to be joined in another. */
const ZLIB_CHUNK_BYTES_MAX = 4 * 1024 * 1024 + 64;
/** What a member says of its own size is believed up to so many times its compressed bytes. */
const INFLATED_TIMES_MAX = 16;

export interface InflateLimit {
  /** More inflated bytes than this are refused. */
  sizeMax: number;
  /** How many there probably are, so that they need not be put together from pieces of 4 MiB. */
  sizeHint?: number;
}

/** An inflated member and how many compressed bytes it took, header and trailer included. */
export interface InflatedMember {
  bytes: Buffer;
  memberBytes: number;
}

interface InflateInfo {
  buffer: Buffer;
  engine: { bytesWritten: number };
}

type Zip<Result> = (bytes: Buffer, options: ZlibOptions) => Promise<Result>;
const deflateRawAsync = promisify(deflateRaw) as Zip<Buffer>;
const inflateRawAsync = promisify(inflateRaw) as Zip<Buffer>;
const inflateRawInfo = promisify(inflateRaw) as unknown as Zip<InflateInfo>;

/** Compresses to one gzip member, on a thread of zlib's pool when that pays. Equal bytes give equal members. */
export async function gzipMember(bytes: Buffer): Promise<Buffer> {
  if (bytes.length <= THREAD_BYTES_MIN) return gzipMemberSync(bytes);
  return frame(bytes, await deflateRawAsync(bytes, deflateOptions(bytes.length)));
}

export function gzipMemberSync(bytes: Buffer): Buffer {
  return frame(bytes, deflateRawSync(bytes, deflateOptions(bytes.length)));
}

/**
 * Compresses a chunk of a large file to one gzip member of segments that know nothing of one another: an edit changes the
 * compressed bytes of the segment it is in, and the others can be taken from where they lie already. Costs 1.5 % of room.
 */
export function gzipChunkSync(bytes: Buffer): Buffer {
  if (bytes.length <= SEGMENT_BYTES) return gzipMemberSync(bytes);
  const segments: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += SEGMENT_BYTES) {
    const segment = bytes.subarray(at, at + SEGMENT_BYTES);
    const isLast = at + SEGMENT_BYTES >= bytes.length;
    const finishFlush = isLast ? constants.Z_FINISH : constants.Z_FULL_FLUSH;
    segments.push(deflateRawSync(segment, { ...deflateOptions(segment.length), finishFlush }));
  }
  return frame(bytes, ...segments);
}

/** One output buffer of about the right size: many small ones would be put together in yet another. */
function deflateOptions(sizeBytes: number): ZlibOptions {
  const chunkSize = Math.min(Math.max(Math.ceil(sizeBytes / 2), DEFLATE_CHUNK_BYTES_MIN), ZLIB_CHUNK_BYTES_MAX);
  return { ...DEFLATE, chunkSize };
}

/** In a buffer of its own, which can be handed to another thread. */
function frame(bytes: Buffer, ...deflated: Buffer[]): Buffer {
  const deflatedBytes = deflated.reduce((sum, { length }) => sum + length, 0);
  const member = Buffer.allocUnsafeSlow(GZIP_HEADER.length + deflatedBytes + TRAILER_BYTES);
  let at = GZIP_HEADER.copy(member);
  for (const part of deflated) at += part.copy(member, at);
  member.writeUInt32LE(crc32(bytes), member.length - TRAILER_BYTES);
  member.writeUInt32LE(bytes.length % 2 ** 32, member.length - 4);
  return member;
}

/**
 * Inflates the first gzip member of `bytes`; whatever follows it is not looked at.
 *
 * @throws BentoError FORMAT_INVALID when it is not a whole member or inflates to more than `sizeMax` bytes,
 *   DIGEST_MISMATCH when its checksum is wrong
 */
export async function inflateMember(bytes: Buffer, { sizeMax, sizeHint }: InflateLimit): Promise<InflatedMember> {
  const start = headerBytes(bytes);
  const options = { ...inflateOptions(sizeMax, sizeHint), info: true };
  const info = await inflateRawInfo(bytes.subarray(start), options).catch((error: unknown) => {
    throw inflateError(error, sizeMax);
  });
  return checkTrailer(bytes, start + info.engine.bytesWritten, info.buffer);
}

/**
 * As {@link inflateMember}, for a large member: its end, which says how long it is, is probably that of `bytes`.
 *
 * @throws BentoError as {@link inflateMember} does
 */
export async function gunzipMember(bytes: Buffer, { sizeMax }: InflateLimit): Promise<Buffer> {
  const said = bytes.length < TRAILER_BYTES ? 0 : bytes.readUInt32LE(bytes.length - 4);
  const sizeHint = Math.min(said, sizeMax, bytes.length * INFLATED_TIMES_MAX);
  return (await inflateMember(bytes, { sizeMax, sizeHint })).bytes;
}

/** @throws BentoError as {@link inflateMember} does */
export function gunzipMemberSync(bytes: Buffer, limit: InflateLimit): Buffer {
  return inflateMemberSync(bytes, limit).bytes;
}

/** @throws BentoError as {@link inflateMember} does */
export function inflateMemberSync(bytes: Buffer, { sizeMax }: InflateLimit): InflatedMember {
  const start = headerBytes(bytes);
  let info: InflateInfo;
  try {
    const options = { ...inflateOptions(sizeMax), info: true };
    info = inflateRawSync(bytes.subarray(start), options) as unknown as InflateInfo;
  } catch (error) {
    throw inflateError(error, sizeMax);
  }
  return checkTrailer(bytes, start + info.engine.bytesWritten, info.buffer);
}

/**
 * The first `lengthBytes` inflated bytes of a member that may be cut off after them, and perhaps more than asked for.
 * Its checksum is not looked at: the caller holds a digest.
 *
 * @throws BentoError FORMAT_INVALID when it is not a member; a short result is the caller's to notice
 */
export async function gunzipPrefix(bytes: Buffer, lengthBytes: number): Promise<Buffer> {
  try {
    return await inflateRawAsync(bytes.subarray(headerBytes(bytes)), prefixOptions(lengthBytes));
  } catch (error) {
    throw inflateError(error, lengthBytes);
  }
}

/** @throws BentoError as {@link gunzipPrefix} does */
export function gunzipPrefixSync(bytes: Buffer, lengthBytes: number): Buffer {
  try {
    return inflateRawSync(bytes.subarray(headerBytes(bytes)), prefixOptions(lengthBytes));
  } catch (error) {
    throw inflateError(error, lengthBytes);
  }
}

/** An upper bound for the compressed form of `sizeBytes` bytes, whoever compressed them. */
export function memberBytesMax(sizeBytes: number): number {
  return sizeBytes + Math.ceil(sizeBytes / 256) + 4096;
}

function inflateOptions(sizeMax: number, sizeHint = Math.min(sizeMax, ZLIB_CHUNK_BYTES_MAX)): ZlibOptions {
  // One output buffer of the right size instead of many small ones; +64 so that an exact fit does not need a second.
  const chunkSize = Math.max(sizeHint + 64, ZLIB_CHUNK_BYTES_MIN);
  return { maxOutputLength: Math.max(sizeMax, 1), chunkSize };
}

function prefixOptions(lengthBytes: number): ZlibOptions {
  const finishFlush = constants.Z_SYNC_FLUSH; // a cut-off end is no error
  return { ...inflateOptions(lengthBytes), maxOutputLength: lengthBytes + MEMBER_TAIL_BYTES_MAX, finishFlush };
}

function checkTrailer(member: Buffer, at: number, bytes: Buffer): InflatedMember {
  if (at + TRAILER_BYTES > member.length) throw invalidMember('it is cut off');
  if (member.readUInt32LE(at) !== crc32(bytes) || member.readUInt32LE(at + 4) !== bytes.length % 2 ** 32) {
    throw new BentoError('DIGEST_MISMATCH', 'a gzip member does not match its checksum');
  }
  return { bytes, memberBytes: at + TRAILER_BYTES };
}

function headerBytes(member: Buffer): number {
  if (member.length < FIXED_HEADER_BYTES || member.readUIntBE(0, 3) !== 0x1f8b08) throw invalidMember('no gzip header');
  const flags = member.readUInt8(FLAGS);
  let at = FIXED_HEADER_BYTES;
  if (flags & FEXTRA) at += 2 + (at + 2 <= member.length ? member.readUInt16LE(at) : 0);
  if (flags & FNAME) at = afterNul(member, at);
  if (flags & FCOMMENT) at = afterNul(member, at);
  if (flags & FHCRC) at += 2;
  if (at > member.length) throw invalidMember('its header is cut off');
  return at;
}

function afterNul(member: Buffer, at: number): number {
  const nul = member.indexOf(0, at);
  if (nul < 0) throw invalidMember('its header is cut off');
  return nul + 1;
}

function inflateError(error: unknown, sizeMax: number): unknown {
  if (error instanceof BentoError) return error;
  const code = errnoOf(error) ?? '';
  if (code === 'ERR_BUFFER_TOO_LARGE') return invalidMember(`it inflates to more than ${sizeMax} bytes`, error);
  return code.startsWith('Z_') ? invalidMember((error as Error).message, error) : error;
}

function invalidMember(why: string, cause?: unknown): BentoError {
  return new BentoError('FORMAT_INVALID', `a gzip member cannot be read: ${why}`, { cause });
}
