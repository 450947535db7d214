import type { ByteString } from '../../store/byte-string.ts';
import { statOf } from '../../store/file-calls.ts';
import { CowNode, ROOT_ID, UPPER_ID } from './cow-node.ts';
import { isDirectory, type CowTree } from './cow-tree.ts';

/**
 * Finds the objects that the kernel knows from the process that served a workspace before: those of the upper directory by
 * going through it once, those of the checkpoint by their ids, and what has no name any more where it was put aside.
 */
export class Recovery {
  readonly #tree: CowTree;
  #hasWalked = false;

  constructor(tree: CowTree) {
    this.#tree = tree;
  }

  find(id: number): CowNode | undefined {
    const orphan = this.#orphan(id);
    if (orphan !== undefined) return orphan;
    this.walkUpper();
    const known = this.#tree.known(id);
    if (known !== undefined || id >= UPPER_ID || id === ROOT_ID) return known;
    return this.#lowerNode(id);
  }

  /** Makes a node of everything in the upper directory. */
  walkUpper(): void {
    if (this.#hasWalked) return;
    this.#hasWalked = true;
    const dirs = [this.#tree.root];
    for (let dir = dirs.pop(); dir !== undefined; dir = dirs.pop()) {
      for (const { name } of this.#tree.upperNames(dir)) {
        const node = dir.children?.get(name) ?? this.#adopt(dir, name);
        if (node?.isDir === true) dirs.push(node);
      }
    }
    // what the kernel gives back may have been counted by the process before: it must not be taken from what we counted
    for (const node of this.#tree.nodes) node.isRecovered = true;
    this.#tree.knowsMoved = true;
  }

  #adopt(dir: CowNode, name: ByteString): CowNode | undefined {
    const stat = statOf(this.#tree.pathIn(dir, name));
    return typeof stat === 'number' ? undefined : this.#tree.adoptUpper(dir, name, stat);
  }

  /** What was put aside goes by its id. */
  #orphan(id: number): CowNode | undefined {
    const path = this.#tree.scratch.orphanPath(id);
    const stat = statOf(path);
    if (typeof stat === 'number') return undefined;
    return this.#tree.adoptOrphan(id, path, stat);
  }

  /** An object of the checkpoint, where it shows; or, removed since, for those who still have it open. */
  #lowerNode(id: number): CowNode | undefined {
    const { lower } = this.#tree;
    const stat = lower.stat(id);
    if (stat === undefined) return undefined;
    for (const path of lower.paths(id)) {
      const node = this.#tree.findByLowerPath(path);
      // Known from the checkpoint that was below before, or as what it was before it was copied up unmarked.
      if (node !== undefined && node.id !== id && node.isDir === isDirectory(stat)) this.#tree.alias(id, node);
    }
    return this.#tree.known(id) ?? this.#tree.add(new CowNode(id, { isDir: isDirectory(stat), lower: id }));
  }
}
