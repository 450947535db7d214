import { readdirSync, readlinkSync, type BigIntStats } from 'node:fs';

import type { FileStamp } from '../../index/stat-cache.ts';
import { fromBytes, toFsPath, toText, type ByteString } from '../../store/byte-string.ts';
import type { EntryType, Xattrs } from '../../store/entry.ts';
import { describeSystemError } from '../../store/errors.ts';
import { isGone, mtimeOf } from '../../store/regular-file.ts';
import { readXattrs } from '../../store/syscalls.ts';
import type { TreeNode } from './tree.ts';

/** An object on disk in the words of a tree, without its place in it. */
export interface DiskNode extends Omit<TreeNode, 'name'> {
  /** What identifies this state of the file; the stat cache compares it. */
  stamp: FileStamp;
  /** As `stat` has them: the type's bits in the mode, owners not in relation to the root's. */
  disk: { mode: number; uid: number; gid: number };
}

/** Something that is not saved, and why: said, never silent. */
export interface Skipped {
  path: ByteString;
  reason: 'socket' | 'nested mount' | 'name too long' | 'unknown file type' | 'it disappeared meanwhile';
}

const NSEC = 1_000_000_000n;

/** Owner of the workspace's root: recorded as 0, so that a checkpoint does not depend on who saved it. */
export interface Owner {
  uid: number;
  gid: number;
}

export function ownerOf(stat: BigIntStats): Owner {
  return { uid: Number(stat.uid), gid: Number(stat.gid) };
}

/** What `stat` says of one object, as numbers. */
export interface DiskStat extends FileStamp {
  mode: number;
  uid: number;
  gid: number;
  nlink: number;
  /** Of a device. */
  rdev?: { major: number; minor: number };
}

export function statOf(stat: BigIntStats): DiskStat {
  const isDevice = stat.isCharacterDevice() || stat.isBlockDevice();
  return {
    ...stampOf(stat),
    mode: Number(stat.mode),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    nlink: Number(stat.nlink),
    ...(isDevice && { rdev: deviceOf(stat.rdev) }),
  };
}

/** Metadata of one object, from its `lstat`. Reads the link target and the extended attributes. */
export function describe(absolute: ByteString, stat: Readonly<DiskStat>, type: EntryType, owner: Owner): DiskNode {
  const { dev, ino, sizeBytes, mtimeSec, mtimeNsec, ctimeSec, ctimeNsec, mode, uid, gid, nlink, rdev } = stat;
  const node: DiskNode = {
    type,
    mode: type === 'symlink' ? 0o777 : mode & 0o7777,
    uid: uid === owner.uid ? 0 : uid,
    gid: gid === owner.gid ? 0 : gid,
    mtimeSec,
    mtimeNsec,
    sizeBytes: type === 'file' ? sizeBytes : 0,
    stamp: { dev, ino, sizeBytes, mtimeSec, mtimeNsec, ctimeSec, ctimeNsec },
    disk: { mode, uid, gid },
  };
  const xattrs = savedXattrs(absolute);
  if (type === 'symlink') node.link = fromBytes(readlinkSync(toFsPath(absolute), { encoding: 'buffer' }));
  if (rdev !== undefined) node.rdev = rdev;
  if (xattrs !== undefined) node.xattrs = xattrs;
  if (type !== 'dir' && nlink > 1) node.linkKey = `${dev}:${ino}`;
  return node;
}

export function stampOf(stat: BigIntStats): FileStamp {
  return {
    dev: Number(stat.dev),
    ino: Number(stat.ino),
    sizeBytes: Number(stat.size),
    ...mtimeOf(stat),
    ctimeSec: Number(stat.ctimeNs / NSEC),
    ctimeNsec: Number(stat.ctimeNs % NSEC),
  };
}

/** @see makedev(3): the 64-bit encoding glibc and the kernel's stat use */
function deviceOf(rdev: bigint): { major: number; minor: number } {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n);
  return { major: Number(major), minor: Number(minor) };
}

export function typeOf(stat: BigIntStats): EntryType | undefined {
  if (stat.isFile()) return 'file';
  if (stat.isDirectory()) return 'dir';
  if (stat.isSymbolicLink()) return 'symlink';
  if (stat.isFIFO()) return 'fifo';
  if (stat.isCharacterDevice()) return 'char';
  if (stat.isBlockDevice()) return 'block';
  return undefined;
}

/** Attributes that belong to this machine or to a mount, not to the file. */
const XATTRS_NOT_SAVED = /^(?:security\.(?:selinux|ima|evm)$|trusted\.overlay\.|user\.overlay\.|system\.nfs4_acl$)/;

function savedXattrs(absolute: ByteString): Xattrs | undefined {
  const all = readXattrs(absolute);
  if (all === undefined) return undefined;
  const saved = new Map([...all].filter(([name]) => !XATTRS_NOT_SAVED.test(name)).sort(([a], [b]) => (a < b ? -1 : 1)));
  return saved.size > 0 ? saved : undefined;
}

export function readNames(absolute: ByteString): ByteString[] {
  try {
    return readdirSync(toFsPath(absolute), { encoding: 'latin1' });
  } catch (error) {
    if (isGone(error)) return [];
    throw describeSystemError(error, `listing ${toText(absolute)}`);
  }
}
