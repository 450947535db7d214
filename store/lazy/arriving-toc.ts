import { PassThrough } from 'node:stream';

import type { Digest } from '../digest.ts';
import { FOOTER_BYTES } from '../layers/footer.ts';
import { readFooter, streamToc, type BlobReader } from '../layers/layer-reader.ts';
import type { TocContents } from '../layers/toc-decode.ts';
import { blockBefore, type ByteSpan } from '../lazy-file.ts';
import type { LazyFetcher } from './lazy-fetcher.ts';

/** A layer of which nothing is here yet. */
export interface ArrivingLayer {
  digest: Digest;
  sizeBytes: number;
  /** Its end, with all of the table of contents most likely. It begins with a block. */
  tail: ByteSpan;
  /** The digest of the table of contents. */
  expected: Digest;
  signal: AbortSignal | undefined;
}

/**
 * Fetches the end of a layer, and looks into the table of contents while it comes. The footer, which says where that begins, is
 * asked for beside it.
 *
 * @returns undefined when that does not work, whatever the reason: then it is read in the ordinary way
 */
export async function readArrivingToc(fetcher: LazyFetcher, layer: ArrivingLayer): Promise<TocContents | undefined> {
  const { digest, sizeBytes, tail, expected, signal } = layer;
  const last = blockBefore(sizeBytes - FOOTER_BYTES);
  const footerHere = fetcher.bring(digest, { offset: last, end: sizeBytes }, { signal });
  const { pieces, allHere } = bringPieces(fetcher, layer, { offset: tail.offset, end: last });
  try {
    await footerHere;
    const reader = await fetcher.reader(digest, { signal });
    const footer = await readFooter(reader);
    if (footer === undefined || footer.kind === 'external' || footer.tocOffset < tail.offset) return undefined;
    const { tocOffset, footerBytes } = footer;
    const rest = { offset: Math.max(last, tocOffset), end: sizeBytes - footerBytes };
    const member = skip(pieces, tocOffset - tail.offset, { reader, rest });
    const toc = await streamToc(member, { expected, tocOffset });
    await allHere;
    return toc;
  } catch {
    return undefined;
  } finally {
    pieces.destroy();
  }
}

/** Bytes as they come, in one stream; it breaks when the connection does, since then they come once more. */
function bringPieces(
  fetcher: LazyFetcher,
  { digest, signal }: ArrivingLayer,
  span: ByteSpan,
): { pieces: PassThrough; allHere: Promise<unknown> } {
  const pieces = new PassThrough({ highWaterMark: span.end - span.offset });
  pieces.on('error', () => undefined); // told to who reads them
  let at = span.offset;
  const onBytes = (offset: number, bytes: Buffer): void => {
    if (offset !== at) pieces.destroy(new Error('the connection broke'));
    else pieces.write(bytes);
    at += bytes.length;
  };
  const allHere = fetcher.bring(digest, span, { signal, onBytes });
  allHere.then(
    () => pieces.end(),
    (error: unknown) => pieces.destroy(error as Error),
  );
  return { pieces, allHere };
}

/** What comes from somewhere on, and what is here behind it. */
async function* skip(
  pieces: AsyncIterable<Buffer>,
  skipBytes: number,
  { reader, rest }: { reader: BlobReader; rest: ByteSpan },
): AsyncGenerator<Buffer, void, undefined> {
  let leftBytes = skipBytes;
  for await (const piece of pieces) {
    yield piece.subarray(leftBytes);
    leftBytes = Math.max(leftBytes - piece.length, 0);
  }
  yield await reader.readAt(rest.offset, rest.end - rest.offset);
}
