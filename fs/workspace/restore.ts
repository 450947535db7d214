import { lstatSync, mkdirSync, readdirSync, renameSync, rmdirSync, rmSync, unlinkSync, type Stats } from 'node:fs';

import { parentPath, toFsPath, toText, type ByteString } from '../../store/byte-string.ts';
import { BentoError, errnoOf } from '../../store/errors.ts';
import type { CheckpointNode, CheckpointTree } from '../tree/checkpoint-tree.ts';
import type { ContentReader } from '../tree/content-reader.ts';
import type { Change } from '../tree/diff-trees.ts';
import { walkTree, type Tree, type TreeNode } from '../tree/tree.ts';
import { ownerOf, readNames, type Owner } from '../tree/disk-node.ts';
import { STAGING_NAME } from './patterns.ts';
import { applyAttributes, createNode, linkNode } from './write-node.ts';

export interface RestoreOptions {
  reader: ContentReader;
  /** Told for every attribute that could not be set. */
  onRefused?: (path: ByteString, what: string) => void;
}

export interface Restored {
  written: number;
  removed: number;
}

/**
 * Writes a whole checkpoint into an empty directory.
 *
 * @param includes - which nodes belong to what is asked for; directories on the way to them always do
 */
export function materialise(
  tree: CheckpointTree,
  target: ByteString,
  options: RestoreOptions,
  includes: (node: CheckpointNode) => boolean,
): Restored {
  const place = new Place(target, options);
  const written: [ByteString, CheckpointNode][] = [];
  for (const [path, node] of walkTree(tree)) {
    if (!includes(node)) continue;
    place.makeParents(path, tree);
    if (node.type === 'dir' && place.has(path)) continue;
    place.create(place.absolute(path), path, node);
    written.push([path, node]);
  }
  for (const [path, node] of written.reverse()) if (node.type !== 'dir') place.describe(path, node);
  place.describeDirs(tree);
  return { written: written.length, removed: 0 };
}

/** What an in-place restore is going to do, checked before anything is touched. */
export interface RestorePlan {
  /** Parents first. */
  write: { path: ByteString; node: CheckpointNode; before: TreeNode | undefined }[];
  /** Parents first; carried out backwards. */
  remove: { path: ByteString; node: TreeNode }[];
}

export interface PlanOptions {
  /** Whether the workspace's own head has this path. */
  isTracked: (path: ByteString) => boolean;
  /** What the workspace had is in a backup, untracked files included. */
  hasBackup: boolean;
}

/**
 * Decides what to touch. Only what a checkpoint holds is removed: the rest stays where it is.
 *
 * @param changes - from the workspace as it is to the checkpoint wanted
 * @throws BentoError UNSAVED_CHANGES when something that no checkpoint holds is in the way
 */
export function planRestore(
  changes: readonly Change<TreeNode, CheckpointNode>[],
  target: ByteString,
  { isTracked, hasBackup }: PlanOptions,
): RestorePlan {
  const plan: RestorePlan = { write: [], remove: [] };
  let replaced: ByteString | undefined; // a directory that becomes something else: nothing can stay below it
  let opened: ByteString | undefined; // what becomes a directory: below it nothing is, whatever a symlink there shows
  const replacing: RestorePlan['write'] = [];
  for (const { path, before, after } of changes) {
    if (after !== undefined) {
      const item = { path, node: after, before };
      plan.write.push(item);
      if (opened === undefined || !path.startsWith(opened)) replacing.push(item);
      if (before?.type === 'dir' && after.type !== 'dir') replaced = `${path}/`;
      if (before !== undefined && before.type !== 'dir' && after.type === 'dir') opened = `${path}/`;
    } else if (before !== undefined) {
      const isInTheWay = replaced !== undefined && path.startsWith(replaced);
      if (isTracked(path) || (isInTheWay && hasBackup)) plan.remove.push({ path, node: before });
    }
  }
  const removed = new Set(plan.remove.map(({ path }) => path));
  for (const item of replacing) refuseToBury(target, item, removed);
  return plan;
}

