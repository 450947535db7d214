import { hash } from 'node:crypto';
import { closeSync, fstatSync, readSync } from 'node:fs';

import type { ByteString } from '../byte-string.ts';
import { digestOf, type Digest } from '../digest.ts';
import type { Entry } from '../entry.ts';
import { openRegular } from '../regular-file.ts';
import { readEarlier, reusableMember, sameBytes, type EarlierChunk, type SameBytes } from './earlier-chunk.ts';
import { gzipChunkSync, gzipMemberSync, memberBytesMax } from './gzip-member.ts';
import { GrowingBuffer, readSteadily, type ChangedFile, type FileTimes } from './steady-read.ts';
import { paddingOf } from './tar-fields.ts';
import { encodeTarHeader } from './tar-header.ts';
import { CHUNK_BYTES } from './toc.ts';

/** Where the bytes of a small file are. */
export type RecordSource =
  | { kind: 'path'; path: ByteString; times: FileTimes | undefined }
  | { kind: 'fd'; fd: number; times: FileTimes | undefined }
  | { kind: 'bytes'; bytes: Uint8Array };

/** One entry of a group. */
export interface RecordItem {
  entry: Entry;
  /** Of a file. */
  source?: RecordSource | undefined;
  /** What is written in its place when the file is gone; nothing when absent. */
  ifGone?: Entry | undefined;
}

/** Whole tar records that share one gzip member. */
export interface GroupJob {
  kind: 'group';
  items: readonly RecordItem[];
  room: GroupRoom;
}

/** Memory that both threads see: what is packed there is neither sent nor allocated anew for each group. */
export interface GroupRoom {
  raw: SharedArrayBuffer;
  member: SharedArrayBuffer;
  facts: SharedArrayBuffer;
}

/** Room for a group as it is planned; one that outgrows it travels in memory of its own. */
const GROUP_CAPACITY_BYTES = 256 * 1024;
const DIGEST_BYTES = 32;
/** Size, inner offset and digest of an item's payload. */
const FACT_BYTES = 8 + 8 + DIGEST_BYTES;
const ITEMS_MAX = 256;

export function newRoom(): GroupRoom {
  return {
    raw: new SharedArrayBuffer(GROUP_CAPACITY_BYTES),
    member: new SharedArrayBuffer(GROUP_CAPACITY_BYTES),
    facts: new SharedArrayBuffer(ITEMS_MAX * FACT_BYTES),
  };
}

/** What the payloads of a group turned out to be, by the item's position. */
export class GroupFacts {
  readonly #sizes: Float64Array;
  readonly #innerOffsets: Float64Array;
  readonly #digests: Buffer;

  constructor({ facts }: GroupRoom) {
    this.#sizes = new Float64Array(facts, 0, ITEMS_MAX);
    this.#innerOffsets = new Float64Array(facts, ITEMS_MAX * 8, ITEMS_MAX);
    this.#digests = Buffer.from(facts, ITEMS_MAX * 16);
  }

  setGone(i: number): void {
    this.#sizes[i] = -1;
  }

  setNothing(i: number): void {
    this.#sizes[i] = 0;
  }

