import type { ByteString } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import type { Metadata } from '../../store/entry.ts';

/** One object of a tree. Hard links of one file are nodes of type 'file' that share a `linkKey`. */
export interface TreeNode extends Metadata {
  name: ByteString;
  /** SHA-256 of a file's content where it is known without reading the file. */
  digest?: Digest;
  /** Equal for names of one and the same file; absent when the file has one name. */
  linkKey?: string;
  /** Directories with equal identities have equal contents, all the way down. */
  identity?: string;
}

/**
 * A tree that can be walked from the top: a checkpoint, a directory on disk, or a fork's upper over a checkpoint.
 * Children come sorted by name, bytewise.
 */
export interface Tree<N extends TreeNode = TreeNode> {
  readonly root: N;
  children(dir: N): readonly N[];
  /** All paths at which a file with several names is to be seen; where it is missing, a walk of the tree tells. */
  namesOf?(node: N): readonly ByteString[];
}

/** Sorts by name, bytewise: a byte string's code units are its bytes. */
export function byName(a: { name: ByteString }, b: { name: ByteString }): number {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}

/** Every node below the root with its path, parents before children. */
export function* walkTree<N extends TreeNode>(
  tree: Tree<N>,
  dir: N = tree.root,
  path: ByteString = '',
): Generator<[ByteString, N]> {
  for (const node of tree.children(dir)) {
    const below = path === '' ? node.name : `${path}/${node.name}`;
    yield [below, node];
    if (node.type === 'dir') yield* walkTree(tree, node, below);
  }
}