/** An ignored file or a directory with ignored files must not be overwritten: it is in no backup. */
function refuseToBury(
  target: ByteString,
  { path, node, before }: RestorePlan['write'][number],
  removed: ReadonlySet<ByteString>,
): void {
  if (before !== undefined) {
    if (before.type === 'dir' && node.type !== 'dir') refuseToClear(target, path, removed);
    return;
  }
  const absolute = path === '' ? target : `${target}/${path}`;
  const found = lstatIfAny(absolute);
  if (found === undefined || (found.isDirectory() && node.type === 'dir')) return;
  throw inTheWay(absolute);
}

/** What stays in a directory that must go is ignored, a socket or the like, or untracked and not backed up. */
function refuseToClear(target: ByteString, dir: ByteString, removed: ReadonlySet<ByteString>): void {
  for (const name of readNames(`${target}/${dir}`)) {
    const path = `${dir}/${name}`;
    if (!removed.has(path)) throw inTheWay(`${target}/${path}`);
    if (lstatIfAny(`${target}/${path}`)?.isDirectory() === true) refuseToClear(target, path, removed);
  }
}

function inTheWay(absolute: ByteString): BentoError {
  return new BentoError('UNSAVED_CHANGES', `${toText(absolute)} is in the way, and no checkpoint holds it`, {
    hint: 'it is ignored or was never saved: move it away and run the command again; nothing was changed',
  });
}

