import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  type BigIntStats,
} from 'node:fs';

import type { FileStamp } from '../../index/stat-cache.ts';
import { fromBytes, joinPath, toFsPath, toText, type ByteString } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import type { EntryType, Xattrs } from '../../store/entry.ts';
import { describeSystemError, errnoOf } from '../../store/errors.ts';
import { readXattrs } from '../../store/syscalls.ts';
import type { Tree, TreeNode } from '../tree/tree.ts';
import type { PathTest } from './patterns.ts';

/** An object on disk, as it was when it was looked at. */
export interface LiveNode extends TreeNode {
  /** Relative to the tree's root. */
  path: ByteString;
  /** What identifies this state of the file; the stat cache compares it. */
  stamp: FileStamp;
  children: LiveNode[];
}

/** Something that is not saved, and why: said, never silent. */
export interface Skipped {
  path: ByteString;
  reason: 'socket' | 'nested mount' | 'name too long' | 'unknown file type' | 'it disappeared meanwhile';
}

export interface ScanOptions {
  /** Tells what to leave out; an ignored directory is not entered. */
  isIgnored: PathTest;
  /** Absolute paths that are not entered: other workspaces mounted inside this one, the store itself. */
  exclude: ReadonlySet<ByteString>;
}

const NSEC = 1_000_000_000n;
const READ_BYTES = 1 << 20;

/** A directory on disk as it stood during one scan, ignored files left out. */
export class LiveTree implements Tree<LiveNode> {
  /** Absolute path. */
  readonly dir: ByteString;
  readonly root: LiveNode;
  readonly skipped: readonly Skipped[];

  private constructor(dir: ByteString, root: LiveNode, skipped: readonly Skipped[]) {
    this.dir = dir;
    this.root = root;
    this.skipped = skipped;
  }

  /** Looks at every file once; reads none. Files that vanish meanwhile are left out. */
  static scan(dir: ByteString, options: ScanOptions): LiveTree {
    const scan = new Scan(dir, options);
    return new LiveTree(dir, scan.run(), scan.skipped);
  }

  children(dir: LiveNode): readonly LiveNode[] {
    return dir.children;
  }

  absolute(path: ByteString): ByteString {
    return path === '' ? this.dir : `${this.dir}/${path}`;
  }
}

class Scan {
  readonly skipped: Skipped[] = [];
  readonly #dir: ByteString;
  readonly #options: ScanOptions;
  readonly #owner: Owner;
  readonly #rootStat: BigIntStats;

  constructor(dir: ByteString, options: ScanOptions) {
    this.#dir = dir;
    this.#options = options;
    this.#rootStat = lstatSync(toFsPath(dir), { bigint: true });
    this.#owner = ownerOf(this.#rootStat);
  }

  run(): LiveNode {
    const root = this.#node('', '', this.#rootStat, 'dir');
    const pending = [root];
    for (let dir = pending.pop(); dir !== undefined; dir = pending.pop()) {
      dir.children = this.#list(dir.path);
      for (const child of dir.children) if (child.type === 'dir') pending.push(child);
    }
    return root;
  }

  #list(path: ByteString): LiveNode[] {
    const absolute = this.#absolute(path);
    const names = readNames(absolute);
    return names.sort().flatMap((name) => this.#look(joinPath(path, name), name) ?? []);
  }

  #look(path: ByteString, name: ByteString): LiveNode | undefined {
    const absolute = this.#absolute(path);
    try {
      return this.#describe(path, name, lstatSync(toFsPath(absolute), { bigint: true }));
    } catch (error) {
      if (isGone(error)) return undefined;
      if (errnoOf(error) === 'ENAMETOOLONG') return this.#skip(path, 'name too long');
      throw describeSystemError(error, `looking at ${toText(absolute)}`);
    }
  }

  #describe(path: ByteString, name: ByteString, stat: BigIntStats): LiveNode | undefined {
    const type = typeOf(stat);
    if (this.#options.isIgnored(path, type === 'dir')) return undefined;
    if (type === 'dir' && this.#options.exclude.has(this.#absolute(path))) return this.#skip(path, 'nested mount');
    if (type === undefined) return this.#skip(path, stat.isSocket() ? 'socket' : 'unknown file type');
    return this.#node(path, name, stat, type);
  }

  /** @returns no node, for `#look` and `#describe` to return */
  #skip(path: ByteString, reason: Skipped['reason']): LiveNode | undefined {
    this.skipped.push({ path, reason });
    return undefined;
  }

  #node(path: ByteString, name: ByteString, stat: BigIntStats, type: EntryType): LiveNode {
    const absolute = this.#absolute(path);
    return { ...describe(absolute, stat, type, this.#owner), name, path, children: [] };
  }

  #absolute(path: ByteString): ByteString {
    return path === '' ? this.#dir : `${this.#dir}/${path}`;
  }
}

