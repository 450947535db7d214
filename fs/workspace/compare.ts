import { joinPath, type ByteString } from '../../store/byte-string.ts';
import type { Checkpoint } from '../../store/checkpoint.ts';
import type { Digest } from '../../store/digest.ts';
import type { CheckpointNode, CheckpointTree } from '../tree/checkpoint-tree.ts';
import { ContentReader } from '../contents/content-reader.ts';
import { comparePaths, diffTrees, metadataDifferences, type Change } from '../tree/diff-trees.ts';
import type { TreeSource } from '../tree/index-checkpoint.ts';
import { findRenames, movedDirectories, type MovedDirectory, type Rename } from '../tree/renames.ts';
import { childOf, type Tree, type TreeNode } from '../tree/tree.ts';
import { isWorthSaving } from './plan-layers.ts';

/** One side of a comparison: a checkpoint, a workspace, or any directory; or a part of one. */
export interface Side {
  /** What the user called it. */
  label: string;
  tree: Tree;
  /** File of the index that describes the tree: nodes of two indexes cannot be told apart by their identities. */
  index: string;
  /** Digest of a file's content, read if it is not known. */
  digest(path: ByteString, node: SideNode): Digest | undefined;
  /** Keeps the digests that had to be read. */
  remember(): void;
  /** A file's bytes. */
  content(path: ByteString, node: SideNode): Iterable<Buffer>;
  /** Which layer a path belongs to. */
  title(path: ByteString, node: SideNode): string;
  titles: readonly string[];
}

/** Any tree's node; each side knows its own kind. */
export type SideNode = TreeNode;

export function checkpointSide(
  source: TreeSource,
  label: string,
  { checkpoint, tree }: { checkpoint: Checkpoint; tree: CheckpointTree },
): Side {
  const reader = new ContentReader(source.store, source.entries);
  const titleOf = ({ depth }: CheckpointNode): string => checkpoint.layers[depth]?.title ?? '';
  return {
    label,
    tree,
    index: source.index.path,
    digest: (_, node) => node.digest,
    remember: () => undefined,
    content: (_, node) => reader.pieces((node as CheckpointNode).id),
    title: (_, node) => titleOf(node as CheckpointNode),
    titles: [...new Set(checkpoint.layers.map((layer) => layer.title))],
  };
}

/** A directory of a side as a side of its own. */
export function partOf(side: Side, dir: ByteString, root: SideNode): Side {
  const { tree } = side;
  const below = `${dir}/`;
  const part: Tree = {
    root,
    children: (node) => tree.children(node),
    ...(tree.child && { child: (node, name) => tree.child?.(node, name) }),
    ...(tree.differingNames && { differingNames: (node, other) => tree.differingNames?.(node, other) }),
    namesOf: (node) =>
      (tree.namesOf?.(node) ?? []).flatMap((path) => (path.startsWith(below) ? [path.slice(below.length)] : [])),
  };
  return {
    ...side,
    tree: part,
    digest: (path, node) => side.digest(joinPath(dir, path), node),
    content: (path, node) => side.content(joinPath(dir, path), node),
    title: (path, node) => side.title(joinPath(dir, path), node),
  };
}

/** One path at which two sides differ. */
export interface ComparedChange {
  path: ByteString;
  kind: Change['kind'] | 'renamed';
  /** Where a renamed file was. */
  from: ByteString | undefined;
  before: SideNode | undefined;
  after: SideNode | undefined;
  differences: Change['differences'];
}

/** What differs under one title, parents before children. */
export interface TitleComparison {
  title: string;
  changes: ComparedChange[];
  /** Which of the renames under this title are those of directories that moved. */
  moved: MovedDirectory[];
}

export interface CompareOptions {
  /** Looks for files that only changed their place. */
  renames: boolean;
  /** Compares what is at this path or below it, and nothing else; empty: everything. */
  path: ByteString;
}

