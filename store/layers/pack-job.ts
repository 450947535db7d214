import { hash } from 'node:crypto';
import { closeSync, fstatSync, readSync } from 'node:fs';

import type { ByteString } from '../byte-string.ts';
import { digestOf, type Digest } from '../digest.ts';
import type { Entry } from '../entry.ts';
import { openRegular } from '../regular-file.ts';
import { gzipMemberSync } from './gzip-member.ts';
import { GrowingBuffer, readSteadily, type ChangedFile, type FileTimes } from './steady-read.ts';
import { paddingOf } from './tar-fields.ts';
import { encodeTarHeader } from './tar-header.ts';
import { CHUNK_BYTES } from './toc.ts';

/** Room for a group as it is planned: what goes beyond it is copied to a larger buffer. */
const GROUP_CAPACITY_BYTES = 256 * 1024;
const DIGEST_BYTES = 32;

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
  room?: GroupRoom | undefined;
}

/** Memory that both threads see, so that a group's bytes are neither copied nor allocated anew. */
export interface GroupRoom {
  raw: SharedArrayBuffer;
  member: SharedArrayBuffer;
}

export function newRoom(): GroupRoom {
  return { raw: new SharedArrayBuffer(GROUP_CAPACITY_BYTES), member: new SharedArrayBuffer(GROUP_CAPACITY_BYTES) };
}

/** A piece of a large file, with a member of its own. */
export interface ChunkJob {
  kind: 'chunk';
  source: { kind: 'fd'; fd: number; offset: number; sizeBytes: number } | { kind: 'bytes'; bytes: Uint8Array };
}

/** A whole file of less than a chunk, with a member of its own. */
export interface FileJob {
  kind: 'file';
  source: Exclude<RecordSource, { kind: 'bytes' }>;
}

export type PackJob = GroupJob | ChunkJob | FileJob;

/** What the payloads of a group turned out to be, in the order of its items; small numbers travel cheaply. */
export interface PackedGroup {
  /** Uncompressed; empty when everything in the group is gone. */
  raw: Uint8Array;
  member: Uint8Array;
  /** Bytes of each payload, 0 for what has none, -1 for a file that was gone. */
  sizes: Float64Array;
  /** Uncompressed bytes of the member before each payload. */
  innerOffsets: Float64Array;
  /** 32 bytes for each item; zeros for what is no file. */
  digests: Uint8Array;
  /** By the item's position. */
  changed: Map<number, ChangedFile>;
}

export interface PackedChunk {
  /** Shorter than what was asked for when the file has become so. */
  raw: Uint8Array;
  member: Uint8Array;
  digest: Digest;
}

/** A file packed as one chunk; what is not there any more, or has grown beyond a chunk, is left to the caller. */
export type PackedFile = (PackedChunk & { kind: 'packed'; changed?: ChangedFile }) | { kind: 'gone' } | { kind: 'too large' };

/** Reads, hashes and compresses the entries of a group. Gone files are left out. */
export function packGroup(job: GroupJob): PackedGroup {
  const packer = new GroupPacker(job);
  job.items.forEach((item, i) => packer.add(item, i));
  return packer.finish();
}

class GroupPacker {
  readonly #out: GrowingBuffer;
  readonly #room: GroupRoom | undefined;
  #at = 0;
  readonly #packed: Omit<PackedGroup, 'raw' | 'member'>;

