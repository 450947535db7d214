import { digestFromBytes, digestToBytes, type Digest } from '../store/digest.ts';
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

/** Ids are `number * 2^32 + position`; all stay below 2^53, so plain numbers hold them. */
export const POSITION_SPAN = 2 ** 32;
export const ROOT_POSITION = 1;
export const NUMBER_MAX = 2 ** 21 - 1;

export function entryId(number: number, position: number): number {
  return number * POSITION_SPAN + position;
}

export function numberOf(id: number): number {
  return Math.floor(id / POSITION_SPAN);
}

export function positionOf(id: number): number {
  return id % POSITION_SPAN;
}

/** A row of `entries`, as SQLite returns it. */
export interface RawEntryRow {
  id: number;
  parent: number;
  name: string;
  type: number;
  flags: number;
  mode: number;
  uid: number;
  gid: number;
  mtime_sec: number;
  mtime_nsec: number;
  size: number;
  nlink: number;
  target: number | null;
  link: string | null;
  rdev_major: number | null;
  rdev_minor: number | null;
  xattrs: string | null;
  digest: Buffer | null;
  blob_offset: number | null;
  blob_bytes: number | null;
  inner_offset: number | null;
}

/** A row of `entries`, decoded: an entry of one layer without its path. */
export interface EntryRow extends Omit<Entry, 'path' | 'opaque'> {
  id: number;
  parent: number;
  name: string;
  /** Made up for a parent folder that the layer does not list; its metadata means nothing. */
  implicit: boolean;
  opaque: boolean;
  nlink: number;
  /** Hardlinks: the entry named, when it is in the same layer. */
  target: number | undefined;
}

export function decodeRow(raw: RawEntryRow): EntryRow {
  return {
    id: raw.id,
    parent: raw.parent,
    name: raw.name,
    type: ENTRY_TYPES[raw.type] ?? 'file',
    implicit: (raw.flags & FLAG_IMPLICIT) !== 0,
    opaque: (raw.flags & FLAG_OPAQUE) !== 0,
    mode: raw.mode,
    uid: raw.uid,
    gid: raw.gid,
    mtimeSec: raw.mtime_sec,
    mtimeNsec: raw.mtime_nsec,
    sizeBytes: raw.size,
    nlink: raw.nlink,
    target: raw.target ?? undefined,
    ...(raw.link !== null && { link: raw.link }),
    ...(raw.rdev_major !== null && { rdev: { major: raw.rdev_major, minor: raw.rdev_minor ?? 0 } }),
    ...(raw.xattrs !== null && { xattrs: decodeXattrs(raw.xattrs) }),
    ...(raw.digest !== null && { digest: digestFromBytes(raw.digest) }),
  };
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
