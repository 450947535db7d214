import type { Digest } from '../store/digest.ts';
import { BentoError } from '../store/errors.ts';
import { BlobNotHere, isPartlyHere } from '../store/lazy-file.ts';
import type { Store } from '../store/store.ts';
import type { Context } from './command.ts';
import { TransferProgress } from './transfer-progress.ts';

/** Requests at once for each blob. */
const LANE_COUNT = 2;

/**
 * How a checkpoint of a registry is read when it is mounted: `only` what is read, the `rest` of it in the background, too, or all
 * of it first (`off`). `look` is for who mounts nothing, and wants to know what is in it.
 */
export type LazyMode = 'only' | 'rest' | 'off' | 'look';

export const LAZY_OPTION = {
  type: 'string',
  value: 'only|rest|off',
  help: 'of a registry: fetch only what is read, the rest in the background, too (default), or all of it first',
} as const;

/** @throws BentoError USAGE */
export function parseLazy(written: string | undefined): LazyMode {
  if (written === undefined) return 'rest';
  if (written === 'only' || written === 'rest' || written === 'off') return written;
  throw new BentoError('USAGE', `--lazy is only, rest or off, not ${written}`);
}

/**
 * Starts whoever will serve a checkpoint that is about to be mounted, while its first bytes are on their way. What goes wrong
 * with that is told by the mount.
 */
export function warmUp(store: Store): void {
  const start = async (): Promise<void> => {
    const { fuseAvailability } = await import('../fs/mounts/dev-fuse.ts');
    if (fuseAvailability().usable === undefined) return;
    const { askDaemon } = await import('../fs/mounts/daemon/daemon-client.ts');
    await askDaemon(store, { op: 'ready' });
  };
  start().catch(() => undefined);
}

/**
 * Fetches what is missing of a checkpoint that is only partly here, for whoever needs all of it.
 *
 * @throws BentoError as `LazyFetcher.fetchRest`
 */
export async function completeCheckpoint(store: Store, manifest: Digest, ctx: Context): Promise<void> {
  const { layers } = await store.loadCheckpoint(manifest);
  await completeBlobs(store.root, new Set(layers.map(({ descriptor }) => descriptor.digest)), ctx);
}

/** @returns false when the error is not about bytes that can be fetched @throws BentoError as `LazyFetcher.fetchRest` */
export async function fetchMissing(error: unknown, ctx: Context): Promise<boolean> {
  if (!(error instanceof Error)) return false;
  if (!(error instanceof BlobNotHere)) return await fetchMissing(error.cause, ctx);
  const { storeRoot, digest } = error.blob;
  if (!isPartlyHere(storeRoot, digest)) return false;
  await completeBlobs(storeRoot, new Set([digest]), ctx);
  return !isPartlyHere(storeRoot, digest);
}

async function completeBlobs(storeRoot: string, digests: ReadonlySet<Digest>, ctx: Context): Promise<void> {
  const partly = [...digests].filter((digest) => isPartlyHere(storeRoot, digest));
  if (partly.length === 0) return;
  const { openSources } = await import('./open-registry.ts');
  const { inParallel } = await import('../store/transfer/in-parallel.ts');
  const { LazyFetcher } = await import('../store/lazy/lazy-fetcher.ts');
  const { readRecord } = await import('../store/lazy/lazy-record.ts');
  const progress = new TransferProgress(ctx, 'Fetching the rest');
  progress.plan(partly.reduce((sum, digest) => sum + (readRecord(storeRoot, digest)?.sizeBytes ?? 0), 0));
  const sources = openSources(ctx);
  const fetcher = new LazyFetcher(storeRoot, (source) => sources.repository(source));
  try {
    await inParallel(partly, ctx.signal, async (digest, signal) => {
      const onProgress = (doneBytes: number): void => progress.advance(digest, doneBytes);
      await fetcher.fetchRest(digest, { signal, laneCount: LANE_COUNT, yields: false, onProgress });
    });
  } finally {
    fetcher.close();
    await sources.close();
  }
}
