import { closeSync, existsSync, fstatSync, readSync, writeSync } from 'node:fs';

import type { BlobFile, BlobRange } from './blob-file.ts';
import { lazyPath, wholePath } from './blob-paths.ts';
import { shortDigest, type Digest } from './digest.ts';
import { BentoError, describeSystemError } from './errors.ts';
import { openIfThere } from './open-if-there.ts';
import { flock } from './syscalls.ts';

/** What is fetched is counted in blocks of so many bytes; the last one of a blob may be shorter. */
export const LAZY_BLOCK_BYTES = 16 << 10;

const HERE = 1;

/** Bytes `offset` to `end`, exclusive. */
export interface ByteSpan {
  offset: number;
  end: number;
}

/** Bytes of a blob that were not fetched yet. */
export class BlobNotHere extends BentoError {
  readonly blob: { storeRoot: string; digest: Digest };

  /** @param what - is missing, as a sentence */
  constructor(what: string, blob: { storeRoot: string; digest: Digest }) {
    super('BLOB_REMOTE', what, { hint: 'fetch the checkpoint as a whole: `bento pull`' });
    this.blob = blob;
  }
}

/**
 * A blob of which some blocks are here, and the rest in a registry. `<hex>` is as long as the blob and has holes where bytes
 * are missing, `<hex>.map` has a byte for each block, 1 where it is here.
 *
 * Any number of processes write at once. A block's bytes are written before its mark, and a mark is no promise: whoever
 * reads verifies digests, as from any blob, and `forget`s what is wrong. Writing takes a shared lock of the map; whoever
 * makes the file a whole blob, or removes it, takes the lock alone and unlinks the map, after which nothing is written any
 * more. So no byte of a verified blob changes.
 */
export class LazyFile implements BlobFile {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly fileCount = 2;
  readonly #storeRoot: string;
  readonly #data: number;
  readonly #map: number;

  private constructor(storeRoot: string, digest: Digest, { data, map }: { data: number; map: number }) {
    this.digest = digest;
    this.#storeRoot = storeRoot;
    this.#data = data;
    this.#map = map;
    this.sizeBytes = fstatSync(data).size;
  }

  /** @param mode - `r` for reading, `r+` for writing, too @returns undefined when nothing of this blob is here */
  static open(storeRoot: string, digest: Digest, mode: 'r' | 'r+' = 'r'): LazyFile | undefined {
    const path = lazyPath(storeRoot, digest);
    const data = openIfThere(path, mode);
    if (data === undefined) return undefined;
    const map = openIfThere(`${path}.map`, mode);
    if (map !== undefined) {
      const file = new LazyFile(storeRoot, digest, { data, map });
      if (fstatSync(map).size === blockCountOf(file.sizeBytes)) return file;
      closeSync(map); // a crash while it was made
    }
    closeSync(data);
    return undefined;
  }

  get mapFd(): number {
    return this.#map;
  }

  isHere(offset: number, lengthBytes: number): boolean {
    if (offset + lengthBytes > this.sizeBytes) return true; // outside: whoever reads there is told so
    return this.missing(offset, offset + lengthBytes).length === 0;
  }

  /** What of bytes `offset` to `end` has to be fetched: whole blocks, neighbours as one. */
  missing(offset: number, end = this.sizeBytes): ByteSpan[] {
    const first = Math.floor(offset / LAZY_BLOCK_BYTES);
    const marks = Buffer.alloc(Math.max(blockCountOf(Math.min(end, this.sizeBytes)) - first, 0));
    readSync(this.#map, marks, 0, marks.length, first);
    const spans: ByteSpan[] = [];
    for (let at = marks.findIndex(isMissing); at !== -1 && at < marks.length;) {
      const here = marks.indexOf(HERE, at);
      const until = here === -1 ? marks.length : here;
      spans.push({
        offset: (first + at) * LAZY_BLOCK_BYTES,
        end: Math.min((first + until) * LAZY_BLOCK_BYTES, this.sizeBytes),
      });
      for (at = until; at < marks.length && !isMissing(marks[at]);) at += 1;
    }
    return spans;
  }

  /** How many bytes are here. */
  get presentBytes(): number {
    return this.missing(0).reduce((sum, { offset, end }) => sum - (end - offset), this.sizeBytes);
  }

  ranges(offset: number, lengthBytes: number): BlobRange[] {
    return lengthBytes === 0 ? [] : [this.ownRange(offset, lengthBytes)];
  }

  ownRange(offset: number, lengthBytes: number): BlobRange {
    if (offset + lengthBytes > this.sizeBytes) {
      const what = `blob ${shortDigest(this.digest)} ends before byte ${offset + lengthBytes}`;
      throw new BentoError('FORMAT_INVALID', what);
    }
    if (!this.isHere(offset, lengthBytes)) {
      const what = `bytes ${offset} to ${offset + lengthBytes} of blob ${shortDigest(this.digest)} were not fetched yet`;
      throw new BlobNotHere(what, { storeRoot: this.#storeRoot, digest: this.digest });
    }
    return { fd: this.#data, offset, lengthBytes, place: { digest: this.digest, offset } };
  }

  /**
   * Keeps bytes that were fetched.
   *
   * @param offset - where a block begins; the bytes end with a block, or with the blob
   * @returns false when the blob is being made whole, or is no longer wanted: nothing was written
   * @throws BentoError NO_SPACE
   */
  write(offset: number, bytes: Uint8Array): boolean {
    const end = offset + bytes.length;
    if (offset % LAZY_BLOCK_BYTES !== 0 || (end % LAZY_BLOCK_BYTES !== 0 && end !== this.sizeBytes))
      throw new RangeError(`${offset} to ${end} are no whole blocks`);
    return this.#whileOpen(() => {
      writeFully(this.#data, bytes, offset);
      this.#mark(offset, end, HERE);
    });
  }

  /** Has bytes fetched again that turned out to be wrong. */
  forget(offset: number, end: number): void {
    this.#whileOpen(() => this.#mark(offset, Math.min(end, this.sizeBytes), 0));
  }

  close(): void {
    closeSync(this.#data);
    closeSync(this.#map);
  }

  #mark(offset: number, end: number, mark: number): void {
    const first = Math.floor(offset / LAZY_BLOCK_BYTES);
    writeFully(this.#map, Buffer.alloc(blockCountOf(end) - first, mark), first);
  }

  /** @returns whether it was done */
  #whileOpen(work: () => void): boolean {
    if (!flock(this.#map, 'shared', { wait: false })) return false;
    try {
      if (fstatSync(this.#map).nlink === 0) return false;
      work();
      return true;
    } catch (error) {
      throw describeSystemError(error, `keeping what was fetched of blob ${shortDigest(this.digest)}`);
    } finally {
      flock(this.#map, 'unlock', { wait: false });
    }
  }
}

/** Whether some bytes of a blob are still in a registry. */
export function isPartlyHere(storeRoot: string, digest: Digest): boolean {
  return !existsSync(wholePath(storeRoot, digest)) && existsSync(lazyPath(storeRoot, digest));
}

/** Where the block begins that holds a byte. */
export function blockBefore(offset: number): number {
  return offset - (offset % LAZY_BLOCK_BYTES);
}

/** How many blocks so many bytes take. */
export function blockCountOf(sizeBytes: number): number {
  return Math.ceil(sizeBytes / LAZY_BLOCK_BYTES);
}

function isMissing(mark: number | undefined): boolean {
  return mark !== HERE;
}

function writeFully(fd: number, bytes: Uint8Array, at: number): void {
  for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, at + done);
}
