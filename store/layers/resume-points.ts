import { closeSync, fstatSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { crc32, inflateRawSync } from 'node:zlib';

import { digestToBytes, hexOf, shortDigest, type Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { openIfThere } from '../open-if-there.ts';
import { SPAN_BLOB_BYTES_MAX, SPAN_BYTES_MAX, WINDOW_BYTES } from './gzip-scanner.ts';
import type { SpanStart } from './inflate-span.ts';

/**
 * `<store>/cache/resume/sha256/<hex of the layer>`: the places at which a foreign compressed layer can be inflated from its
 * midst. Records, one for each place (prefix, then the window, raw deflate), then a table of them, then a footer. Little
 * endian; docs/format.md.
 */
export const RESUME_MAGIC = Buffer.from('bento resume\n\0\0\0');
export const RESUME_VERSION = 1;

/** One row of the table. */
export const ROW = {
  tarOffset: 0, // u64
  blobOffset: 8, // u64
  recordOffset: 16, // u64, from the start of this file
  recordCrc: 24, // u32, CRC-32 of the record
  storedWindowBytes: 28, // u32
  windowBytes: 32, // u16, 32,768 at most
  prefixBytes: 34, // u16
  sharedBits: 36, // u8, and three zeros
  bytes: 40,
} as const;

/** The last bytes of the file. */
export const FOOTER = {
  magic: 0, // 16 bytes
  version: 16, // u32
  rowCount: 20, // u32
  tableOffset: 24, // u64
  tarBytes: 32, // u64, of the whole layer inflated
  streamBytes: 40, // u64, of the blob up to the end of the last member
  digest: 48, // 32 bytes, of the layer
  crc: 80, // u32, CRC-32 of table and footer up to here
  bytes: 84,
} as const;

/** More rows than the longest layer has spans. */
const TABLE_BYTES_MAX = 64 << 20;

/** A stretch of a layer that is inflated as a whole. */
export interface Span {
  /** Its place among the spans of the layer. */
  at: number;
  /** In the uncompressed tar. */
  tarOffset: number;
  tarBytes: number;
  /** In the blob: all that has to be read for it. */
  blobOffset: number;
  blobBytes: number;
}

export function resumeDir(cacheDir: string): string {
  return join(cacheDir, 'resume', 'sha256');
}

export function resumePath(cacheDir: string, digest: Digest): string {
  return join(resumeDir(cacheDir), hexOf(digest));
}

/** Where a foreign compressed layer can be inflated from. Windows are read from the file when they are needed. */
export class ResumePoints {
  readonly #path: string;
  readonly #digest: Digest;
  readonly #table: Buffer;
  readonly tarBytes: number;
  readonly #streamBytes: number;

  private constructor(path: string, digest: Digest, { table, footer }: { table: Buffer; footer: Buffer }) {
    this.#path = path;
    this.#digest = digest;
    this.#table = table;
    this.tarBytes = Number(footer.readBigUInt64LE(FOOTER.tarBytes));
    this.#streamBytes = Number(footer.readBigUInt64LE(FOOTER.streamBytes));
  }

  /** @returns undefined when there are none for this layer, or none that can be used: they can be made anew */
  static load(path: string, digest: Digest): ResumePoints | undefined {
    const read = readTable(path, digest);
    if (read === undefined) return undefined;
    const points = new ResumePoints(path, digest, read);
    return points.#isSound() ? points : undefined;
  }

  /** How many spans there are. */
  get count(): number {
    return this.#table.length / ROW.bytes;
  }

  /** The span that holds a byte of the uncompressed tar; the last one for what lies behind its end. */
  spanAt(tarOffset: number): Span {
    let [low, high] = [0, this.count - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#u64(middle, ROW.tarOffset) <= tarOffset) low = middle;
      else high = middle - 1;
    }
    return this.#span(low);
  }

  /** The spans over which a stretch of the uncompressed tar goes; it must lie within. */
  *spans(tarOffset: number, lengthBytes: number): Generator<Span, void, undefined> {
    if (tarOffset + lengthBytes > this.tarBytes) throw this.#damagedLayer(tarOffset + lengthBytes);
    if (lengthBytes === 0) return;
    let span = this.spanAt(tarOffset);
    for (; span.tarOffset < tarOffset + lengthBytes; span = this.#span(span.at + 1)) {
      yield span;
      if (span.at === this.count - 1) return;
    }
  }

  /** What is needed to inflate a span. @returns undefined when the file is damaged, or gone: it can be made anew */
  start({ at, tarBytes }: Span): SpanStart | undefined {
    const [prefixBytes, windowBytes] = [this.#u16(at, ROW.prefixBytes), this.#u16(at, ROW.windowBytes)];
    const stored = Buffer.allocUnsafe(prefixBytes + this.#u32(at, ROW.storedWindowBytes));
    const isRead = readAt(this.#path, this.#u64(at, ROW.recordOffset), stored);
    if (!isRead || crc32(stored) !== this.#u32(at, ROW.recordCrc)) return undefined;
    const inflating = { chunkSize: WINDOW_BYTES, maxOutputLength: WINDOW_BYTES };
    const window = windowBytes === 0 ? Buffer.alloc(0) : inflateRawSync(stored.subarray(prefixBytes), inflating);
    const sharedBits = this.#table[at * ROW.bytes + ROW.sharedBits] ?? 0;
    return { prefix: { bytes: stored.subarray(0, prefixBytes), sharedBits }, window, tarBytes };
  }

  /** Whether every record is what was written, too. */
  isWhole(): boolean {
    for (let at = 0; at < this.count; at += 1) if (this.start(this.#span(at)) === undefined) return false;
    return true;
  }

  #span(at: number): Span {
    const isLast = at === this.count - 1;
    const [tarOffset, blobOffset] = [this.#u64(at, ROW.tarOffset), this.#u64(at, ROW.blobOffset)];
    const tarEnd = isLast ? this.tarBytes : this.#u64(at + 1, ROW.tarOffset);
    // The byte in which the next span begins has bits of this one, too, unless it begins with its first bit.
    const isShared = !isLast && this.#table[(at + 1) * ROW.bytes + ROW.sharedBits] !== 0;
    const blobEnd = isLast ? this.#streamBytes : this.#u64(at + 1, ROW.blobOffset) + Number(isShared);
    return { at, tarOffset, tarBytes: tarEnd - tarOffset, blobOffset, blobBytes: blobEnd - blobOffset };
  }

  /** Whoever wrote it: no span is longer than it can be, none overlap, and nothing lies outside. */
  #isSound(): boolean {
    if (this.count === 0 || this.#u64(0, ROW.tarOffset) !== 0) return false;
    for (let at = 0; at < this.count; at += 1) {
      const { tarBytes, blobBytes } = this.#span(at);
      if (tarBytes < 0 || tarBytes > SPAN_BYTES_MAX || blobBytes < 0 || blobBytes > SPAN_BLOB_BYTES_MAX) return false;
      if (this.#u32(at, ROW.storedWindowBytes) > 2 * WINDOW_BYTES) return false;
    }
    return true;
  }

  #u64(row: number, field: number): number {
    return Number(this.#table.readBigUInt64LE(row * ROW.bytes + field));
  }

  #u32(row: number, field: number): number {
    return this.#table.readUInt32LE(row * ROW.bytes + field);
  }

  #u16(row: number, field: number): number {
    return this.#table.readUInt16LE(row * ROW.bytes + field);
  }

  #damagedLayer(end: number): BentoError {
    return new BentoError('FORMAT_INVALID', `layer ${shortDigest(this.#digest)} unpacks to less than ${end} bytes`);
  }
}

/** @returns undefined when the file is missing, cut off, of another version or of another layer */
function readTable(path: string, digest: Digest): { table: Buffer; footer: Buffer } | undefined {
  const fd = openIfThere(path);
  if (fd === undefined) return undefined;
  try {
    const { size } = fstatSync(fd);
    if (size < FOOTER.bytes) return undefined;
    const footer = Buffer.alloc(FOOTER.bytes);
    readSync(fd, footer, 0, footer.length, size - FOOTER.bytes);
    const tableOffset = Number(footer.readBigUInt64LE(FOOTER.tableOffset));
    const tableBytes = footer.readUInt32LE(FOOTER.rowCount) * ROW.bytes;
    const isOurs =
      footer.subarray(0, RESUME_MAGIC.length).equals(RESUME_MAGIC) &&
      footer.readUInt32LE(FOOTER.version) === RESUME_VERSION &&
      footer.subarray(FOOTER.digest, FOOTER.crc).equals(digestToBytes(digest));
    if (!isOurs || tableBytes > TABLE_BYTES_MAX || tableOffset + tableBytes + FOOTER.bytes !== size) return undefined;
    const table = Buffer.allocUnsafe(tableBytes);
    readSync(fd, table, 0, tableBytes, tableOffset);
    return footer.readUInt32LE(FOOTER.crc) === tableCrc(table, footer) ? { table, footer } : undefined;
  } finally {
    closeSync(fd);
  }
}

export function tableCrc(table: Buffer, footer: Buffer): number {
  return crc32(footer.subarray(0, FOOTER.crc), crc32(table));
}

/** The places at which a layer can be inflated are missing or damaged; whoever can wait makes them anew. */
export function brokenPoints(path: string, digest: Digest): BentoError {
  const what = `the resume points of layer ${shortDigest(digest)} are missing or damaged (${path})`;
  return new BentoError('INDEX_BROKEN', what, { hint: '`bento verify --repair` makes them anew' });
}

/** @returns whether all of `into` could be read */
function readAt(path: string, offset: number, into: Buffer): boolean {
  const fd = openIfThere(path);
  if (fd === undefined) return false;
  try {
    return readSync(fd, into, 0, into.length, offset) === into.length;
  } finally {
    closeSync(fd);
  }
}
