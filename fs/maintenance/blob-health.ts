import { createHash } from 'node:crypto';
import { createReadStream, lstatSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

import { BlobIngest } from '../../store/blob-ingest.ts';
import { hexOf, type Digest } from '../../store/digest.ts';
import { BentoError, errnoOf } from '../../store/errors.ts';
import { faultPoint } from '../../store/fault-point.ts';
import type { Store } from '../../store/store.ts';

/** Gets the bytes of a blob from somewhere else, such as a registry; undefined when it is not to be had there. */
export type FetchBlob = (digest: Digest) => Promise<AsyncIterable<Buffer> | undefined>;

/** A file of the pool whose name is not its digest. */
export interface StrayFile {
  path: string;
  /** What its name says; undefined when that is no digest. */
  digest: Digest | undefined;
  /** What it holds; undefined where nobody looked. */
  actual: Digest | undefined;
}

export type BlobHealth = 'whole' | 'missing' | 'damaged';

const BLOB_NAME = /^[0-9a-f]{64}$/;

/** Looks at the files of the pool, each once, and finds another copy of what is missing or damaged. */
export class BlobChecker {
  readonly #store: Store;
  readonly #fetchBlob: FetchBlob | undefined;
  readonly #isQuick: boolean;
  readonly #onBytes: (count: number) => void;
  readonly #health = new Map<Digest, BlobHealth>();
  /** Why thin blobs are damaged, where more is known than that. */
  readonly #reasons = new Map<Digest, string>();
  /** What files hold that are called something else. */
  readonly #misnamed = new Map<Digest, string>();
  blobCount = 0;
  sizeBytes = 0;

  /** @param options.isQuick - believes a blob that is there */
  constructor(
    store: Store,
    options: { fetchBlob: FetchBlob | undefined; isQuick: boolean; onBytes: (count: number) => void },
  ) {
    this.#store = store;
    this.#fetchBlob = options.fetchBlob;
    this.#isQuick = options.isQuick;
    this.#onBytes = options.onBytes;
  }

  async health(digest: Digest): Promise<BlobHealth> {
    const known = this.#health.get(digest);
    if (known !== undefined) return known;
    const health = await this.#look(digest);
    this.#health.set(digest, health);
    return health;
  }

  /** What is wrong with a damaged blob, if more is known than that its bytes are others. */
  reasonOf(digest: Digest): string | undefined {
    return this.#reasons.get(digest);
  }

  async #look(digest: Digest): Promise<BlobHealth> {
    const { blobs } = this.#store;
    const storedBytes = await blobs.storedSizeOf(digest);
    if (storedBytes === undefined) return 'missing';
    this.blobCount += 1;
    this.sizeBytes += storedBytes;
    if (await blobs.isThin(digest)) return await this.#lookAtThin(digest);
    if (this.#isQuick) return 'whole';
    const path = blobs.path(digest);
    const actual = await this.#hash(path);
    if (actual === digest) return 'whole';
    this.#misnamed.set(actual, path);
    return 'damaged';
  }

  /** Puts a thin blob together. Its recipe and whether its bases are there can be told quickly. */
  async #lookAtThin(digest: Digest): Promise<BlobHealth> {
    this.#reasons.delete(digest);
    try {
      for (const base of await this.#store.blobs.basesOf(digest)) {
        if (!(await this.#store.blobs.has(base))) throw missingBase(base);
      }
      if (this.#isQuick) return 'whole';
      for await (const piece of this.#store.blobs.stream({ digest })) this.#onBytes(piece.length);
      return 'whole';
    } catch (error) {
      if (!(error instanceof BentoError)) throw error;
      if (error.code !== 'DIGEST_MISMATCH') this.#reasons.set(digest, error.message);
      return 'damaged';
    }
  }

  /**
   * Looks at every file of the pool.
   *
   * @returns those whose name is no digest, or not theirs
   */
  async checkPool(): Promise<StrayFile[]> {
    const { dir, thinDir } = this.#store.blobs;
    return [...(await this.#checkFolder(dir)), ...(await this.#checkFolder(thinDir))];
  }

  async #checkFolder(dir: string): Promise<StrayFile[]> {
    const strays: StrayFile[] = [];
    for (const name of await namesIn(dir)) {
      const path = join(dir, name);
      if (!BLOB_NAME.test(name)) {
        const actual = !this.#isQuick && lstatSync(path).isFile() ? await this.#hash(path) : undefined;
        if (actual !== undefined) this.#misnamed.set(actual, path);
        strays.push({ path, digest: undefined, actual });
      } else if ((await this.health(`sha256:${name}`)) === 'damaged') {
        strays.push({ path, digest: `sha256:${name}`, actual: undefined });
      }
    }
    return strays;
  }

  async #hash(path: string): Promise<Digest> {
    const hash = createHash('sha256');
    const count = (bytes: Buffer): Buffer => {
      this.#onBytes(bytes.length);
      return bytes;
    };
    await pipeline(
      createReadStream(path, { highWaterMark: 1 << 20 }),
      async function* (source: AsyncIterable<Buffer>) {
        for await (const bytes of source) yield count(bytes);
      },
      hash,
    );
    return `sha256:${hash.digest('hex')}`;
  }

  /**
   * Puts a whole copy in the place of a missing or damaged blob: a file of the pool under another name, one in a workspace
   * that has a pool of its own, or from `fetchBlob`. Only bytes with the right digest are taken.
   *
   * @returns whether there was one
   */
  async repair(digest: Digest): Promise<boolean> {
    if (await this.#repairBases(digest)) return true;
    for (const path of [this.#misnamed.get(digest), ...(await this.#otherPools(digest))]) {
      if (path !== undefined && (await this.#replace(digest, createReadStream(path)))) return true;
    }
    const fetched = await this.#fetchBlob?.(digest);
    return fetched !== undefined && (await this.#replace(digest, fetched));
  }

  /** A thin blob is whole again as soon as what it is made of is. */
  async #repairBases(digest: Digest): Promise<boolean> {
    const { blobs } = this.#store;
    if (!(await blobs.isThin(digest))) return false;
    const bases = await blobs.basesOf(digest).catch((error: unknown) => {
      if (error instanceof BentoError) return [];
      throw error;
    });
    for (const base of bases) if ((await this.health(base)) !== 'whole') await this.repair(base);
    const health = bases.length > 0 ? await this.#lookAtThin(digest) : 'damaged';
    this.#health.set(digest, health);
    return health === 'whole';
  }

  /** The original leaves a workspace alone whose `blobs` is a folder of its own. */
  async #otherPools(digest: Digest): Promise<string[]> {
    const dirs = (await this.#store.workspaceIds()).map((id) => join(this.#store.layout(id).dir, 'blobs'));
    const own = dirs.filter((dir) => lstatSync(dir, { throwIfNoEntry: false })?.isDirectory() === true);
    const paths = own.map((dir) => join(dir, 'sha256', hexOf(digest)));
    return paths.filter((path) => lstatSync(path, { throwIfNoEntry: false })?.isFile() === true);
  }

  async #replace(digest: Digest, bytes: AsyncIterable<Buffer>): Promise<boolean> {
    const { blobs } = this.#store;
    await using ingest = await BlobIngest.create(blobs, blobs.dir);
    const hash = createHash('sha256');
    for await (const piece of bytes) {
      hash.update(piece);
      await ingest.write(piece);
    }
    if (`sha256:${hash.digest('hex')}` !== digest) return false;
    await rm(blobs.path(digest), { force: true }); // a damaged one of the same length would pass for stored
    faultPoint('verify.damaged-removed');
    await ingest.commit(digest);
    this.#health.set(digest, 'whole');
    return true;
  }
}

async function namesIn(dir: string): Promise<string[]> {
  const names = await readdir(dir).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  });
  return names.filter((name) => !name.startsWith('.tmp-')).sort(); // somebody may be writing those
}

function missingBase(base: Digest): BentoError {
  return new BentoError('BLOB_MISSING', `it takes bytes from ${base}, which is missing`);
}
