import type { ByteString } from '../../store/byte-string.ts';
import type { Checkpoint, CheckpointLayer } from '../../store/checkpoint.ts';
import type { Digest } from '../../store/digest.ts';
import { faultPoint } from '../../store/fault-point.ts';
import type { Skipped } from '../tree/disk-node.ts';
import { openTree } from '../tree/index-checkpoint.ts';
import { updateConfig } from './config-file.ts';
import { recordHead } from './heads.ts';
import type { CheckpointToMake, MadeCheckpoint } from './make-checkpoint.ts';
import { keepRootTime } from './new-workspace.ts';
import type { SaveEvent } from './pack-layers.ts';
import { isWorthSaving } from './plan-layers.ts';
import { heightOf, reportTitles, type TitleReport } from './title-report.ts';
import { compareWorkspace, type WorkTree } from './work-tree.ts';
import { isKnownUnchanged, loadHead, readWorkTree, rereadConfig, type Workspace } from './workspace.ts';

export interface SaveOptions {
  message?: string;
  /** Replaces `cp-N` as the checkpoint's tag. */
  tag?: string;
  /** One layer for each title, for readers that know nothing of stacks. */
  flat?: boolean;
  now?: Date;
  onEvent?: (event: SaveEvent) => void;
  /** Told once when another save of this workspace has to be waited for. */
  onWait?: () => void;
}

export interface SaveResult {
  saved: boolean;
  digest: Digest | undefined;
  tags: string[];
  sequence: number;
  titles: TitleReport[];
  skipped: readonly Skipped[];
  /** Files that were being written all the while they were read. */
  unsteady: readonly ByteString[];
  /** Bytes of layers that were written. */
  addedBytes: number;
}

/** Saves a workspace if anything changed since its head, and moves the head. Other saves of the workspace wait. */
export async function saveWorkspace(workspace: Workspace, options: SaveOptions = {}): Promise<SaveResult> {
  await workspace.layout.ensure();
  using _lock = await workspace.layout.lockForSaving(options.onWait);
  await rereadConfig(workspace);
  const checkpoint = await loadHead(workspace);
  const tree = await readWorkTree(workspace);
  const mustFlatten = options.flat === true && checkpoint !== undefined && heightOf(checkpoint) > 1;
  if (checkpoint !== undefined && !mustFlatten && isKnownUnchanged(tree, checkpoint))
    return await unchanged(workspace, checkpoint, { tree, flat: options.flat });
  const head = checkpoint && { checkpoint, tree: await openTree(workspace.source, checkpoint) };
  const { changes, remember } = compareWorkspace(workspace.source, head?.tree, tree);
  if (head !== undefined && !mustFlatten && !changes.some(isWorthSaving)) {
    remember();
    return await unchanged(workspace, head.checkpoint, { tree, flat: options.flat });
  }
  const sequence = await workspace.layout.nextSequence(checkpoint?.sequence);
  const made = await makeLater(workspace, { head, tree, changes, sequence, options });
  if (options.flat === true) await makeWhole(workspace, made.layers);
  faultPoint('save.manifest-stored');
  const tags = [...new Set([options.tag ?? `cp-${sequence}`, 'latest'])];
  await workspace.layout.setTags(tags, made.manifest);
  faultPoint('save.tagged');
  await recordHead(workspace.layout, workspace.dir, made.manifest.digest);
  faultPoint('save.head-recorded');
  await updateConfig(workspace.dir, { head: made.manifest.digest });
  faultPoint('save.head-moved');
  keepRootTime(workspace.dir, tree);
  workspace.config.head = made.manifest.digest;
  return {
    saved: true,
    digest: made.manifest.digest,
    tags,
    sequence,
    titles: made.titles,
    skipped: [...tree.skipped, ...made.skipped],
    unsteady: made.unsteady,
    addedBytes: made.addedBytes,
  };
}

/** Whoever wants flat layers wants to give them to other programs, which know nothing of recipes either. */
async function makeWhole({ source }: Workspace, layers: readonly CheckpointLayer[]): Promise<void> {
  for (const { descriptor } of layers) await source.store.blobs.makeWhole(descriptor.digest);
}

async function unchanged(
  workspace: Workspace,
  { digest, sequence, layers }: Checkpoint,
  { tree, flat }: { tree: WorkTree; flat: boolean | undefined },
): Promise<SaveResult> {
  if (flat === true) await makeWhole(workspace, layers);
  return {
    saved: false,
    digest,
    tags: [],
    sequence,
    titles: reportTitles(layers, []),
    skipped: tree.skipped,
    unsteady: [],
    addedBytes: 0,
  };
}

/** Loaded when there is something to save: most saves of a watcher find nothing. */
async function makeLater(workspace: Workspace, make: CheckpointToMake): Promise<MadeCheckpoint> {
  const { makeCheckpoint } = await import('./make-checkpoint.ts');
  return await makeCheckpoint(workspace, make);
}
