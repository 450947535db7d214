import { lstatSync, type Stats } from 'node:fs';

import { toFsPath, toText, type ByteString } from '../../../store/byte-string.ts';
import { BentoError, errnoOf } from '../../../store/errors.ts';
import type { CheckpointNode } from '../../tree/checkpoint-tree.ts';
import type { Change } from '../../tree/diff-trees.ts';
import { readNames } from '../../tree/disk-node.ts';
import type { TreeNode } from '../../tree/tree.ts';

/** How many paths an error names. */
const NAMED_PATHS_MAX = 3;

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
  /** What the workspace had is in a backup, untracked files included; or the user wants to lose it. */
  mayReplaceUntracked: boolean;
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
  { isTracked, mayReplaceUntracked }: PlanOptions,
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
      if (isTracked(path) || (isInTheWay && mayReplaceUntracked)) plan.remove.push({ path, node: before });
    }
  }
  const removed = new Set(plan.remove.map(({ path }) => path));
  for (const item of replacing) refuseToBury(target, item, removed);
  if (!mayReplaceUntracked) refuseToOverwrite(changes, isTracked);
  return plan;
}

/** Without a backup, what no checkpoint holds would be lost for good. */
function refuseToOverwrite(changes: readonly Change[], isTracked: PlanOptions['isTracked']): void {
  const isLost = ({ path, before, after, differences }: Change): boolean =>
    before !== undefined &&
    after !== undefined &&
    before.type !== 'dir' &&
    differences.some((difference) => ['type', 'content', 'link'].includes(difference)) &&
    !isTracked(path);
  const lost = changes.filter(isLost).map(({ path }) => toText(path));
  if (lost.length === 0) return;
  const more = lost.length > NAMED_PATHS_MAX ? ` and ${lost.length - NAMED_PATHS_MAX} more` : '';
  throw new BentoError(
    'UNSAVED_CHANGES',
    `${lost.slice(0, NAMED_PATHS_MAX).join(', ')}${more} would be overwritten, and no checkpoint holds what is there now`,
    { hint: 'leave out --no-backup, or add --force to lose it; nothing was changed' },
  );
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
export function lstatIfAny(absolute: ByteString): Stats | undefined {
  try {
    return lstatSync(toFsPath(absolute));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}
