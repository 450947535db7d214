import type { Chunk, PackedEntry } from '../entry.ts';
import type { TocContents } from './toc-decode.ts';

/** A prefetch reads no more of a blob than this, whatever its landmark says; and no more content is put before a landmark. */
export const PREFETCH_BYTES_MAX = 32 * 1024 * 1024;

/**
 * How much of a layer's blob is worth being read at once, before anybody asks for it: the bytes from 0 to what is returned
 * hold the files that are wanted first, in whole gzip members. Where these take more than the limit, as many members as fit.
 *
 * @param toc - as `readToc` gives it
 * @returns undefined when no files are wanted first, or nothing of them fits
 */
export function prefetchLength(
  toc: Pick<TocContents, 'entries' | 'prefetchEnd'>,
  limitBytes = PREFETCH_BYTES_MAX,
): number | undefined {
  const { prefetchEnd, entries } = toc;
  if (prefetchEnd === undefined || prefetchEnd <= limitBytes) return prefetchEnd;
  let length = 0;
  for (const { blobOffset, blobBytes } of allChunks(entries)) {
    const end = blobOffset + blobBytes;
    if (end <= limitBytes && end > length) length = end;
  }
  return length === 0 ? undefined : length;
}

/** The files that lie before the landmark, in the order of the table of contents. */
export function prioritisedFiles({
  entries,
  prefetchEnd = 0,
}: Pick<TocContents, 'entries' | 'prefetchEnd'>): PackedEntry[] {
  return entries.filter(({ chunks: [first] }) => first !== undefined && first.blobOffset < prefetchEnd);
}

function* allChunks(entries: readonly PackedEntry[]): Generator<Chunk> {
  for (const { chunks } of entries) yield* chunks;
}
