import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';

import { toBytes, type ByteString } from '../store/byte-string.ts';
import { digestFromBytes, digestToBytes, type Digest } from '../store/digest.ts';
import { temporaryBeside } from '../store/durable.ts';
import type { FileStamp } from './stat-cache.ts';

/**
 * What a directory tree was when it was last looked at: one record for each name, packed into columns, so that a look at
 * 30,000 unchanged files makes no object for any of them. It is a cache in one file: whatever is wrong with it, it is
 * left aside and made anew.
 *
 * File: magic (8 bytes), CRC-32 of all that follows (u32), length of the header (u32), header (JSON, padded with blanks to
 * a multiple of 8), the columns of 8-byte floats, those of 32-bit integers, digests (32 bytes each), names
 * (with "/" between them). Numbers in the machine's own byte order: the file never leaves the machine.
 */

const MAGIC = 'bentoSC1';
const CRC_AT = 8;
const CHECKED_FROM = 12;
const HEADER_BYTES_AT = 12;
const HEADER_AT = 16;
const DIGEST_BYTES = 32;

const FLOATS = ['dev', 'ino', 'sizeBytes', 'mtimeSec', 'ctimeSec'] as const;
const INTEGERS = [
  'mtimeNsec',
  'ctimeNsec',
  'mode',
  'uid',
  'gid',
  'parent',
  'firstChild',
  'childCount',
  'extra',
  'flags',
] as const;

/** A name in a directory that is not the entry of a tree: ignored, or not saved for a reason (its position from 2 on). */
export const KIND_SEEN = 0;
export const KIND_IGNORED = 1;
const KIND_BITS = 0xff;
/** The object changed so shortly before it was looked at that it may have changed again under the same stamp. */
export const FLAG_RACY = 0x100;
export const FLAG_DIGEST = 0x200;
/** The file has several names. */
export const FLAG_LINKED = 0x400;
/** The directory and all below equal what the layers in the header show there. */
export const FLAG_EQUAL = 0x800;

/** What few entries have, kept as JSON. */
export interface ScanExtra {
  link?: ByteString;
  rdev?: { major: number; minor: number };
  /** Name to base64. */
  xattrs?: Record<ByteString, string>;
}

export interface ScanHeader {
  /** Absolute path of the directory. */
  dir: ByteString;
  /** Fingerprint of what decides which names are looked at. */
  rules: string;
  /** The layers of the checkpoint it was last compared with, lowest first; none when it never was. */
  layers: Digest[];
  /** Nothing worth saving was found then. */
  clean: boolean;
}

/** One name of a directory. `mode`, `uid` and `gid` are those of `stat`. */
export interface ScanRow {
  name: ByteString;
  stamp: FileStamp;
  mode: number;
  uid: number;
  gid: number;
  /** KIND_ and FLAG_ values. */
  flags: number;
  extra: ScanExtra | undefined;
  digest: Digest | undefined;
}

/** What to write: rows that were looked at anew, and numbers of rows that stay as the cache has them. */
export interface ScanDraft {
  /** Parents before children, the names of one directory together and sorted. */
  rows: (ScanRow | number)[];
  /** The number, in this draft, of the directory that each name is in. */
  parents: number[];
  /** The directories that get FLAG_EQUAL. */
  equal: ReadonlySet<number>;
}

type Columns = Record<(typeof FLOATS)[number], Float64Array> & Record<(typeof INTEGERS)[number], Uint32Array>;

/** Rows by number: 0 is the directory itself, the names in one directory are consecutive and sorted. */
export class ScanCache {
  readonly header: ScanHeader;
  readonly count: number;
  readonly columns: Columns;
  readonly names: readonly ByteString[];
  readonly #extras: readonly ScanExtra[];
  readonly #digests: Uint8Array;

  private constructor(header: ScanHeader, parts: Parts) {
    this.header = header;
    this.count = parts.count;
    this.columns = parts.columns;
    this.names = parts.names.split('/');
    this.#extras = parts.extras;
    this.#digests = parts.digests;
  }

