import { constants, lstatSync, type BigIntStats } from 'node:fs';

import { FLAG_RACY, KIND_IGNORED, KIND_SEEN, type ScanCache } from '../../index/scan-cache.ts';
import { joinPath, toFsPath, toText, type ByteString } from '../../store/byte-string.ts';
import type { EntryType } from '../../store/entry.ts';
import { describeSystemError, errnoOf } from '../../store/errors.ts';
import { QuickStat } from '../../store/quick-stat.ts';
import { isGone } from '../../store/regular-file.ts';
import {
  describe,
  ownerOf,
  stampOf,
  statOf,
  readNames,
  typeOf,
  type DiskNode,
  type DiskStat,
  type Owner,
  type Skipped,
} from '../tree/disk-node.ts';
import { sameXattrs } from '../tree/diff-trees.ts';
import type { PathTest, TreeNode } from '../tree/tree.ts';
import {
  hasStampOf,
  isDirectoryMode,
  isSameType,
  kindOfReason,
  nodeOfRow,
  reasonOfKind,
  type Look,
} from './scan-rows.ts';

const { S_IFMT } = constants;
/** What `QuickStat` tells all about. */
const QUICK_TYPES: ReadonlyMap<number, EntryType> = new Map([
  [constants.S_IFREG, 'file'],
  [constants.S_IFDIR, 'dir'],
  [constants.S_IFLNK, 'symlink'],
]);

/** An object on disk, as it was when it was looked at. */
export interface LiveNode extends TreeNode, DiskNode {
  /** Relative to the tree's root. */
  path: ByteString;
  /** See WorkNode. */
  isSettled?: boolean;
  /** Its row in the scan's cache; -1 for what the cache does not have. */
  row: number;
  /** What is in a directory that the cache does not have. */
  listing: readonly Ref[] | undefined;
}

/** A name that is no part of the tree: ignored, or not saved for a reason. */
export interface Unseen {
  name: ByteString;
  kind: number;
  mode: number;
}

/** One name of a directory: a row of the cache that still holds, or what was found instead. */
export type Ref = number | LiveNode | Unseen;

export interface ScanOptions {
  /** Tells what to leave out; an ignored directory is not entered. */
  isIgnored: PathTest;
  /** Absolute paths that are not entered: other workspaces mounted inside this one, the store itself. */
  exclude: ReadonlySet<ByteString>;
}

/** What a scan found, as the difference to its cache. */
export interface ScanResult {
  cache: ScanCache | undefined;
  root: number | LiveNode;
  owner: Owner;
  /** By row: objects that had to be looked at anew, with the name and place the row has. */
  fresh: ReadonlyMap<number, LiveNode>;
  /** By row: what is in directories in which the cache has other names. */
  listings: ReadonlyMap<number, readonly Ref[]>;
  /** By row: 1 where something may differ from the cache, there or below. Times of directories count. */
  dirty: Uint8Array;
  /** Nothing that is worth saving differs from the cache. */
  isQuiet: boolean;
  skipped: readonly Skipped[];
  /** When it began, before the first look: milliseconds since 1970. */
  startMs: number;
}

/** A directory to go through. */
interface Pending {
  path: ByteString;
  /** -1 when the cache does not have it. */
  row: number;
  /** Set when it was looked at anew. */
  node: LiveNode | undefined;
}

/**
 * Looks at every object of a directory once, reading none. Where a directory is as the cache has it, its names are too, so
 * it is not listed; an object with the stamp it had is not looked at further.
 */
export class Scan {
  readonly #dir: ByteString;
  readonly #options: ScanOptions;
  readonly #cache: ScanCache | undefined;
  /** The names in the cache were chosen by the rules of today. */
  readonly #knowsNames: boolean;
  readonly #fresh = new Map<number, LiveNode>();
  readonly #listings = new Map<number, readonly Ref[]>();
  readonly #dirty: Uint8Array;
  readonly #skipped: Skipped[] = [];
  readonly #pending: Pending[] = [];
  readonly #startMs = Date.now();
  readonly #rootStat: BigIntStats;
  readonly #owner: Owner;
  readonly #quick: QuickStat | undefined;
  #isQuiet = true;

