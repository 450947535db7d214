import type { Entries } from '../../index/entries.ts';
import { LARGE_BYTES_MIN } from '../../index/rows.ts';
import type { Digest } from '../../store/digest.ts';
import type { Chunk } from '../../store/entry.ts';
import { BoundedCache } from './bounded-cache.ts';

/** Chunks of files in several pieces kept for the next read: 200 bytes each. */
const CHUNK_COUNT_MAX = 20_000;

/** Where a file's bytes lie. */
export interface FileLayout {
  /** In order, without gaps. */
  chunks: readonly Chunk[];
  sizeBytes: number;
  /** Of the whole content, for a file that the content cache may hold. */
  cacheDigest?: Digest;
}

/** The layouts of files, each asked of the index once while it is in use. */
export class FileLayouts {
  readonly #entries: Entries;
  readonly #layouts = new BoundedCache<number, FileLayout>({
    weightMax: CHUNK_COUNT_MAX,
    weigh: ({ chunks }) => chunks.length,
  });

  constructor(entries: Entries) {
    this.#entries = entries;
  }

  of(id: number): FileLayout {
    const known = this.#layouts.get(id);
    if (known !== undefined) return known;
    const layout = this.#ask(id);
    const isCheap = layout.chunks.length < 2 && layout.cacheDigest === undefined;
    if (!isCheap) this.#layouts.add(id, layout);
    return layout;
  }

  /** Ask anew the next time: somebody may have put the index right. */
  forget(id: number): void {
    this.#layouts.delete(id);
  }

  #ask(id: number): FileLayout {
    const chunks = this.#entries.chunks(id);
    const last = chunks.at(-1);
    const sizeBytes = last === undefined ? 0 : last.fileOffset + last.sizeBytes;
    const digest = sizeBytes >= LARGE_BYTES_MIN ? this.#entries.find(id)?.digest : undefined;
    return { chunks, sizeBytes, ...(digest && { cacheDigest: digest }) };
  }
}

/** The chunks that hold a range of the file. */
export function chunksIn({ chunks }: FileLayout, offset: number, length: number): readonly Chunk[] {
  const first = firstBeyond(chunks, offset);
  let end = first;
  while (end < chunks.length && (chunks[end]?.fileOffset ?? 0) < offset + length) end += 1;
  return chunks.slice(first, end);
}

/** The first chunk that ends after `offset`. */
function firstBeyond(chunks: readonly Chunk[], offset: number): number {
  let [low, high] = [0, chunks.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    const chunk = chunks[middle];
    if (chunk !== undefined && chunk.fileOffset + chunk.sizeBytes <= offset) low = middle + 1;
    else high = middle;
  }
  return low;
}
