import type { CheckpointRecord } from '../fs/mounts/mount-table.ts';
import { fromText } from '../store/byte-string.ts';
import type { Checkpoint } from '../store/checkpoint.ts';
import type { Store } from '../store/store.ts';
import type { Context } from './command.ts';
import { completeCheckpoint } from './lazy.ts';
import { openSource } from './open-store.ts';

/**
 * Writes a checkpoint into the directory of a mount or fork that cannot be mounted. Reading and unpacking layers is only
 * loaded then.
 */
export async function copyInto(
  store: Store,
  { target, manifest }: CheckpointRecord,
  ctx: Context,
  checkpoint?: Checkpoint,
): Promise<void> {
  await completeCheckpoint(store, manifest, ctx);
  const [{ openTree }, { copyCheckpoint }] = await Promise.all([
    import('../fs/tree/index-checkpoint.ts'),
    import('../fs/workspace/restore/materialise.ts'),
  ]);
  const source = await openSource(store, ctx);
  const tree = await openTree(source, checkpoint ?? (await store.loadCheckpoint(manifest)));
  await copyCheckpoint(tree, fromText(target), source);
}
