import { parentPath, type ByteString } from '../../store/byte-string.ts';
import type { Entry } from '../../store/entry.ts';
import type { CheckpointNode } from '../tree/checkpoint-tree.ts';
import { comparePaths, type Change } from '../tree/diff-trees.ts';
import type { TreeNode } from '../tree/tree.ts';
import type { Titles } from './titles.ts';

/** An entry to be packed, and the node it was made from, which knows where the bytes are. */
export interface PlannedEntry<A extends TreeNode> {
  entry: Entry;
  /** Set for files, under each of their names: where the bytes are. */
  content: A | undefined;
  /** Set when the bytes need not be read again: some layer of the parent holds them. */
  stored?: CheckpointNode | undefined;
  /** Set for a file that the parent has otherwise: much of its bytes may be the same. */
  earlier?: CheckpointNode | undefined;
  /** The parent has something of this path. */
  replaces: boolean;
  /** Set for a directory where the parent has something else. */
  mustPrecede?: boolean;
  /** Equal for the names of one object that has several, whatever its type. */
  linkKey: string | undefined;
}

/** A new layer: what it holds, in the order in which it is written. Without entries, only its title's count changes. */
export interface LayerPlan<A extends TreeNode> {
  title: string;
  entries: PlannedEntry<A>[];
  /** By how much the number of files under this title grows. */
  fileCountChange: number;
}

/** A directory whose time alone changed is no reason to save: every file made or removed in it changes that. */
export function isWorthSaving({ kind, after, differences }: Change): boolean {
  return !(kind === 'modified' && after?.type === 'dir' && differences.every((difference) => difference === 'mtime'));
}

export interface PlanOptions<A extends TreeNode> {
  titles: Titles;
  /** Title of the parent's layer at a depth. */
  titleOfDepth: (depth: number) => string;
  /**
   * For layers that go on top of others: the directory at a path, as it is now. Container engines that keep layers apart
   * take a directory's attributes from the topmost layer with something in it, so a delta lists the way to what it changes.
   */
  dirAt: ((path: ByteString) => A | undefined) | undefined;
}

/**
 * Sorts changes into one new layer for each title concerned: entries for what is new or different, whiteouts for what is
 * gone. Titles without changes get no plan; one that only lost files to a title above it gets a plan without entries.
 */
export function planLayers<A extends TreeNode>(
  changes: readonly Change<CheckpointNode, A>[],
  { titles, titleOfDepth, dirAt }: PlanOptions<A>,
): LayerPlan<A>[] {
  const plans = new Map<string, LayerPlan<A>>(
    titles.order.map((title) => [title, { title, entries: [], fileCountChange: 0 }]),
  );
  const planOf = (title: string): LayerPlan<A> => {
    const plan = plans.get(title);
    if (plan === undefined) throw new RangeError(`no layer is titled ${title}`);
    return plan;
  };
  const placed = placeChanges(changes, titles);
  for (const { change, title } of placed) {
    planOf(title).entries.push({
      entry: entryOf(change.path, change.after),
      content: change.after.type === 'file' ? change.after : undefined,
      earlier: change.after.type === 'file' && change.before?.type === 'file' ? change.before : undefined,
      replaces: change.before !== undefined,
      ...(isNewKind(change) && { mustPrecede: true }),
      linkKey: change.after.linkKey,
    });
    if (change.after.type !== 'dir') planOf(title).fileCountChange += 1;
  }
  for (const { path, title } of whiteouts(changes, titleOfDepth)) {
    const entry = whiteoutEntry(path);
    planOf(title).entries.push({ entry, content: undefined, replaces: true, linkKey: undefined });
  }
  for (const { before } of changes) {
    if (before !== undefined && before.type !== 'dir') planOf(titleOfDepth(before.depth)).fileCountChange -= 1;
  }
  for (const plan of plans.values()) {
    if (dirAt !== undefined) plan.entries.push(...parentsOf(plan.entries, dirAt));
    plan.entries.sort((a, b) => comparePaths(a.entry.path, b.entry.path));
    joinHardLinks(plan.entries);
  }
  return [...plans.values()].filter((plan) => plan.entries.length > 0 || plan.fileCountChange !== 0);
}

