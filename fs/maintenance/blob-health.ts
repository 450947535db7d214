import { createHash } from 'node:crypto';
import { createReadStream, lstatSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

import { BlobIngest } from '../../store/blobs.ts';
import { hexOf, type Digest } from '../../store/digest.ts';
import { errnoOf } from '../../store/errors.ts';
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

  async #look(digest: Digest): Promise<BlobHealth> {
    const sizeBytes = await this.#store.blobs.sizeOf(digest);
    if (sizeBytes === undefined) return 'missing';
    this.blobCount += 1;
    this.sizeBytes += sizeBytes;
    if (this.#isQuick) return 'whole';
    const path = this.#store.blobs.path(digest);
    const actual = await this.#hash(path);
    if (actual === digest) return 'whole';
    this.#misnamed.set(actual, path);
    return 'damaged';
  }

  /**
   * Looks at every file of the pool.
   *
   * @returns those whose name is no digest, or not theirs
   */
  async checkPool(): Promise<StrayFile[]> {
    const strays: StrayFile[] = [];
    for (const name of await this.#names()) {
      const path = join(this.#store.blobs.dir, name);
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

  async #names(): Promise<string[]> {
    const names = await readdir(this.#store.blobs.dir).catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    });
    return names.filter((name) => !name.startsWith('.tmp-')).sort(); // somebody may be writing those
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
    for (const path of [this.#misnamed.get(digest), ...(await this.#otherPools(digest))]) {
      if (path !== undefined && (await this.#replace(digest, createReadStream(path)))) return true;
    }
    const fetched = await this.#fetchBlob?.(digest);
    return fetched !== undefined && (await this.#replace(digest, fetched));
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
