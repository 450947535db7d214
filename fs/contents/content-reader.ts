import type { Entries } from '../../index/entries.ts';
import { numberOf } from '../../index/rows.ts';
import { openBlobFile, type BlobFile } from '../../store/blob-file.ts';
import { toText } from '../../store/byte-string.ts';
import { shortDigest, type Digest } from '../../store/digest.ts';
import type { Chunk } from '../../store/entry.ts';
import { noteGarbage } from '../../store/buffer-garbage.ts';
import { BentoError } from '../../store/errors.ts';
import { chunkOf, endOf, inflateStored, storedBytes, type ChunkPacking } from '../../store/layers/layer-reader.ts';
import { resumePath } from '../../store/layers/resume-points.ts';
import { LazyFile } from '../../store/lazy-file.ts';
import { readBlobSync } from '../../store/read-blob.ts';
import type { Store } from '../../store/store.ts';
import { BoundedCache } from './bounded-cache.ts';
import type { ContentCache } from './content-cache.ts';
import { ContentNotHere, type FilePart } from './content-not-here.ts';
import { chunksIn, FileLayouts, type FileLayout } from './file-layouts.ts';
import { ResumedLayers } from './resumed-layers.ts';

/** Inflated chunks kept for the next read of the same file, in bytes. */
const INFLATED_BYTES_MAX = 16 << 20;
/** A chunk this small is read whole by its first reader, and then the kernel has it. */
const KEPT_CHUNK_BYTES_MIN = 64 << 10;
/** A member with several small files is no larger than this, compressed and inflated; a larger one holds one file. */
const SHARED_MEMBER_BYTES_MAX = 1 << 20;
const SHARED_INFLATED_BYTES_MAX = 2 << 20;
/** Who answers others meanwhile does not inflate more than this for one read: about a millisecond. */
export const SLOW_CHUNK_BYTES_MIN = 256 << 10;
/** Blob files kept open. */
const OPEN_BLOBS_MAX = 64;

/** The blob in which the chunks of a layer lie, and how. */
export interface LayerFile {
  path: string;
  digest: Digest;
  storeRoot: string;
  /** A 'resumed' one is inflated from its midst (resumed-layers.ts). */
  packing: ChunkPacking | 'resumed';
  /** Where it is kept from which places a 'resumed' one can be inflated. */
  pointsPath: string;
}

/** @throws BentoError INDEX_BROKEN when there is no such layer: numbers come from the index itself */
export function layerFile(store: Store, entries: Entries, layer: number): LayerFile {
  const indexed = entries.layerOf(layer);
  if (indexed === undefined) throw new BentoError('INDEX_BROKEN', `the index has no layer ${layer}`);
  const { digest, kind } = indexed;
  const pointsPath = resumePath(store.cacheDir, digest);
  return { path: store.blobs.path(digest), digest, storeRoot: store.root, packing: PACKINGS[kind], pointsPath };
}

const PACKINGS = { estargz: 'gzip', tar: 'bare', 'tar+gzip': 'resumed' } as const;

/**
 * Reads file contents of indexed layers, synchronously and verified: no byte leaves before its chunk's digest was checked,
 * or that of the whole copy in the content cache. Holds a bounded number of open blobs and inflated chunks.
 */
