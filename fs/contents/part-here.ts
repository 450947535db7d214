import { LazyFile } from '../../store/lazy-file.ts';
import type { Digest } from '../../store/digest.ts';
import { lazyDigests } from '../../store/lazy/lazy-record.ts';
import type { Store } from '../../store/store.ts';

/** How much of a checkpoint's layers is in the store. */
export interface PartHere {
  presentBytes: number;
  sizeBytes: number;
}

/** @returns undefined when all of it is here @throws BentoError as `Store.loadCheckpoint` */
export async function partHere(store: Store, manifest: Digest): Promise<PartHere | undefined> {
  if (lazyDigests(store.root).length === 0) return undefined; // mostly so, and then no manifest need be read
  const { layers } = await store.loadCheckpoint(manifest);
  const part: PartHere = { presentBytes: 0, sizeBytes: 0 };
  let isWhole = true;
  for (const { descriptor } of layers) {
    const isStored = await store.blobs.has(descriptor.digest);
    const file = isStored ? undefined : LazyFile.open(store.root, descriptor.digest);
    isWhole &&= file === undefined;
    part.sizeBytes += descriptor.size;
    part.presentBytes += file?.presentBytes ?? descriptor.size;
    file?.close();
  }
  return isWhole ? undefined : part;
}
