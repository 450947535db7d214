import { readFileSync, statSync } from 'node:fs';

import { BlobIngest } from '../../store/blob-ingest.ts';
import { thinPath } from '../../store/blob-paths.ts';
import type { BlobPool } from '../../store/blobs.ts';
import { digestOf, type Digest } from '../../store/digest.ts';

/** A piece of a blob to be written: bytes, or a stretch of another blob. */
export type Part = Buffer | { digest: Digest; offset: number; lengthBytes: number };

/** Writes a blob from its parts; whether it becomes a recipe is up to the pool. */
export async function ingestParts(
  pool: BlobPool,
  parts: readonly Part[],
  { mayBeThin } = { mayBeThin: true },
): Promise<{ digest: Digest; bytes: Buffer; storedBytes: number }> {
  await using ingest = await BlobIngest.create(pool, pool.dir, { mayBeThin });
  const all: Buffer[] = [];
  for (const part of parts) {
    if (Buffer.isBuffer(part)) {
      await ingest.write(part);
      all.push(part);
      continue;
    }
    const bytes = (await readAll(pool, part.digest)).subarray(part.offset, part.offset + part.lengthBytes);
    await ingest.refer(bytes, part);
    all.push(bytes);
  }
  const bytes = Buffer.concat(all);
  const digest = digestOf(bytes);
  return { digest, bytes, storedBytes: await ingest.commit(digest) };
}

export async function readAll(pool: BlobPool, digest: Digest): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of pool.stream({ digest })) pieces.push(piece);
  return Buffer.concat(pieces);
}

export function thinFileOf(pool: BlobPool, digest: Digest): { path: string; sizeBytes: number; bytes: Buffer } {
  const path = thinPath(pool.storeRoot, digest);
  return { path, sizeBytes: statSync(path).size, bytes: readFileSync(path) };
}