  /** Undefined when there is none, or none that can be used. */
  static load(path: string, dir: ByteString): ScanCache | undefined {
    try {
      const bytes = readFileSync(path);
      const decoded = decode(bytes.byteOffset % 8 === 0 ? bytes : Buffer.from(new Uint8Array(bytes).buffer));
      return decoded?.header.dir === dir ? new ScanCache(decoded.header, decoded.parts) : undefined;
    } catch {
      return undefined; // missing, unreadable or nonsense: all the same
    }
  }

  /** Replaces the file at once. A cache that cannot be written is none, and no reason to fail. */
  static store(path: string, header: ScanHeader, draft: ScanDraft, from?: ScanCache): void {
    const temporary = temporaryBeside(path);
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
      writeFileSync(temporary, encode(header, draft, from), { mode: 0o600 });
      renameSync(temporary, path);
    } catch {
      rmSync(temporary, { force: true });
    }
  }

  kindOf(row: number): number {
    return this.#flags(row) & KIND_BITS;
  }

  has(row: number, flag: number): boolean {
    return (this.#flags(row) & flag) !== 0;
  }

  /** The rows of the names in a directory, as a half-open range. */
  childrenOf(row: number): [from: number, to: number] {
    const from = this.columns.firstChild[row] ?? 0;
    return [from, from + (this.columns.childCount[row] ?? 0)];
  }

  nameOf(row: number): ByteString {
    return this.names[row] ?? '';
  }

  modeOf(row: number): number {
    return this.columns.mode[row] ?? 0;
  }

  parentOf(row: number): number {
    return this.columns.parent[row] ?? 0;
  }

  digestOf(row: number): Digest | undefined {
    if (!this.has(row, FLAG_DIGEST)) return undefined;
    return digestFromBytes(this.digestBytes(row));
  }

  stampOf(row: number): FileStamp {
    const { dev, ino, sizeBytes, mtimeSec, mtimeNsec, ctimeSec, ctimeNsec } = this.columns;
    return {
      dev: dev[row] ?? 0,
      ino: ino[row] ?? 0,
      sizeBytes: sizeBytes[row] ?? 0,
      mtimeSec: mtimeSec[row] ?? 0,
      mtimeNsec: mtimeNsec[row] ?? 0,
      ctimeSec: ctimeSec[row] ?? 0,
      ctimeNsec: ctimeNsec[row] ?? 0,
    };
  }

  extraOf(row: number): ScanExtra | undefined {
    return this.#extras[(this.columns.extra[row] ?? 0) - 1];
  }

  uidOf(row: number): number {
    return this.columns.uid[row] ?? 0;
  }

  gidOf(row: number): number {
    return this.columns.gid[row] ?? 0;
  }

  /** The 32 bytes of a row's digest. */
  digestBytes(row: number): Uint8Array {
    return this.#digests.subarray(row * DIGEST_BYTES, (row + 1) * DIGEST_BYTES);
  }

  #flags(row: number): number {
    return this.columns.flags[row] ?? 0;
  }
}

interface Parts {
  count: number;
  columns: Columns;
  extras: readonly ScanExtra[];
  digests: Uint8Array;
  names: ByteString;
}

interface StoredHeader extends ScanHeader {
  count: number;
  extras: ScanExtra[];
}

function decode(bytes: Buffer): { header: ScanHeader; parts: Parts } | undefined {
  if (bytes.toString('latin1', 0, MAGIC.length) !== MAGIC) return undefined;
  if (crc32(bytes.subarray(CHECKED_FROM)) !== bytes.readUInt32LE(CRC_AT)) return undefined;
  const columnsAt = HEADER_AT + bytes.readUInt32LE(HEADER_BYTES_AT);
  const stored = JSON.parse(bytes.toString('utf8', HEADER_AT, columnsAt)) as StoredHeader;
  const { count, extras, ...header } = stored;
  const { columns, digests, end } = viewsOf(bytes, columnsAt, count);
  return { header, parts: { count, columns, extras, digests, names: bytes.toString('latin1', end) } };
}

