import { createHash } from 'node:crypto';
import { readdir, rm, stat } from 'node:fs/promises';

import { openBlobFile, openThin, type BlobFile } from './blob-file.ts';
import { BlobIngest } from './blob-ingest.ts';
import { thinDir, thinPath, wholeDir, wholePath } from './blob-paths.ts';
import { digestOf, hexOf, shortDigest, type Digest } from './digest.ts';
import { BentoError, errnoOf } from './errors.ts';
import { readBlob, streamBlob } from './read-blob.ts';

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
  close(): void;
}

const BLOB_NAME = /^[0-9a-f]{64}$/;

/**
 * The blob pool that all workspaces of a store share: `blobs/sha256/<hex>`, mode 0444, written to a temporary file and
 * renamed; and `thin/sha256/<hex>`, recipes that make blobs from their own bytes and those of others. A blob that is there
 * is whole; a blob that is read as a whole is checked against its digest.
 */
export class BlobPool {
  readonly storeRoot: string;
  readonly dir: string;
  readonly thinDir: string;

  constructor(storeRoot: string) {
    this.storeRoot = storeRoot;
    this.dir = wholeDir(storeRoot);
    this.thinDir = thinDir(storeRoot);
  }

  /** Where a whole blob lies, if it is one. */
  path(digest: Digest): string {
    return wholePath(this.storeRoot, digest);
  }

  async has(digest: Digest): Promise<boolean> {
    return (await this.storedSizeOf(digest)) !== undefined;
  }

  /** @throws BentoError FORMAT_INVALID when it is thin and its recipe damaged */
  async sizeOf(digest: Digest): Promise<number | undefined> {
    return (await this.wholeSizeOf(digest)) ?? this.thinSizeOf(digest) ?? (await this.wholeSizeOf(digest));
  }

  /** Of a blob that is a file of its own. */
  async wholeSizeOf(digest: Digest): Promise<number | undefined> {
    return await fileSize(wholePath(this.storeRoot, digest));
  }

  /** Of the blob that a recipe makes. @throws BentoError FORMAT_INVALID when the recipe is damaged */
  thinSizeOf(digest: Digest): number | undefined {
    const file = openThin(this.storeRoot, digest);
    file?.close();
    return file?.sizeBytes;
  }

  /** What it takes on disk: less than its size when it is thin. */
  async storedSizeOf(digest: Digest): Promise<number | undefined> {
    return (await this.wholeSizeOf(digest)) ?? (await fileSize(thinPath(this.storeRoot, digest)));
  }

  /** Whether there is only a recipe of it. */
  async isThin(digest: Digest): Promise<boolean> {
    if ((await this.wholeSizeOf(digest)) !== undefined) return false;
    return (await fileSize(thinPath(this.storeRoot, digest))) !== undefined;
  }

  /**
   * The blobs that a blob cannot be read without: none for a whole one, and for one that is not there.
   *
   * @throws BentoError FORMAT_INVALID when it is thin and its recipe damaged
   */
  async basesOf(digest: Digest): Promise<readonly Digest[]> {
    if ((await this.wholeSizeOf(digest)) !== undefined) return [];
    const file = openThin(this.storeRoot, digest);
    file?.close();
    return file?.bases ?? [];
  }

  /** All blobs there are, whole and thin, sorted. Files of other names are nobody's blobs. */
  async list(): Promise<Digest[]> {
    const names = [...(await namesIn(this.dir)), ...(await namesIn(this.thinDir))];
    return [...new Set(names.filter((name) => BLOB_NAME.test(name)))].sort().map((name): Digest => `sha256:${name}`);
  }

  /** The blobs of which there is a recipe, sorted. */
  async listThin(): Promise<Digest[]> {
    const names = (await namesIn(this.thinDir)).filter((name) => BLOB_NAME.test(name));
    return names.sort().map((name): Digest => `sha256:${name}`);
  }

  /** Not durable before its folders are synced. */
  async remove(digest: Digest): Promise<void> {
    await rm(wholePath(this.storeRoot, digest), { force: true });
    await rm(thinPath(this.storeRoot, digest), { force: true });
  }

