import { createHash } from 'node:crypto';
import { closeSync, existsSync, fstatSync, openSync, statSync, utimesSync, type BigIntStats } from 'node:fs';
import { join } from 'node:path';

import type { Digest } from '../../store/digest.ts';
import { errnoOf } from '../../store/errors.ts';
import { lockFile } from '../../store/lock.ts';
import { cacheCapBytes, freeBytes } from './cache-cap.ts';
import { evictUntil, listCache, removeCopy, usedMarkOf } from './cache-folder.ts';
import { CachedContent, contentPath, contentsDir, openHeld } from './cached-content.ts';
import { PartialContent } from './partial-content.ts';
import { newVerifiedMemory, VerifiedStamps } from './verified-stamps.ts';

const VERIFY_PIECE_BYTES = 1 << 20;
/** A use is written down at most this often. */
const USE_NOTED_MS = 60_000;

export interface ContentCacheOptions {
  /** The most that all copies may take together; 0 turns the cache off. Default: `cacheCapBytes`, asked when first needed. */
  capBytes?: number;
  /** From `newVerifiedMemory`, for the threads of one process: what one of them has verified, all may read. */
  verified?: SharedArrayBuffer;
  now?: () => Date;
}

/**
 * One uncompressed copy for each content digest: `<cache>/sha256/<hex>`. Any number of threads and processes use one folder.
 *
 * A copy is read only after all of it was checked in this process, and again after any change of the file. Its last use is
 * the time of an empty file beside it, `<hex>.used`: a time of the file itself cannot tell, for it would then count as changed.
 * Nothing here fails a reader: what cannot be kept or read is not there, and the layer has the bytes.
 */
export class ContentCache {
  readonly #cacheDir: string;
  readonly #dir: string;
  readonly #lockPath: string;
  readonly #stamps: VerifiedStamps;
  readonly #now: () => Date;
  #capBytes: number | undefined;

  constructor(cacheDir: string, options: ContentCacheOptions = {}) {
    this.#cacheDir = cacheDir;
    this.#dir = contentsDir(cacheDir);
    this.#lockPath = join(this.#dir, '.lock');
    this.#stamps = new VerifiedStamps(options.verified ?? newVerifiedMemory());
    this.#now = options.now ?? (() => new Date());
    this.#capBytes = options.capBytes;
  }

