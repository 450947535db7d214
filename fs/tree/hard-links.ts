import type { ByteString } from '../../store/byte-string.ts';
import type { TreeNode } from './tree.ts';

/** One path of two trees at which either side is a file with several names. */
export interface LinkedPair<B extends TreeNode, A extends TreeNode> {
  path: ByteString;
  before: B;
  after: A;
}

export interface GroupOptions<B extends TreeNode> {
  /** Paths that are known to differ. */
  isChanged: (path: ByteString) => boolean;
  /** Files (`linkKey` of the later tree) of which some name is new or changed. */
  changedFiles: Iterable<string>;
  /** The names a file of the earlier tree has there, those in directories that were skipped as identical included. */
  namesBefore: (node: B) => readonly ByteString[];
}

/**
 * Finds the names whose file is not the same group of names as before: those that were one file must still be one file,
 * and no others. Where that is not so, and where one name of a file changed, every one of its names counts as changed: a
 * layer holds a file's names together or not at all.
 */
export function regrouped<B extends TreeNode, A extends TreeNode>(
  pairs: readonly LinkedPair<B, A>[],
  { isChanged, changedFiles, namesBefore }: GroupOptions<B>,
): LinkedPair<B, A>[] {
  const partners = partnersOf(pairs.filter((pair) => !isChanged(pair.path) || pair.after.linkKey !== undefined));
  const broken = new Set([...changedFiles].map((key) => `a${key}`));
  const isBroken = (key: string): boolean => broken.has(key) || (partners.get(key)?.size ?? 0) > 1;
  const seen = new Set(pairs.map((pair) => pair.path));
  const leftOthers = ({ before, after }: LinkedPair<B, A>): boolean =>
    before.linkKey !== after.linkKey && namesBefore(before).some((name) => !seen.has(name));
  return pairs.filter((pair) => !isChanged(pair.path) && (leftOthers(pair) || keysOf(pair).some(isBroken)));
}

/** Each group of names, on either side, with the groups of the other side that it meets. */
function partnersOf(pairs: readonly LinkedPair<TreeNode, TreeNode>[]): Map<string, Set<string>> {
  const partners = new Map<string, Set<string>>();
  const meet = (key: string, other: string): void => {
    partners.set(key, (partners.get(key) ?? new Set()).add(other));
  };
  for (const pair of pairs) {
    const [before, after] = keysOf(pair);
    meet(before, after);
    meet(after, before);
  }
  return partners;
}

/** A file with one name is a group of its own. */
function keysOf({ path, before, after }: LinkedPair<TreeNode, TreeNode>): [string, string] {
  return [
    before.linkKey === undefined ? `b:${path}` : `b${before.linkKey}`,
    after.linkKey === undefined ? `a:${path}` : `a${after.linkKey}`,
  ];
}
