import { baseName, parentPath, type ByteString } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import type { Change } from './diff-trees.ts';
import type { TreeNode } from './tree.ts';

/** A file that has the same content under another path. */
export interface Rename<B extends TreeNode = TreeNode, A extends TreeNode = TreeNode> {
  from: ByteString;
  path: ByteString;
  before: B;
  after: A;
}

export interface RenameOptions<B extends TreeNode, A extends TreeNode> {
  /** Digest of a file that is gone; asked only where a new file has its size. May read the file. */
  digestBefore: (path: ByteString, node: B) => Digest | undefined;
  /** Digest of a new file; asked only where a file that is gone had its size. May read the file. */
  digestAfter: (path: ByteString, node: A) => Digest | undefined;
}

/**
 * Pairs files that are gone with new files of the same bytes; empty files are left alone. Of several candidates the one
 * whose path ends most alike is taken, hence first of all one of the same name, and then the one nearest in the tree.
 */
export function findRenames<B extends TreeNode, A extends TreeNode>(
  changes: readonly Change<B, A>[],
  { digestBefore, digestAfter }: RenameOptions<B, A>,
): Rename<B, A>[] {
  const removed = changes.flatMap(({ path, kind, before }) =>
    kind === 'removed' && isCandidate(before) ? [{ path, node: before }] : [],
  );
  const sizes = new Set(removed.map(({ node }) => node.sizeBytes));
  const added = changes.flatMap(({ path, kind, after }) =>
    kind === 'added' && isCandidate(after) && sizes.has(after.sizeBytes) ? [{ path, node: after }] : [],
  );
  const newSizes = new Set(added.map(({ node }) => node.sizeBytes));
  const gone = byDigest(
    removed.filter(({ node }) => newSizes.has(node.sizeBytes)),
    digestBefore,
  );
  const fresh = byDigest(added, digestAfter);
  return [...gone].flatMap(([digest, nodes]) => pairNodes(nodes, fresh.get(digest) ?? new Map<ByteString, A>()));
}

function isCandidate<N extends TreeNode>(node: N | undefined): node is N {
  return node?.type === 'file' && node.sizeBytes > 0;
}

function byDigest<N extends TreeNode>(
  files: readonly { path: ByteString; node: N }[],
  digestOf: (path: ByteString, node: N) => Digest | undefined,
): Map<Digest, Map<ByteString, N>> {
  const groups = new Map<Digest, Map<ByteString, N>>();
  for (const { path, node } of files) {
    const digest = digestOf(path, node);
    if (digest === undefined) continue;
    const group = groups.get(digest) ?? new Map<ByteString, N>();
    groups.set(digest, group.set(path, node));
  }
  return groups;
}

function pairNodes<B extends TreeNode, A extends TreeNode>(
  gone: ReadonlyMap<ByteString, B>,
  fresh: ReadonlyMap<ByteString, A>,
): Rename<B, A>[] {
  return pairPaths([...gone.keys()], [...fresh.keys()]).flatMap(([from, path]) => {
    const [before, after] = [gone.get(from), fresh.get(path)];
    return before === undefined || after === undefined ? [] : [{ from, path, before, after }];
  });
}

/**
 * Goes from the strictest likeness to none, pairing what agrees: linear in the number of paths for each step, so that
 * thousands of equal files (licences, generated stubs) cost no more than as many different ones.
 */
function pairPaths(from: ByteString[], to: ByteString[]): [ByteString, ByteString][] {
  const pairs: [ByteString, ByteString][] = [];
  const deepest = [...from, ...to].reduce((depth, path) => Math.max(depth, path.split('/').length), 0);
  const likenesses = [
    ...countDown(deepest).map((count) => (path: ByteString) => path.split('/').slice(-count).join('/')),
    ...countDown(deepest - 1).map((count) => (path: ByteString) => path.split('/').slice(0, count).join('/')),
    () => '',
  ];
  let [left, right] = [from, to];
  for (const keyOf of likenesses) {
    if (left.length === 0 || right.length === 0) break;
    const waiting = grouped(right, keyOf);
    const taken = new Set<ByteString>();
    left = left.filter((path) => {
      const partner = waiting.get(keyOf(path))?.pop();
      if (partner === undefined) return true;
      pairs.push([path, partner]);
      taken.add(partner);
      return false;
    });
    right = right.filter((path) => !taken.has(path));
  }
  return pairs;
}

function countDown(from: number): number[] {
  return Array.from({ length: Math.max(0, from) }, (_, i) => from - i);
}

function grouped(paths: readonly ByteString[], keyOf: (path: ByteString) => string): Map<string, ByteString[]> {
  const groups = new Map<string, ByteString[]>();
  for (const path of paths) {
    const key = keyOf(path);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [path]);
    else group.push(path);
  }
  for (const group of groups.values()) group.reverse(); // taken from the end, in the order of the paths
  return groups;
}

/** A directory that is gone, with files that are now in a new one, under the same names. */
export interface MovedDirectory {
  from: ByteString;
  to: ByteString;
  /** The new paths of its files that were renamed; at least two. */
  paths: ByteString[];
}

/** Finds the directories that moved as a whole; what else changed in them is not considered. */
export function movedDirectories(changes: readonly Change[], renames: readonly Rename[]): MovedDirectory[] {
  const gone = directoriesOf(changes, 'removed');
  const fresh = directoriesOf(changes, 'added');
  const moved = new Map<string, MovedDirectory>();
  for (const { from, path } of renames) {
    const dirs = uppermostMove(from, path, { gone, fresh });
    if (dirs === undefined) continue;
    const key = `${dirs.from}\0${dirs.to}`;
    const known = moved.get(key);
    if (known === undefined) moved.set(key, { ...dirs, paths: [path] });
    else known.paths.push(path);
  }
  return [...moved.values()].filter(({ paths }) => paths.length > 1);
}

function directoriesOf(changes: readonly Change[], kind: Change['kind']): Set<ByteString> {
  const ofKind = changes.filter((change) => change.kind === kind && (change.after ?? change.before)?.type === 'dir');
  return new Set(ofKind.map(({ path }) => path));
}

/** Takes equal names off the ends of both paths, and keeps the last pair of directories of which one went and one came. */
function uppermostMove(
  from: ByteString,
  path: ByteString,
  { gone, fresh }: { gone: ReadonlySet<ByteString>; fresh: ReadonlySet<ByteString> },
): { from: ByteString; to: ByteString } | undefined {
  let found: { from: ByteString; to: ByteString } | undefined;
  let [left, right] = [from, path];
  while (left !== '' && right !== '' && baseName(left) === baseName(right)) {
    [left, right] = [parentPath(left), parentPath(right)];
    if (gone.has(left) && fresh.has(right)) found = { from: left, to: right };
  }
  return found;
}
