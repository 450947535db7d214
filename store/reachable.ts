import type { BlobPool } from './blobs.ts';
import type { Digest } from './digest.ts';
import { BentoError } from './errors.ts';
import { MANIFEST_BYTES_MAX, parseManifest, type Manifest } from './manifest.ts';

/** What a set of manifests needs. */
export interface Reachable {
  /** The manifests themselves, their configs and their layers. */
  blobs: Set<Digest>;
  /** Manifests that cannot be read, so that nobody knows what else they need. */
  unreadable: Map<Digest, BentoError>;
}

/** Follows manifests to every blob they need. A parent is not followed: a checkpoint is whole without it. */
export async function markReachable(pool: BlobPool, manifests: Iterable<Digest>): Promise<Reachable> {
  const reachable: Reachable = { blobs: new Set(), unreadable: new Map() };
  for (const digest of new Set(manifests)) {
    reachable.blobs.add(digest);
    try {
      for (const blob of blobsOf(await readManifest(pool, digest))) reachable.blobs.add(blob);
    } catch (error) {
      if (!(error instanceof BentoError)) throw error;
      reachable.unreadable.set(digest, error);
    }
  }
  return reachable;
}

/** @throws BentoError BLOB_MISSING, DIGEST_MISMATCH or FORMAT_INVALID */
export async function readManifest(pool: BlobPool, digest: Digest): Promise<Manifest> {
  return parseManifest(await pool.read({ digest }, MANIFEST_BYTES_MAX), `manifest ${digest}`);
}

export function blobsOf({ config, layers }: Manifest): Digest[] {
  return [config.digest, ...layers.map((layer) => layer.digest)];
}
