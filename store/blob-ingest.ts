import { constants, existsSync, fstatSync } from 'node:fs';
import { chmod, mkdir, open, rename, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';

import { openBlobFile, type BlobPlace } from './blob-file.ts';
import { thinDir, thinPath, wholePath } from './blob-paths.ts';
import type { BlobPool } from './blobs.ts';
import type { Digest } from './digest.ts';
import { syncDir, temporaryBeside } from './durable.ts';
import { BentoError, describeSystemError } from './errors.ts';
import { faultPoint } from './fault-point.ts';
import { readBlob } from './read-blob.ts';
import { isWorthThin, storeThin, type BorrowedPiece } from './thin-writer.ts';

const COPY_BYTES = 1 << 20;

interface Opened {
  handle: FileHandle;
  mayBeThin?: boolean;
  isKept?: boolean;
  sizeBytes?: number;
}

/**
 * A blob being written. Not visible before `commit`; `close` without it leaves nothing behind.
 *
 * Bytes that another blob holds may be referred to instead of written: they are holes in the temporary file until it is clear
 * whether the blob becomes a recipe or a file of its own.
 */
export class BlobIngest {
  readonly #pool: BlobPool;
  readonly #path: string;
  readonly #mayBeThin: boolean;
  #isKept: boolean;
  #handle: FileHandle | undefined;
  #sizeBytes = 0;
  #borrowed: BorrowedPiece[] = [];

  private constructor(
    pool: BlobPool,
    path: string,
    { handle, mayBeThin = false, isKept = false, sizeBytes = 0 }: Opened,
  ) {
    this.#pool = pool;
    this.#path = path;
    this.#handle = handle;
    this.#mayBeThin = mayBeThin;
    this.#isKept = isKept;
    this.#sizeBytes = sizeBytes;
  }

  /**
   * @param dir - where the temporary file lives: on the file system of the pool
   * @param options.mayBeThin - whether it may be stored as a recipe; default: it becomes a file of its own
   */
  static async create(pool: BlobPool, dir: string, { mayBeThin } = { mayBeThin: false }): Promise<BlobIngest> {
    await mkdir(pool.dir, { recursive: true });
    await mkdir(dir, { recursive: true });
    const path = temporaryBeside(join(dir, 'blob'));
    return new BlobIngest(pool, path, { handle: await open(path, 'wx+', 0o600), mayBeThin });
  }

  /**
   * Goes on with the file that an earlier ingest of the same blob left, made if there is none; `close` without `commit` leaves
   * it for the next. The caller keeps others from writing it, and hashes what is there with `written`.
   *
   * @param path - on the file system of the pool
   */
  static async resume(pool: BlobPool, path: string): Promise<BlobIngest> {
    await mkdir(pool.dir, { recursive: true });
    const handle = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
    return new BlobIngest(pool, path, { handle, isKept: true, sizeBytes: (await handle.stat()).size });
  }

  /** How much was written, by this ingest and by those it goes on with. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Whether the file is the one that a descriptor has open. */
  async isSameFile(fd: number): Promise<boolean> {
    const [own, other] = [await this.#openHandle().stat(), fstatSync(fd)];
    return own.ino === other.ino && own.dev === other.dev;
  }

  /** The bytes written so far, none of them referred to. */
  async *written(): AsyncGenerator<Buffer, void, undefined> {
    for (let at = 0; at < this.#sizeBytes;) {
      const piece = Buffer.allocUnsafe(Math.min(COPY_BYTES, this.#sizeBytes - at));
      const { bytesRead } = await this.#openHandle().read(piece, 0, piece.length, at);
      if (bytesRead === 0) return; // cut off meanwhile: whoever hashes notices
      at += bytesRead;
      yield piece.subarray(0, bytesRead);
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#writeAt(this.#sizeBytes, bytes);
    this.#sizeBytes += bytes.length;
  }

  /** The same for bytes that are known to lie somewhere in the store. */
  async refer(bytes: Uint8Array, place: BlobPlace): Promise<void> {
    if (!this.#mayBeThin) {
      await this.write(bytes);
      return;
    }
    this.#openHandle();
    const last = this.#borrowed.at(-1);
    const goesOn =
      last !== undefined &&
      last.at + last.lengthBytes === this.#sizeBytes &&
      last.place.digest === place.digest &&
      last.place.offset + last.lengthBytes === place.offset;
    if (goesOn) {
      last.crc = crc32(bytes, last.crc);
      last.lengthBytes += bytes.length;
    } else {
      this.#borrowed.push({ at: this.#sizeBytes, lengthBytes: bytes.length, place, crc: crc32(bytes) });
    }
    this.#sizeBytes += bytes.length;
  }

  /** Forgets everything behind the first `sizeBytes` bytes. */
  async rewind(sizeBytes: number): Promise<void> {
    await this.#openHandle().truncate(sizeBytes);
    this.#sizeBytes = sizeBytes;
    this.#borrowed = this.#borrowed.filter(({ at }) => at < sizeBytes);
    const last = this.#borrowed.at(-1);
    if (last !== undefined && last.at + last.lengthBytes > sizeBytes) throw new RangeError('a mark within a reference');
  }

  /**
   * Makes the bytes durable under their digest, which the caller has computed over exactly what it wrote.
   *
   * @returns what the blob takes in the store
   */
  async commit(digest: Digest): Promise<number> {
    const handle = this.#openHandle();
    const wholeBytes = await this.#pool.wholeSizeOf(digest);
    // Stored before: the temporary file goes in close().
    if (wholeBytes === this.#sizeBytes) {
      this.#isKept = false;
      return wholeBytes;
    }
    const mayBeThin = this.#mayBeThin && wholeBytes === undefined; // one that was cut off is replaced
    if (mayBeThin && this.#isStoredThin(digest)) return (await this.#pool.storedSizeOf(digest)) ?? 0;
    try {
      if (mayBeThin && isWorthThin(this.#borrowed, this.#sizeBytes, digest))
        return await this.#storeThin(handle, digest);
      await this.#fillHoles();
      await handle.sync();
    } catch (error) {
      throw describeSystemError(error, `writing a blob to ${this.#pool.dir}`);
    }
    await handle.close();
    this.#handle = undefined;
    await this.#putInPlace(digest);
    return this.#sizeBytes;
  }

  async close(): Promise<void> {
    await this.#handle?.close();
    this.#handle = undefined;
    if (!this.#isKept) await rm(this.#path, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #storeThin(handle: FileHandle, digest: Digest): Promise<number> {
    const { storeRoot } = this.#pool;
    return await storeThin(storeRoot, digest, { handle, sizeBytes: this.#sizeBytes, borrowed: this.#borrowed });
  }

  async #putInPlace(digest: Digest): Promise<void> {
    const { storeRoot, dir } = this.#pool;
    await chmod(this.#path, 0o444);
    faultPoint('blob.written');
    await rename(this.#path, wholePath(storeRoot, digest));
    faultPoint('blob.renamed');
    await syncDir(dir);
    if (!existsSync(thinPath(storeRoot, digest))) return;
    faultPoint('blob.made-whole');
    await rm(thinPath(storeRoot, digest), { force: true });
    await syncDir(thinDir(storeRoot));
  }

  #isStoredThin(digest: Digest): boolean {
    try {
      return this.#pool.thinSizeOf(digest) === this.#sizeBytes;
    } catch (error) {
      if (error instanceof BentoError) return false; // damaged: ours takes its place
      throw error;
    }
  }

  /** Copies what was referred to, now that it is to be a file of its own. */
  async #fillHoles(): Promise<void> {
    const bytes = Buffer.allocUnsafe(this.#borrowed.length === 0 ? 0 : COPY_BYTES);
    for (const { at, lengthBytes, place, crc } of this.#borrowed) {
      const base = openBlobFile(this.#pool.storeRoot, place.digest);
      try {
        let actual = 0;
        for (let done = 0; done < lengthBytes;) {
          const part = bytes.subarray(0, Math.min(COPY_BYTES, lengthBytes - done));
          const readBytes = await readBlob(base, place.offset + done, part);
          if (readBytes < part.length) throw changedMeanwhile(place.digest);
          actual = crc32(part, actual);
          await this.#writeAt(at + done, part);
          done += part.length;
        }
        if (actual !== crc) throw changedMeanwhile(place.digest);
      } finally {
        base.close();
      }
    }
  }

  async #writeAt(at: number, bytes: Uint8Array): Promise<void> {
    const handle = this.#openHandle();
    try {
      for (let done = 0; done < bytes.length;) {
        const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, at + done);
        done += bytesWritten;
      }
    } catch (error) {
      throw describeSystemError(error, `writing a blob to ${this.#pool.dir}`);
    }
  }

  #openHandle(): FileHandle {
    if (this.#handle === undefined) throw new TypeError('this blob is already committed or closed');
    return this.#handle;
  }
}

function changedMeanwhile(digest: Digest): BentoError {
  return new BentoError('DIGEST_MISMATCH', `blob ${digest} changed on disk while it was copied`, {
    hint: '`bento verify` says which checkpoints are whole',
  });
}