/** Undefined also when a parent is no directory: a file that is going to become one. */
function lstatIfAny(absolute: ByteString): Stats | undefined {
  try {
    return lstatSync(toFsPath(absolute));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}

/**
 * Brings a directory to a planned state. All new contents are written and verified beside the old ones first; then names
 * change hands, each at once. Attributes of directories come last.
 */
export function applyRestore(
  plan: RestorePlan,
  tree: CheckpointTree,
  target: ByteString,
  options: RestoreOptions,
): Restored {
  const place = new Place(target, options);
  const staging = `${target}/${STAGING_NAME}`;
  rmSync(toFsPath(staging), { recursive: true, force: true });
  mkdirSync(toFsPath(staging), 0o700);
  try {
    const staged = plan.write.map(({ path, node }, i) =>
      node.type === 'dir' ? undefined : place.stage(`${staging}/${i}`, path, node),
    );
    for (const { path, node } of plan.remove.toReversed()) place.remove(path, node);
    plan.write.forEach((item, i) => place.commit(item, staged[i]));
    place.describeDirs(tree);
  } finally {
    rmSync(toFsPath(staging), { recursive: true, force: true });
    place.describeRoot(tree);
  }
  return { written: plan.write.length, removed: plan.remove.length };
}

/** A directory being written to, and what is still owed to it. */
class Place {
  readonly #target: ByteString;
  readonly #owner: Owner;
  readonly #options: RestoreOptions;
  /** Where the first name of a file with several lies. */
  readonly #linked = new Map<string, ByteString>();
  /** Directories whose attributes must be set again in the end. */
  readonly #touched = new Set<ByteString>();

  constructor(target: ByteString, options: RestoreOptions) {
    this.#target = target;
    this.#options = options;
    this.#owner = ownerOf(lstatSync(toFsPath(target), { bigint: true }));
  }

  absolute(path: ByteString): ByteString {
    return path === '' ? this.#target : `${this.#target}/${path}`;
  }

  has(path: ByteString): boolean {
    return this.#touched.has(path);
  }

  /** Makes the directories on the way to a path that are not there yet. */
  makeParents(path: ByteString, tree: CheckpointTree): void {
    const parent = parentPath(path);
    if (parent === '' || this.#touched.has(parent)) return void this.#touched.add(parent);
    this.makeParents(parent, tree);
    const node = tree.find(parent);
    if (node !== undefined) createNode(this.absolute(parent), node, []);
    this.#touched.add(parent);
  }

  create(absolute: ByteString, path: ByteString, node: CheckpointNode): void {
    const first = node.linkKey === undefined ? undefined : this.#linked.get(node.linkKey);
    if (first !== undefined) {
      linkNode(first, absolute);
      return;
    }
    createNode(absolute, node, node.type === 'file' ? this.#content(path, node) : []);
    if (node.linkKey !== undefined) this.#linked.set(node.linkKey, absolute);
    if (node.type === 'dir') this.#touched.add(path);
  }

  /** A layer does not know the names of the files whose bytes it has lost. */
  *#content(path: ByteString, node: CheckpointNode): Generator<Buffer> {
    try {
      yield* this.#options.reader.pieces(node.id);
    } catch (error) {
      if (!(error instanceof BentoError)) throw error;
      throw new BentoError(error.code, `${toText(path)}: ${error.message}`, {
        hint: error.hint ?? 'open another checkpoint, or this one without that layer (--skip-layers)',
        cause: error,
      });
    }
  }

  stage(absolute: ByteString, path: ByteString, node: CheckpointNode): ByteString {
    this.create(absolute, path, node);
    applyAttributes(absolute, node, this.#attributes(path));
    return absolute;
  }

  remove(path: ByteString, node: TreeNode): void {
    try {
      if (node.type === 'dir') rmdirSync(toFsPath(this.absolute(path)));
      else unlinkSync(toFsPath(this.absolute(path)));
    } catch (error) {
      if (errnoOf(error) === 'ENOTEMPTY') return; // it holds files that no checkpoint holds
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
    this.#touched.add(parentPath(path));
  }

  /** Puts one object in its place; `staged` is where its new content waits. */
  commit({ path, node, before }: RestorePlan['write'][number], staged: ByteString | undefined): void {
    const absolute = this.absolute(path);
    if (path !== '') this.#touched.add(parentPath(path));
    if (staged === undefined) {
      this.#touched.add(path);
      if (before?.type === 'dir' || path === '') return;
      if (before !== undefined) unlinkSync(toFsPath(absolute));
      if (lstatIfAny(absolute) === undefined) createNode(absolute, node, []);
      return;
    }
    if (before?.type === 'dir') this.#clear(absolute);
    renameSync(toFsPath(staged), toFsPath(absolute));
    if (node.linkKey !== undefined) this.#linked.set(node.linkKey, absolute);
  }

  /** A directory becomes something else: what it held has been removed already, unless it was never saved. */
  #clear(absolute: ByteString): void {
    const left = readdirSync(toFsPath(absolute), { encoding: 'latin1' });
    if (left.length > 0) {
      throw new BentoError(
        'UNSAVED_CHANGES',
        `${toText(absolute)} holds files that no checkpoint holds, and it is in the way`,
        {
          hint: 'move them away and run the command again; `bento open undo` takes back what was done',
        },
      );
    }
    rmdirSync(toFsPath(absolute));
  }

  describe(path: ByteString, node: CheckpointNode): void {
    applyAttributes(this.absolute(path), node, this.#attributes(path));
  }

  /** Deepest first, so that no directory is written to after its time was set. */
  describeDirs(tree: Tree<CheckpointNode> & Pick<CheckpointTree, 'find'>): void {
    for (const path of [...this.#touched].sort().reverse()) {
      const node = tree.find(path);
      if (node?.type !== 'dir') continue; // what is there now may be a symlink, and other directories behind it
      if (lstatIfAny(this.absolute(path))?.isDirectory() === true) this.describe(path, node);
    }
  }

  describeRoot(tree: CheckpointTree): void {
    this.describe('', tree.root);
  }

  #attributes(path: ByteString): Parameters<typeof applyAttributes>[2] {
    return { owner: this.#owner, onRefused: (_, what) => this.#options.onRefused?.(path, what) };
  }
}
