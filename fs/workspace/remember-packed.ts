import { StatCache, type HashedFile } from '../../index/stat-cache.ts';
import type { ByteString } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import type { TreeSource } from '../tree/index-checkpoint.ts';
import type { PackedLayer } from './pack-layers.ts';
import type { LayerPlan } from './plan-layers.ts';
import type { WorkNode, WorkTree } from './work-tree.ts';

export interface Packed {
  plans: readonly LayerPlan<WorkNode>[];
  packed: readonly PackedLayer[];
  /** The layers of the checkpoint that the workspace now is, lowest first. */
  layers: readonly Digest[];
  /** Before the first file was read: milliseconds since 1970. */
  startMs: number;
}

/** Notes what the packed files hashed to, so that the next save, diff or open need not read them. */
export function rememberPacked(source: TreeSource, tree: WorkTree, { plans, packed, layers, startMs }: Packed): void {
  const nodes = new Map<ByteString, WorkNode>();
  for (const { entries } of plans) {
    for (const { entry, content } of entries) if (content !== undefined) nodes.set(entry.path, content);
  }
  const hashed: HashedFile[] = [];
  for (const { entries } of packed) {
    for (const { path, sizeBytes, digest } of entries) {
      const node = digest === undefined ? undefined : nodes.get(path);
      if (node?.stamp === undefined || digest === undefined || node.stamp.sizeBytes !== sizeBytes) continue;
      node.digest = digest;
      if (tree.remember === undefined) hashed.push({ path, stamp: node.stamp, digest });
    }
  }
  if (hashed.length > 0) new StatCache(source.index, tree.absolute('')).remember(hashed, startMs);
  const gone = packed.flatMap((layer) => layer.gone);
  const compared = { layers, differing: gone, isClean: gone.length === 0 };
  (tree.remember ?? tree.rememberLook)?.(compared);
}