/** Owner of the workspace's root: recorded as 0, so that a checkpoint does not depend on who saved it. */
export interface Owner {
  uid: number;
  gid: number;
}

export function ownerOf(stat: BigIntStats): Owner {
  return { uid: Number(stat.uid), gid: Number(stat.gid) };
}

/** Metadata of one object, from its `lstat`. Reads the link target and the extended attributes. */
export function describe(
  absolute: ByteString,
  stat: BigIntStats,
  type: EntryType,
  owner: Owner,
): Omit<LiveNode, 'name' | 'path' | 'children'> {
  const xattrs = savedXattrs(absolute);
  const isFile = type === 'file';
  return {
    type,
    mode: type === 'symlink' ? 0o777 : Number(stat.mode & 0o7777n),
    uid: Number(stat.uid) === owner.uid ? 0 : Number(stat.uid),
    gid: Number(stat.gid) === owner.gid ? 0 : Number(stat.gid),
    ...timeOf(stat),
    sizeBytes: isFile ? Number(stat.size) : 0,
    stamp: stampOf(stat),
    ...(type === 'symlink' && { link: fromBytes(readlinkSync(toFsPath(absolute), { encoding: 'buffer' })) }),
    ...((type === 'char' || type === 'block') && { rdev: deviceOf(stat.rdev) }),
    ...(xattrs && { xattrs }),
    ...(type !== 'dir' && stat.nlink > 1n && { linkKey: `${stat.dev}:${stat.ino}` }),
  };
}

function timeOf(stat: BigIntStats): { mtimeSec: number; mtimeNsec: number } {
  const nsec = ((stat.mtimeNs % NSEC) + NSEC) % NSEC; // a time before 1970 counts its nanoseconds forward, too
  return { mtimeSec: Number((stat.mtimeNs - nsec) / NSEC), mtimeNsec: Number(nsec) };
}

export function stampOf(stat: BigIntStats): FileStamp {
  return {
    dev: Number(stat.dev),
    ino: Number(stat.ino),
    sizeBytes: Number(stat.size),
    ...timeOf(stat),
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

/**
 * Whether an object that was there a moment ago is gone, or something else stands in its place: a parent that is no
 * directory any more, a symlink or a fifo where a file was (`openRegular`), a file where a symlink was (`readlink`).
 */
export function isGone(error: unknown): boolean {
  const code = errnoOf(error);
  if (code === 'EINVAL') return (error as NodeJS.ErrnoException).syscall === 'readlink';
  return code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP' || code === 'ENXIO';
}

/** Hashes a file as it is now. Undefined when it is gone. */
export function hashFile(absolute: ByteString): Digest | undefined {
  const fd = openRegular(absolute);
  if (fd === undefined) return undefined;
  try {
    const hash = createHash('sha256');
    const piece = Buffer.allocUnsafe(READ_BYTES);
    for (let length = readSync(fd, piece); length > 0; length = readSync(fd, piece))
      hash.update(piece.subarray(0, length));
    return `sha256:${hash.digest('hex')}`;
  } finally {
    closeSync(fd);
  }
}

/** A file held open: it can be read even when its name is gone by then. */
export class OpenFile {
  #fd: number | undefined;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Undefined when the file is gone. */
  static open(absolute: ByteString): OpenFile | undefined {
    const fd = openRegular(absolute);
    return fd === undefined ? undefined : new OpenFile(fd);
  }

  /** The pieces of the file from its beginning to wherever it ends when the end is reached; then it is closed. */
  *pieces(): Generator<Buffer> {
    const fd = this.#fd;
    if (fd === undefined) throw new TypeError('this file is closed');
    try {
      // One byte more than the file has: a read that comes back short has reached the end.
      const pieceBytes = Math.min(fstatSync(fd).size + 1, READ_BYTES);
      for (let length = pieceBytes; length === pieceBytes;) {
        const piece = Buffer.allocUnsafe(pieceBytes);
        length = readSync(fd, piece);
        if (length > 0) yield piece.subarray(0, length);
      }
    } finally {
      this.close();
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

/** The pieces of a file; of one that is gone, none. */
export function* readPieces(absolute: ByteString): Generator<Buffer> {
  yield* OpenFile.open(absolute)?.pieces() ?? [];
}

/** Through no symlink, and without waiting for anybody to write into a fifo, that took the file's place meanwhile. */
function openRegular(absolute: ByteString): number | undefined {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  let fd: number;
  try {
    fd = openSync(toFsPath(absolute), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    if (isGone(error)) return undefined;
    throw describeSystemError(error, `reading ${toText(absolute)}`);
  }
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  return undefined;
}
