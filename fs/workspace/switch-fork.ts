import { fromText, parentPath, type ByteString } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import { faultPoint } from '../../store/fault-point.ts';
import { askDaemon } from '../mounts/daemon/daemon-client.ts';
import { OverlayTree } from '../overlay/overlay-tree.ts';
import { writePlan } from '../overlay/switch-upper.ts';
import type { CheckpointNode, CheckpointTree } from '../tree/checkpoint-tree.ts';
import type { Change } from '../tree/diff-trees.ts';
import type { CheckpointRecord, MountStatus } from '../mounts/mount-table.ts';
import { recordHead } from './heads.ts';
import { moveHead } from './restore/recover.ts';
import type { WorkNode, WorkTree } from './work-tree.ts';
import type { OpenCheckpoint, Workspace } from './workspace.ts';

export interface ForkToSwitch {
  workspace: Workspace;
  /** As it is now, compared with its head: so all that is ignored has been come by. */
  tree: WorkTree;
  /** What no checkpoint but the backup has. */
  unsaved: readonly Change<CheckpointNode, WorkNode>[];
  /** From what there is to what is wanted. */
  changes: readonly Change<WorkNode, CheckpointNode>[];
  opened: OpenCheckpoint;
  /** What the user called the checkpoint. */
  label: string;
  /** Where the head goes; null for none. */
  head: Digest | null;
}

/**
 * Restores a checkpoint in a fork that our own engine serves, by putting it below: that takes the same time however much is
 * different, and who stands in the fork goes on standing in it. What is not wanted is in a backup by then.
 *
 * @returns whether it was done; false when some file that no checkpoint holds stands in the way of that, and all has to be
 *   done file by file
 */
export async function switchFork({
  workspace,
  tree,
  unsaved,
  changes,
  opened,
  label,
  head,
}: ForkToSwitch): Promise<boolean> {
  const { fork, table, layout, dir, source } = workspace;
  if (fork?.engine !== 'cow' || !(tree instanceof OverlayTree)) return false;
  const keep = pathsToKeep(tree, unsaved, opened.tree);
  if (keep === undefined) return false;
  const record = settledRecord(fork);
  const to = opened.checkpoint.digest;
  await table.add({ ...record, switching: to, switchingHead: head });
  faultPoint('switch.recorded');
  await recordHead(layout, dir, to); // a garbage collection must not miss it
  writePlan(fromText(table.forkDir(fork)), { to, keep, changed: changedPaths(changes, keep) });
  faultPoint('switch.planned');
  try {
    await askDaemon(source.store, { op: 'switch', target: dir, manifest: to });
  } catch (error) {
    await table.add(record); // its upper directory says what lies below, whatever has happened
    throw error;
  }
  faultPoint('switch.done');
  await moveHead(workspace, head);
  faultPoint('switch.head-moved');
  await table.add({ ...record, manifest: to, ref: label });
  workspace.fork = { ...fork, manifest: to, ref: label };
  return true;
}

/**
 * Ends what an `open` in a fork that was killed had begun: the upper directory says whether the other checkpoint lies below
 * by now. The caller holds the save lock.
 *
 * @param fork - as the table has it, with the checkpoint that really lies below
 * @returns what was done, in one line for the user
 */
export async function settleSwitch(
  { dir, layout, table }: Pick<Workspace, 'dir' | 'layout' | 'table'>,
  fork: MountStatus & CheckpointRecord,
): Promise<string> {
  const isDone = fork.manifest === fork.switching;
  if (isDone) await moveHead({ dir, layout }, fork.switchingHead);
  await table.add(settledRecord(fork));
  return isDone
    ? 'note: finished an interrupted `bento open`; `bento open undo` takes it back'
    : 'note: an interrupted `bento open` had changed nothing yet';
}

/** The record as it is kept while nothing is being switched. */
function settledRecord({
  mounted: _mounted,
  elsewhere: _elsewhere,
  switching: _switching,
  switchingHead: _switchingHead,
  ...record
}: MountStatus & CheckpointRecord): CheckpointRecord {
  return record;
}

/** Everything at which something else will show, the directories around what goes along left alone. */
function changedPaths(changes: readonly Change[], keep: readonly ByteString[]): ByteString[] {
  const kept = new Set(keep);
  const isKept = (path: ByteString): boolean => {
    for (let at = path; at !== ''; at = parentPath(at)) if (kept.has(at)) return true;
    return false;
  };
  return changes.map(({ path }) => path).filter((path) => path !== '' && !isKept(path));
}

/**
 * What no checkpoint holds: ignored files, sockets, and what was added and is not part of what is wanted.
 *
 * @returns undefined when something of that cannot be taken along as it is
 */
function pathsToKeep(
  tree: OverlayTree,
  unsaved: readonly Change<CheckpointNode, WorkNode>[],
  wanted: CheckpointTree,
): ByteString[] | undefined {
  const sockets = tree.skipped.filter(({ reason }) => reason === 'socket').map(({ path }) => path);
  const added = topmost(unsaved.filter(({ kind, path }) => kind === 'added' && wanted.find(path) === undefined));
  const candidates = [...tree.ignored, ...sockets, ...added];
  const dependsOnBelow = unsaved.some(
    ({ kind, path, after }) => kind === 'added' && after?.stamp === undefined && isIn(path, added),
  );
  if (dependsOnBelow) return undefined; // a directory of the old checkpoint that was renamed
  const isFree = (path: ByteString): boolean => {
    const parent = parentPath(path);
    const hasPlace = parent === '' || wanted.find(parent)?.type === 'dir' || isIn(parent, candidates);
    return hasPlace && wanted.find(path) === undefined && tree.lower.find(path) === undefined;
  };
  if (!candidates.every(isFree)) return undefined;
  return candidates.filter((path) => !isIn(parentPath(path), candidates));
}

function topmost(changes: readonly Change[]): ByteString[] {
  const paths = new Set(changes.map(({ path }) => path));
  return [...paths].filter((path) => !paths.has(parentPath(path)));
}

function isIn(path: ByteString, dirs: readonly ByteString[]): boolean {
  return dirs.some((dir) => path === dir || path.startsWith(`${dir}/`));
}
