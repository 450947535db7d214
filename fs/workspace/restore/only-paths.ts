import { baseName, joinPath, parentPath, type ByteString } from '../../../store/byte-string.ts';
import type { Tree, TreeNode } from '../../tree/tree.ts';

/**
 * A tree in which only some paths are to be seen, and the directories on the way to them: what is known to be equal need not
 * be compared again. Listed from the root on, as `diffTrees` does.
 */
export class OnlyPaths<N extends TreeNode> implements Tree<N> {
  readonly root: N;
  readonly #tree: Tree<N>;
  readonly #names: ReadonlyMap<ByteString, ReadonlySet<ByteString>>;
  readonly #pathOf = new Map<N, ByteString>();

  constructor(tree: Tree<N>, paths: Iterable<ByteString>) {
    this.root = tree.root;
    this.#tree = tree;
    this.#names = namesByParent(paths);
    this.#pathOf.set(tree.root, '');
  }

  children(dir: N): readonly N[] {
    const path = this.#pathOf.get(dir);
    const names = path === undefined ? undefined : this.#names.get(path);
    if (path === undefined || names === undefined) return [];
    const children = this.#tree.children(dir).filter(({ name }) => names.has(name));
    for (const child of children) if (child.type === 'dir') this.#pathOf.set(child, joinPath(path, child.name));
    return children;
  }

  namesOf(node: N): readonly ByteString[] {
    return this.#tree.namesOf?.(node) ?? [];
  }
}

function namesByParent(paths: Iterable<ByteString>): Map<ByteString, Set<ByteString>> {
  const names = new Map<ByteString, Set<ByteString>>();
  for (let path of paths) {
    for (; path !== ''; path = parentPath(path)) {
      const siblings = names.get(parentPath(path)) ?? new Set<ByteString>();
      if (siblings.has(baseName(path))) break;
      names.set(parentPath(path), siblings.add(baseName(path)));
    }
  }
  return names;
}
