import { StatCache, type FileStamp, type HashedFile } from '../../index/stat-cache.ts';
import type { ByteString } from '../../store/byte-string.ts';
import type { CheckpointNode, CheckpointTree } from '../tree/checkpoint-tree.ts';
import type { ContentReader } from '../tree/content-reader.ts';
import { diffTrees, type Change } from '../tree/diff-trees.ts';
import type { TreeSource } from '../tree/index-checkpoint.ts';
import type { Tree, TreeNode } from '../tree/tree.ts';
import { hashFile, readPieces, type Skipped } from './live-tree.ts';

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

/** The bytes of a file of the workspace, from the disk or from the layer that holds them. */
export function contentOf(tree: WorkTree, node: WorkNode, reader: ContentReader): Iterable<Buffer> {
  if (node.stamp === undefined && node.lower !== undefined) return reader.pieces(node.lower.id);
  return readPieces(tree.absolute(node.path));
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
 * What a workspace changed against a checkpoint. Only files of equal size whose `stat` is new are read; what they hash to
 * is remembered for the next time.
 */
export function diffWorkspace(
  source: TreeSource,
  before: CheckpointTree | undefined,
  after: WorkTree,
): Change<CheckpointNode, WorkNode>[] {
  const cache = new StatCache(source.index, after.absolute(''));
  const hashed: HashedFile[] = [];
  const startMs = Date.now();
  const changes = diffTrees(before ?? EMPTY_TREE, after, {
    sameContent: (path, lower, node) => {
      node.digest ??= digestOnDisk(path, node);
      return node.digest === lower.digest;
    },
  });
  if (hashed.length > 0) cache.remember(hashed, startMs);
  return changes;

  function digestOnDisk(path: ByteString, node: WorkNode): NonNullable<WorkNode['digest']> {
    const known = node.stamp && cache.digestOf(path, node.stamp);
    if (known !== undefined) return known;
    const digest = hashFile(after.absolute(path));
    if (digest === undefined) return NO_CONTENT;
    if (node.stamp !== undefined) hashed.push({ path, stamp: node.stamp, digest });
    return digest;
  }
}

/** Of a file that vanished while it was looked at: equal to nothing. */
const NO_CONTENT = `sha256:${'-'.repeat(64)}` as const;
