import { LiveTree } from './live-tree.ts';
import type { ByteString } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import type { Checkpoint } from '../../store/checkpoint.ts';
import { ContentReader } from '../tree/content-reader.ts';
import type { CheckpointNode, CheckpointTree } from '../tree/checkpoint-tree.ts';
import { diffTrees, type Change } from '../tree/diff-trees.ts';
import type { TreeSource } from '../tree/index-checkpoint.ts';
import type { Tree, TreeNode } from '../tree/tree.ts';
import { compileIgnore, type LayerRule } from './patterns.ts';
import { isWorthSaving } from './plan-layers.ts';
import { Titles } from './titles.ts';
import { openContent, WorkDigests, type WorkNode, type WorkTree } from './work-tree.ts';

/** One side of a comparison: a checkpoint, a workspace, or any directory. */
export interface Side {
  /** What the user called it. */
  label: string;
  tree: Tree;
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
    digest: (_, node) => node.digest,
    remember: () => undefined,
    content: (_, node) => reader.pieces((node as CheckpointNode).id),
    title: (_, node) => titleOf(node as CheckpointNode),
    titles: [...new Set(checkpoint.layers.map((layer) => layer.title))],
  };
}

export interface WorkSideOptions {
  label: string;
  rules: readonly LayerRule[];
}

export function workSide(source: TreeSource, tree: WorkTree, { label, rules }: WorkSideOptions): Side {
  const digests = new WorkDigests(source, tree);
  const reader = new ContentReader(source.store, source.entries);
  const titles = new Titles(source.entries, [], rules);
  return {
    label,
    tree,
    digest: (path, node) => digests.of(path, node as WorkNode),
    remember: () => digests.remember(),
    content: (_, node) => openContent(tree, node as WorkNode, reader)?.pieces() ?? [],
    title: (path, node) => titles.titleFor(path, node.type === 'dir'),
    titles: titles.order,
  };
}

/** A directory that is neither a workspace nor mounted by bento: nothing is ignored, all of it is one group. */
export function directorySide(source: TreeSource, dir: ByteString, label: string): Side {
  const tree = LiveTree.scan(dir, { isIgnored: compileIgnore([]), exclude: new Set() });
  return workSide(source, tree, { label, rules: [{ name: 'files', patterns: [], catchAll: true }] });
}

/** What differs under one title. */
export interface TitleComparison {
  title: string;
  changes: Change[];
}

/** Compares two sides and sorts what differs by title: the one the path has after, or had before it went. */
export function compareSides(before: Side, after: Side): TitleComparison[] {
  const changes = diffTrees(before.tree, after.tree, {
    sameContent: (path, b, a) => before.digest(path, b) === after.digest(path, a),
  }).filter(isWorthSaving);
  before.remember();
  after.remember();
  const groups = new Map<string, Change[]>([...before.titles, ...after.titles].map((title) => [title, []]));
  const empty = emptyDirectories(changes);
  for (const change of changes) {
    if (isDirectoryOnTheWay(change) && !empty.has(change.path)) continue;
    groups.get(titleOf(before, after, change))?.push(change);
  }
  return [...groups].map(([title, grouped]) => ({ title, changes: grouped }));
}

function titleOf(before: Side, after: Side, { path, before: b, after: a }: Change): string {
  if (a !== undefined) return after.title(path, a);
  return b === undefined ? '' : before.title(path, b);
}

/** A directory that came or went with what is in it is not worth a line of its own. */
function isDirectoryOnTheWay({ kind, before, after }: Change): boolean {
  return kind !== 'modified' && (after ?? before)?.type === 'dir';
}

function emptyDirectories(changes: readonly Change[]): Set<ByteString> {
  const dirs = new Set(changes.filter(isDirectoryOnTheWay).map((change) => change.path));
  for (const { path } of changes) dirs.delete(path.slice(0, Math.max(0, path.lastIndexOf('/'))));
  return dirs;
}
