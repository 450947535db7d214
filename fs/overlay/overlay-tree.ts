import { lstatSync, type BigIntStats } from 'node:fs';

import type { FileStamp } from '../../index/stat-cache.ts';
import { joinPath, toFsPath, toText, type ByteString } from '../../store/byte-string.ts';
import type { EntryType } from '../../store/entry.ts';
import { describeSystemError } from '../../store/errors.ts';
import { isGone } from '../../store/regular-file.ts';
import { xattrOf } from '../../store/file-calls.ts';
import { readXattrs } from '../../store/syscalls.ts';
import { decodeOrigin, TRUSTED_MARKS, USER_MARKS } from './marks.ts';
import { PARTIAL_BYTES_MIN } from './partial-file.ts';
import type { CheckpointNode, CheckpointTree } from '../tree/checkpoint-tree.ts';
import { byName, type PathTest, type Tree, type TreeNode } from '../tree/tree.ts';
import { describe, ownerOf, readNames, statOf, typeOf, type Owner, type Skipped } from '../tree/disk-node.ts';

/** One object of a fork: in its upper directory, or still as the checkpoint below has it. */
export interface OverlayNode extends TreeNode {
  path: ByteString;
  /** Set when the upper directory holds it: then metadata and content come from there. */
  stamp: FileStamp | undefined;
  /** The checkpoint's node that provides it, or for directories that shows through it. */
  lower: CheckpointNode | undefined;
}

/** Root's marks, and those of everybody else; which ones count depends on how the fork is mounted. */
const ALL_MARKS = [TRUSTED_MARKS, USER_MARKS];

export interface OverlayTreeOptions {
  isIgnored: PathTest;
  mounted: ByteString;
}

/**
 * A fork as its processes see it: the upper directory over a checkpoint. Only the upper is read from disk; where it has
 * nothing, the checkpoint's own rows stand, identity included, so comparing costs what the fork changed.
 *
 * @see Linux Documentation/filesystems/overlayfs.rst, "Upper and Lower", "whiteouts and opaque directories"
 */
export class OverlayTree implements Tree<OverlayNode> {
  /** Absolute path of the upper directory. */
  readonly upper: ByteString;
  readonly lower: CheckpointTree;
  readonly root: OverlayNode;
  readonly skipped: Skipped[] = [];
  /** The topmost paths in the upper directory that are left out because they are ignored, as far as was looked. */
  readonly ignored = new Set<ByteString>();
  readonly #isIgnored: PathTest;
  readonly #owner: Owner;
  readonly #mounted: ByteString;
  /** Files of which the upper directory has only parts: the whole is to be had where they are mounted. */
  readonly #partial = new Set<ByteString>();

  /** @param mounted - where the fork is mounted */
  constructor(upper: ByteString, lower: CheckpointTree, { isIgnored, mounted }: OverlayTreeOptions) {
    const stat = lstatSync(toFsPath(upper), { bigint: true });
    this.upper = upper;
    this.lower = lower;
    this.#mounted = mounted;
    this.#isIgnored = isIgnored;
    this.#owner = ownerOf(stat);
    this.root = this.#upperNode('', '', stat, 'dir', lower.root);
  }

  /** Where the bytes of a file are. */
  absolute(path: ByteString): ByteString {
    return this.#partial.has(path) ? `${this.#mounted}/${path}` : this.#inUpper(path);
  }

  #inUpper(path: ByteString): ByteString {
    return path === '' ? this.upper : `${this.upper}/${path}`;
  }

  children(dir: OverlayNode): readonly OverlayNode[] {
    const below = dir.lower?.type === 'dir' ? this.lower.children(dir.lower) : [];
    if (dir.stamp === undefined) return below.map((node) => this.#lowerNode(joinPath(dir.path, node.name), node));
    const merged = new Map<ByteString, OverlayNode | undefined>();
    for (const node of below) merged.set(node.name, this.#lowerNode(joinPath(dir.path, node.name), node));
    for (const name of readNames(this.#inUpper(dir.path))) {
      merged.set(name, this.#look(dir, name, merged.get(name)?.lower));
    }
    return [...merged.values()].filter((node) => node !== undefined).sort(byName);
  }

  /** What the upper holds under a name; undefined for a whiteout and for what is not saved. */
  #look(dir: OverlayNode, name: ByteString, below: CheckpointNode | undefined): OverlayNode | undefined {
    const path = joinPath(dir.path, name);
    try {
      return this.#describe(dir, name, below);
    } catch (error) {
      if (isGone(error)) return undefined;
      throw describeSystemError(error, `looking at ${toText(this.#inUpper(path))}`);
    }
  }

  #describe(dir: OverlayNode, name: ByteString, below: CheckpointNode | undefined): OverlayNode | undefined {
    const path = joinPath(dir.path, name);
    const stat = lstatSync(toFsPath(this.#inUpper(path)), { bigint: true });
    if (stat.isCharacterDevice() && stat.rdev === 0n) return undefined;
    const type = typeOf(stat);
    if (this.#isIgnored(path, type === 'dir')) {
      this.ignored.add(path);
      return undefined;
    }
    if (type === undefined) {
      this.skipped.push({ path, reason: stat.isSocket() ? 'socket' : 'unknown file type' });
      return undefined;
    }
    if (type === 'file' && stat.size >= PARTIAL_BYTES_MIN && this.#isPartial(path)) this.#partial.add(path);
    const shows = type === 'dir' ? this.#showsThrough(dir, path, below) : undefined;
    return this.#upperNode(path, name, stat, type, shows);
  }

  #upperNode(
    path: ByteString,
    name: ByteString,
    stat: BigIntStats,
    type: EntryType,
    lower: CheckpointNode | undefined,
  ): OverlayNode {
    return { ...describe(this.#inUpper(path), statOf(stat), type, this.#owner), name, path, lower };
  }

  #lowerNode(path: ByteString, node: CheckpointNode): OverlayNode {
    const { id: _id, depth: _depth, nlink: _nlink, parts: _parts, ...shared } = node;
    return { ...shared, path, stamp: undefined, lower: node };
  }

  /** The directory of the checkpoint that shows through one of the upper directory: not always that of the same path. */
  #showsThrough(dir: OverlayNode, path: ByteString, below: CheckpointNode | undefined): CheckpointNode | undefined {
    const xattrs = readXattrs(this.#inUpper(path));
    if (xattrs === undefined) return below?.type === 'dir' ? below : undefined;
    if (ALL_MARKS.some(({ opaque }) => xattrs.get(opaque)?.toString('latin1') === 'y')) return undefined;
    const redirect = ALL_MARKS.map((marks) => xattrs.get(marks.redirect)).find((value) => value !== undefined);
    const shows = redirect === undefined ? below : this.#redirected(dir, redirect.toString('latin1'));
    return shows?.type === 'dir' ? shows : undefined;
  }

  #redirected({ lower }: OverlayNode, to: ByteString): CheckpointNode | undefined {
    if (to.startsWith('/')) return this.lower.find(to.slice(1));
    return lower?.type === 'dir' ? this.lower.child(lower, to) : undefined;
  }

  #isPartial(path: ByteString): boolean {
    const absolute = this.#inUpper(path);
    return ALL_MARKS.some(({ origin }) => {
      const mark = xattrOf(absolute, origin);
      return typeof mark !== 'number' && decodeOrigin(mark)?.partial !== undefined;
    });
  }
}
