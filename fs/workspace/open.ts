import { resolve } from 'node:path';

import { StatCache, type HashedFile } from '../../index/stat-cache.ts';
import { fromText, parentPath, type ByteString } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { faultPoint } from '../../store/fault-point.ts';
import type { CheckpointNode, CheckpointTree } from '../tree/checkpoint-tree.ts';
import { diffTrees, type Change } from '../tree/diff-trees.ts';
import type { TreeSource } from '../tree/index-checkpoint.ts';
import { PathFinder } from '../tree/tree.ts';
import { removeHeadRecord, undoTag } from './heads.ts';
import { describeNewWorkspace, keepRootTime } from './new-workspace.ts';
import { STAGING_NAME } from './patterns.ts';
import { isWorthSaving } from './plan-layers.ts';
import { restoreInPlace } from './restore/in-place.ts';
import type { Journal } from './restore/journal.ts';
import { materialise } from './restore/materialise.ts';
import { clearForMount, NewTarget } from './restore/new-target.ts';
import { OnlyPaths } from './restore/only-paths.ts';
import { planRestore, type RestorePlan } from './restore/plan.ts';
import { moveHead } from './restore/recover.ts';
import { makeCheckpoint } from './make-checkpoint.ts';
import type { SaveOptions } from './save.ts';
import { switchFork } from './switch-fork.ts';
import { diffWorkspace, WorkDigests, type WorkNode, type WorkTree } from './work-tree.ts';
import {
  openCheckpoint,
  openHead,
  readWorkTree,
  rereadConfig,
  type OpenCheckpoint,
  type Workspace,
} from './workspace.ts';

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
  /** Paths that somebody changed while the command ran: they stay as they are. */
  kept: string[];
}

export interface OpenIntoOptions {
  includes?: TitleFilter;
  /** What the new workspace's `remote:` is; default: what the checkpoint says. */
  remote?: string | undefined;
}

/** Milliseconds: a file with a time within these is looked at again. */
const RECENT_MS = 2000;

/**
 * Makes a new workspace directory from a checkpoint. Nothing is synced: a power cut right after may cost files of the new
 * directory, none of the store.
 *
 * @param path - missing, an empty directory, or one in which an earlier attempt was killed
 * @throws BentoError TARGET_NOT_EMPTY or TARGET_INVALID, before anything is written
 */
export async function openInto(
  source: TreeSource,
  opened: OpenCheckpoint,
  path: string,
  { includes, remote }: OpenIntoOptions = {},
): Promise<OpenResult> {
  const { checkpoint, tree } = opened;
  const dir = resolve(path);
  const workspaceId = checkpoint.meta.workspaceId ?? 'ws-restored';
  const target = await NewTarget.take(dir, checkpoint.digest, async (manifest) => await findTree(source, manifest));
  const refused: string[] = [];
  try {
    faultPoint('open.new-marked');
    await describeNewWorkspace(checkpoint, {
      dir,
      workspaceId,
      storeRoot: source.store.root,
      head: checkpoint.digest,
      remote,
      preparedIn: target.staging,
    });
    const written = await materialise(tree, target.dir, {
      source,
      scratch: fromText(target.staging),
      onRefused: (refusedPath, what) => void refused.push(`${refusedPath}: ${what}`),
      includes: includes && ((node) => includes(checkpoint.layers[node.depth]?.title ?? '')),
    });
    faultPoint('open.new-written');
    target.finish();
    keepRootTime(dir, tree);
    return { dir, digest: checkpoint.digest, written, removed: 0, canUndo: false, refused, kept: [] };
  } catch (error) {
    target.discard();
    await removeHeadRecord(source.store.layout(workspaceId), target.path);
    throw error;
  }
}

/** What a mount of a new workspace needs of its directory. @throws BentoError TARGET_NOT_EMPTY or TARGET_INVALID */
export async function prepareMountOn(path: string, openSource: () => Promise<TreeSource>): Promise<void> {
  await clearForMount(path, async (manifest) => await findTree(await openSource(), manifest));
}

