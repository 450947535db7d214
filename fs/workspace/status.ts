import { parentPath, type ByteString } from '../../store/byte-string.ts';
import type { Checkpoint } from '../../store/checkpoint.ts';
import { BentoError } from '../../store/errors.ts';
import type { Skipped } from '../tree/disk-node.ts';
import { openTree } from '../tree/index-checkpoint.ts';
import { isWorthSaving } from './plan-layers.ts';
import { diffWorkspace, type WorkTree } from './work-tree.ts';
import { isKnownUnchanged, loadHead, readWorkTree, type Workspace } from './workspace.ts';

export interface ChangeCounts {
  added: number;
  removed: number;
  modified: number;
}

/** Where a workspace stands against its head. */
export interface WorkspaceStatus {
  /** Undefined when the checkpoint cannot be loaded. */
  head: Checkpoint | undefined;
  /** Undefined when there is nothing to compare with. */
  changes: ChangeCounts | undefined;
  skipped: readonly Skipped[];
  /** Why the checkpoint cannot be loaded. */
  damage: BentoError | undefined;
}

/**
 * Compares a workspace that has a head with it. Writes nothing but the cache of the scan.
 *
 * @throws BentoError PERMISSION_DENIED naming what cannot be looked at
 */
export async function readStatus(workspace: Workspace): Promise<WorkspaceStatus> {
  const head = await orDamage(async () => await loadHead(workspace));
  if (head instanceof BentoError || head === undefined) {
    return { head: undefined, changes: undefined, skipped: [], damage: head };
  }
  const work = await orDamage(async () => await readWorkTree(workspace)); // in a fork it is a checkpoint, too
  if (work instanceof BentoError) return { head, changes: undefined, skipped: [], damage: work };
  const changes = await orDamage(async () => await countChanges(workspace, head, work));
  if (changes instanceof BentoError) return { head, changes: undefined, skipped: work.skipped, damage: changes };
  return { head, changes, skipped: work.skipped, damage: undefined };
}

async function countChanges(workspace: Workspace, head: Checkpoint, tree: WorkTree): Promise<ChangeCounts> {
  const counts = { added: 0, removed: 0, modified: 0 };
  if (isKnownUnchanged(tree, head)) return counts;
  const before = await openTree(workspace.source, head);
  const changes = diffWorkspace(workspace.source, before, tree).filter(isWorthSaving);
  const onTheWay = new Set<ByteString>(changes.map(({ path }) => parentPath(path)));
  for (const { path, kind, before: was, after } of changes) {
    const isDir = (after ?? was)?.type === 'dir';
    if (isDir && kind !== 'modified' && onTheWay.has(path)) continue; // it came or went with what is in it
    counts[kind] += 1;
  }
  return counts;
}

/** What is wrong with the store is part of the answer; everything else is an error of the command. */
async function orDamage<T>(look: () => Promise<T>): Promise<T | BentoError> {
  try {
    return await look();
  } catch (error) {
    const isDamage =
      error instanceof BentoError &&
      ['BLOB_MISSING', 'DIGEST_MISMATCH', 'FORMAT_INVALID', 'FORMAT_UNSUPPORTED'].includes(error.code);
    if (isDamage) return error;
    throw error;
  }
}
