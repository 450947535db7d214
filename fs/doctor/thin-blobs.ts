import type { Digest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import type { Store } from '../../store/store.ts';
import { checkLater, type Check } from './check.ts';

const MIB = 1024 ** 2;

/** Counts the recipes of a store, and finds those that lack what they are made of. Bytes are for `bento verify` to look at. */
export async function thinCheck(store: Store): Promise<Check> {
  return await checkLater('thin', 'Thin blobs', async (check) => {
    const digests = await store.blobs.listThin();
    if (digests.length === 0) return check.ok('none', { facts: { count: 0 } });
    let [sizeBytes, storedBytes, brokenCount] = [0, 0, 0];
    for (const digest of digests) {
      storedBytes += (await store.blobs.storedSizeOf(digest)) ?? 0;
      const size = await wholeSize(store, digest);
      if (size === undefined) brokenCount += 1;
      else sizeBytes += size;
    }
    const facts = { count: digests.length, sizeBytes, storedBytes, brokenCount };
    const finding = `${digests.length}, ${Math.ceil(storedBytes / MIB)} MiB instead of ${Math.ceil(sizeBytes / MIB)} MiB`;
    if (brokenCount === 0) return check.ok(finding, { facts });
    const advice = '`bento verify` says which checkpoints are hit, `--repair` looks for another copy';
    return check.broken('BLOB_MISSING', `${brokenCount} of ${digests.length} cannot be put together`, {
      advice,
      facts,
    });
  });
}

/** Undefined when its recipe or a blob that it takes bytes from is not to be had. */
async function wholeSize(store: Store, digest: Digest): Promise<number | undefined> {
  try {
    for (const base of await store.blobs.basesOf(digest)) if (!(await store.blobs.has(base))) return undefined;
    return await store.blobs.sizeOf(digest);
  } catch (error) {
    if (error instanceof BentoError) return undefined;
    throw error;
  }
}
