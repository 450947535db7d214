import { digestToBytes, type Digest } from '../store/digest.ts';
import type { Entry, EntryType, Xattrs } from '../store/entry.ts';

/** Entry types as the `type` column stores them: the position in this list. Only ever appended to. */
export const ENTRY_TYPES: readonly EntryType[] = [
  'file',
  'dir',
  'symlink',
  'hardlink',
  'char',
  'block',
  'fifo',
  'whiteout',
];

export const FLAG_IMPLICIT = 1;
export const FLAG_OPAQUE = 2;

/** Ids are `number * 2^32 + position`; all stay below 2^52, so plain numbers hold them and leave a bit to mark others with. */
export const POSITION_SPAN = 2 ** 32;
export const ROOT_POSITION = 1;
export const NUMBER_MAX = 2 ** 20 - 1;
/** Far more than a layer can have; whoever hands out ids may use the bits above for marks of their own. */
export const POSITION_MAX = 2 ** 24 - 1;

/** From this size on a file is large: it is worth being read in another way than by being copied through the server. */
export const LARGE_BYTES_MIN = 32 << 20;

export function entryId(number: number, position: number): number {
  return number * POSITION_SPAN + position;
}

export function numberOf(id: number): number {
  return Math.floor(id / POSITION_SPAN);
}

export function positionOf(id: number): number {
  return id % POSITION_SPAN;
}

/**
 * The columns of `entries` in the order of `RawEntryRow`. Digests are made text by SQLite: a Buffer for each row would cost
 * more than all the rest of it.
 */
export const ENTRY_COLUMNS =
  'id, parent, name, type, flags, mode, uid, gid, mtime_sec, mtime_nsec, size, nlink, target, link, ' +
  "rdev_major, rdev_minor, xattrs, 'sha256:' || lower(nullif(hex(digest), ''))";

/** A row of `entries`, as SQLite returns `ENTRY_COLUMNS` in raw mode. */
export type RawEntryRow = [
  id: number,
  parent: number,
  name: string,
  type: number,
  flags: number,
  mode: number,
  uid: number,
  gid: number,
  mtimeSec: number,
  mtimeNsec: number,
  size: number,
  nlink: number,
  target: number | null,
  link: string | null,
  rdevMajor: number | null,
  rdevMinor: number | null,
  xattrs: string | null,
  digest: Digest | null,
];

/** A row of `entries`, decoded: an entry of one layer without its path. */
export interface EntryRow extends Omit<Entry, 'path' | 'opaque'> {
  id: number;
  parent: number;
  name: string;
  /** Made up for a parent folder that the layer does not list; its metadata means nothing. */
  implicit: boolean;
  opaque: boolean;
  /** How many names a file has in its layer; of a directory 2, and 1 for each directory in it. */
  nlink: number;
  /** Hardlinks: the entry named, when it is in the same layer. */
  target: number | undefined;
}

/**
 * What `find -ls` wants to know of an entry, in the order of `ShownRow`. A column costs a twentieth of what a row does, so
 * that what few entries have is left to a second question.
 */
export const SHOWN_COLUMNS =
  'id, name, type, mode, uid, gid, mtime_sec, mtime_nsec, coalesce(length(link), size), nlink';

/** A row of `entries`, as SQLite returns `SHOWN_COLUMNS` in raw mode. */
export type ShownRow = [
  id: number,
  name: string,
  /** Position in `ENTRY_TYPES`. */
  type: number,
  mode: number,
  uid: number,
  gid: number,
  mtimeSec: number,
  mtimeNsec: number,
  /** As lstat(2) says it: of a symlink, the length of its target. */
  sizeBytes: number,
  nlink: number,
];

/** Fields that most rows lack are set one by one: a directory's listing decodes thousands of rows. */
export function decodeRow(raw: RawEntryRow): EntryRow {
  const [id, parent, name, type, flags, mode, uid, gid, mtimeSec, mtimeNsec, sizeBytes, nlink, target, link] = raw;
  const [major, minor, xattrs, digest] = [raw[14], raw[15], raw[16], raw[17]];
  const row: EntryRow = {
    id,
    parent,
    name,
    type: ENTRY_TYPES[type] ?? 'file',
    implicit: (flags & FLAG_IMPLICIT) !== 0,
    opaque: (flags & FLAG_OPAQUE) !== 0,
    mode,
    uid,
    gid,
    mtimeSec,
    mtimeNsec,
    sizeBytes,
    nlink,
    target: target ?? undefined,
  };
  if (digest !== null) row.digest = digest;
  if (link !== null) row.link = link;
  if (major !== null) row.rdev = { major, minor: minor ?? 0 };
  if (xattrs !== null) row.xattrs = decodeXattrs(xattrs);
  return row;
}

export function encodeXattrs(xattrs: Xattrs | undefined): string | null {
  if (xattrs === undefined || xattrs.size === 0) return null;
  return JSON.stringify(Object.fromEntries([...xattrs].map(([name, value]) => [name, value.toString('base64')])));
}

export function decodeXattrs(text: string): Xattrs {
  const object = JSON.parse(text) as Record<string, string>;
  return new Map(Object.entries(object).map(([name, value]) => [name, Buffer.from(value, 'base64')]));
}

export function encodeDigest(digest: Digest | undefined): Buffer | null {
  return digest === undefined ? null : digestToBytes(digest);
}