export class ContentReader {
  readonly #store: Store;
  readonly #entries: Entries;
  readonly #cache: ContentCache | undefined;
  readonly #layouts: FileLayouts;
  readonly #blobs = new BoundedCache<number, OpenLayer>({
    weightMax: OPEN_BLOBS_MAX,
    weigh: ({ blob }) => blob.fileCount,
    onEvict: ({ blob }) => blob.close(),
  });
  readonly #inflated = new BoundedCache<string, Buffer>({
    weightMax: INFLATED_BYTES_MAX,
    weigh: (bytes) => bytes.length,
  });
  readonly #resumed = new ResumedLayers(this.#inflated);

  /** @param cache - where large files may be whole; without it, all are read from their layers */
  constructor(store: Store, entries: Entries, cache?: ContentCache) {
    this.#store = store;
    this.#entries = entries;
    this.#cache = cache;
    this.#layouts = new FileLayouts(entries);
  }

  /**
   * Copies bytes of a file from `offset` into `out`.
   *
   * @param id - the file's entry in the index
   * @returns how many; fewer than `out.length` only at the end of the file
   * @throws ContentNotHere when they have to be fetched first; BentoError DIGEST_MISMATCH, BLOB_MISSING or FORMAT_INVALID
   */
  read(id: number, offset: number, out: Buffer): number {
    const layout = this.#layouts.of(id);
    const copied = this.#readCopy(layout, offset, out);
    if (copied !== undefined) return copied;
    const chunks = chunksIn(layout, offset, out.length);
    const missing = this.#notAtHand(id, chunks);
    if (this.#areHere(id, missing)) return this.#readChunks(id, chunks, offset, out);
    throw this.#notHere({ id, offset, lengthBytes: out.length });
  }

  /**
   * Like `read`, for a thread that has others to answer.
   *
   * @returns 'slow' when the bytes are not at hand and more than `SLOW_CHUNK_BYTES_MIN` would have to be inflated for them,
   *   or when they have to be fetched from a registry
   * @throws BentoError as `read` does
   */
  readNow(id: number, offset: number, out: Buffer): number | 'slow' {
    const layout = this.#layouts.of(id);
    const copied = this.#readCopy(layout, offset, out);
    if (copied !== undefined) return copied;
    const chunks = chunksIn(layout, offset, out.length);
    const missing = this.#notAtHand(id, chunks);
    if (missing.length === 0) return this.#readChunks(id, chunks, offset, out);
    if (!this.#areHere(id, missing) || this.#inflateBytes(id, missing) > SLOW_CHUNK_BYTES_MIN) return 'slow';
    return this.#readOrLeave(id, chunks, offset, out);
  }

  /** A file's content, chunk by chunk. */
  *pieces(id: number): Generator<Buffer> {
    const { chunks, sizeBytes } = this.#layouts.of(id);
    if (!this.#areHere(id, chunks)) throw this.#notHere({ id, offset: 0, lengthBytes: sizeBytes });
    for (const chunk of chunks) yield this.#chunk(id, chunk);
  }

  close(): void {
    this.#blobs.clear();
    this.#inflated.clear();
  }

  /** Opened for each read: held longer, a copy that nobody reads could not be evicted. */
  #readCopy({ cacheDigest, sizeBytes }: FileLayout, offset: number, out: Buffer): number | undefined {
    if (cacheDigest === undefined) return undefined;
    using content = this.#cache?.open(cacheDigest, sizeBytes);
    return content?.readNow(offset, out);
  }

  #readChunks(id: number, chunks: readonly Chunk[], offset: number, out: Buffer): number {
    let done = 0;
    for (const chunk of chunks) {
      done += this.#chunk(id, chunk).copy(out, done, offset + done - chunk.fileOffset);
    }
    return done;
  }

  /** What has to be inflated. */
  #notAtHand(id: number, chunks: readonly Chunk[]): Chunk[] {
    return chunks.filter(
      (chunk) => !this.#inflated.has(chunkKey(id, chunk)) && !this.#inflated.has(memberKey(id, chunk)),
    );
  }

  /** Whether chunks of a file lie in this store; a layer that is partly in a registry is opened anew for each that do not. */
  #areHere(id: number, chunks: readonly Chunk[]): boolean {
    if (chunks.length === 0) return true;
    const layer = numberOf(id);
    const { blob, packing } = this.#open(layer);
    if (packing === 'resumed') return true; // indexing needed all of it
    const areHere = chunks.every((chunk) => blob.isHere(chunk.blobOffset, memberBytes(chunk, packing)));
    if (!areHere) this.#blobs.delete(layer);
    return areHere;
  }

  #inflateBytes(id: number, chunks: readonly Chunk[]): number {
    const layer = this.#open(numberOf(id));
    if (layer.packing === 'resumed') return this.#resumed.inflateBytes(layer, chunks);
    return chunks.reduce((sum, chunk) => sum + Math.max(endOf(chunk), wholeMemberBytes(chunk)), 0);
  }

  #notHere(part: FilePart): ContentNotHere {
    const { digest } = layerFile(this.#store, this.#entries, numberOf(part.id));
    return new ContentNotHere(part, pathOf(this.#entries, part.id), { storeRoot: this.#store.root, digest });
  }

  /** Bytes that were fetched and are wrong are fetched again by whoever has the time. */
  #readOrLeave(id: number, chunks: readonly Chunk[], offset: number, out: Buffer): number | 'slow' {
    try {
      return this.#readChunks(id, chunks, offset, out);
    } catch (error) {
      if (this.#open(numberOf(id)).blob instanceof LazyFile) return 'slow';
      throw error;
    }
  }

  #chunk(id: number, chunk: Chunk): Buffer {
    const key = chunkKey(id, chunk);
    const kept = this.#inflated.get(key);
    if (kept !== undefined) return kept;
    const bytes = this.#readChunk(id, chunk);
    if (bytes.length >= KEPT_CHUNK_BYTES_MIN) this.#inflated.add(key, bytes);
    return bytes;
  }

  #readChunk(id: number, chunk: Chunk): Buffer {
    const blob = this.#open(numberOf(id));
    try {
      return chunkOf(this.#member(id, blob, chunk), chunk);
    } catch (error) {
      if (!(error instanceof BentoError)) throw error;
      this.#layouts.forget(id);
      throw damagedLayer(blob.digest, chunk.blobOffset, error, pathOf(this.#entries, id));
    }
  }

  /** The inflated member around a chunk. One that holds other files, too, is kept for them: neighbours are read together. */
  #member(id: number, blob: OpenLayer, chunk: Chunk): Buffer {
    const { packing } = blob;
    if (packing === 'resumed') return this.#resumed.read(blob, chunk);
    const key = memberKey(id, chunk);
    const kept = this.#inflated.get(key);
    if (kept !== undefined) return kept;
    const mayBeShared = packing === 'gzip' && wholeMemberBytes(chunk) > 0;
    const length = memberBytes(chunk, packing);
    const inflated = inflateStored(readExactly(blob, chunk.blobOffset, length), packing, endOf(chunk));
    noteGarbage(length + inflated.length);
    const isShared = mayBeShared && inflated.length > chunk.sizeBytes && inflated.length <= SHARED_INFLATED_BYTES_MAX;
    if (isShared) this.#inflated.add(key, inflated);
    return inflated;
  }

  #open(layer: number): OpenLayer {
    const open = this.#blobs.get(layer);
    if (open !== undefined) return open;
    const blob = openLayer(layerFile(this.#store, this.#entries, layer));
    this.#blobs.add(layer, blob);
    return blob;
  }
}

function chunkKey(id: number, { fileOffset }: Chunk): string {
  return `${id}:${fileOffset}`;
}

function memberKey(id: number, { blobOffset }: Chunk): string {
  return `${numberOf(id)}@${blobOffset}`;
}

/** How much of the blob is read for a chunk. */
export function memberBytes(chunk: Chunk, packing: ChunkPacking): number {
  return packing === 'gzip' && wholeMemberBytes(chunk) > 0 ? chunk.blobBytes : storedBytes(chunk, packing);
}

/** The length of a member that is inflated as a whole, since other files may lie in it; 0 of one too large for that. */
function wholeMemberBytes({ blobBytes }: Chunk): number {
  return blobBytes <= SHARED_MEMBER_BYTES_MAX ? blobBytes : 0;
}

/** A layer's bytes held open by whoever reads it, and closes `blob`. */
export interface OpenLayer extends LayerFile {
  blob: BlobFile;
}

/** @throws BentoError BLOB_MISSING, or FORMAT_INVALID when it is thin and its recipe damaged */
export function openLayer(layer: LayerFile): OpenLayer {
  try {
    return { ...layer, blob: openBlobFile(layer.storeRoot, layer.digest) };
  } catch (error) {
    if (!isMissing(error)) throw error;
    throw new BentoError('BLOB_MISSING', `layer ${shortDigest(layer.digest)} is not in the store (${layer.path})`);
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof BentoError && error.code === 'BLOB_MISSING';
}

/**
 * @param into - a buffer to read into, where the caller has one that is large enough
 * @throws BentoError DIGEST_MISMATCH when the layer ends before; what is wrong with a thin one that cannot be put together
 */
export function readExactly(layer: OpenLayer, offset: number, length: number, into?: Buffer): Buffer {
  const { blob, digest } = layer;
  if (offset + length > blob.sizeBytes) throw damagedLayer(digest, offset);
  const bytes = into?.subarray(0, length) ?? Buffer.allocUnsafe(length);
  if (readBlobSync(blob, offset, bytes) < length) throw damagedLayer(digest, offset);
  return bytes;
}

/**
 * @param cause - what was found there; its code is kept
 * @param path - the file in the layer that cannot be read for it, as text
 */
export function damagedLayer(digest: Digest, offset: number, cause?: BentoError, path?: string): BentoError {
  const code = cause?.code ?? 'DIGEST_MISMATCH';
  const where = `layer ${digest} at byte ${offset}${path === undefined ? '' : ` (${path})`}`;
  // What a registry did is no fault of the store.
  if (cause?.code.startsWith('REMOTE_') === true)
    return new BentoError(code, `${cause.message}: ${where}`, { cause, ...(cause.hint && { hint: cause.hint }) });
  return new BentoError(code, `blob integrity check failed: ${where}`, {
    hint: '`bento verify` says which checkpoints are whole',
    ...(cause && { cause }),
  });
}

/** The path of a file in its layer, as text. */
export function pathOf(entries: Entries, id: number): string {
  return toText(entries.path(entries.get(id)));
}
