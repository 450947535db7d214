import { setTimeout as sleep } from 'node:timers/promises';

import type { Digest } from '../digest.ts';
import { shortDigest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import type { BlobReader } from '../layers/layer-reader.ts';
import type { ByteSpan } from '../lazy-file.ts';
import { readBlob } from '../read-blob.ts';
import type { RangeOptions, Repository } from '../registry/repository.ts';
import { BlobFetch, type WaitOptions } from './blob-fetch.ts';
import { openLazyBlob, promoteLazyBlob } from './lazy-blobs.ts';
import { readRecord, type LazySource } from './lazy-record.ts';
import { piecesOf } from './request-plan.ts';

/** What is fetched at once when nobody waits for a part of it. */
const PIECE_BYTES = 4 << 20;
/** How often it is looked whether readers are done waiting. */
const YIELD_MS = 20;

export interface RestOptions {
  signal?: AbortSignal | undefined;
  /** How many requests at once. */
  laneCount: number;
  /** Whether readers go first. */
  yields: boolean;
  /** Asked before each piece; false ends it. Default: goes on to the end. */
  isWanted?: () => boolean | Promise<boolean>;
  /** Called with the bytes that are here. */
  onProgress?: (presentBytes: number) => void;
}

/** How it ended: the blob is whole, was made whole by somebody else or thrown away, or is not wanted any more. */
export type RestOutcome = 'whole' | 'gone' | 'unwanted';

/** Fetches bytes of the blobs of a store that are only partly here. Those who want the same wait for one request. */
export class LazyFetcher {
  readonly #storeRoot: string;
  readonly #repository: (source: LazySource) => Repository;
  readonly #fetches = new Map<Digest, BlobFetch>();

  constructor(storeRoot: string, repository: (source: LazySource) => Repository) {
    this.#storeRoot = storeRoot;
    this.#repository = repository;
  }

  /**
   * Waits until bytes of a blob are here. They are not verified.
   *
   * @returns false when it is no blob of which a part is missing
   * @throws BentoError REMOTE_UNREACHABLE and the others of `Repository.readRange`; NO_SPACE; the signal's reason
   */
  async ensure(digest: Digest, span: ByteSpan, options?: WaitOptions): Promise<boolean> {
    const fetch = await this.#fetchOf(digest);
    await fetch?.ensure(span, options);
    return fetch !== undefined;
  }

  /**
   * As `ensure`, for exactly these bytes, in one request.
   *
   * @param options.onBytes - as `Repository.readRange`, if nothing of them was here or on its way
   */
  async bring(digest: Digest, span: ByteSpan, options?: WaitOptions & Pick<RangeOptions, 'onBytes'>): Promise<boolean> {
    const fetch = await this.#fetchOf(digest);
    await fetch?.bring(span, options);
    return fetch !== undefined;
  }

  /** Fetches bytes again that turned out to be wrong. @returns and throws as `ensure` */
  async again(digest: Digest, span: ByteSpan, options?: WaitOptions): Promise<boolean> {
    const fetch = await this.#fetchOf(digest);
    await fetch?.again(span, options);
    return fetch !== undefined;
  }

  /** Has bytes fetched again by whoever reads them next. */
  async forget(digest: Digest, { offset, end }: ByteSpan): Promise<void> {
    (await this.#fetchOf(digest))?.file.forget(offset, end);
  }

  /** Where a blob is fetched from, for messages: `ghcr.io/me/ws`. */
  sourceOf(digest: Digest): string {
    const [source] = readRecord(this.#storeRoot, digest)?.sources ?? [];
    return source === undefined ? 'the registry' : `${source.registry}/${source.repository}`;
  }

  /** Reads at random, fetching what is missing. @throws BentoError BLOB_MISSING when it is no blob of which a part is here */
  async reader(digest: Digest, options?: WaitOptions): Promise<BlobReader> {
    const fetch = await this.#fetchOf(digest);
    if (fetch === undefined) throw new BentoError('BLOB_MISSING', `nothing of blob ${digest} is here`);
    const { file } = fetch;
    return {
      sizeBytes: file.sizeBytes,
      readAt: async (offset, length) => {
        await fetch.ensure({ offset, end: offset + length }, options);
        const bytes = Buffer.allocUnsafe(length);
        return bytes.subarray(0, await readBlob(file, offset, bytes));
      },
    };
  }

  /**
   * Fetches all that is missing, what is read first before the rest, and makes the blob a whole one.
   *
   * @throws BentoError REMOTE_INVALID when the whole is not what its digest says: then nothing of it is kept; and as `ensure`
   */
  async fetchRest(digest: Digest, options: RestOptions): Promise<RestOutcome> {
    const fetch = await this.#fetchOf(digest);
    if (fetch === undefined) return 'gone';
    const prefetchEnd = readRecord(this.#storeRoot, digest)?.prefetchEnd ?? 0;
    for (const end of [prefetchEnd, fetch.file.sizeBytes]) {
      if (!(await this.#bringAll(fetch, Math.min(end, fetch.file.sizeBytes), options))) return 'unwanted';
    }
    return await this.#promote(digest);
  }

  close(): void {
    for (const fetch of this.#fetches.values()) fetch.close();
    this.#fetches.clear();
  }

  /** @returns whether it was wanted to the end */
  async #bringAll(fetch: BlobFetch, end: number, options: RestOptions): Promise<boolean> {
    const { signal, laneCount, yields, isWanted, onProgress } = options;
    const pieces = fetch.file.missing(0, end).flatMap((span) => piecesOf(span, PIECE_BYTES));
    const queue = pieces[Symbol.iterator]();
    let isStillWanted = true;
    const lane = async (): Promise<void> => {
      for (let next = queue.next(); next.done !== true && isStillWanted; next = queue.next()) {
        while (yields && this.#isAwaited) await sleep(YIELD_MS, undefined, signal && { signal });
        isStillWanted &&= (await isWanted?.()) ?? true;
        if (!isStillWanted) return;
        await fetch.bring(next.value, { signal });
        onProgress?.(fetch.file.presentBytes);
      }
    };
    await Promise.all(Array.from({ length: laneCount }, lane));
    return isStillWanted;
  }

  async #promote(digest: Digest): Promise<RestOutcome> {
    const promoted = await promoteLazyBlob(this.#storeRoot, digest);
    if (promoted === 'incomplete') return 'unwanted'; // somebody found bytes of it wrong meanwhile
    if (promoted !== 'damaged') return promoted;
    const what = `${this.sourceOf(digest)} sent other bytes than those of blob ${shortDigest(digest)}`;
    throw new BentoError('REMOTE_INVALID', what, {
      hint: 'nothing of it was kept; the registry, or something on the way to it, is broken',
    });
  }

  get #isAwaited(): boolean {
    return [...this.#fetches.values()].some(({ waitingCount }) => waitingCount > 0);
  }

  async #fetchOf(digest: Digest): Promise<BlobFetch | undefined> {
    const known = this.#fetches.get(digest);
    if (known !== undefined && !known.isOver) return known;
    known?.close();
    this.#fetches.delete(digest);
    const file = await openLazyBlob(this.#storeRoot, digest);
    const record = readRecord(this.#storeRoot, digest);
    if (file === undefined || record === undefined) return (file?.close(), undefined);
    const other = this.#fetches.get(digest); // opened by somebody else while we waited
    if (other !== undefined) return (file.close(), other);
    const fetch = new BlobFetch(
      file,
      record.sources.map((source) => this.#repository(source)),
    );
    this.#fetches.set(digest, fetch);
    return fetch;
  }
}
