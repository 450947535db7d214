import { joinPath, type ByteString } from '../../store/byte-string.ts';
import type { Xattrs } from '../../store/entry.ts';
import { regrouped, type LinkedPair } from './hard-links.ts';
import type { Tree, TreeNode } from './tree.ts';

/** What differs about an object that both trees have. `links`: which names are one file. */
export type Difference = 'type' | 'content' | 'link' | 'mode' | 'owner' | 'mtime' | 'xattrs' | 'links';

/** One path at which two trees differ. */
export interface Change<B extends TreeNode = TreeNode, A extends TreeNode = TreeNode> {
  path: ByteString;
  kind: 'added' | 'removed' | 'modified';
  before: B | undefined;
  after: A | undefined;
  differences: readonly Difference[];
}

export interface DiffOptions<B extends TreeNode, A extends TreeNode> {
  /**
   * Decides whether two files of equal size have equal bytes when one of them has no digest yet. May read the file, and
   * may leave its digest in the node.
   */
  sameContent: (path: ByteString, before: B, after: A) => boolean;
  /** The trees are described by two indexes, so that equal identities mean nothing. */
  apart?: boolean;
}

/**
 * Compares two trees, parents before children, skipping directories that are identical because they are the same rows of
 * the same layers. A directory whose only difference is its time is reported as `mtime`: callers decide what it means.
 */
export function diffTrees<B extends TreeNode, A extends TreeNode>(
  before: Tree<B>,
  after: Tree<A>,
  options: DiffOptions<B, A>,
): Change<B, A>[] {
  const diff = new TreeDiff(before, after, options);
  diff.compare('', before.root, after.root);
  return diff.withRegroupedLinks();
}

class TreeDiff<B extends TreeNode, A extends TreeNode> {
  readonly #changes: Change<B, A>[] = [];
  readonly #linked: LinkedPair<B, A>[] = [];
  #hasSkipped = false;
  readonly #before: Tree<B>;
  readonly #after: Tree<A>;
  readonly #options: DiffOptions<B, A>;

  constructor(before: Tree<B>, after: Tree<A>, options: DiffOptions<B, A>) {
    this.#before = before;
    this.#after = after;
    this.#options = options;
  }

  compare(path: ByteString, before: B, after: A): void {
    if (this.#after.isSameAs?.(after, this.#before) === true) return;
    if (before.identity !== undefined && before.identity === after.identity && this.#options.apart !== true) {
      this.#hasSkipped = true;
      return;
    }
    const differences = this.#differences(path, before, after);
    if (differences.length > 0) this.#changes.push({ path, kind: 'modified', before, after, differences });
    if (before.linkKey !== undefined || after.linkKey !== undefined) this.#linked.push({ path, before, after });
    if (before.type === 'dir' && after.type === 'dir') this.#compareChildren(path, before, after);
    else if (before.type === 'dir') this.#removeBelow(path, before);
    else if (after.type === 'dir') this.#addBelow(path, after);
  }

  withRegroupedLinks(): Change<B, A>[] {
    if (this.#linked.length === 0) return this.#changes;
    const changed = new Set(this.#changes.map((change) => change.path));
    const links = regrouped(this.#linked, {
      isChanged: (path) => changed.has(path),
      changedFiles: this.#changes.flatMap(({ after }) => after?.linkKey ?? []),
      namesBefore: (node) => (this.#hasSkipped ? (this.#before.namesOf?.(node) ?? []) : []),
    });
    for (const pair of links) this.#changes.push({ ...pair, kind: 'modified', differences: ['links'] });
    return this.#changes.sort((a, b) => comparePaths(a.path, b.path));
  }

  #compareChildren(path: ByteString, before: B, after: A): void {
    const names = this.#namesToCompare(before, after);
    if (names !== undefined) {
      this.#compareNames(path, names, { before, after });
      return;
    }
    const left = this.#before.children(before);
    const right = this.#after.children(after);
    let i = 0;
    let j = 0;
    while (i < left.length || j < right.length) {
      const b = left[i];
      const a = right[j];
      if (a === undefined || (b !== undefined && b.name < a.name)) {
        if (b !== undefined) this.#remove(joinPath(path, b.name), b);
        i += 1;
      } else if (b === undefined || a.name < b.name) {
        this.#add(joinPath(path, a.name), a);
        j += 1;
      } else {
        this.compare(joinPath(path, a.name), b, a);
        i += 1;
        j += 1;
      }
    }
  }

  /** Undefined when the trees cannot tell, and all names have to be looked at. */
  #namesToCompare(before: B, after: A): readonly ByteString[] | undefined {
    const canLookUp = this.#before.child !== undefined && this.#after.child !== undefined;
    return canLookUp && this.#options.apart !== true ? this.#after.differingNames?.(after, before) : undefined;
  }

  /** Looks at some of the names in a directory; the rest is known to be the same. */
  #compareNames(path: ByteString, names: readonly ByteString[], dirs: { before: B; after: A }): void {
    this.#hasSkipped = true;
    for (const name of names) {
      const before = this.#before.child?.(dirs.before, name);
      const after = this.#after.child?.(dirs.after, name);
      if (before !== undefined && after !== undefined) this.compare(joinPath(path, name), before, after);
      else if (before !== undefined) this.#remove(joinPath(path, name), before);
      else if (after !== undefined) this.#add(joinPath(path, name), after);
    }
  }

