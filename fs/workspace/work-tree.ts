import { StatCache, type FileStamp, type HashedFile } from '../../index/stat-cache.ts';
import type { ByteString } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import type { CheckpointNode, CheckpointTree } from '../tree/checkpoint-tree.ts';
import type { ContentReader } from '../contents/content-reader.ts';
import { diffTrees, type Change } from '../tree/diff-trees.ts';
import type { TreeSource } from '../tree/index-checkpoint.ts';
import type { Tree, TreeNode } from '../tree/tree.ts';
import { hashFile, OpenFile } from '../tree/disk-file.ts';
import type { Skipped } from '../tree/disk-node.ts';
import { isWorthSaving } from './plan-layers.ts';

/** An object of a workspace: on disk (`stamp`), or shown by the checkpoint below a fork (`lower`). */
export interface WorkNode extends TreeNode {
  path: ByteString;
  stamp: FileStamp | undefined;
  /** Its bytes are known for its stamp, however new that is: whoever changes them moves its time. */
  isSettled?: boolean;
  lower?: CheckpointNode | undefined;
}

/** A workspace as it is now: a directory scanned, or a fork's upper over its checkpoint. */
export interface WorkTree extends Tree<WorkNode> {
  /** Where on disk the bytes of a node with a stamp lie. */
  absolute(path: ByteString): ByteString;
  readonly skipped: readonly Skipped[];
  /** Keeps digests, and what came out of a comparison, in a cache of its own; where it is missing, the index keeps digests. */
  readonly remember?: ((compared?: Compared) => void) | undefined;
  /** Of a tree whose digests the index keeps: what came out of a comparison is kept apart. */
  readonly rememberLook?: ((compared?: Compared) => void) | undefined;
  /** Whether nothing worth saving differs from a checkpoint with these layers, as far as `stat` can tell. */
  isUnchangedSince?(layers: readonly Digest[]): boolean;
}

/** How a tree was compared with a checkpoint, or made into one. */
export interface Compared {
  /** The checkpoint's layers, lowest first. */
  layers: readonly Digest[];
  /** Paths of everything that differs, times of directories too; absent: too much to tell what does not. */
  differing: readonly ByteString[] | undefined;
  /** None of it is worth saving. */
  isClean: boolean;
}

/** A file's bytes, to be read once; or closed without reading. */
export interface OpenContent {
  pieces(): Iterable<Buffer>;
  close(): void;
}

/** The bytes of a file of the workspace, on the disk or in the layer that holds them; undefined when it is gone. */
export function openContent(tree: WorkTree, node: WorkNode, reader: ContentReader): OpenContent | undefined {
  const { stamp, lower } = node;
  if (stamp !== undefined || lower === undefined) return OpenFile.open(tree.absolute(node.path));
  return { pieces: () => reader.pieces(lower.id), close: () => undefined };
}

/** A tree with nothing in it, not even attributes of its root. */
export const EMPTY_TREE: Tree<CheckpointNode> = {
  root: {
    name: '',
    type: 'dir',
    mode: -1,
    uid: 0,
    gid: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    sizeBytes: 0,
    id: 0,
    depth: 0,
    nlink: 1,
    parts: [],
  },
  children: () => [],
};

/**
 * Digests of a workspace's files: those that are known, those remembered from when nothing `stat` tells was different, and
 * the rest read now.
 */
export class WorkDigests {
  readonly #tree: WorkTree;
  /** For a tree that has no cache of its own. */
  readonly #cache: StatCache | undefined;
  readonly #startMs = Date.now();
  readonly #hashed: HashedFile[] = [];

  constructor(source: TreeSource, tree: WorkTree) {
    this.#tree = tree;
    this.#cache = tree.remember === undefined ? new StatCache(source.index, tree.absolute('')) : undefined;
  }

  /** Undefined for a file that vanished while it was looked at. */
  of(path: ByteString, node: WorkNode): Digest | undefined {
    const digest = node.digest ?? (node.stamp && this.#cache?.digestOf(path, node.stamp)) ?? this.#read(path, node);
    if (digest !== undefined) node.digest = digest;
    return digest;
  }

  /** Keeps what was read for the next command. */
  remember(compared?: Compared): void {
    if (this.#cache === undefined) {
      this.#tree.remember?.(compared);
      return;
    }
    if (this.#hashed.length > 0) this.#cache.remember(this.#hashed.splice(0), this.#startMs);
    if (compared !== undefined) this.#tree.rememberLook?.(compared);
  }

  #read(path: ByteString, { stamp }: WorkNode): Digest | undefined {
    const digest = hashFile(this.#tree.absolute(path));
    if (digest !== undefined && stamp !== undefined) this.#hashed.push({ path, stamp, digest });
    return digest;
  }
}

export interface WorkspaceComparison {
  changes: Change<CheckpointNode, WorkNode>[];
  /** Keeps what was found and read for the next command. */
  remember: () => void;
}

/** What a workspace changed against a checkpoint. Only files of equal size whose `stat` is new are read. */
export function compareWorkspace(
  source: TreeSource,
  before: CheckpointTree | undefined,
  after: WorkTree,
): WorkspaceComparison {
  const digests = new WorkDigests(source, after);
  const changes = diffTrees(before ?? EMPTY_TREE, after, {
    sameContent: (path, lower, node) => digests.of(path, node) === lower.digest,
  });
  return { changes, remember: () => digests.remember(before && comparedWith(before, changes)) };
}

/** {@link compareWorkspace}, and what was found is kept. */
export function diffWorkspace(
  source: TreeSource,
  before: CheckpointTree | undefined,
  after: WorkTree,
): Change<CheckpointNode, WorkNode>[] {
  const { changes, remember } = compareWorkspace(source, before, after);
  remember();
  return changes;
}

/**
 * What a comparison of a whole workspace with a checkpoint found. Where a file lost one of its names, the directory of
 * another is no longer known to be equal: it depends on what becomes of the lost one.
 */
export function comparedWith(before: CheckpointTree, changes: readonly Change[]): Compared {
  const losesNames = changes.some((change) => change.before?.linkKey !== undefined);
  return {
    layers: before.layers.map((layer) => layer.digest),
    differing: losesNames ? undefined : changes.map((change) => change.path),
    isClean: !changes.some(isWorthSaving),
  };
}
