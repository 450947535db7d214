import { constants } from 'node:fs';

import {
  FLAG_LINKED,
  FLAG_RACY,
  KIND_IGNORED,
  KIND_SEEN,
  type ScanCache,
  type ScanRow,
} from '../../index/scan-cache.ts';
import type { FileStamp } from '../../index/stat-cache.ts';
import type { ByteString } from '../../store/byte-string.ts';
import type { EntryType } from '../../store/entry.ts';
import type { Owner, Skipped } from '../tree/disk-node.ts';
import type { LiveNode, Unseen } from './scan.ts';

/** Rows of a scan's cache as nodes of a tree, and back. */

/** In the order of their kinds in the cache; only ever appended to. */
const REASONS: readonly Skipped['reason'][] = ['socket', 'nested mount', 'name too long', 'unknown file type'];

const TYPES: ReadonlyMap<number, EntryType> = new Map([
  [constants.S_IFREG, 'file'],
  [constants.S_IFDIR, 'dir'],
  [constants.S_IFLNK, 'symlink'],
  [constants.S_IFIFO, 'fifo'],
  [constants.S_IFCHR, 'char'],
  [constants.S_IFBLK, 'block'],
]);

export function kindOfReason(reason: Skipped['reason']): number {
  return KIND_IGNORED + 1 + REASONS.indexOf(reason);
}

/** Undefined for what is seen, and for what is ignored. */
export function reasonOfKind(kind: number): Skipped['reason'] | undefined {
  return REASONS[kind - KIND_IGNORED - 1];
}

export function isDirectoryMode(mode: number): boolean {
  return (mode & constants.S_IFMT) === constants.S_IFDIR;
}

export function isSameType(a: number, b: number): boolean {
  return ((a ^ b) & constants.S_IFMT) === 0;
}

/** What tells that an object is as it was. */
export type Look = FileStamp & { mode: number; uid: number; gid: number };

/**
 * Whether nothing that `stat` tells has changed. A change of mode, owner, links or attributes moves the ctime; mode and
 * owner are compared for file systems that have none.
 */
export function hasStampOf({ columns }: ScanCache, row: number, look: Readonly<Look>): boolean {
  return (
    look.ctimeNsec === columns.ctimeNsec[row] &&
    look.mtimeNsec === columns.mtimeNsec[row] &&
    look.ctimeSec === columns.ctimeSec[row] &&
    look.mtimeSec === columns.mtimeSec[row] &&
    look.ino === columns.ino[row] &&
    look.sizeBytes === columns.sizeBytes[row] &&
    look.mode === columns.mode[row] &&
    look.uid === columns.uid[row] &&
    look.gid === columns.gid[row] &&
    look.dev === columns.dev[row]
  );
}

export function nodeOfRow(cache: ScanCache, row: number, place: { path: ByteString; owner: Owner }): LiveNode {
  const stamp = cache.stampOf(row);
  const mode = cache.modeOf(row);
  const type = TYPES.get(mode & constants.S_IFMT) ?? 'file';
  const [uid, gid] = [cache.uidOf(row), cache.gidOf(row)];
  const digest = cache.digestOf(row);
  const { link, rdev, xattrs } = cache.extraOf(row) ?? {};
  return {
    name: cache.nameOf(row),
    path: place.path,
    row,
    listing: undefined,
    type,
    mode: type === 'symlink' ? 0o777 : mode & 0o7777,
    uid: uid === place.owner.uid ? 0 : uid,
    gid: gid === place.owner.gid ? 0 : gid,
    mtimeSec: stamp.mtimeSec,
    mtimeNsec: stamp.mtimeNsec,
    sizeBytes: type === 'file' ? stamp.sizeBytes : 0,
    stamp,
    disk: { mode, uid, gid },
    ...(link !== undefined && { link }),
    ...(rdev && { rdev }),
    ...(xattrs && { xattrs: new Map(Object.entries(xattrs).map(([k, v]) => [k, Buffer.from(v, 'base64')])) }),
    ...(cache.has(row, FLAG_LINKED) && { linkKey: `${stamp.dev}:${stamp.ino}` }),
    ...(digest && { digest }),
  };
}

/** @param racyAfterMs - what changed later than this may change again under the same stamp */
export function rowOfNode(node: LiveNode, racyAfterMs: number): ScanRow {
  const { link, rdev, xattrs } = node;
  const saved = xattrs && Object.fromEntries([...xattrs].map(([name, value]) => [name, value.toString('base64')]));
  const isRacy = node.isSettled !== true && newestMs(node.stamp) > racyAfterMs;
  const hasExtra = link !== undefined || rdev !== undefined || saved !== undefined;
  return {
    name: node.name,
    stamp: node.stamp,
    ...node.disk,
    flags: KIND_SEEN | (node.linkKey === undefined ? 0 : FLAG_LINKED) | (isRacy ? FLAG_RACY : 0),
    extra: hasExtra
      ? { ...(link !== undefined && { link }), ...(rdev && { rdev }), ...(saved && { xattrs: saved }) }
      : undefined,
    digest: node.digest,
  };
}

const NO_STAMP: FileStamp = {
  dev: 0,
  ino: 0,
  sizeBytes: 0,
  mtimeSec: 0,
  mtimeNsec: 0,
  ctimeSec: 0,
  ctimeNsec: 0,
};

export function rowOfUnseen({ name, kind, mode }: Unseen): ScanRow {
  return { name, stamp: NO_STAMP, mode, uid: 0, gid: 0, flags: kind, extra: undefined, digest: undefined };
}

function newestMs({ mtimeSec, mtimeNsec, ctimeSec, ctimeNsec }: FileStamp): number {
  return Math.max(mtimeSec * 1000 + mtimeNsec / 1e6, ctimeSec * 1000 + ctimeNsec / 1e6);
}