  /** @param rules - fingerprint of `options`, compared with the cache's */
  constructor(dir: ByteString, options: ScanOptions, known?: { cache: ScanCache; rules: string }) {
    this.#dir = dir;
    this.#options = options;
    this.#rootStat = lstatSync(toFsPath(dir), { bigint: true });
    this.#owner = ownerOf(this.#rootStat);
    const cache = known?.cache;
    const isOwners = cache?.uidOf(0) === this.#owner.uid && cache.gidOf(0) === this.#owner.gid;
    this.#cache = isOwners ? cache : undefined; // owners are told in relation to the root's
    this.#quick = QuickStat.load();
    this.#knowsNames = cache?.header.rules === known?.rules;
    this.#dirty = new Uint8Array(this.#cache?.count ?? 0);
  }

  run(): ScanResult {
    const row = this.#cache === undefined ? -1 : 0;
    const root = this.#root(row);
    this.#pending.push({ path: '', row, node: root });
    for (let dir = this.#pending.pop(); dir !== undefined; dir = this.#pending.pop()) {
      if (dir.row < 0 || dir.node !== undefined || !this.#lookAtNames(dir)) this.#list(dir);
    }
    return {
      cache: this.#cache,
      root: root ?? row,
      owner: this.#owner,
      fresh: this.#fresh,
      listings: this.#listings,
      dirty: this.#spreadDirt(),
      isQuiet: this.#isQuiet && this.#cache !== undefined,
      skipped: this.#skipped,
      startMs: this.#startMs,
    };
  }

  #root(row: number): LiveNode | undefined {
    if (row === 0 && this.#isSame(0, lookOf(this.#rootStat))) return undefined;
    const place = { name: '', path: '', row, listing: undefined };
    const node: LiveNode = { ...describe(this.#dir, statOf(this.#rootStat), 'dir', this.#owner), ...place };
    if (row === 0) this.#replace(row, node);
    return node;
  }

  /**
   * Looks at the names a directory had when nothing says that it has others now.
   *
   * @returns false when it must be listed
   */
  #lookAtNames({ path, row }: Pending): boolean {
    const cache = this.#cache;
    if (cache === undefined || !this.#knowsNames) return false;
    const absolute = `${this.#absolute(path)}/`;
    const [from, to] = cache.childrenOf(row);
    const mark = [this.#pending.length, this.#skipped.length] as const;
    for (let child = from; child < to; child += 1) {
      if (this.#lookAtRow(child, path, absolute)) continue;
      [this.#pending.length, this.#skipped.length] = mark;
      return false;
    }
    return true;
  }

  /** @returns false when there is something of another kind, or nothing */
  #lookAtRow(row: number, dir: ByteString, absoluteDir: ByteString): boolean {
    const cache = this.#cache as ScanCache;
    const name = cache.nameOf(row);
    if (cache.kindOf(row) !== KIND_SEEN) {
      this.#follow(joinPath(dir, name), row);
      return true;
    }
    const stat = this.#lstat(absoluteDir + name);
    if (stat !== undefined && this.#isSame(row, stat)) {
      if (isDirectoryMode(cache.modeOf(row))) this.#pending.push({ path: joinPath(dir, name), row, node: undefined });
      return true;
    }
    const path = joinPath(dir, name);
    const found = this.#look(path, name);
    if (found === undefined || !('path' in found) || !this.#takesPlace(found, row)) return false;
    this.#follow(path, found);
    return true;
  }

  /** Reads the names of a directory and looks at each. */
  #list({ path, row, node }: Pending): void {
    const cache = this.#cache;
    const [from, to] = cache === undefined || row < 0 ? [0, 0] : cache.childrenOf(row);
    const known = new Map<ByteString, number>();
    for (let child = from; child < to; child += 1) known.set(cache?.nameOf(child) ?? '', child);
    const names = readNames(this.#absolute(path)).sort();
    const refs = names.flatMap((name) => this.#find(joinPath(path, name), name, known.get(name)) ?? []);
    for (const ref of refs) this.#follow(joinPath(path, this.#nameOf(ref)), ref);
    if (row >= 0) this.#compareNames(row, refs);
    else if (node !== undefined) node.listing = refs;
  }

  #find(path: ByteString, name: ByteString, row: number | undefined): Ref | undefined {
    const cache = this.#cache;
    if (cache === undefined || row === undefined) return this.#look(path, name);
    const stat = this.#lstat(this.#absolute(path));
    if (stat !== undefined && this.#isKnown(path, row, stat)) return row;
    const found = this.#look(path, name);
    if (found !== undefined && 'path' in found && cache.kindOf(row) === KIND_SEEN) this.#takesPlace(found, row);
    return found;
  }

  /** Whether a row still tells what is at its path, and the rules would tell the same of it. */
  #isKnown(path: ByteString, row: number, stat: Readonly<Look>): boolean {
    const cache = this.#cache as ScanCache;
    if (cache.kindOf(row) !== KIND_SEEN) return this.#knowsNames && isSameType(cache.modeOf(row), stat.mode);
    if (!this.#isSame(row, stat)) return false;
    return this.#knowsNames || !this.#isLeftOut(path, isDirectoryMode(stat.mode));
  }

  #isLeftOut(path: ByteString, isDir: boolean): boolean {
    return this.#options.isIgnored(path, isDir) || (isDir && this.#options.exclude.has(this.#absolute(path)));
  }

  #isSame(row: number, stat: Readonly<Look>): boolean {
    return this.#cache !== undefined && !this.#cache.has(row, FLAG_RACY) && hasStampOf(this.#cache, row, stat);
  }

  /** Undefined when it is gone. */
  #look(path: ByteString, name: ByteString): LiveNode | Unseen | undefined {
    const absolute = this.#absolute(path);
    try {
      const quickType = this.#quick?.look(absolute) === true ? QUICK_TYPES.get(this.#quick.mode & S_IFMT) : undefined;
      if (this.#quick !== undefined && quickType !== undefined)
        return this.#describe(path, name, quickType, this.#quick);
      const stat = lstatSync(toFsPath(absolute), { bigint: true });
      const type = typeOf(stat);
      if (type !== undefined) return this.#describe(path, name, type, statOf(stat));
      const isIgnored = this.#options.isIgnored(path, false);
      const reason = stat.isSocket() ? 'socket' : 'unknown file type';
      return { name, kind: isIgnored ? KIND_IGNORED : kindOfReason(reason), mode: Number(stat.mode) };
    } catch (error) {
      if (isGone(error)) return undefined;
      if (errnoOf(error) === 'ENAMETOOLONG') return { name, kind: kindOfReason('name too long'), mode: 0 };
      throw describeSystemError(error, `looking at ${toText(absolute)}`);
    }
  }

  #describe(path: ByteString, name: ByteString, type: EntryType, stat: Readonly<DiskStat>): LiveNode | Unseen {
    const absolute = this.#absolute(path);
    const { mode } = stat;
    if (this.#options.isIgnored(path, type === 'dir')) return { name, kind: KIND_IGNORED, mode };
    if (type === 'dir' && this.#options.exclude.has(absolute))
      return { name, kind: kindOfReason('nested mount'), mode };
    return Object.assign(describe(absolute, stat, type, this.#owner), { name, path, row: -1, listing: undefined });
  }

  /** Good until the next call; undefined when there is nothing that can be looked at. */
  #lstat(absolute: ByteString): Readonly<Look> | undefined {
    if (this.#quick?.look(absolute) === true) return this.#quick;
    try {
      return lookOf(lstatSync(toFsPath(absolute), { bigint: true }));
    } catch (error) {
      if (isGone(error) || errnoOf(error) === 'ENAMETOOLONG') return undefined;
      throw describeSystemError(error, `looking at ${toText(absolute)}`);
    }
  }

  /** Notes that a new look replaces a row. @returns false, and does not, when a directory became something else */
  #takesPlace(node: LiveNode, row: number): boolean {
    if ((node.type === 'dir') !== isDirectoryMode(this.#cache?.modeOf(row) ?? 0)) return false;
    node.row = row;
    this.#replace(row, node);
    return true;
  }

  #replace(row: number, node: LiveNode): void {
    const cache = this.#cache as ScanCache;
    this.#fresh.set(row, node);
    const before = nodeOfRow(cache, row, { path: node.path, owner: this.#owner });
    const isSameDir = node.type === 'dir' && isSameButTime(before, node);
    if (!isSameDir) this.#isQuiet = false;
    if (!isSameDir || before.mtimeSec !== node.mtimeSec || before.mtimeNsec !== node.mtimeNsec) this.#dirty[row] = 1;
  }

  /** Directories are gone through later; what is left out for a reason is noted. */
  #follow(path: ByteString, ref: Ref): void {
    if (typeof ref === 'object' && 'path' in ref) {
      if (ref.type === 'dir') this.#pending.push({ path, row: ref.row, node: ref });
      return;
    }
    const kind = typeof ref === 'object' ? ref.kind : (this.#cache?.kindOf(ref) ?? KIND_SEEN);
    const reason = reasonOfKind(kind);
    if (reason !== undefined) this.#skipped.push({ path, reason });
    else if (typeof ref === 'number' && kind === KIND_SEEN && isDirectoryMode(this.#cache?.modeOf(ref) ?? 0)) {
      this.#pending.push({ path, row: ref, node: undefined });
    }
  }

  #nameOf(ref: Ref): ByteString {
    return typeof ref === 'number' ? (this.#cache?.nameOf(ref) ?? '') : ref.name;
  }

  /** Notes how the names of a directory differ from those of the cache, and whether anything of it is to be saved. */
  #compareNames(row: number, refs: readonly Ref[]): void {
    const cache = this.#cache as ScanCache;
    const [from, to] = cache.childrenOf(row);
    const rows = refs.map((ref) => (typeof ref === 'number' ? ref : 'path' in ref ? ref.row : -1));
    if (rows.length === to - from && rows.every((known, i) => known === from + i)) return;
    this.#listings.set(row, refs);
    let goneCount = 0;
    for (let child = from; child < to; child += 1) if (cache.kindOf(child) === KIND_SEEN) goneCount += 1;
    const isNew = refs.some((ref) => typeof ref === 'object' && 'path' in ref && ref.row < 0);
    for (const known of rows) if (known >= 0 && cache.kindOf(known) === KIND_SEEN) goneCount -= 1;
    if (!isNew && goneCount === 0) return;
    this.#dirty[row] = 1;
    this.#isQuiet = false;
  }

  #spreadDirt(): Uint8Array {
    const dirty = this.#dirty;
    for (let row = dirty.length - 1; row > 0; row -= 1) {
      if (dirty[row] === 1) dirty[this.#cache?.parentOf(row) ?? 0] = 1;
    }
    return dirty;
  }

  #absolute(path: ByteString): ByteString {
    return path === '' ? this.#dir : `${this.#dir}/${path}`;
  }
}

function lookOf(stat: BigIntStats): Look {
  return { ...stampOf(stat), mode: Number(stat.mode), uid: Number(stat.uid), gid: Number(stat.gid) };
}

/** Attributes of two directories, their times left aside. */
function isSameButTime(a: TreeNode, b: TreeNode): boolean {
  return a.mode === b.mode && a.uid === b.uid && a.gid === b.gid && sameXattrs(a.xattrs, b.xattrs);
}
