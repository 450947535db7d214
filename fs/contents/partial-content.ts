import { createHash, type Hash } from 'node:crypto';
import { open, rename, rm, type FileHandle } from 'node:fs/promises';

import { hexOf, type Digest } from '../../store/digest.ts';
import { temporaryBeside } from '../../store/durable.ts';
import { BentoError, errnoOf } from '../../store/errors.ts';
import { lockFile } from '../../store/lock.ts';
import { flock } from '../../store/syscalls.ts';
import type { CachedContent } from './cached-content.ts';

/** Read back at once for the digest of the whole. */
const HASH_PIECE_BYTES = 256 << 10;

export interface PartialPlace {
  digest: Digest;
  sizeBytes: number;
  /** Where the whole content will lie. */
  path: string;
  /** The lock on the cache's names. */
  lockPath: string;
  /** Opens what was just put in place, and knows it to be right; undefined when it is gone already. */
  adopt: (fd: number) => CachedContent | undefined;
}

/**
 * A content being copied into the cache, under a temporary name and an exclusive lock: a temporary file without one is
 * litter. It is as long as the whole from the start, so that everybody who counts the cache's bytes counts it.
 */
export class PartialContent {
  readonly #place: PartialPlace;
  readonly #temporary: string;
  #handle: FileHandle | undefined;
  /** Pieces beyond the prefix that is there without gaps: offset -> size. */
  readonly #pieces = new Map<number, number>();
  #prefixBytes = 0;
  readonly #hash: Hash = createHash('sha256');
  #hashedBytes = 0;
  readonly #readBack = Buffer.allocUnsafeSlow(HASH_PIECE_BYTES);
  #hashing: Promise<void> = Promise.resolve();

  private constructor(place: PartialPlace, temporary: string, handle: FileHandle) {
    this.#place = place;
    this.#temporary = temporary;
    this.#handle = handle;
  }

  /** @throws a system error when the file cannot be made */
  static async create(place: PartialPlace): Promise<PartialContent> {
    const temporary = temporaryBeside(place.path);
    const handle = await open(temporary, 'wx+', 0o600);
    const partial = new PartialContent(place, temporary, handle);
    try {
      flock(handle.fd, 'exclusive', { wait: false });
      await handle.truncate(place.sizeBytes);
      return partial;
    } catch (error) {
      await partial.abort();
      throw error;
    }
  }

  get isWhole(): boolean {
    return this.#prefixBytes === this.#place.sizeBytes;
  }

  /** Whether the piece that begins there was written. */
  has(offset: number): boolean {
    return offset < this.#prefixBytes || this.#pieces.has(offset);
  }

  /**
   * Writes a piece; pieces come in any order and do not overlap. One that is there, or comes after `abort`, does nothing.
   *
   * @throws a system error when there is no room, or the disk fails
   */
  async write(offset: number, bytes: Buffer): Promise<void> {
    if (offset + bytes.length > this.#place.sizeBytes) throw new RangeError('a piece lies beyond the end');
    for (let done = 0; done < bytes.length && !this.has(offset);) {
      if (this.#handle === undefined) return;
      done += (await this.#handle.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
    }
    this.#note(offset, bytes.length);
    this.#hashing = this.#hashing.then(async () => await this.#hashPrefix());
    await this.#hashing;
  }

  /** Reads back what was written; not verified. Undefined when it cannot be read. */
  async read(offset: number, length: number): Promise<Buffer | undefined> {
    return await this.#readInto(Buffer.allocUnsafeSlow(length), offset);
  }

  /**
   * Checks the whole and puts it in its place, durably; over a copy that another process put there meanwhile.
   *
   * @returns undefined when the temporary file was taken away, or the copy evicted, in the meantime
   * @throws BentoError DIGEST_MISMATCH when the bytes are not the content; a system error when the disk fails
   */
  async commit(): Promise<CachedContent | undefined> {
    await this.#hashing;
    if (this.#handle === undefined || !this.isWhole) throw new TypeError(`${this.#temporary} is not whole`);
    const { digest, path, lockPath, adopt, sizeBytes } = this.#place;
    if (this.#hashedBytes < sizeBytes) return undefined; // somebody cut it off
    if (this.#hash.digest('hex') !== hexOf(digest)) {
      throw new BentoError('DIGEST_MISMATCH', `what was copied to ${path} is not ${digest}`);
    }
    await this.#handle.sync();
    try {
      using _names = await lockFile(lockPath);
      flock(this.#handle.fd, 'shared', { wait: false }); // it was ours alone: nobody is in the way
      await rename(this.#temporary, path);
      return adopt(this.#handle.fd);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    } finally {
      await this.#close();
    }
  }

  /** Gives it up; may be called at any time, also after `commit`. */
  async abort(): Promise<void> {
    const closing = this.#close();
    await rm(this.#temporary, { force: true });
    await closing;
  }

  async #close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close(); // waits for what is being read and written
  }

  #note(offset: number, length: number): void {
    if (this.has(offset)) return;
    this.#pieces.set(offset, length);
    for (let next = length; next > 0;) {
      next = this.#pieces.get(this.#prefixBytes) ?? 0;
      this.#pieces.delete(this.#prefixBytes);
      this.#prefixBytes += next;
    }
  }

  async #readInto(out: Buffer, offset: number): Promise<Buffer | undefined> {
    for (let done = 0; done < out.length;) {
      if (this.#handle === undefined) return undefined;
      const { bytesRead } = await this.#handle.read(out, done, out.length - done, offset + done);
      if (bytesRead === 0) return undefined;
      done += bytesRead;
    }
    return out;
  }

  /** Reads back what is there without gaps: what counts is what the file holds. */
  async #hashPrefix(): Promise<void> {
    while (this.#hashedBytes < this.#prefixBytes) {
      const length = Math.min(HASH_PIECE_BYTES, this.#prefixBytes - this.#hashedBytes);
      const bytes = await this.#readInto(this.#readBack.subarray(0, length), this.#hashedBytes);
      if (bytes === undefined) return;
      this.#hash.update(bytes);
      this.#hashedBytes += length;
    }
  }
}