  /** @throws BentoError CONFIG_INVALID when `BENTO_CACHE_MAX` is no size */
  get capBytes(): number {
    return (this.#capBytes ??= cacheCapBytes(this.#cacheDir));
  }

  path(digest: Digest): string {
    return contentPath(this.#cacheDir, digest);
  }

  /** Whether there is a copy, verified or not. */
  has(digest: Digest): boolean {
    return this.capBytes > 0 && existsSync(this.path(digest));
  }

  /**
   * A copy that was verified in this process and has not changed since. Synchronous, for those who cannot wait.
   *
   * @param sizeBytes - what the content's length is said to be; a copy of another length is not given
   * @returns held open: close it; undefined when there is none or it was not verified yet
   */
  open(digest: Digest, sizeBytes: number): CachedContent | undefined {
    const copy = this.#openCopy(digest);
    if (copy === undefined) return undefined;
    if (copy.stat.size === BigInt(sizeBytes) && this.#stamps.has(digest, copy.stat)) {
      this.#noteUse(digest);
      return copy.content;
    }
    copy.content.close();
    return undefined;
  }

  /**
   * Like `open`, after all of the copy was read and checked where that was not done yet, piece by piece. A copy with wrong
   * bytes is removed.
   *
   * @returns 'damaged' when it was; undefined when there is none
   */
  async openVerified(digest: Digest, sizeBytes: number): Promise<CachedContent | 'damaged' | undefined> {
    const verified = this.open(digest, sizeBytes);
    if (verified !== undefined) return verified;
    const copy = this.#openCopy(digest);
    if (copy === undefined) return undefined;
    using content = copy.content;
    if (this.#stamps.has(digest, copy.stat)) return undefined; // right, but whoever asks has a wrong idea of its size
    if ((await digestOfContent(content, Number(copy.stat.size))) === digest) {
      this.#stamps.add(digest, copy.stat); // as it was before it was read: a change meanwhile makes it unknown
      return this.open(digest, sizeBytes);
    }
    await this.#remove(digest, copy.stat);
    return 'damaged';
  }

  /**
   * Begins to make a copy, after room was made for it.
   *
   * @returns undefined when it would not fit, or cannot be written
   */
  async begin(digest: Digest, sizeBytes: number): Promise<PartialContent | undefined> {
    if (sizeBytes > this.capBytes) return undefined;
    try {
      using _names = await lockFile(this.#lockPath);
      if (!(await this.#makeRoom(sizeBytes))) return undefined;
      const path = this.path(digest);
      const adopt = (fd: number): CachedContent | undefined => this.#adopt(digest, sizeBytes, fd);
      return await PartialContent.create({ digest, sizeBytes, path, lockPath: this.#lockPath, adopt });
    } catch (error) {
      passSystemError(error);
      return undefined;
    }
  }

  /** Clears litter, and evicts what is over the cap: at the start of a process that uses the cache, when the cap may be lower. */
  async trim(): Promise<void> {
    if (!existsSync(this.#dir)) return;
    try {
      using _names = await lockFile(this.#lockPath);
      const folder = await listCache(this.#dir);
      await evictUntil(folder, folder.usedBytes - this.capBytes, { evenIfShort: true });
    } catch (error) {
      passSystemError(error);
    }
  }

  /** Only while the names are locked. */
  async #makeRoom(neededBytes: number): Promise<boolean> {
    const folder = await listCache(this.#dir);
    const overBytes = folder.usedBytes + neededBytes - this.capBytes;
    return await evictUntil(folder, Math.max(overBytes, neededBytes - freeBytes(this.#dir)), { evenIfShort: false });
  }

  #openCopy(digest: Digest): { content: CachedContent; stat: BigIntStats } | undefined {
    if (!this.has(digest)) return undefined;
    const path = this.path(digest);
    const held = openHeld(path);
    if (held === undefined) return undefined;
    const { fd, stat } = held;
    return { content: new CachedContent(fd, { digest, path, sizeBytes: Number(stat.size) }), stat };
  }

  /** Just put in place, and right: from now on known under the times that the renaming gave it. */
  #adopt(digest: Digest, sizeBytes: number, fd: number): CachedContent | undefined {
    this.#stamps.add(digest, fstatSync(fd, { bigint: true }));
    return this.open(digest, sizeBytes);
  }

  async #remove(digest: Digest, { dev, ino }: BigIntStats): Promise<void> {
    try {
      using _names = await lockFile(this.#lockPath);
      const found = statSync(this.path(digest), { bigint: true, throwIfNoEntry: false });
      if (found?.ino === ino && found.dev === dev) await removeCopy(this.path(digest));
    } catch (error) {
      passSystemError(error);
    }
  }

  #noteUse(digest: Digest): void {
    const mark = usedMarkOf(this.path(digest));
    const now = this.#now();
    try {
      const noted = statSync(mark, { throwIfNoEntry: false });
      if (noted !== undefined && Math.abs(now.getTime() - noted.mtimeMs) < USE_NOTED_MS) return;
      if (noted === undefined) closeSync(openSync(mark, 'a', 0o600));
      utimesSync(mark, now, now);
    } catch {
      // Then it counts as used when it was last noted.
    }
  }
}

/** @returns undefined when the disk does not give all of it */
async function digestOfContent(content: CachedContent, sizeBytes: number): Promise<Digest | undefined> {
  const hash = createHash('sha256');
  for (let at = 0; at < sizeBytes; at += VERIFY_PIECE_BYTES) {
    const piece = await content.read(at, VERIFY_PIECE_BYTES);
    if (piece === undefined) return undefined;
    hash.update(piece);
  }
  return `sha256:${hash.digest('hex')}`;
}

/** No space, a read-only disk, another user's folder: then there is no copy. Anything else is a mistake of ours. */
function passSystemError(error: unknown): void {
  if (errnoOf(error) === undefined) throw error;
}
