import { baseName, type ByteString } from '../../store/byte-string.ts';
import { CHUNK_BYTES } from '../../store/layers/toc.ts';
import type { CheckpointNode } from '../tree/checkpoint-tree.ts';
import type { Change } from '../tree/diff-trees.ts';
import type { TreeNode } from '../tree/tree.ts';
import type { LayerPlan } from './plan-layers.ts';

/**
 * A large file that is new where it is may be one that is gone from elsewhere: moved, as logs are when they are rotated, and
 * perhaps edited. A wrong guess costs reading; which bytes are the same is compared byte by byte.
 */
export function markEarlier<A extends TreeNode>(
  plans: readonly LayerPlan<A>[],
  changes: readonly Change<CheckpointNode, A>[],
): void {
  const gone = new Map<ByteString, CheckpointNode>();
  for (const { path, before, after } of changes) {
    if (after === undefined && before?.type === 'file' && before.sizeBytes >= CHUNK_BYTES) gone.set(path, before);
  }
  if (gone.size === 0) return;
  const bySize = new Map([...gone.values()].map((node) => [node.sizeBytes, node]));
  const byName = new Map([...gone].map(([path, node]) => [baseName(path), node]));
  for (const planned of plans.flatMap((plan) => plan.entries)) {
    const { entry, content, earlier } = planned;
    if (content === undefined || earlier !== undefined || entry.sizeBytes < CHUNK_BYTES) continue;
    planned.earlier = bySize.get(entry.sizeBytes) ?? byName.get(baseName(entry.path));
  }
}