/** Compares two sides and sorts what differs by title: the one the path has after, or had before it went. */
export function compareSides(before: Side, after: Side, { renames, path }: CompareOptions): TitleComparison[] {
  const all = diffTrees(only(before.tree, path), only(after.tree, path), {
    sameContent: (at, b, a) => before.digest(at, b) === after.digest(at, a),
    apart: before.index !== after.index,
  });
  const changes = all.filter((change) => isWorthSaving(change) && isWithin(change.path, path));
  const found = renames
    ? findRenames(changes, {
        digestBefore: (at, node) => before.digest(at, node),
        digestAfter: (at, node) => after.digest(at, node),
      })
    : [];
  before.remember();
  after.remember();
  return byTitle(before, after, {
    changes: withRenames(withoutDirectoriesOnTheWay(changes), found),
    moved: movedDirectories(changes, found),
  });
}

/** A tree of which nothing is seen but what is at a path, below it or on the way to it. */
function only(tree: Tree, path: ByteString): Tree {
  if (path === '') return tree;
  const names = path.split('/');
  const depthOf = new Map<SideNode, number>([[tree.root, 0]]);
  return {
    root: tree.root,
    children: (dir) => {
      const depth = depthOf.get(dir);
      const name = depth === undefined ? undefined : names[depth];
      if (depth === undefined || name === undefined) return tree.children(dir);
      const next = childOf(tree, dir, name);
      if (next !== undefined) depthOf.set(next, depth + 1);
      return next === undefined ? [] : [next];
    },
    ...(tree.namesOf && { namesOf: (node) => tree.namesOf?.(node) ?? [] }),
  };
}

function isWithin(path: ByteString, dir: ByteString): boolean {
  return dir === '' || path === dir || path.startsWith(`${dir}/`);
}

function byTitle(
  before: Side,
  after: Side,
  { changes, moved }: { changes: readonly ComparedChange[]; moved: readonly MovedDirectory[] },
): TitleComparison[] {
  const titles = new Set([...before.titles, ...after.titles]);
  const groups = new Map(
    [...titles].map((title): [string, TitleComparison] => [title, { title, changes: [], moved: [] }]),
  );
  const titleOfPath = new Map<ByteString, string>();
  for (const change of changes) {
    const title = titleOf(before, after, change);
    titleOfPath.set(change.path, title);
    groups.get(title)?.changes.push(change);
  }
  for (const directory of moved) {
    const [first = ''] = directory.paths;
    const title = titleOfPath.get(first) ?? '';
    const paths = directory.paths.filter((path) => titleOfPath.get(path) === title);
    groups.get(title)?.moved.push({ ...directory, paths });
  }
  return [...groups.values()];
}

function titleOf(before: Side, after: Side, { path, before: b, after: a }: ComparedChange): string {
  if (a !== undefined) return after.title(path, a);
  return b === undefined ? '' : before.title(path, b);
}

/** A renamed file is one change, in the place of the new path. */
function withRenames(changes: readonly Change[], renames: readonly Rename[]): ComparedChange[] {
  const taken = new Set(renames.flatMap(({ from, path }) => [from, path]));
  const others = changes.filter(({ path, kind }) => kind === 'modified' || !taken.has(path));
  const renamed = renames.map(({ path, from, before, after }): ComparedChange => {
    return { path, from, kind: 'renamed', before, after, differences: metadataDifferences(before, after) };
  });
  const all = [...others.map((change) => ({ ...change, from: undefined })), ...renamed];
  return renamed.length === 0 ? all : all.sort((a, b) => comparePaths(a.path, b.path));
}

/** A directory that came or went with what is in it is not worth a line of its own; an empty one is. */
function withoutDirectoriesOnTheWay(changes: readonly Change[]): Change[] {
  const empty = emptyDirectories(changes);
  return changes.filter((change) => !isDirectoryOnTheWay(change) || empty.has(change.path));
}

function isDirectoryOnTheWay({ kind, before, after }: Change): boolean {
  return kind !== 'modified' && (after ?? before)?.type === 'dir';
}

function emptyDirectories(changes: readonly Change[]): Set<ByteString> {
  const dirs = new Set(changes.filter(isDirectoryOnTheWay).map((change) => change.path));
  for (const { path } of changes) dirs.delete(path.slice(0, Math.max(0, path.lastIndexOf('/'))));
  return dirs;
}
