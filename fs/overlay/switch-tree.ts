import { parentPath, type ByteString } from '../../store/byte-string.ts';
import { link, statOf, type FileStat } from '../../store/file-calls.ts';
import { copyUpDir } from './copy-up.ts';
import type { CowNode } from './cow-node.ts';
import { removed, type CowTree } from './cow-tree.ts';
import { ErrnoError } from './errno-error.ts';
import type { LowerTree } from './lower-tree.ts';
import {
  baseOf,
  dropPlan,
  endPlan,
  exchangeUpper,
  moveKept,
  previousUpper,
  readPlan,
  type SwitchPlan,
} from './switch-upper.ts';

/** What the kernel has to be told after a switch. */
export interface Stale {
  /** Names that lead to something else now, or to nothing, or did. */
  names: { parent: number; name: ByteString }[];
  /** Directories with other attributes or another listing. */
  dirs: number[];
}

export interface Switched {
  /** `all`: what the kernel knows is not known here. */
  stale: Stale | 'all';
  /** What can be deleted at leisure. */
  trash: ByteString | undefined;
}

/** An object that the kernel knows, and where it was. */
interface Placed {
  node: CowNode;
  paths: ByteString[];
  /** Of a file that is open. */
  stat: FileStat | undefined;
}

/**
 * Puts another checkpoint below a workspace that is being served. Directories stay the objects that the kernel knows, so that
 * whoever stands in one goes on standing in it; files that did not change do, too. Who has another one open keeps it.
 *
 * @throws BentoError, ErrnoError: then nothing has changed
 */
export function switchTree(tree: CowTree, forkDir: ByteString, plan: SwitchPlan, lower: LowerTree): Switched {
  const placed = placesOf(tree);
  completeKept(tree, plan);
  exchangeUpper(forkDir, plan, lower, tree.marks);
  keepOpenFiles(tree, forkDir, placed);
  tree.rebase(lower);
  placed.sort((a, b) => depthOf(a) - depthOf(b));
  reattach(
    tree,
    placed.filter(({ node }) => node.isDir),
    plan,
  );
  const left = moveKept(forkDir, plan, (path) => copyUpDir(tree, dirAt(tree, path)));
  reattach(tree, placed, plan);
  for (const { node, stat } of placed)
    if (node.names.length === 0 && node.orphan === undefined) node.lastStat = stat && removed(stat);
  return { stale: staleAfter(tree, plan), trash: endPlan(forkDir, left) };
}

/** Ends what a crash interrupted. To be called before anything is served. @returns undefined when nothing was */
export function finishSwitch(tree: CowTree, forkDir: ByteString): Switched | undefined {
  const plan = readPlan(forkDir);
  if (plan === undefined) return undefined;
  if (baseOf(forkDir) !== plan.to || typeof statOf(previousUpper(forkDir)) === 'number') {
    dropPlan(forkDir);
    return undefined;
  }
  const left = moveKept(forkDir, plan, (path) => copyUpDir(tree, dirAt(tree, path)));
  return { stale: 'all', trash: endPlan(forkDir, left) };
}

function reattach(tree: CowTree, placed: readonly Placed[], plan: SwitchPlan): void {
  const changed = new Set(plan.changed);
  for (const { node, paths } of placed) {
    for (const path of paths) if (!changed.has(path) || node.isDir) tree.reattach(node, path);
  }
}

function placesOf(tree: CowTree): Placed[] {
  return [...tree.nodes]
    .filter((node) => node !== tree.root && node.names.length > 0)
    .map((node) => ({ node, paths: tree.visiblePaths(node), stat: node.opens > 0 ? tree.stat(node) : undefined }));
}

function depthOf({ paths }: Placed): number {
  return (paths[0] ?? '').split('/').length;
}

/** What goes along must not depend on the checkpoint that goes. */
function completeKept(tree: CowTree, { keep }: SwitchPlan): void {
  if (!tree.scratch.mayHaveParts) return;
  const pending = keep.flatMap((path) => nodeAt(tree, path) ?? []);
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    if (node.partial !== undefined) tree.complete(node);
    if (node.isDir) for (const entry of tree.list(node)) pending.push(...[tree.listed(node, entry) ?? []].flat());
  }
}

/** Files that somebody has open are found aside from now on, unless they go along. */
function keepOpenFiles(tree: CowTree, forkDir: ByteString, placed: readonly Placed[]): void {
  for (const { node, paths } of placed) {
    if (node.isDir || node.opens === 0 || !node.inUpper || node.orphan !== undefined) continue;
    const orphan = tree.scratch.orphanPath(node.id);
    if (link(`${previousUpper(forkDir)}/${paths[0] ?? ''}`, orphan) === 0) node.orphan = orphan;
  }
}

function nodeAt(tree: CowTree, path: ByteString): CowNode | undefined {
  let node: CowNode | undefined = tree.root;
  for (const name of path === '' ? [] : path.split('/'))
    node = node?.isDir === true ? tree.lookup(node, name) : undefined;
  return node;
}

/** @throws ErrnoError ENOTDIR */
function dirAt(tree: CowTree, path: ByteString): CowNode {
  const node = nodeAt(tree, path);
  if (node?.isDir !== true) throw new ErrnoError('ENOTDIR');
  return node;
}

function staleAfter(tree: CowTree, { changed }: SwitchPlan): Stale {
  const names: Stale['names'] = [];
  const dirs = new Set<number>([tree.root.id]);
  const parents = new Map<ByteString, CowNode | undefined>();
  const knownAt = (path: ByteString): CowNode | undefined => {
    if (path === '') return tree.root;
    if (!parents.has(path)) {
      const parent = knownAt(parentPath(path));
      parents.set(path, parent?.children?.get(path.slice(path.lastIndexOf('/') + 1)));
    }
    return parents.get(path);
  };
  for (const path of changed) {
    const parent = knownAt(parentPath(path));
    const name = path.slice(path.lastIndexOf('/') + 1);
    if (parent?.isDir !== true) continue; // the kernel does not know it, or is told of one above
    dirs.add(parent.id);
    const node = parent.children?.get(name);
    if (node?.isDir === true) dirs.add(node.id);
    else names.push({ parent: parent.id, name });
  }
  return { names, dirs: [...dirs] };
}