  setPayload(i: number, payload: { sizeBytes: number; innerOffset: number; digest: Buffer }): void {
    this.#sizes[i] = payload.sizeBytes;
    this.#innerOffsets[i] = payload.innerOffset;
    payload.digest.copy(this.#digests, i * DIGEST_BYTES);
  }

  isGone(i: number): boolean {
    return this.sizeBytes(i) < 0;
  }

  sizeBytes(i: number): number {
    return this.#sizes[i] ?? 0;
  }

  /** Uncompressed bytes of the member before the payload. */
  innerOffset(i: number): number {
    return this.#innerOffsets[i] ?? 0;
  }

  digest(i: number): Digest {
    return `sha256:${this.#digests.toString('hex', i * DIGEST_BYTES, (i + 1) * DIGEST_BYTES)}`;
  }
}

/** A piece of a large file, with a member of its own. */
export interface ChunkJob {
  kind: 'chunk';
  room: ChunkRoom;
  /** What was at the same place before. */
  earlier?: EarlierChunk | undefined;
  source: { kind: 'fd'; fd: number; offset: number; sizeBytes: number } | { kind: 'bytes'; bytes: Uint8Array };
}

/** Where a chunk is read from: an open file, or bytes at hand. */
export type ChunkSource = ChunkJob['source'];

/** Memory that both threads see, for one chunk. */
export interface ChunkRoom {
  raw: SharedArrayBuffer;
  member: SharedArrayBuffer;
}

export function newChunkRoom(): ChunkRoom {
  return {
    raw: new SharedArrayBuffer(CHUNK_BYTES + 1), // one more, to see whether a file has grown
    member: new SharedArrayBuffer(memberBytesMax(CHUNK_BYTES)),
  };
}

/** A whole file of less than a chunk, with a member of its own. */
export interface FileJob {
  kind: 'file';
  room: ChunkRoom;
  source: Exclude<RecordSource, { kind: 'bytes' }>;
}

export type PackJob = GroupJob | ChunkJob | FileJob;

/** How much of its room a group takes, and what does not fit there. */
export interface GroupReply {
  rawBytes: number;
  memberBytes: number;
  outgrown?: { raw: Uint8Array; member: Uint8Array };
  /** By the item's position. */
  changed?: Map<number, ChangedFile>;
}

/** How much of its room a chunk takes: less than was asked for when the file has become shorter. */
export interface ChunkReply {
  rawBytes: number;
  memberBytes: number;
  digest: Digest;
  /** What of the member an earlier one has, too. */
  same?: SameBytes[];
}

/** A file packed as one chunk; what is not there any more, or has grown beyond a chunk, is left to the caller. */
export type FileReply =
  (ChunkReply & { kind: 'packed'; changed: ChangedFile | undefined }) | { kind: 'gone' } | { kind: 'too large' };

/** Reads, hashes and compresses the entries of a group. Gone files are left out. */
export function packGroup(job: GroupJob): GroupReply {
  const packer = new GroupPacker(job.room);
  job.items.forEach((item, i) => packer.add(item, i));
  return packer.finish();
}

class GroupPacker {
  readonly #room: GroupRoom;
  readonly #out: GrowingBuffer;
  readonly #facts: GroupFacts;
  readonly #changed = new Map<number, ChangedFile>();
  #at = 0;

  constructor(room: GroupRoom) {
    this.#room = room;
    this.#out = new GrowingBuffer(room.raw);
    this.#facts = new GroupFacts(room);
  }

  add(item: RecordItem, i: number): void {
    const { source, entry } = item;
    if (source === undefined) this.#putBare(i, entry);
    else if (source.kind === 'bytes') this.#putFile(i, entry, viewOf(source.bytes));
    else if (source.kind === 'fd') this.#read(i, entry, source.fd, source.times);
    else this.#open(i, item, source);
  }

  finish(): GroupReply {
    const raw = this.#out.bytes.subarray(0, this.#at);
    const member = raw.length === 0 ? Buffer.alloc(0) : gzipMemberSync(raw);
    const isIn = this.#out.bytes.buffer === this.#room.raw && member.length <= this.#room.member.byteLength;
    if (isIn) member.copy(Buffer.from(this.#room.member));
    return {
      rawBytes: raw.length,
      memberBytes: member.length,
      ...(!isIn && { outgrown: { raw: Buffer.from(raw), member } }),
      ...(this.#changed.size > 0 && { changed: this.#changed }),
    };
  }

  #putBare(i: number, entry: Entry): void {
    this.#facts.setNothing(i);
    this.#put(encodeTarHeader(entry));
  }

  #open(i: number, item: RecordItem, { path, times }: { path: ByteString; times: FileTimes | undefined }): void {
    const fd = openRegular(path);
    if (fd === undefined) {
      this.#putGone(i, item);
      return;
    }
    try {
      this.#read(i, item.entry, fd, times);
    } finally {
      closeSync(fd);
    }
  }

  #putGone(i: number, { ifGone }: RecordItem): void {
    this.#facts.setGone(i);
    if (ifGone !== undefined) this.#put(encodeTarHeader(ifGone));
  }

  /** The header goes first but says what was read, so the place for it is kept and, rarely, turns out too small. */
  #read(i: number, entry: Entry, fd: number, times: FileTimes | undefined): void {
    const header = encodeTarHeader(entry);
    const payloadAt = this.#at + header.length;
    const { sizeBytes, changed } = readSteadily(fd, this.#out, payloadAt, times);
    const bytes = this.#out.bytes.subarray(payloadAt, payloadAt + sizeBytes);
    if (changed !== undefined) this.#changed.set(i, changed);
    if (changed !== undefined || sizeBytes !== entry.sizeBytes) {
      const { mode, mtimeSec, mtimeNsec } = changed ?? entry;
      this.#putFile(i, { ...entry, mode, mtimeSec, mtimeNsec }, Buffer.from(bytes));
      return;
    }
    this.#put(header);
    this.#note(i, bytes);
    this.#at += sizeBytes;
    this.#pad(sizeBytes);
  }

