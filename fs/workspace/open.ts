import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, realpathSync, rmSync, statSync, type Stats } from 'node:fs';
import { dirname, join, resolve } from 'node:path';

import { fromText, parentPath, type ByteString } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import { BentoError, describeSystemError, errnoOf } from '../../store/errors.ts';
import type { CheckpointNode } from '../tree/checkpoint-tree.ts';
import { ContentReader } from '../tree/content-reader.ts';
import { diffTrees, type Change } from '../tree/diff-trees.ts';
import type { TreeSource } from '../tree/index-checkpoint.ts';
import { updateConfig } from './config-file.ts';
import { describeNewWorkspace, keepRootTime } from './new-workspace.ts';
import { isWorthSaving } from './plan-layers.ts';
import { applyRestore, materialise, planRestore } from './restore.ts';
import { makeCheckpoint, type SaveOptions } from './save.ts';
import { diffWorkspace, WorkDigests, type WorkNode, type WorkTree } from './work-tree.ts';
import { openHead, readWorkTree, rereadConfig, type OpenCheckpoint, type Workspace } from './workspace.ts';

/** Which titles to restore; undefined is all of them. */
export type TitleFilter = ((title: string) => boolean) | undefined;

export interface OpenResult {
  dir: string;
  digest: Digest;
  written: number;
  removed: number;
  /** A backup was made, so `bento open undo` works. */
  canUndo: boolean;
  /** Paths whose attributes could not all be set, with what was refused. */
  refused: string[];
}

/** Every directory has an undo slot of its own, even when several share a workspace id. */
export function undoTag(dir: string): string {
  return `pre-open-${createHash('sha256').update(dir).digest('hex').slice(0, 8)}`;
}

/** The tag of the one slot that all directories of a workspace share in checkpoints of the original. */
export const SHARED_UNDO_TAG = 'pre-open';

/**
 * Makes a new workspace directory from a checkpoint.
 *
 * @param target - missing, or an empty directory
 * @throws BentoError TARGET_NOT_EMPTY or TARGET_INVALID, before anything is written
 */
export async function openInto(
  source: TreeSource,
  opened: OpenCheckpoint,
  target: string,
  includes: TitleFilter,
): Promise<OpenResult> {
  const dir = resolve(target);
  const made = makeEmptyDirectory(dir);
  const reader = new ContentReader(source.store, source.entries);
  const refused: string[] = [];
  try {
    const filter = (node: CheckpointNode): boolean =>
      includes?.(opened.checkpoint.layers[node.depth]?.title ?? '') ?? true;
    const options = { reader, onRefused: (path: ByteString, what: string) => void refused.push(`${path}: ${what}`) };
    const { written, removed } = materialise(opened.tree, fromText(realpathSync(dir)), options, filter);
    await describeNewWorkspace(opened.checkpoint, {
      dir,
      workspaceId: opened.checkpoint.meta.workspaceId ?? 'ws-restored',
      storeRoot: source.store.root,
      head: opened.checkpoint.digest,
    });
    keepRootTime(dir, opened.tree);
    return { dir, digest: opened.checkpoint.digest, written, removed, canUndo: false, refused };
  } catch (error) {
    empty(dir);
    if (made) rmSync(dir, { recursive: true, force: true });
    throw error;
  } finally {
    reader.close();
  }
}

/** @throws BentoError TARGET_INVALID when something on the way is no directory */
function statIfAny(dir: string): Stats | undefined {
  try {
    return statSync(dir, { throwIfNoEntry: false });
  } catch (error) {
    if (errnoOf(error) !== 'ENOTDIR') throw describeSystemError(error, `looking at ${dir}`);
    throw new BentoError('TARGET_INVALID', `${dir} cannot be made: a part of the path is a file`, {
      hint: 'choose another place',
    });
  }
}

function makeDirectory(dir: string): void {
  try {
    mkdirSync(dir);
  } catch (error) {
    const described = describeSystemError(error, `making ${dir}`);
    if (described instanceof BentoError) throw described;
    throw new BentoError('TARGET_INVALID', `${dir} cannot be made: ${(error as Error).message}`, {
      hint: 'choose another place',
      cause: error,
    });
  }
}

/** @returns whether the directory was made here */
function makeEmptyDirectory(dir: string): boolean {
  const stat = statIfAny(dir);
  if (stat === undefined) {
    if (!existsSync(dirname(dir))) {
      throw new BentoError('TARGET_INVALID', `${dirname(dir)} does not exist`, { hint: `mkdir -p ${dirname(dir)}` });
    }
    makeDirectory(dir);
    return true;
  }
  if (!stat.isDirectory())
    throw new BentoError('TARGET_INVALID', `${dir} is not a directory`, { hint: 'choose another name' });
  if (readdirSync(dir).length > 0) {
    throw new BentoError('TARGET_NOT_EMPTY', `${dir} is not empty and is no bento workspace`, {
      hint: 'choose a new or empty directory; nothing was changed',
    });
  }
  return false;
}