function encode(header: ScanHeader, draft: ScanDraft, from: ScanCache | undefined): Buffer {
  const count = draft.rows.length;
  const extras = draft.rows.map((row) => (typeof row === 'number' ? from?.extraOf(row) : row.extra));
  const stored: StoredHeader = { ...header, count, extras: extras.filter((extra) => extra !== undefined) };
  const json = paddedJson(stored);
  const names = toBytes(draft.rows.map((row) => (typeof row === 'number' ? from?.nameOf(row) : row.name)).join('/'));
  const rowsBytes = count * (FLOATS.length * 8 + INTEGERS.length * 4 + DIGEST_BYTES);
  const bytes = Buffer.from(new ArrayBuffer(HEADER_AT + json.length + rowsBytes + names.length));
  bytes.write(MAGIC, 0, 'latin1');
  bytes.writeUInt32LE(json.length, HEADER_BYTES_AT);
  json.copy(bytes, HEADER_AT);
  names.copy(bytes, bytes.length - names.length);
  const { columns, digests } = viewsOf(bytes, HEADER_AT + json.length, count);
  let extraCount = 0;
  draft.rows.forEach((row, at) => {
    if (typeof row !== 'number') writeRow({ columns, digests }, at, row);
    else if (from !== undefined) copyRow({ columns, digests }, at, { from, row });
    columns.extra[at] = extras[at] === undefined ? 0 : (extraCount += 1);
    placeRow(columns, at, draft);
  });
  bytes.writeUInt32LE(crc32(bytes.subarray(CHECKED_FROM)), CRC_AT);
  return bytes;
}

function paddedJson(value: StoredHeader): Buffer {
  const bytes = Buffer.from(JSON.stringify(value), 'utf8');
  return Buffer.concat([bytes, Buffer.alloc((8 - (bytes.length % 8)) % 8, ' ')]);
}

interface Views {
  columns: Columns;
  digests: Uint8Array;
}

/** The columns as arrays over the file's bytes. @throws RangeError when they do not fit in it */
function viewsOf(bytes: Buffer, columnsAt: number, count: number): Views & { end: number } {
  let at = bytes.byteOffset + columnsAt;
  const columns: Record<string, Float64Array | Uint32Array> = {};
  for (const name of FLOATS) {
    columns[name] = new Float64Array(bytes.buffer, at, count);
    at += count * 8;
  }
  for (const name of INTEGERS) {
    columns[name] = new Uint32Array(bytes.buffer, at, count);
    at += count * 4;
  }
  const digests = new Uint8Array(bytes.buffer, at, count * DIGEST_BYTES);
  return { columns: columns as Columns, digests, end: at + digests.length - bytes.byteOffset };
}

function writeRow({ columns, digests }: Views, at: number, row: ScanRow): void {
  for (const name of FLOATS) columns[name][at] = row.stamp[name];
  columns.mtimeNsec[at] = row.stamp.mtimeNsec;
  columns.ctimeNsec[at] = row.stamp.ctimeNsec;
  for (const name of ['mode', 'uid', 'gid'] as const) columns[name][at] = row[name];
  columns.flags[at] = row.digest === undefined ? row.flags : row.flags | FLAG_DIGEST;
  if (row.digest !== undefined) digests.set(digestToBytes(row.digest), at * DIGEST_BYTES);
}

function copyRow({ columns, digests }: Views, at: number, { from, row }: { from: ScanCache; row: number }): void {
  for (const name of FLOATS) columns[name][at] = from.columns[name][row] ?? 0;
  for (const name of INTEGERS) columns[name][at] = from.columns[name][row] ?? 0;
  if (from.has(row, FLAG_DIGEST)) digests.set(from.digestBytes(row), at * DIGEST_BYTES);
}

/** Where the row is in the tree, and whether it is known to equal a checkpoint's. */
function placeRow(columns: Columns, at: number, { parents, equal }: ScanDraft): void {
  const parent = parents[at] ?? 0;
  columns.parent[at] = parent;
  columns.firstChild[at] = 0;
  columns.childCount[at] = 0;
  columns.flags[at] = ((columns.flags[at] ?? 0) & ~FLAG_EQUAL) | (equal.has(at) ? FLAG_EQUAL : 0);
  if (at === 0) return;
  if (columns.childCount[parent] === 0) columns.firstChild[parent] = at;
  columns.childCount[parent] = (columns.childCount[parent] ?? 0) + 1;
}