/** Whether a directory stands where something else was. */
function isNewKind({ before, after }: Change): boolean {
  return after?.type === 'dir' && before !== undefined && before.type !== 'dir';
}

/** The directories on the way to the entries that are not among them. */
function parentsOf<A extends TreeNode>(
  entries: readonly PlannedEntry<A>[],
  dirAt: (path: ByteString) => A | undefined,
): PlannedEntry<A>[] {
  const present = new Set(entries.map(({ entry }) => entry.path));
  const parents: PlannedEntry<A>[] = [];
  for (const { entry } of entries) {
    for (let path = entry.path; path !== '';) {
      path = parentPath(path);
      if (present.has(path)) continue;
      present.add(path);
      const dir = dirAt(path);
      if (dir === undefined) continue;
      parents.push({ entry: entryOf(path, dir), content: undefined, replaces: true, linkKey: undefined });
    }
  }
  return parents;
}

interface Placed<A extends TreeNode> {
  change: Change<CheckpointNode, A> & { after: A };
  title: string;
}

/** All names of one file go under one title, the uppermost that any of them wants. */
function placeChanges<A extends TreeNode>(changes: readonly Change<CheckpointNode, A>[], titles: Titles): Placed<A>[] {
  const groups = new Map<string, string>();
  const placed: Placed<A>[] = [];
  for (const change of changes) {
    if (!hasAfter(change)) continue;
    const { path, after } = change;
    const title = titles.titleFor(path, after.type === 'dir');
    if (after.linkKey !== undefined) groups.set(after.linkKey, titles.upper(title, groups.get(after.linkKey) ?? title));
    placed.push({ change, title });
  }
  if (groups.size === 0) return placed;
  return placed.map(({ change, title }) => ({ change, title: groups.get(change.after.linkKey ?? '') ?? title }));
}

function hasAfter<A extends TreeNode>(change: Change<CheckpointNode, A>): change is Placed<A>['change'] {
  return change.after !== undefined;
}

/** The topmost paths that are gone, each under the title whose layer shows it now. */
function* whiteouts<A extends TreeNode>(
  changes: readonly Change<CheckpointNode, A>[],
  titleOfDepth: (depth: number) => string,
): Generator<{ path: ByteString; title: string }> {
  let covered: ByteString | undefined;
  for (const { path, kind, before, after } of changes) {
    if (before === undefined || (covered !== undefined && path.startsWith(covered))) continue;
    if (before.type === 'dir' && after?.type !== 'dir') covered = `${path}/`; // what was below goes with it
    if (kind === 'removed') yield { path, title: titleOfDepth(before.depth) };
  }
}

/** The first name of a file holds its bytes; the others name the first. Symlinks, fifos and devices have names, too. */
function joinHardLinks<A extends TreeNode>(entries: PlannedEntry<A>[]): void {
  const first = new Map<string, ByteString>();
  for (const planned of entries) {
    const key = planned.linkKey;
    if (key === undefined) continue;
    const target = first.get(key);
    if (target === undefined) {
      first.set(key, planned.entry.path);
    } else {
      const { rdev: _rdev, ...shared } = planned.entry;
      planned.entry = { ...shared, type: 'hardlink', link: target, sizeBytes: 0 };
    }
  }
}

function entryOf(path: ByteString, node: TreeNode): Entry {
  const { type, mode, uid, gid, mtimeSec, mtimeNsec, sizeBytes, link, rdev, xattrs } = node;
  const entry: Entry = { path, type, mode, uid, gid, mtimeSec, mtimeNsec, sizeBytes };
  if (link !== undefined) entry.link = link;
  if (rdev !== undefined) entry.rdev = rdev;
  if (xattrs !== undefined) entry.xattrs = xattrs;
  return entry;
}

export function whiteoutEntry(path: ByteString): Entry {
  return { path, type: 'whiteout', mode: 0, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0, sizeBytes: 0 };
}
