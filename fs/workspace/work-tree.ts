import { StatCache, type FileStamp, type HashedFile } from '../../index/stat-cache.ts';
import type { ByteString } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import type { CheckpointNode, CheckpointTree } from '../tree/checkpoint-tree.ts';
import type { ContentReader } from '../tree/content-reader.ts';
import { diffTrees, type Change } from '../tree/diff-trees.ts';
import type { TreeSource } from '../tree/index-checkpoint.ts';
import type { Tree, TreeNode } from '../tree/tree.ts';
import { hashFile, OpenFile } from '../tree/disk-file.ts';
import type { Skipped } from '../tree/disk-node.ts';

/** An object of a workspace: on disk (`stamp`), or shown by the checkpoint below a fork (`lower`). */
export interface WorkNode extends TreeNode {
  path: ByteString;
  stamp: FileStamp | undefined;
  lower?: CheckpointNode | undefined;
}

/** A workspace as it is now: a directory scanned, or a fork's upper over its checkpoint. */
export interface WorkTree extends Tree<WorkNode> {
  /** Where on disk the bytes of a node with a stamp lie. */
  absolute(path: ByteString): ByteString;
  readonly skipped: readonly Skipped[];
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
  readonly #cache: StatCache;
  readonly #startMs = Date.now();
  readonly #hashed: HashedFile[] = [];

  constructor(source: TreeSource, tree: WorkTree) {
    this.#tree = tree;
    this.#cache = new StatCache(source.index, tree.absolute(''));
  }

  /** Undefined for a file that vanished while it was looked at. */
  of(path: ByteString, node: WorkNode): Digest | undefined {
    const digest = node.digest ?? (node.stamp && this.#cache.digestOf(path, node.stamp)) ?? this.#read(path, node);
    if (digest !== undefined) node.digest = digest;
    return digest;
  }

  /** Keeps what was read for the next command. */
  remember(): void {
    if (this.#hashed.length > 0) this.#cache.remember(this.#hashed.splice(0), this.#startMs);
  }

  #read(path: ByteString, { stamp }: WorkNode): Digest | undefined {
    const digest = hashFile(this.#tree.absolute(path));
    if (digest !== undefined && stamp !== undefined) this.#hashed.push({ path, stamp, digest });
    return digest;
  }
}

/** What a workspace changed against a checkpoint. Only files of equal size whose `stat` is new are read. */
export function diffWorkspace(
  source: TreeSource,
  before: CheckpointTree | undefined,
  after: WorkTree,
): Change<CheckpointNode, WorkNode>[] {
  const digests = new WorkDigests(source, after);
  const changes = diffTrees(before ?? EMPTY_TREE, after, {
    sameContent: (path, lower, node) => digests.of(path, node) === lower.digest,
  });
  digests.remember();
  return changes;
}
