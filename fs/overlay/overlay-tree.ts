import { lstatSync, type BigIntStats } from 'node:fs';

import type { FileStamp } from '../../index/stat-cache.ts';
import { joinPath, toFsPath, toText, type ByteString } from '../../store/byte-string.ts';
import type { EntryType } from '../../store/entry.ts';
import { BentoError, describeSystemError } from '../../store/errors.ts';
import { isGone } from '../../store/regular-file.ts';
import { readXattrs } from '../../store/syscalls.ts';
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

/** Attributes the kernel's overlayfs keeps in an upper directory; `user.` where it was mounted without privilege. */
const OPAQUE = ['trusted.overlay.opaque', 'user.overlay.opaque'];
const REDIRECT = ['trusted.overlay.redirect', 'user.overlay.redirect'];

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
  readonly #isIgnored: PathTest;
  readonly #owner: Owner;

  constructor(upper: ByteString, lower: CheckpointTree, isIgnored: PathTest) {
    const stat = lstatSync(toFsPath(upper), { bigint: true });
    this.upper = upper;
    this.lower = lower;
    this.#isIgnored = isIgnored;
    this.#owner = ownerOf(stat);
    this.root = this.#upperNode('', '', stat, 'dir', lower.root);
  }

  absolute(path: ByteString): ByteString {
    return path === '' ? this.upper : `${this.upper}/${path}`;
  }

  children(dir: OverlayNode): readonly OverlayNode[] {
    const below = dir.lower?.type === 'dir' ? this.lower.children(dir.lower) : [];
    if (dir.stamp === undefined) return below.map((node) => this.#lowerNode(joinPath(dir.path, node.name), node));
    const merged = new Map<ByteString, OverlayNode | undefined>();
    for (const node of below) merged.set(node.name, this.#lowerNode(joinPath(dir.path, node.name), node));
    for (const name of readNames(this.absolute(dir.path))) {
      merged.set(name, this.#look(joinPath(dir.path, name), name, merged.get(name)?.lower));
    }
    return [...merged.values()].filter((node) => node !== undefined).sort(byName);
  }

  /** What the upper holds under a name; undefined for a whiteout and for what is not saved. */
  #look(path: ByteString, name: ByteString, below: CheckpointNode | undefined): OverlayNode | undefined {
    try {
      return this.#describe(path, name, below);
    } catch (error) {
      if (isGone(error)) return undefined;
      throw describeSystemError(error, `looking at ${toText(this.absolute(path))}`);
    }
  }

  #describe(path: ByteString, name: ByteString, below: CheckpointNode | undefined): OverlayNode | undefined {
    const stat = lstatSync(toFsPath(this.absolute(path)), { bigint: true });
    if (stat.isCharacterDevice() && stat.rdev === 0n) return undefined;
    const type = typeOf(stat);
    if (this.#isIgnored(path, type === 'dir')) return undefined;
    if (type === undefined) {
      this.skipped.push({ path, reason: stat.isSocket() ? 'socket' : 'unknown file type' });
      return undefined;
    }
    const shows = type === 'dir' && below?.type === 'dir' && !this.#isOpaque(path) ? below : undefined;
    return this.#upperNode(path, name, stat, type, shows);
  }

  #upperNode(
    path: ByteString,
    name: ByteString,
    stat: BigIntStats,
    type: EntryType,
    lower: CheckpointNode | undefined,
  ): OverlayNode {
    if (type === 'dir') this.#refuseRedirect(path);
    return { ...describe(this.absolute(path), statOf(stat), type, this.#owner), name, path, lower };
  }

  #lowerNode(path: ByteString, node: CheckpointNode): OverlayNode {
    const { id: _id, depth: _depth, nlink: _nlink, parts: _parts, ...shared } = node;
    return { ...shared, path, stamp: undefined, lower: node };
  }

  #isOpaque(path: ByteString): boolean {
    const xattrs = readXattrs(this.absolute(path));
    return OPAQUE.some((name) => xattrs?.get(name)?.toString('latin1') === 'y');
  }

  /** bento mounts with redirects off; a directory that has one anyway was made by another mount and cannot be trusted. */
  #refuseRedirect(path: ByteString): void {
    const xattrs = readXattrs(this.absolute(path));
    if (!REDIRECT.some((name) => xattrs?.has(name))) return;
    throw new BentoError(
      'FORMAT_UNSUPPORTED',
      `${toText(this.absolute(path))} is an overlay redirect, which bento does not make`,
      {
        hint: 'move the directory back and copy it instead',
      },
    );
  }
}