/** Everything in a directory that was empty when we began is ours. */
function empty(dir: string): void {
  for (const name of readdirSync(dir)) rmSync(join(dir, name), { recursive: true, force: true });
}

export interface OpenInPlaceOptions {
  includes: TitleFilter;
  /** What the user called the checkpoint; goes into the backup's message. */
  label: string;
  backup: boolean;
  /** Taking back: the head goes to where it was before, not to the backup. */
  isUndo: boolean;
  onWait?: NonNullable<SaveOptions['onWait']>;
}

/**
 * Restores a checkpoint into the workspace it is run in: backs up what is there, then touches only what differs. Files that
 * no checkpoint holds stay.
 */
export async function openInPlace(
  workspace: Workspace,
  opened: OpenCheckpoint,
  options: OpenInPlaceOptions,
): Promise<OpenResult> {
  await workspace.layout.ensure();
  using _lock = await workspace.layout.lockForSaving(options.onWait);
  await rereadConfig(workspace);
  const head = await openHead(workspace);
  const tree = await readWorkTree(workspace);
  const canUndo = options.backup && (await backUp(workspace, { head, tree, label: options.label }));
  const refused: string[] = [];
  const target = fromText(workspace.dir);
  const changes = selectTitles(changesTo(workspace, tree, opened), opened, head, options.includes);
  const plan = planRestore(changes, target, {
    isTracked: (path) => head?.tree.find(path) !== undefined,
    hasBackup: canUndo,
  });
  const restored = applyRestore(plan, opened.tree, target, {
    reader: workspace.reader,
    onRefused: (path, what) => void refused.push(`${path}: ${what}`),
  });
  if (options.includes === undefined) await moveHead(workspace, opened, options.isUndo);
  keepRootTime(workspace.dir, opened.tree);
  return { dir: workspace.dir, digest: opened.checkpoint.digest, ...restored, canUndo, refused };
}

/** @returns whether there was anything to back up */
async function backUp(
  workspace: Workspace,
  state: { head: OpenCheckpoint | undefined; tree: WorkTree; label: string },
): Promise<boolean> {
  const { head, tree, label } = state;
  const changes = diffWorkspace(workspace.source, head?.tree, tree);
  if (head === undefined && tree.children(tree.root).length === 0) return false;
  let manifest: { digest: Digest; size: number } | undefined = head?.checkpoint;
  if (manifest === undefined || changes.some(isWorthSaving)) {
    const sequence = await workspace.layout.nextSequence();
    const message = `pre-open backup before restoring ${label}`;
    ({ manifest } = await makeCheckpoint(workspace, { head, tree, changes, sequence, options: { message } }));
  }
  await workspace.layout.setTags([undoTag(workspace.dir)], { digest: manifest.digest, size: manifest.size });
  return true;
}

/** From what is on disk to what is wanted. What the backup hashed is not read again. */
function changesTo(workspace: Workspace, tree: WorkTree, opened: OpenCheckpoint): Change<WorkNode, CheckpointNode>[] {
  const digests = new WorkDigests(workspace.source, tree);
  const changes = diffTrees(tree, opened.tree, {
    sameContent: (path, node, wanted) => digests.of(path, node) === wanted.digest,
  });
  digests.remember();
  return changes;
}

/** With a filter, only what the chosen titles hold is touched, and the directories on the way to it. */
function selectTitles(
  changes: Change<WorkNode, CheckpointNode>[],
  opened: OpenCheckpoint,
  head: OpenCheckpoint | undefined,
  includes: TitleFilter,
): Change<WorkNode, CheckpointNode>[] {
  if (includes === undefined) return changes;
  const chosen = changes.filter(({ path, after }) => {
    const depth = after?.depth ?? head?.tree.find(path)?.depth;
    const checkpoint = after === undefined ? head?.checkpoint : opened.checkpoint;
    return depth !== undefined && includes(checkpoint?.layers[depth]?.title ?? '');
  });
  const needed = new Set<ByteString>();
  for (const { path } of chosen) for (let dir = parentPath(path); dir !== ''; dir = parentPath(dir)) needed.add(dir);
  const kept = new Set(chosen);
  const isMissing = ({ kind, differences }: Change): boolean => kind === 'added' || differences.includes('type');
  return changes.filter((change) => kept.has(change) || (isMissing(change) && needed.has(change.path)));
}

/** A backup is no place to go on from: after an undo, the head is what it was when the backup was made. */
async function moveHead(workspace: Workspace, { checkpoint }: OpenCheckpoint, isUndo: boolean): Promise<void> {
  const isBackup = isUndo && checkpoint.message.startsWith('pre-open backup before restoring ');
  const head = isBackup ? checkpoint.parent : checkpoint.digest;
  await updateConfig(workspace.dir, { head });
  workspace.config.head = head;
}
