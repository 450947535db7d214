import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';

import type { Entries } from '../../index/entries.ts';
import { numberOf } from '../../index/rows.ts';
import { hexOf, shortDigest, type Digest } from '../../store/digest.ts';
import type { Chunk } from '../../store/entry.ts';
import { BentoError, errnoOf } from '../../store/errors.ts';
import { chunkOf, endOf, inflateStored, storedBytes, type ChunkPacking } from '../../store/layers/layer-reader.ts';
import type { Store } from '../../store/store.ts';
import { BoundedCache } from './bounded-cache.ts';

/** Inflated chunks kept for the next read of the same file, in bytes. */
const INFLATED_BYTES_MAX = 64 << 20;
/** A chunk this small is read whole by its first reader, and then the kernel has it. */
const KEPT_CHUNK_BYTES_MIN = 64 << 10;
/** A member with several small files is no larger than this, compressed and inflated; a larger one holds one file. */
const SHARED_MEMBER_BYTES_MAX = 1 << 20;
const SHARED_INFLATED_BYTES_MAX = 2 << 20;
/** Blob files kept open. */
const OPEN_BLOBS_MAX = 64;

/** Where the unpacked copy of a foreign compressed layer lies: a cache, made again when it is missing. */
export function unpackedLayerPath(cacheDir: string, digest: Digest): string {
  return join(unpackedDir(cacheDir), hexOf(digest));
}

export function unpackedDir(cacheDir: string): string {
  return join(cacheDir, 'unpacked', 'sha256');
}

/** The file in which the chunks of a layer lie, and how. */
export interface LayerFile {
  path: string;
  digest: Digest;
  packing: ChunkPacking;
}

/** @throws BentoError INDEX_BROKEN when there is no such layer: numbers come from the index itself */
export function layerFile(store: Store, entries: Entries, layer: number): LayerFile {
  const indexed = entries.layerOf(layer);
  if (indexed === undefined) throw new BentoError('INDEX_BROKEN', `the index has no layer ${layer}`);
  const { digest, kind } = indexed;
  const path = kind === 'tar+gzip' ? unpackedLayerPath(store.cacheDir, digest) : store.blobs.path(digest);
  return { path, digest, packing: kind === 'estargz' ? 'gzip' : 'bare' };
}

/**
 * Reads file contents of indexed layers, synchronously and verified: no byte leaves before its chunk's digest was checked.
 * Holds a bounded number of open blobs and inflated chunks.
 */
export class ContentReader {
  readonly #store: Store;
  readonly #entries: Entries;
  readonly #blobs = new BoundedCache<number, OpenLayer>({
    weightMax: OPEN_BLOBS_MAX,
    weigh: () => 1,
    onEvict: ({ fd }) => closeSync(fd),
  });
  readonly #inflated = new BoundedCache<string, Buffer>({
    weightMax: INFLATED_BYTES_MAX,
    weigh: (bytes) => bytes.length,
  });

  constructor(store: Store, entries: Entries) {
    this.#store = store;
    this.#entries = entries;
  }

  /**
   * Copies bytes of a file from `offset` into `out`.
   *
   * @param id - the file's entry in the index
   * @returns how many; fewer than `out.length` only at the end of the file
   * @throws BentoError DIGEST_MISMATCH, BLOB_MISSING or FORMAT_INVALID
   */
  read(id: number, offset: number, out: Buffer): number {
    let done = 0;
    for (const chunk of this.#entries.chunks(id)) {
      const from = offset + done - chunk.fileOffset;
      if (from < 0 || from >= chunk.sizeBytes) continue;
      const piece = this.#chunk(id, chunk);
      done += piece.copy(out, done, from);
      if (done === out.length) break;
    }
    return done;
  }

  /** A file's content, chunk by chunk. */
  *pieces(id: number): Generator<Buffer> {
    for (const chunk of this.#entries.chunks(id)) yield this.#chunk(id, chunk);
  }

  close(): void {
    this.#blobs.clear();
    this.#inflated.clear();
  }

  #chunk(id: number, chunk: Chunk): Buffer {
    const key = `${id}:${chunk.fileOffset}`;
    const kept = this.#inflated.get(key);
    if (kept !== undefined) return kept;
    const bytes = this.#readChunk(numberOf(id), chunk);
    if (bytes.length >= KEPT_CHUNK_BYTES_MIN) this.#inflated.add(key, bytes);
    return bytes;
  }

  #readChunk(layer: number, chunk: Chunk): Buffer {
    const blob = this.#open(layer);
    try {
      return chunkOf(this.#member(layer, blob, chunk), chunk);
    } catch (error) {
      throw error instanceof BentoError ? damagedLayer(blob.digest, chunk.blobOffset, error) : error;
    }
  }

  /** The inflated member around a chunk. One that holds other files, too, is kept for them: neighbours are read together. */
  #member(layer: number, blob: OpenLayer, chunk: Chunk): Buffer {
    const { packing } = blob;
    const key = `${layer}@${chunk.blobOffset}`;
    const kept = this.#inflated.get(key);
    if (kept !== undefined) return kept;
    const mayBeShared = packing === 'gzip' && chunk.blobBytes <= SHARED_MEMBER_BYTES_MAX;
    const length = mayBeShared ? chunk.blobBytes : storedBytes(chunk, packing);
    const inflated = inflateStored(readExactly(blob, chunk.blobOffset, length), packing, endOf(chunk));
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

/** A layer's file held open by whoever reads it. */
export interface OpenLayer extends LayerFile {
  fd: number;
  sizeBytes: number;
}

/** @throws BentoError BLOB_MISSING */
export function openLayer(layer: LayerFile): OpenLayer {
  let fd: number;
  try {
    fd = openSync(layer.path, 'r');
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    throw new BentoError('BLOB_MISSING', `layer ${shortDigest(layer.digest)} is not in the store (${layer.path})`);
  }
  return { ...layer, fd, sizeBytes: fstatSync(fd).size };
}

/**
 * @param into - a buffer to read into, where the caller has one that is large enough
 * @throws BentoError DIGEST_MISMATCH when the layer ends before
 */
export function readExactly(layer: OpenLayer, offset: number, length: number, into?: Buffer): Buffer {
  const { fd, sizeBytes, digest } = layer;
  if (offset + length > sizeBytes) throw damagedLayer(digest, offset);
  const bytes = into?.subarray(0, length) ?? Buffer.allocUnsafe(length);
  for (let done = 0; done < length;) {
    const read = readSync(fd, bytes, done, length - done, offset + done);
    if (read === 0) throw damagedLayer(digest, offset);
    done += read;
  }
  return bytes;
}

export function damagedLayer(digest: Digest, offset: number, cause?: BentoError): BentoError {
  const code = cause?.code ?? 'DIGEST_MISMATCH';
  return new BentoError(code, `blob integrity check failed: layer ${digest} at byte ${offset}`, cause && { cause });
}