  #putFile(i: number, entry: Entry, bytes: Buffer): void {
    this.#put(encodeTarHeader({ ...entry, sizeBytes: bytes.length }));
    this.#note(i, bytes);
    this.#put(bytes);
    this.#pad(bytes.length);
  }

  /** A payload that begins here. */
  #note(i: number, bytes: Buffer): void {
    const digest = hash('sha256', bytes, 'buffer');
    this.#facts.setPayload(i, { sizeBytes: bytes.length, innerOffset: this.#at, digest });
  }

  #put(bytes: Buffer): void {
    this.#out.reserve(this.#at, bytes.length);
    bytes.copy(this.#out.bytes, this.#at);
    this.#at += bytes.length;
  }

  #pad(sizeBytes: number): void {
    const paddingBytes = paddingOf(sizeBytes);
    this.#out.reserve(this.#at, paddingBytes);
    this.#out.bytes.fill(0, this.#at, this.#at + paddingBytes);
    this.#at += paddingBytes;
  }
}

/** Reads, hashes and compresses a file that is to have a member of its own. */
export function packFile({ source, room }: FileJob): FileReply {
  if (source.kind === 'fd') return packOpenFile(source.fd, source.times, room);
  const fd = openRegular(source.path);
  if (fd === undefined) return { kind: 'gone' };
  try {
    return packOpenFile(fd, source.times, room);
  } finally {
    closeSync(fd);
  }
}

function packOpenFile(fd: number, times: FileTimes | undefined, room: ChunkRoom): FileReply {
  if (fstatSync(fd).size >= CHUNK_BYTES) return { kind: 'too large' };
  const out = new GrowingBuffer(room.raw);
  const { sizeBytes, changed } = readSteadily(fd, out, 0, times);
  if (sizeBytes >= CHUNK_BYTES || out.bytes.buffer !== room.raw) return { kind: 'too large' };
  return { kind: 'packed', ...deflateIn(room, sizeBytes), changed };
}

/** Reads, hashes and compresses a piece of a large file. */
export function packChunk({ source, room, earlier }: ChunkJob): ChunkReply {
  const rawBytes = source.kind === 'fd' ? readRange(source, Buffer.from(room.raw)) : source.bytes.length;
  if (source.kind === 'bytes') Buffer.from(room.raw).set(source.bytes);
  const before = earlier && rawBytes > 0 ? readEarlier(earlier) : undefined;
  if (earlier === undefined || before === undefined) return deflateIn(room, rawBytes);
  return (
    reuse(room, rawBytes, { digest: earlier.digest, member: before }) ??
    compare(deflateIn(room, rawBytes), room, before)
  );
}

/** Takes the earlier member as it is when it holds the same bytes. */
function reuse(room: ChunkRoom, rawBytes: number, before: { digest: Digest; member: Buffer }): ChunkReply | undefined {
  const raw = Buffer.from(room.raw, 0, rawBytes);
  const digest = digestOf(raw);
  const member = digest === before.digest ? reusableMember(before.member, raw) : undefined;
  if (member === undefined || member.length > room.member.byteLength) return undefined;
  member.copy(Buffer.from(room.member));
  return { rawBytes, memberBytes: member.length, digest, same: [{ at: 0, from: 0, lengthBytes: member.length }] };
}

function compare(packed: ChunkReply, room: ChunkRoom, before: Buffer): ChunkReply {
  return { ...packed, same: sameBytes(Buffer.from(room.member, 0, packed.memberBytes), before) };
}

function deflateIn(room: ChunkRoom, rawBytes: number): ChunkReply {
  const raw = Buffer.from(room.raw, 0, rawBytes);
  const member = gzipChunkSync(raw);
  member.copy(Buffer.from(room.member));
  return { rawBytes, memberBytes: member.length, digest: digestOf(raw) };
}

/** The same bytes: what comes from another thread is no Buffer any more. */
function viewOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** @returns how many bytes there were */
function readRange({ fd, offset, sizeBytes }: { fd: number; offset: number; sizeBytes: number }, into: Buffer): number {
  let done = 0;
  while (done < sizeBytes) {
    const read = readSync(fd, into, done, sizeBytes - done, offset + done);
    if (read === 0) break;
    done += read;
  }
  return done;
}