  constructor({ items, room }: GroupJob) {
    this.#out = new GrowingBuffer(room?.raw ?? GROUP_CAPACITY_BYTES);
    this.#room = room;
    this.#packed = {
      sizes: new Float64Array(items.length),
      innerOffsets: new Float64Array(items.length),
      digests: new Uint8Array(items.length * DIGEST_BYTES),
      changed: new Map(),
    };
  }

  add(item: RecordItem, i: number): void {
    const { source, entry } = item;
    if (source === undefined) return this.#put(encodeTarHeader(entry));
    if (source.kind === 'bytes') return this.#putFile(i, entry, viewOf(source.bytes));
    if (source.kind === 'fd') return this.#read(i, entry, source.fd, source.times);
    const fd = openRegular(source.path);
    if (fd === undefined) return this.#putGone(i, item);
    try {
      this.#read(i, entry, fd, source.times);
    } finally {
      closeSync(fd);
    }
  }

  finish(): PackedGroup {
    const raw = this.#out.bytes.subarray(0, this.#at);
    const member = raw.length === 0 ? Buffer.alloc(0) : gzipMemberSync(raw);
    return { raw, member: this.#inRoom(member), ...this.#packed };
  }

  #inRoom(member: Buffer): Buffer {
    if (this.#room === undefined || member.length > this.#room.member.byteLength) return member;
    const shared = Buffer.from(this.#room.member, 0, member.length);
    member.copy(shared);
    return shared;
  }

  #putGone(i: number, { ifGone }: RecordItem): void {
    this.#packed.sizes[i] = -1;
    if (ifGone !== undefined) this.#put(encodeTarHeader(ifGone));
  }

  /** The header goes first but says what was read, so the place for it is kept and, rarely, turns out too small. */
  #read(i: number, entry: Entry, fd: number, times: FileTimes | undefined): void {
    const header = encodeTarHeader(entry);
    const payloadAt = this.#at + header.length;
    const { sizeBytes, changed } = readSteadily(fd, this.#out, payloadAt, times);
    const bytes = this.#out.bytes.subarray(payloadAt, payloadAt + sizeBytes);
    if (changed !== undefined) this.#packed.changed.set(i, changed);
    if (changed !== undefined || sizeBytes !== entry.sizeBytes) {
      const { mode, mtimeSec, mtimeNsec } = changed ?? entry;
      return this.#putFile(i, { ...entry, mode, mtimeSec, mtimeNsec }, Buffer.from(bytes));
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
    this.#packed.sizes[i] = bytes.length;
    this.#packed.innerOffsets[i] = this.#at;
    this.#packed.digests.set(hash('sha256', bytes, 'buffer'), i * DIGEST_BYTES);
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
export function packFile({ source }: FileJob): PackedFile {
  if (source.kind === 'fd') return packOpenFile(source.fd, source.times);
  const fd = openRegular(source.path);
  if (fd === undefined) return { kind: 'gone' };
  try {
    return packOpenFile(fd, source.times);
  } finally {
    closeSync(fd);
  }
}

function packOpenFile(fd: number, times: FileTimes | undefined): PackedFile {
  if (fstatSync(fd).size >= CHUNK_BYTES) return { kind: 'too large' };
  const out = new GrowingBuffer((times?.sizeBytes ?? 0) + 1);
  const { sizeBytes, changed } = readSteadily(fd, out, 0, times);
  if (sizeBytes >= CHUNK_BYTES) return { kind: 'too large' };
  const raw = out.bytes.subarray(0, sizeBytes);
  return { kind: 'packed', raw, member: gzipMemberSync(raw), digest: digestOf(raw), ...(changed && { changed }) };
}

/** Reads, hashes and compresses a piece of a large file. */
export function packChunk({ source }: ChunkJob): PackedChunk {
  const raw = source.kind === 'bytes' ? viewOf(source.bytes) : readRange(source);
  return { raw, member: gzipMemberSync(raw), digest: digestOf(raw) };
}

/** The same bytes: what comes from another thread is no Buffer any more. */
function viewOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function readRange({ fd, offset, sizeBytes }: { fd: number; offset: number; sizeBytes: number }): Buffer {
  const bytes = Buffer.allocUnsafeSlow(sizeBytes);
  let done = 0;
  while (done < sizeBytes) {
    const read = readSync(fd, bytes, done, sizeBytes - done, offset + done);
    if (read === 0) break;
    done += read;
  }
  return bytes.subarray(0, done);
}
