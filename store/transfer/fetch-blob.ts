import { createHash, type Hash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';

import { BlobIngest } from '../blob-ingest.ts';
import { partialDir } from '../blob-paths.ts';
import type { BlobPool } from '../blobs.ts';
import { hexOf, shortDigest, type Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { LazyFetcher } from '../lazy/lazy-fetcher.ts';
import { LazyFile } from '../lazy-file.ts';
import { tryLockFile } from '../lock.ts';
import type { ReadOptions, Repository } from '../registry/repository.ts';
import { TRANSFERS_AT_ONCE } from './in-parallel.ts';

export interface WantedBlob {
  digest: Digest;
  sizeBytes: number;
}

export interface FetchOptions extends ReadOptions {
  /** Called with the bytes that are here, those of an earlier run included. */
  onProgress?: (doneBytes: number) => void;
}

/**
 * Fetches a blob into the pool, which only ever gets it whole and verified. What a broken download leaves in
 * `<store>/partial/` is the beginning of the next one: hashed again, and thrown away when the whole does not come out right.
 * The caller shares the store's blobs.
 *
 * @returns how many bytes came over the network
 * @throws BentoError REMOTE_INVALID when the registry sends other bytes; those of `Repository`, NO_SPACE
 */
export async function fetchBlob(
  pool: BlobPool,
  blob: WantedBlob,
  { repository, ...options }: FetchOptions & { repository: Repository },
): Promise<number> {
  const restBytes = await fetchRest(pool, blob, { repository, ...options });
  if (restBytes !== undefined) return restBytes;
  const path = join(partialDir(pool.storeRoot), hexOf(blob.digest));
  using lock = await tryLockFile(path);
  if (lock !== undefined) {
    await using ingest = await BlobIngest.resume(pool, path);
    // Another download may have finished between our opening and locking, and its file is a blob now.
    if (await ingest.isSameFile(lock.fd)) {
      try {
        return await new Download(ingest, blob, repository, options).run();
      } catch (error) {
        const isWrong = error instanceof BentoError && error.code === 'REMOTE_INVALID';
        if (isWrong || ingest.sizeBytes === 0) await rm(path, { force: true });
        throw error;
      }
    }
  }
  await using ingest = await BlobIngest.create(pool, pool.dir);
  return await new Download(ingest, blob, repository, options).run();
}

/** Of a blob that was read in parts until now. @returns how many bytes came over the network; undefined for any other */
async function fetchRest(
  { storeRoot }: BlobPool,
  { digest, sizeBytes }: WantedBlob,
  { repository, onProgress, signal }: FetchOptions & { repository: Repository },
): Promise<number | undefined> {
  const file = LazyFile.open(storeRoot, digest);
  if (file === undefined) return undefined;
  const isSame = file.sizeBytes === sizeBytes;
  const { presentBytes } = file;
  file.close();
  if (!isSame) return undefined;
  const fetcher = new LazyFetcher(storeRoot, () => repository);
  try {
    const rest = { laneCount: TRANSFERS_AT_ONCE, yields: false, ...(onProgress && { onProgress }) };
    const outcome = await fetcher.fetchRest(digest, { ...rest, signal });
    return outcome === 'whole' ? sizeBytes - presentBytes : undefined;
  } finally {
    fetcher.close();
  }
}

class Download {
  readonly #ingest: BlobIngest;
  readonly #blob: WantedBlob;
  readonly #repository: Repository;
  readonly #options: FetchOptions;
  #fetchedBytes = 0;

  constructor(ingest: BlobIngest, blob: WantedBlob, repository: Repository, options: FetchOptions) {
    this.#ingest = ingest;
    this.#blob = blob;
    this.#repository = repository;
    this.#options = options;
  }

  async run(): Promise<number> {
    if (this.#ingest.sizeBytes > this.#blob.sizeBytes) await this.#ingest.rewind(0);
    const startBytes = this.#ingest.sizeBytes;
    let isRight = await this.#finish(await this.#hashWritten());
    if (!isRight && startBytes > 0) {
      await this.#ingest.rewind(0);
      isRight = await this.#finish(createHash('sha256'));
    }
    if (!isRight) throw wrongBytes(this.#blob, this.#repository);
    await this.#ingest.commit(this.#blob.digest);
    return this.#fetchedBytes;
  }

  async #hashWritten(): Promise<Hash> {
    const hash = createHash('sha256');
    for await (const piece of this.#ingest.written()) hash.update(piece);
    return hash;
  }

  /** Fetches what is missing. @returns whether the whole has its digest */
  async #finish(hash: Hash): Promise<boolean> {
    const { sizeBytes, digest } = this.#blob;
    this.#options.onProgress?.(this.#ingest.sizeBytes);
    if (this.#ingest.sizeBytes < sizeBytes) {
      const { onProgress, ...read } = this.#options;
      const offset = this.#ingest.sizeBytes;
      for await (const piece of this.#repository.streamBlob(this.#blob, { ...read, offset })) {
        if (this.#ingest.sizeBytes + piece.length > sizeBytes) throw wrongBytes(this.#blob, this.#repository);
        hash.update(piece);
        await this.#ingest.write(piece);
        this.#fetchedBytes += piece.length;
        onProgress?.(this.#ingest.sizeBytes);
      }
    }
    return this.#ingest.sizeBytes === sizeBytes && hash.digest('hex') === hexOf(digest);
  }
}

function wrongBytes({ digest, sizeBytes }: WantedBlob, { name }: Repository): BentoError {
  const where = `${name.registry}/${name.repository}`;
  return new BentoError(
    'REMOTE_INVALID',
    `${where} sent other bytes than the ${sizeBytes} of blob ${shortDigest(digest)}`,
    { hint: 'nothing of it was kept; the registry, or something on the way to it, is broken' },
  );
}