  /**
   * Reads a whole small blob (manifest, config) and checks it.
   *
   * @param sizeMax - refuses anything larger: nothing that is parsed as one piece may be unbounded
   * @throws BentoError BLOB_MISSING, DIGEST_MISMATCH or FORMAT_INVALID
   */
  async read(ref: BlobRef, sizeMax: number): Promise<Buffer> {
    const file = openBlobFile(this.storeRoot, ref.digest);
    try {
      const { sizeBytes } = file;
      if (sizeBytes > sizeMax) {
        const what = `blob ${shortDigest(ref.digest)} is ${sizeBytes} bytes, limit ${sizeMax}`;
        throw new BentoError('FORMAT_INVALID', what);
      }
      const bytes = Buffer.allocUnsafe(sizeBytes);
      const readBytes = await readBlob(file, 0, bytes);
      if (digestOf(bytes.subarray(0, readBytes)) !== ref.digest) throw damaged(ref.digest, this.path(ref.digest));
      return bytes;
    } finally {
      file.close();
    }
  }

  /** Streams a whole blob; the last step of the iteration throws DIGEST_MISMATCH if the bytes were not the blob's. */
  async *stream(ref: BlobRef): AsyncGenerator<Buffer> {
    const file = openBlobFile(this.storeRoot, ref.digest);
    try {
      const hash = createHash('sha256');
      for await (const piece of streamBlob(file)) {
        hash.update(piece);
        yield piece;
      }
      if (hash.digest('hex') !== hexOf(ref.digest)) throw damaged(ref.digest, this.path(ref.digest));
    } finally {
      file.close();
    }
  }

  /**
   * Streams a blob from an offset to its end, for uploads that go on where they broke. From offset 0 on it is verified as by
   * `stream`; from any other, whoever gets the bytes has to.
   */
  async *readFrom(ref: BlobRef, offset: number): AsyncGenerator<Buffer, void, undefined> {
    if (offset === 0) {
      yield* this.stream(ref);
      return;
    }
    const file = openBlobFile(this.storeRoot, ref.digest);
    try {
      yield* streamBlob(file, offset);
    } finally {
      file.close();
    }
  }

  /** Also one that is partly here. @throws BentoError BLOB_MISSING */
  open(digest: Digest): OpenBlob {
    const file = openBlobFile(this.storeRoot, digest);
    return {
      sizeBytes: file.sizeBytes,
      readAt: async (offset, length) => await readExactly(file, offset, length),
      close: () => file.close(),
    };
  }

  /** Stores a small blob. Storing what is there already costs a stat. */
  async put(bytes: Uint8Array): Promise<{ digest: Digest; size: number }> {
    const digest = digestOf(bytes);
    if ((await this.wholeSizeOf(digest)) !== bytes.length) {
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

  /**
   * Gives a thin blob a file of its own, as every other program expects. Verified on the way; the recipe goes last.
   *
   * @returns whether it was thin
   * @throws BentoError BLOB_MISSING, DIGEST_MISMATCH or FORMAT_INVALID, with the blob left as it is
   */
  async makeWhole(digest: Digest): Promise<boolean> {
    if (!(await this.isThin(digest))) return false;
    await using ingest = await BlobIngest.create(this, this.dir);
    for await (const piece of this.stream({ digest })) await ingest.write(piece);
    await ingest.commit(digest);
    return true;
  }
}

async function fileSize(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

async function namesIn(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}

async function readExactly(file: BlobFile, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length);
  if ((await readBlob(file, offset, bytes)) === length) return bytes;
  throw new BentoError('FORMAT_INVALID', `blob ${shortDigest(file.digest)} ends before byte ${offset + length}`);
}

function damaged(digest: Digest, path: string): BentoError {
  return new BentoError('DIGEST_MISMATCH', `blob integrity check failed: ${path} is not ${digest}`, {
    hint: 'the file was damaged on disk; restore it from a backup or open another checkpoint',
  });
}
