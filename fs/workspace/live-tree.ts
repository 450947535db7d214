import { lstatSync, type BigIntStats } from 'node:fs';

import { joinPath, toFsPath, toText, type ByteString } from '../../store/byte-string.ts';
import type { EntryType } from '../../store/entry.ts';
import { describeSystemError, errnoOf } from '../../store/errors.ts';
import {
  describe,
  isGone,
  ownerOf,
  readNames,
  typeOf,
  type DiskNode,
  type Owner,
  type Skipped,
} from '../tree/disk-node.ts';
import type { PathTest, Tree, TreeNode } from '../tree/tree.ts';

/** An object on disk, as it was when it was looked at. */
export interface LiveNode extends TreeNode, DiskNode {
  /** Relative to the tree's root. */
  path: ByteString;
  children: LiveNode[];
}

export interface ScanOptions {
  /** Tells what to leave out; an ignored directory is not entered. */
  isIgnored: PathTest;
  /** Absolute paths that are not entered: other workspaces mounted inside this one, the store itself. */
  exclude: ReadonlySet<ByteString>;
}

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