async function findTree(source: TreeSource, manifest: Digest): Promise<CheckpointTree | undefined> {
  if (!(await source.store.blobs.has(manifest))) return undefined;
  return (await openCheckpoint(source, manifest)).tree;
}

export interface OpenInPlaceOptions {
  includes: TitleFilter;
  /** What the user called the checkpoint; goes into the backup's message. */
  label: string;
  backup: boolean;
  /** Without a backup: what no checkpoint holds may be overwritten. */
  force?: boolean;
  /** Taking back: the head goes to where it was before, not to the backup. */
  isUndo: boolean;
  onWait?: NonNullable<SaveOptions['onWait']>;
}

/**
 * Restores a checkpoint into the workspace it is run in: backs up what is there, then touches only what differs. Files that
 * no checkpoint holds stay. Killed at any moment, it leaves the old state or one that the next command makes the new one.
 *
 * @throws BentoError UNSAVED_CHANGES before anything is touched; FAILED when some paths could not be changed
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
  const unsaved = diffWorkspace(workspace.source, head?.tree, tree);
  const canUndo = options.backup && (await backUp(workspace, { head, tree, changes: unsaved, label: options.label }));
  faultPoint('open.backup-made');
  const changes = changesTo(workspace, { tree, head, unsaved }, opened);
  if (canUndo && options.includes === undefined) {
    const newHead = headAfter(opened, options.isUndo) ?? null;
    const fork = { workspace, tree, unsaved, changes, opened, label: options.label, head: newHead };
    if (await switchFork(fork)) return afterSwitch(workspace, opened, { changes, head: newHead });
  }
  const plan = planRestore(selectTitles(changes, opened, head, options.includes), fromText(workspace.dir), {
    isTracked: (path) => head?.tree.find(path) !== undefined,
    mayReplaceUntracked: canUndo || options.force === true,
  });
  const done = await restoreInPlace(plan, {
    source: workspace.source,
    tree: opened.tree,
    target: fromText(workspace.dir),
    head: options.includes === undefined ? headAfter(opened, options.isUndo) : undefined,
    moveHead: async (moved) => {
      await moveHead(workspace, moved);
      if (moved !== undefined) workspace.config.head = moved ?? undefined;
    },
  });
  await rememberWritten(workspace, plan, new Set(done.kept));
  refuseIfIncomplete(done.failed, canUndo);
  const counts = { written: plan.write.length, removed: plan.remove.length };
  const { refused, kept } = done;
  return { dir: workspace.dir, digest: opened.checkpoint.digest, ...counts, canUndo, refused, kept };
}

/** All is in its place; what is left is to say where the workspace is now. */
function afterSwitch(
  workspace: Workspace,
  opened: OpenCheckpoint,
  { changes, head }: { changes: readonly Change<WorkNode, CheckpointNode>[]; head: Digest | null },
): OpenResult {
  workspace.config.head = head ?? undefined;
  keepRootTime(workspace.dir, opened.tree);
  const written = changes.filter(({ after }) => after !== undefined && after.type !== 'dir').length;
  const removed = changes.filter(({ kind }) => kind === 'removed').length;
  const { digest } = opened.checkpoint;
  return { dir: workspace.dir, digest, written, removed, canUndo: true, refused: [], kept: [] };
}

/** Everything else is in its place by now, and the head has moved: what is left shows as a change. */
function refuseIfIncomplete(failed: readonly string[], canUndo: boolean): void {
  const [first] = failed;
  if (first === undefined) return;
  const count = failed.length === 1 ? 'one path' : `${failed.length} paths`;
  throw new BentoError('FAILED', `restored, but ${count} could not be changed: ${first}`, {
    hint: canUndo ? '`bento open undo` takes back the rest' : 'mend what is in the way and run the command again',
  });
}

