import { baseName, parentPath, type ByteString } from '../../store/byte-string.ts';
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
  /**
   * Whether a directory and all below are known to be what another tree shows at the same path, and no file in it has
   * another name elsewhere in either tree.
   */
  isSameAs?(dir: N, other: Tree): boolean;
  /** All paths at which a file with several names is to be seen; where it is missing, a walk of the tree tells. */
  namesOf?(node: N): readonly ByteString[];
  /** One entry of a directory, found without listing it; where it is missing, the list has it. */
  child?(dir: N, name: ByteString): N | undefined;
  /**
   * The names at which a directory can differ from one of another tree described by the same index, sorted, when that is
   * known without listing it. At all other names both have the same, all the way down. Undefined when it is not known.
   */
  differingNames?(dir: N, other: TreeNode): readonly ByteString[] | undefined;
}

/** Answers for one path relative to the workspace; the root itself (the empty path) never matches. */
export type PathTest = (path: ByteString, isDir: boolean) => boolean;

/** Sorts by name, bytewise: a byte string's code units are its bytes. */
export function byName(a: { name: ByteString }, b: { name: ByteString }): number {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}

/** Finds nodes by path in a tree that can only be listed; each directory on the way is listed once. */
export class PathFinder<N extends TreeNode> {
  readonly #tree: Tree<N>;
  readonly #listed = new Map<ByteString, Map<ByteString, N>>();

  constructor(tree: Tree<N>) {
    this.#tree = tree;
  }

  find(path: ByteString): N | undefined {
    return path === '' ? this.#tree.root : this.#list(parentPath(path))?.get(baseName(path));
  }

  #list(path: ByteString): Map<ByteString, N> | undefined {
    const listed = this.#listed.get(path);
    const dir = listed === undefined ? this.find(path) : undefined;
    if (dir?.type !== 'dir') return listed;
    const names = new Map(this.#tree.children(dir).map((node) => [node.name, node]));
    this.#listed.set(path, names);
    return names;
  }
}

/** The node at one path. For many paths in a tree that can only be listed there is `PathFinder`. */
export function nodeAt<N extends TreeNode>(tree: Tree<N>, path: ByteString): N | undefined {
  let node: N | undefined = tree.root;
  for (const name of path === '' ? [] : path.split('/')) {
    if (node?.type !== 'dir') return undefined;
    node = childOf(tree, node, name);
  }
  return node;
}

/** One entry of a directory, found the fastest way the tree has. */
export function childOf<N extends TreeNode>(tree: Tree<N>, dir: N, name: ByteString): N | undefined {
  return tree.child === undefined ? tree.children(dir).find((node) => node.name === name) : tree.child(dir, name);
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
