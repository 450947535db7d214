import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { chmod, mkdir, open, readFile, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

import { digestOf, hexOf, shortDigest, type Digest } from './digest.ts';
import { syncDir, temporaryBeside } from './durable.ts';
import { BentoError, describeSystemError, errnoOf } from './errors.ts';
import { faultPoint } from './fault-point.ts';

/** What a blob is asked for by: its digest, and its length where a descriptor tells it. */
export interface BlobRef {
  digest: Digest;
  size?: number;
}

/** Reads parts of an opened blob. The bytes are not verified: whoever reads parts checks the chunk digests. */
export interface OpenBlob {
  readonly sizeBytes: number;
  /** Exactly `length` bytes, or a BentoError FORMAT_INVALID when the blob ends before. */
  readAt(offset: number, length: number): Promise<Buffer>;
  close(): Promise<void>;
}

/**
 * The blob pool that all workspaces of a store share: `blobs/sha256/<hex>`, mode 0444, written to a temporary file and
 * renamed. A blob that is there is whole; a blob that is read as a whole is checked against its digest.
 */
export class BlobPool {
  readonly dir: string;

  constructor(storeRoot: string) {
    this.dir = join(storeRoot, 'blobs', 'sha256');
  }

  path(digest: Digest): string {
    return join(this.dir, hexOf(digest));
  }

  async has(digest: Digest): Promise<boolean> {
    return (await this.sizeOf(digest)) !== undefined;
  }

  async sizeOf(digest: Digest): Promise<number | undefined> {
    try {
      return (await stat(this.path(digest))).size;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  /**
   * Reads a whole small blob (manifest, config) and checks it.
   *
   * @param sizeMax - refuses anything larger: nothing that is parsed as one piece may be unbounded
   * @throws BentoError BLOB_MISSING, DIGEST_MISMATCH or FORMAT_INVALID
   */
  async read(ref: BlobRef, sizeMax: number): Promise<Buffer> {
    const sizeBytes = await this.sizeOf(ref.digest);
    if (sizeBytes === undefined) throw missing(ref.digest);
    if (sizeBytes > sizeMax) {
      throw new BentoError('FORMAT_INVALID', `blob ${shortDigest(ref.digest)} is ${sizeBytes} bytes, limit ${sizeMax}`);
    }
    const bytes = await readFile(this.path(ref.digest));
    if (digestOf(bytes) !== ref.digest) throw damaged(ref.digest, this.path(ref.digest));
    return bytes;
  }

  /** Streams a whole blob; the last step of the iteration throws DIGEST_MISMATCH if the bytes were not the blob's. */
  async *stream(ref: BlobRef): AsyncGenerator<Buffer> {
    if (!(await this.has(ref.digest))) throw missing(ref.digest);
    const hash = createHash('sha256');
    for await (const piece of createReadStream(this.path(ref.digest), { highWaterMark: 1 << 20 })) {
      hash.update(piece as Buffer);
      yield piece as Buffer;
    }
    if (hash.digest('hex') !== hexOf(ref.digest)) throw damaged(ref.digest, this.path(ref.digest));
  }

  async open(digest: Digest): Promise<OpenBlob> {
    let handle: FileHandle;
    try {
      handle = await open(this.path(digest), 'r');
    } catch (error) {
      throw errnoOf(error) === 'ENOENT' ? missing(digest) : error;
    }
    const { size: sizeBytes } = await handle.stat();
    return {
      sizeBytes,
      readAt: async (offset, length) => await readExactly(handle, offset, length, digest),
      close: async () => await handle.close(),
    };
  }

  /** Stores a small blob. Storing what is there already costs a stat. */
  async put(bytes: Uint8Array): Promise<{ digest: Digest; size: number }> {
    const digest = digestOf(bytes);
    if ((await this.sizeOf(digest)) !== bytes.length) {
      const ingest = await BlobIngest.create(this, this.dir);
      try {
        await ingest.write(bytes);
        await ingest.commit(digest);
      } finally {
        await ingest.close();
      }
    }
    return { digest, size: bytes.length };
  }
}

/** A blob being written. Not visible before `commit`; `close` without it leaves nothing behind. */
export class BlobIngest {
  readonly #pool: BlobPool;
  readonly #path: string;
  #handle: FileHandle | undefined;
  #sizeBytes = 0;

  private constructor(pool: BlobPool, path: string, handle: FileHandle) {
    this.#pool = pool;
    this.#path = path;
    this.#handle = handle;
  }

  /** @param dir - where the temporary file lives: on the file system of the pool */
  static async create(pool: BlobPool, dir: string): Promise<BlobIngest> {
    await mkdir(pool.dir, { recursive: true });
    await mkdir(dir, { recursive: true });
    const path = temporaryBeside(join(dir, 'blob'));
    return new BlobIngest(pool, path, await open(path, 'wx', 0o600));
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#handle === undefined) throw new TypeError('this blob is already committed or closed');
    try {
      for (let done = 0; done < bytes.length;) {
        const { bytesWritten } = await this.#handle.write(bytes, done, bytes.length - done, this.#sizeBytes);
        this.#sizeBytes += bytesWritten;
        done += bytesWritten;
      }
    } catch (error) {
      throw describeSystemError(error, `writing a blob to ${this.#pool.dir}`);
    }
  }

  /** Forgets everything behind the first `sizeBytes` bytes. */
  async rewind(sizeBytes: number): Promise<void> {
    if (this.#handle === undefined) throw new TypeError('this blob is already committed or closed');
    await this.#handle.truncate(sizeBytes);
    this.#sizeBytes = sizeBytes;
  }

  /** Makes the bytes durable under their digest, which the caller has computed over exactly what it wrote. */
  async commit(digest: Digest): Promise<void> {
    const handle = this.#handle;
    if (handle === undefined) throw new TypeError('this blob is already committed or closed');
    if ((await this.#pool.sizeOf(digest)) === this.#sizeBytes) return; // stored before: the temporary file goes in close()
    try {
      await handle.sync();
    } catch (error) {
      throw describeSystemError(error, `writing a blob to ${this.#pool.dir}`);
    }
    await handle.close();
    this.#handle = undefined;
    await chmod(this.#path, 0o444);
    faultPoint('blob.written');
    await rename(this.#path, this.#pool.path(digest));
    faultPoint('blob.renamed');
    await syncDir(this.#pool.dir);
  }

  async close(): Promise<void> {
    await this.#handle?.close();
    this.#handle = undefined;
    await rm(this.#path, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

async function readExactly(handle: FileHandle, offset: number, length: number, digest: Digest): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length);
  for (let done = 0; done < length;) {
    const { bytesRead } = await handle.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) {
      throw new BentoError('FORMAT_INVALID', `blob ${shortDigest(digest)} ends before byte ${offset + length}`);
    }
    done += bytesRead;
  }
  return bytes;
}

function missing(digest: Digest): BentoError {
  return new BentoError('BLOB_MISSING', `blob ${digest} is not in the store`, {
    hint: 'another checkpoint may be whole: see `bento list`',
  });
}

function damaged(digest: Digest, path: string): BentoError {
  return new BentoError('DIGEST_MISMATCH', `blob integrity check failed: ${path} is not ${digest}`, {
    hint: 'the file was damaged on disk; restore it from a backup or open another checkpoint',
  });
}
