import { StatCache, type HashedFile } from '../../index/stat-cache.ts';
import type { TreeSource } from '../tree/index-checkpoint.ts';
import type { PackedLayer } from './pack-layers.ts';
import type { LayerPlan } from './plan-layers.ts';
import type { WorkNode, WorkTree } from './work-tree.ts';

/** Notes what the packed files hashed to, so that the next save, diff or open need not read them. */
export function rememberPacked(
  source: TreeSource,
  tree: WorkTree,
  plans: readonly LayerPlan<WorkNode>[],
  packed: readonly PackedLayer[],
  startMs: number,
): void {
  const stamps = new Map(
    plans.flatMap((plan) => plan.entries.map(({ entry, content }) => [entry.path, content?.stamp] as const)),
  );
  const hashed = packed.flatMap(({ entries }) =>
    entries.flatMap((entry): HashedFile[] => {
      const stamp = stamps.get(entry.path);
      const isAsScanned = stamp !== undefined && stamp.sizeBytes === entry.sizeBytes;
      return isAsScanned && entry.digest !== undefined ? [{ path: entry.path, stamp, digest: entry.digest }] : [];
    }),
  );
  if (hashed.length > 0) new StatCache(source.index, tree.absolute('')).remember(hashed, startMs);
}
