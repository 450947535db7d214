import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';

import type { Entries } from '../../index/entries.ts';
import type { LayerKind } from '../../index/layer-index.ts';
import { numberOf } from '../../index/rows.ts';
import { hexOf, shortDigest, type Digest } from '../../store/digest.ts';
import type { Chunk } from '../../store/entry.ts';
import { BentoError, errnoOf } from '../../store/errors.ts';
import { readChunkSync, type SyncBlobReader } from '../../store/layers/layer-reader.ts';
import type { Store } from '../../store/store.ts';
import { BoundedCache } from './bounded-cache.ts';

/** Inflated chunks kept for the next read of the same file, in bytes. */
const INFLATED_BYTES_MAX = 64 << 20;
/** A chunk this small is read whole by its first reader, and then the kernel has it. */
const KEPT_CHUNK_BYTES_MIN = 64 << 10;
/** Blob files kept open. */
const OPEN_BLOBS_MAX = 64;

/** Where the unpacked copy of a foreign compressed layer lies: a cache, made again when it is missing. */
export function unpackedLayerPath(cacheDir: string, digest: Digest): string {
  return join(cacheDir, 'unpacked', 'sha256', hexOf(digest));
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
    const indexed = this.#entries.layerOf(layer);
    if (indexed === undefined) throw new BentoError('INDEX_BROKEN', `the index has no layer ${layer}`);
    const blob = this.#open(layer, indexed.digest, indexed.kind);
    try {
      return readChunkSync(blob, chunk, indexed.kind === 'estargz' ? 'gzip' : 'bare');
    } catch (error) {
      throw error instanceof BentoError ? damaged(indexed.digest, chunk.blobOffset, error) : error;
    }
  }

  #open(layer: number, digest: Digest, kind: LayerKind): OpenLayer {
    const open = this.#blobs.get(layer);
    if (open !== undefined) return open;
    const path = kind === 'tar+gzip' ? unpackedLayerPath(this.#store.cacheDir, digest) : this.#store.blobs.path(digest);
    const blob = openLayer(path, digest);
    this.#blobs.add(layer, blob);
    return blob;
  }
}

interface OpenLayer extends SyncBlobReader {
  fd: number;
}

function openLayer(path: string, digest: Digest): OpenLayer {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    throw new BentoError('BLOB_MISSING', `layer ${shortDigest(digest)} is not in the store (${path})`);
  }
  const readAtSync = (offset: number, length: number): Buffer => readExactly(fd, offset, length, digest);
  return { fd, sizeBytes: fstatSync(fd).size, readAtSync };
}

function readExactly(fd: number, offset: number, length: number, digest: Digest): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let done = 0; done < length;) {
    const read = readSync(fd, bytes, done, length - done, offset + done);
    if (read === 0) throw damaged(digest, offset);
    done += read;
  }
  return bytes;
}

function damaged(digest: Digest, offset: number, cause?: BentoError): BentoError {
  const code = cause?.code ?? 'DIGEST_MISMATCH';
  return new BentoError(code, `blob integrity check failed: layer ${digest} at byte ${offset}`, cause && { cause });
}