  #remove(path: ByteString, node: B): void {
    this.#changes.push({ path, kind: 'removed', before: node, after: undefined, differences: [] });
    if (node.type === 'dir') this.#removeBelow(path, node);
  }

  #removeBelow(path: ByteString, dir: B): void {
    for (const child of this.#before.children(dir)) this.#remove(joinPath(path, child.name), child);
  }

  #add(path: ByteString, node: A): void {
    this.#changes.push({ path, kind: 'added', before: undefined, after: node, differences: [] });
    if (node.type === 'dir') this.#addBelow(path, node);
  }

  #addBelow(path: ByteString, dir: A): void {
    for (const child of this.#after.children(dir)) this.#add(joinPath(path, child.name), child);
  }

  #differences(path: ByteString, before: B, after: A): Difference[] {
    if (before.type !== after.type) return ['type'];
    const isSame = before.type !== 'file' || this.#sameFile(path, before, after);
    return [...(isSame ? [] : (['content'] as const)), ...metadataDifferences(before, after)];
  }

  #sameFile(path: ByteString, before: B, after: A): boolean {
    if (before.sizeBytes !== after.sizeBytes) return false;
    if (before.digest !== undefined && after.digest !== undefined) return before.digest === after.digest;
    return this.#options.sameContent(path, before, after);
  }
}

/** What differs between two objects of one type besides what a file contains. */
export function metadataDifferences(before: TreeNode, after: TreeNode): Difference[] {
  const found: Difference[] = [];
  if (
    before.link !== after.link ||
    before.rdev?.major !== after.rdev?.major ||
    before.rdev?.minor !== after.rdev?.minor
  ) {
    found.push('link');
  }
  if (before.mode !== after.mode) found.push('mode');
  if (before.uid !== after.uid || before.gid !== after.gid) found.push('owner');
  if (before.mtimeSec !== after.mtimeSec || before.mtimeNsec !== after.mtimeNsec) found.push('mtime');
  if (!sameXattrs(before.xattrs, after.xattrs)) found.push('xattrs');
  return found;
}

/** Depth first: a directory, then what is in it, then its next sibling. */
export function comparePaths(a: ByteString, b: ByteString): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i += 1) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x === y) continue;
    if (x === SLASH) return -1;
    if (y === SLASH) return 1;
    return x - y;
  }
  return a.length - b.length;
}

const SLASH = 0x2f;

export function sameXattrs(a: Xattrs | undefined, b: Xattrs | undefined): boolean {
  if ((a?.size ?? 0) !== (b?.size ?? 0)) return false;
  for (const [name, value] of a ?? []) {
    if (b?.get(name)?.equals(value) !== true) return false;
  }
  return true;
}
