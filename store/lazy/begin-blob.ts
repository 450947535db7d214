import { countOf } from '../checkpoint.ts';
import { parseDigest, type Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { decodeStoredToc, readToc, readTocJson, type LayerToc, type StoredToc } from '../layers/layer-reader.ts';
import { prefetchLength } from '../layers/prefetch.ts';
import type { TocContents } from '../layers/toc-decode.ts';
import { blockBefore, type ByteSpan } from '../lazy-file.ts';
import { KEYS, type Descriptor } from '../manifest.ts';
import { readArrivingToc } from './arriving-toc.ts';
import { createLazyBlob, notePrefetchEnd, removeLazyBlob } from './lazy-blobs.ts';
import type { LazyFetcher } from './lazy-fetcher.ts';
import type { LazySource } from './lazy-record.ts';

/** A smaller layer is fetched as a whole: that is over sooner than its table of contents is looked at. */
const LAZY_BYTES_MIN = 512 << 10;
/** The table of contents lies at the end, and is fetched with one request when it is no longer than what is guessed here. */
const TOC_BYTES_PER_FILE = 72;
/** Of a layer that does not say how many files it has: one part in so many. */
const TOC_PART = 64;
const TAIL_BYTES_MIN = 128 << 10;
const TAIL_BYTES_MAX = 4 << 20;

export interface LazyBeginning {
  storeRoot: string;
  fetcher: LazyFetcher;
  source: LazySource;
  /** Whether the rest is fetched while the checkpoint is mounted. */
  fetchesRest: boolean;
  /** Gets tables of contents. @returns false to have the layer fetched as a whole */
  onToc?: (layer: Digest, toc: ArrivedToc) => Promise<boolean>;
}

/** A table of contents that is the one that the manifest says. */
export interface ArrivedToc {
  tocDigest: Digest;
  /** Nothing of the layer was here. */
  isNew: boolean;
  /** What is in it; undefined when it cannot be used. @throws BentoError FORMAT_INVALID */
  read: () => TocContents | undefined;
}

/**
 * Begins a layer that can be read in parts: fetches its footer and table of contents, checked against the manifest's
 * annotation. The caller shares the store's blobs.
 *
 * @returns false for a blob that has to be fetched as a whole: small, foreign, or no layer at all
 * @throws BentoError REMOTE_INVALID when the table of contents is not the one that the manifest says; as `Repository.readRange`
 */
export async function beginLazily(layer: Descriptor, beginning: LazyBeginning, signal?: AbortSignal): Promise<boolean> {
  const tocDigest = layer.annotations?.[KEYS.tocDigest];
  if (!layer.mediaType.endsWith('gzip') || tocDigest === undefined || layer.size < LAZY_BYTES_MIN) return false;
  const expected = parseDigest(tocDigest, KEYS.tocDigest);
  const { storeRoot, source, fetchesRest } = beginning;
  const { digest, size: sizeBytes } = layer;
  const isNew = await createLazyBlob(storeRoot, { digest, sizeBytes, source, fetchesRest });
  const keeps = await fetchToc(layer, { expected, isNew, beginning, signal }).catch((error: unknown) => {
    if (isNew) removeLazyBlob(storeRoot, digest);
    throw error;
  });
  if (!keeps && isNew) removeLazyBlob(storeRoot, digest);
  return keeps;
}

interface TocWish {
  expected: Digest;
  /** Nothing of the layer is here. */
  isNew: boolean;
  beginning: LazyBeginning;
  signal: AbortSignal | undefined;
}

/** @returns whether the layer has a table of contents that can be used; ours always can, and is not looked into twice */
async function fetchToc({ digest, size, annotations }: Descriptor, wish: TocWish): Promise<boolean> {
  const { expected, signal } = wish;
  const { storeRoot, fetcher, fetchesRest, onToc } = wish.beginning;
  const isTaken = async (read: ArrivedToc['read']): Promise<boolean> =>
    (await onToc?.(digest, { tocDigest: expected, isNew: wish.isNew, read })) ?? true;
  const options = { signal };
  const tail = tailOf(size, annotations?.[KEYS.fileCount]);
  if (wish.isNew && onToc !== undefined) {
    const arrived = await readArrivingToc(fetcher, { digest, sizeBytes: size, tail, expected, signal });
    if (arrived !== undefined) {
      if (fetchesRest) await notePrefetchEnd(storeRoot, digest, prefetchLength(arrived) ?? 0); // who fetches need not look again
      return await isTaken(() => arrived);
    }
  }
  await fetcher.ensure(digest, tail, options);
  const reader = await fetcher.reader(digest, options);
  const isOurs = annotations?.[KEYS.fileCount] !== undefined;
  const read = async (): Promise<StoredToc | LayerToc | undefined> =>
    isOurs ? await readTocJson(reader, expected) : await readToc(reader, expected);
  const toc = await read().catch(async (error: unknown) => {
    if (!isWrong(error)) throw error;
    await fetcher.again(digest, tail, options); // it may have been written wrong here
    return await read().catch(async (cause: unknown) => {
      if (!isWrong(cause)) throw cause;
      await fetcher.forget(digest, tail);
      throw wrongLayer(digest, fetcher.sourceOf(digest), cause);
    });
  });
  return toc !== undefined && (await isTaken(() => ('json' in toc ? decodeStoredToc(toc) : toc)));
}

function wrongLayer(digest: Digest, source: string, cause: BentoError): BentoError {
  return new BentoError('REMOTE_INVALID', `${source} sent a layer that is not ${digest}: ${cause.message}`, {
    hint: 'nothing of it was kept; the registry, or something on the way to it, is broken',
    cause,
  });
}

/** It begins with a block: whole blocks are kept. */
function tailOf(sizeBytes: number, fileCount: string | undefined): ByteSpan {
  const tocBytes = fileCount === undefined ? sizeBytes / TOC_PART : countOf(fileCount) * TOC_BYTES_PER_FILE;
  const tailBytes = Math.min(Math.ceil(tocBytes) + TAIL_BYTES_MIN, TAIL_BYTES_MAX);
  return { offset: blockBefore(Math.max(sizeBytes - tailBytes, 0)), end: sizeBytes };
}

function isWrong(error: unknown): error is BentoError {
  return error instanceof BentoError && (error.code === 'DIGEST_MISMATCH' || error.code === 'FORMAT_INVALID');
}