/** @returns whether there was anything to back up */
async function backUp(
  workspace: Workspace,
  state: { head: OpenCheckpoint | undefined; tree: WorkTree; changes: Unsaved; label: string },
): Promise<boolean> {
  const { head, tree, changes, label } = state;
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

type Unsaved = Change<CheckpointNode, WorkNode>[];

/**
 * From what is on disk to what is wanted. What neither differs between the disk and the head nor between the head and the
 * checkpoint wanted is equal, so that only the rest is compared.
 */
function changesTo(
  workspace: Workspace,
  { tree, head, unsaved }: { tree: WorkTree; head: OpenCheckpoint | undefined; unsaved: Unsaved },
  opened: OpenCheckpoint,
): Change<WorkNode, CheckpointNode>[] {
  const digests = new WorkDigests(workspace.source, tree);
  const sameContent = (path: ByteString, node: WorkNode, wanted: CheckpointNode): boolean =>
    digests.of(path, node) === wanted.digest;
  const changes =
    head === undefined
      ? diffTrees(tree, opened.tree, { sameContent })
      : compareOnly(tree, opened.tree, [...unsaved, ...betweenCheckpoints(head, opened)], sameContent);
  digests.remember();
  const isOurs = ({ path }: Change): boolean => path === STAGING_NAME || path.startsWith(`${STAGING_NAME}/`);
  return changes.filter((change) => !isOurs(change));
}

function betweenCheckpoints(from: OpenCheckpoint, to: OpenCheckpoint): Change[] {
  return diffTrees(from.tree, to.tree, { sameContent: (_, before, after) => before.digest === after.digest });
}

function compareOnly(
  tree: WorkTree,
  wanted: CheckpointTree,
  candidates: readonly Change[],
  sameContent: (path: ByteString, node: WorkNode, wanted: CheckpointNode) => boolean,
): Change<WorkNode, CheckpointNode>[] {
  const paths = new Set(candidates.map(({ path }) => path));
  // A name that is missing has to become a link to the others of its file, so these are looked at, too.
  for (const { path } of candidates) {
    const node = wanted.find(path);
    if (node?.linkKey !== undefined) for (const name of wanted.namesOf(node)) paths.add(name);
  }
  return diffTrees(new OnlyPaths(tree, paths), new OnlyPaths(wanted, paths), { sameContent });
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
function headAfter({ checkpoint }: OpenCheckpoint, isUndo: boolean): Journal['head'] {
  const isBackup = isUndo && checkpoint.message.startsWith('pre-open backup before restoring ');
  return isBackup ? (checkpoint.parent ?? null) : checkpoint.digest;
}

/**
 * What was written needs not be read by the next command. Its time is the checkpoint's, so whoever writes to it from now on
 * moves that: only a file that is as new as this restore could change unnoticed, and is left out.
 */
async function rememberWritten(workspace: Workspace, plan: RestorePlan, kept: ReadonlySet<ByteString>): Promise<void> {
  const settledMs = Date.now() - RECENT_MS;
  const tree = await readWorkTree(workspace);
  const finder = new PathFinder(tree);
  const written = plan.write.flatMap(({ path, node: wanted }): HashedFile[] => {
    if (wanted.type !== 'file' || wanted.digest === undefined || kept.has(path)) return [];
    if (wanted.mtimeSec * 1000 > settledMs) return [];
    const node = finder.find(path);
    if (node?.stamp === undefined || !isAsWanted(node, wanted)) return [];
    node.digest = wanted.digest;
    node.isSettled = true;
    return [{ path, stamp: node.stamp, digest: wanted.digest }];
  });
  if (tree.remember !== undefined) tree.remember();
  else if (written.length > 0) new StatCache(workspace.source.index, tree.absolute('')).remember(written, Infinity);
}

function isAsWanted(node: WorkNode, wanted: CheckpointNode): boolean {
  const { type, sizeBytes, mtimeSec, mtimeNsec } = wanted;
  return (
    node.type === type && node.sizeBytes === sizeBytes && node.mtimeSec === mtimeSec && node.mtimeNsec === mtimeNsec
  );
}
