import { IndexDatabase } from '../../index/database.ts';
import { RACY_MS } from '../../index/stat-cache.ts';
import { fromText, toText } from '../../store/byte-string.ts';
import type { Store } from '../../store/store.ts';
import { hashFile } from '../tree/disk-file.ts';
import { diffTrees, type Change } from '../tree/diff-trees.ts';
import { openTree, treeSource } from '../tree/index-checkpoint.ts';
import { LiveTree } from '../workspace/live-tree.ts';
import type { LiveNode } from '../workspace/scan.ts';
import type { CheckpointNode } from '../tree/checkpoint-tree.ts';
import type { MountRecord } from './mount-table.ts';

/**
 * What somebody did in a read-only copy that would be lost with it: paths of files that were added, or have other contents
 * than the checkpoint. What was deleted, or has other times, permissions or owners, is in the checkpoint.
 */
export async function changesInCopy(store: Store, { target, manifest, copied }: MountRecord): Promise<string[]> {
  if (manifest === undefined) return [];
  const index = await IndexDatabase.open(store.cacheDir);
  try {
    const checkpoint = await openTree(treeSource(store, index), await store.loadCheckpoint(manifest));
    const copy = LiveTree.scan(fromText(target), { isIgnored: () => false, exclude: new Set() });
    const copiedMs = Date.parse(copied ?? '') - RACY_MS;
    const sameContent = (path: string, before: CheckpointNode, after: LiveNode): boolean =>
      isUntouched(before, after, copiedMs) || hashFile(copy.absolute(path)) === before.digest;
    const changes = diffTrees<CheckpointNode, LiveNode>(checkpoint, copy, { sameContent });
    return changes.filter(isWork).map(({ path }) => toText(path));
  } finally {
    index.close();
  }
}

/** The kernel moves ctime with every change, and lets nobody set it; mtime speaks too, in case the clock was set back. */
function isUntouched(before: CheckpointNode, { stamp, mtimeSec, mtimeNsec }: LiveNode, copiedMs: number): boolean {
  const changedMs = stamp.ctimeSec * 1000 + stamp.ctimeNsec / 1e6;
  return changedMs < copiedMs && mtimeSec === before.mtimeSec && mtimeNsec === before.mtimeNsec;
}

function isWork({ kind, differences }: Change): boolean {
  if (kind !== 'modified') return kind === 'added';
  return differences.some((difference) => ['type', 'content', 'link'].includes(difference));
}
