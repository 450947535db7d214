import type { Digest } from '../../store/digest.ts';
import type { Checkpoint } from '../../store/checkpoint.ts';
import type { ByteString } from '../../store/byte-string.ts';
import { openTree } from '../tree/index-checkpoint.ts';
import type { Skipped } from '../tree/disk-node.ts';
import { isWorthSaving } from './plan-layers.ts';
import type { SaveOptions } from './save.ts';
import { compareWorkspace } from './work-tree.ts';
import { isKnownUnchanged, loadHead, readWorkTree, rereadConfig, type Workspace } from './workspace.ts';

/** A workspace as it is now, as a checkpoint. */
export interface CheckpointNow {
  checkpoint: Checkpoint;
  /** Where the workspace is; its own checkpoint when nothing is unsaved. */
  head: Digest | undefined;
  skipped: readonly Skipped[];
  unsteady: readonly ByteString[];
}

/**
 * Makes a checkpoint of a workspace that nobody sees: no tag and no head moves. It costs what is not saved; without that it is
 * the head itself. To be called by who shares the store's blobs, and until something durable refers to it: gc would take it.
 */
export async function checkpointNow(
  workspace: Workspace,
  { message, onEvent, onWait }: Pick<SaveOptions, 'message' | 'onEvent' | 'onWait'>,
): Promise<CheckpointNow> {
  await workspace.layout.ensure();
  using _lock = await workspace.layout.lockForSaving(onWait);
  await rereadConfig(workspace);
  const saved = await loadHead(workspace);
  const tree = await readWorkTree(workspace);
  const asSaved = (checkpoint: Checkpoint): CheckpointNow => {
    return { checkpoint, head: checkpoint.digest, skipped: tree.skipped, unsteady: [] };
  };
  if (saved !== undefined && isKnownUnchanged(tree, saved)) return asSaved(saved);
  const head = saved && { checkpoint: saved, tree: await openTree(workspace.source, saved) };
  const { changes, remember } = compareWorkspace(workspace.source, head?.tree, tree);
  if (saved !== undefined && !changes.some(isWorthSaving)) {
    remember();
    return asSaved(saved);
  }
  const { makeCheckpoint } = await import('./make-checkpoint.ts');
  const sequence = await workspace.layout.nextSequence();
  const options = { ...(message && { message }), ...(onEvent && { onEvent }) };
  const made = await makeCheckpoint(workspace, { head, tree, changes, sequence, options });
  return {
    checkpoint: await workspace.source.store.loadCheckpoint(made.manifest.digest),
    head: saved?.digest,
    skipped: [...tree.skipped, ...made.skipped],
    unsteady: made.unsteady,
  };
}
