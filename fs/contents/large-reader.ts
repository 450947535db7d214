import type { Entries } from '../../index/entries.ts';
import { numberOf } from '../../index/rows.ts';
import { noteGarbage } from '../../store/buffer-garbage.ts';
import type { Digest } from '../../store/digest.ts';
import type { Chunk } from '../../store/entry.ts';
import { BentoError } from '../../store/errors.ts';
import { endOf, readChunk, storedBytes, type BlobReader, type ChunkPacking } from '../../store/layers/layer-reader.ts';
import { isPartlyHere } from '../../store/lazy-file.ts';
import { readBlob } from '../../store/read-blob.ts';
import type { Store } from '../../store/store.ts';
import { BoundedCache } from './bounded-cache.ts';
import type { CachedContent } from './cached-content.ts';
import type { ContentCache } from './content-cache.ts';
import { damagedLayer, layerFile, openLayer, pathOf, type LayerFile, type OpenLayer } from './content-reader.ts';
import { chunksIn, FileLayouts, type FileLayout } from './file-layouts.ts';
import { ResumedLayers, resumedWeight } from './resumed-layers.ts';
import { LargeFill, type FileToFill, type FillOutcome } from './large-fill.ts';
import type { RemoteReader } from './remote-reader.ts';
import { WorkQueue, type Priority } from './work-queue.ts';

/** Inflated chunks kept for the next read, in bytes. */
const INFLATED_BYTES_MAX = 8 << 20;
/** Compressed and inflated bytes of chunks under way for readers. */
const UNDER_WAY_BYTES_MAX = 16 << 20;
/** Files being copied at once; a copy that nobody reads on gives way. */
const FILL_COUNT_MAX = 8;
/** A copy that was begun and then not read on for so long is given up. */
const FILL_IDLE_MS = 60_000;
/** After so long it is tried again to copy a file that could not be copied. */
const RETRY_MS = { 'no room': 60_000, failed: 600_000 } as const;

export interface LargeReaderOptions {
  /** From now on a verified copy of this file is in the cache. */
  onFilled: (entryId: number, digest: Digest) => void;
  /** A line for the log: something was damaged that a reader does not notice. */
  onNote: (line: string) => void;
  /** Fetches what is still in a registry; without it, that cannot be read. */
  remote?: RemoteReader;
  /** For tests; default: a minute. */
  fillIdleMs?: number;
}

/**
 * Reads files whose chunks take long to inflate, on a thread that has an event loop: zlib's threads inflate, readers of the
 * same chunk share the work, and no byte leaves before its chunk's digest was checked. Of files that the content cache may
 * hold, what is inflated is copied there on the way. Memory is bounded, whatever the size of a file.
 */
export class LargeReader {
  readonly #store: Store;
  readonly #entries: Entries;
  readonly #cache: ContentCache;
  readonly #options: LargeReaderOptions;
  readonly #layouts: FileLayouts;
  readonly #queue = new WorkQueue(UNDER_WAY_BYTES_MAX);
  readonly #inflated = new BoundedCache<string, Buffer>({
    weightMax: INFLATED_BYTES_MAX,
    weigh: (bytes) => bytes.length,
  });
  readonly #resumed = new ResumedLayers(this.#inflated);
  readonly #underWay = new Map<string, Promise<Buffer>>();
  readonly #fills = new Map<Digest, LargeFill>();
  readonly #checks = new Map<Digest, Promise<void>>();
  /** Contents that could not be copied -> when to try again. */
  readonly #refused = new Map<Digest, number>();
  readonly #announced = new Set<number>();
  #sweeper: NodeJS.Timeout | undefined;

  constructor(store: Store, entries: Entries, cache: ContentCache, options: LargeReaderOptions) {
    this.#store = store;
    this.#entries = entries;
    this.#cache = cache;
    this.#options = options;
    this.#layouts = new FileLayouts(entries);
  }

  /**
   * Reads part of a file.
   *
   * @param id - the file's entry in the index
   * @returns shorter than `length` only at the end of the file; do not write into it
   * @throws BentoError DIGEST_MISMATCH, BLOB_MISSING or FORMAT_INVALID, naming the layer and the file
   */
  async read(id: number, offset: number, length: number): Promise<Buffer> {
    const layout = this.#layouts.of(id);
    const copied = await this.#readCopy(id, layout, offset, length);
    if (copied !== undefined) return copied;
    const fill = this.#fillFor(id, layout);
    const chunks = chunksIn(layout, offset, length);
    fill?.ask(chunks);
    const parts = chunks.map(async (chunk) => partOf(await this.#chunk(id, chunk, fill), chunk, offset, length));
    const [first, ...rest] = await Promise.all(parts);
    if (first === undefined) return Buffer.alloc(0);
    return rest.length === 0 ? first : Buffer.concat([first, ...rest]);
  }

  /**
   * Brings the whole of a large file into the cache, or waits for the check of the copy that is there.
   *
   * @returns held open: close it; undefined when it cannot be kept: smaller than `LARGE_BYTES_MIN`, no room, or damaged in
   *   its layer, and then `read` gives what can be read
   */
  async fill(id: number): Promise<CachedContent | undefined> {
    const layout = this.#layouts.of(id);
    const { cacheDigest, sizeBytes } = layout;
    if (cacheDigest === undefined) return undefined;
    const found = this.#cache.open(cacheDigest, sizeBytes) ?? (await this.#checkCopy(id, cacheDigest, sizeBytes));
    if (found !== undefined) return found;
    await (this.#fills.get(cacheDigest) ?? this.#fillFor(id, layout))?.complete();
    return this.#cache.open(cacheDigest, sizeBytes);
  }

  /** Waits until part of a file can be read without a registry. @throws BentoError as `RemoteReader.bring` */
  async bring(id: number, offset: number, length: number): Promise<void> {
    const chunks = chunksIn(this.#layouts.of(id), offset, length);
    await Promise.all(chunks.map(async (chunk) => await this.#bringHere(id, chunk)));
  }

  /** Gives up what is being copied. Reads that are under way end as they would. */
  close(): void {
    clearInterval(this.#sweeper);
    for (const fill of this.#fills.values()) fill.stop();
    this.#inflated.clear();
  }

  // From the cache

  async #readCopy(id: number, layout: FileLayout, offset: number, length: number): Promise<Buffer | undefined> {
    const { cacheDigest, sizeBytes } = layout;
    if (cacheDigest === undefined) return undefined;
    using content = this.#cache.open(cacheDigest, sizeBytes);
    if (content !== undefined) this.#announce(id, cacheDigest);
    return await content?.read(offset, length);
  }

  async #checkCopy(id: number, digest: Digest, sizeBytes: number): Promise<CachedContent | undefined> {
    if (!this.#cache.has(digest)) return undefined;
    let check = this.#checks.get(digest);
    if (check === undefined) {
      check = this.#runCheck(id, digest, sizeBytes).finally(() => this.#checks.delete(digest));
      this.#checks.set(digest, check);
    }
    await check;
    return this.#cache.open(digest, sizeBytes);
  }

  async #runCheck(id: number, digest: Digest, sizeBytes: number): Promise<void> {
    const found = await this.#cache.openVerified(digest, sizeBytes);
    if (found === 'damaged') {
      const what = `${this.#cache.path(digest)} does not hold ${digest}: removed`;
      this.#options.onNote(`content cache: ${what}; ${this.#nameOf(id)} is read from its layer`);
    } else if (found !== undefined) {
      found.close();
      this.#announce(id, digest);
    }
  }

  #announce(id: number, digest: Digest): void {
    if (this.#announced.has(id)) return;
    this.#announced.add(id);
    this.#options.onFilled(id, digest);
  }

  /** For a line of the log, which must not fail. */
  #nameOf(id: number): string {
    try {
      return pathOf(this.#entries, id);
    } catch {
      return `entry ${id}`;
    }
  }

  // Into the cache

  /** The copy that a read of this file goes into, begun if need be. */
  #fillFor(id: number, { cacheDigest: digest, sizeBytes, chunks }: FileLayout): LargeFill | undefined {
    if (digest === undefined || this.#isRefused(digest) || this.#isRemote(id)) return undefined;
    const known = this.#fills.get(digest);
    if (known !== undefined) return known.file.id === id ? known : undefined; // another layer may cut it otherwise
    if (this.#cache.has(digest)) {
      this.#checkCopy(id, digest, sizeBytes).then(
        (content) => content?.close(),
        (error: unknown) => this.#options.onNote(`content cache: ${this.#nameOf(id)}: ${String(error)}`),
      );
      return undefined;
    }
    return this.#hasRoomForFill() ? this.#startFill({ id, digest, sizeBytes, chunks }) : undefined;
  }

  #startFill(file: FileToFill): LargeFill {
    const fill = new LargeFill(file, {
      cache: this.#cache,
      bring: async (to, chunk, priority) => await this.#bring(to, chunk, priority),
      onEnd: (ended, outcome) => this.#noteEnd(ended, outcome),
    });
    this.#fills.set(file.digest, fill);
    this.#sweeper ??= setInterval(() => this.#sweep(), this.#idleMs / 2).unref();
    return fill;
  }

  get #idleMs(): number {
    return this.#options.fillIdleMs ?? FILL_IDLE_MS;
  }

  #isRefused(digest: Digest): boolean {
    const until = this.#refused.get(digest) ?? 0;
    if (Date.now() < until) return true;
    this.#refused.delete(digest);
    return false;
  }

  #noteEnd({ file }: LargeFill, outcome: FillOutcome): void {
    const { id, digest } = file;
    this.#fills.delete(digest);
    if (outcome.kind === 'kept') {
      this.#announced.delete(id);
      this.#announce(id, digest);
    } else if (outcome.kind !== 'stopped') {
      this.#refused.set(digest, Date.now() + RETRY_MS[outcome.kind]);
    }
    if (outcome.kind !== 'failed') return;
    this.#options.onNote(`content cache: ${this.#nameOf(id)} cannot be kept: ${outcome.error.message}`);
  }

  /** Room among those under way: whoever was not read on for longest gives way. */
  #hasRoomForFill(): boolean {
    if (this.#fills.size < FILL_COUNT_MAX) return true;
    const [idlest] = [...this.#fills.values()]
      .filter(({ isCompleting }) => !isCompleting)
      .sort((a, b) => a.lastUsedMs - b.lastUsedMs);
    idlest?.stop();
    return idlest !== undefined;
  }

  #sweep(): void {
    const idleSince = Date.now() - this.#idleMs;
    for (const fill of this.#fills.values()) if (!fill.isCompleting && fill.lastUsedMs < idleSince) fill.stop();
  }

  // From the layer

  /** For a reader: what is at hand, what somebody is inflating already, or inflated in its turn and then copied. */
  async #chunk(id: number, chunk: Chunk, fill: LargeFill | undefined): Promise<Buffer> {
    const key = keyOf(id, chunk);
    const kept = this.#inflated.get(key) ?? this.#underWay.get(key);
    if (kept !== undefined) return await kept;
    return await this.#share(key, async () => {
      await this.#bringHere(id, chunk); // not in its turn: a network that is down must not hold up what is here
      const leave = await this.#queue.enter(this.#weigh(id, chunk), 'reader');
      try {
        const bytes = (await fill?.copied(chunk)) ?? (await this.#inflate(id, chunk));
        this.#inflated.add(key, bytes);
        void fill?.take(chunk, bytes).finally(leave); // its memory is in use until it is written
        if (fill === undefined) leave();
        return bytes;
      } catch (error) {
        leave();
        throw error;
      }
    });
  }

  /** For the copy, which keeps nothing in memory. While it has its turn it waits for nobody: turns are limited. */
  async #bring(fill: LargeFill, chunk: Chunk, priority: Priority): Promise<void> {
    const { id } = fill.file;
    const key = keyOf(id, chunk);
    const known = this.#inflated.get(key) ?? this.#underWay.get(key);
    if (known !== undefined) {
      await fill.take(chunk, await known);
      return;
    }
    const leave = await this.#queue.enter(this.#weigh(id, chunk), priority);
    try {
      if (fill.isOver || fill.holds(chunk)) return;
      const inflate = async (): Promise<Buffer> => await this.#inflate(id, chunk);
      await fill.take(chunk, await (this.#underWay.has(key) ? inflate() : this.#share(key, inflate)));
    } finally {
      leave();
    }
  }

  /** @param make - started once for all who ask until it is done */
  async #share(key: string, make: () => Promise<Buffer>): Promise<Buffer> {
    const made = make();
    this.#underWay.set(key, made);
    try {
      return await made;
    } finally {
      this.#underWay.delete(key);
    }
  }

  #weigh(id: number, chunk: Chunk): number {
    const { packing } = layerFile(this.#store, this.#entries, numberOf(id));
    return packing === 'resumed' ? resumedWeight(chunk) : storedBytes(chunk, packing) + endOf(chunk);
  }

  async #inflate(id: number, chunk: Chunk): Promise<Buffer> {
    const file = layerFile(this.#store, this.#entries, numberOf(id));
    try {
      if (file.packing === 'resumed') return await this.#inflateResumed(file, chunk);
      const { packing } = file;
      return await inflateChunk(file, chunk, packing).catch(async (error: unknown) => {
        if (!(error instanceof BentoError) || this.#options.remote === undefined) throw error;
        const again = async (): Promise<Buffer> => await inflateChunk(file, chunk, packing);
        return await this.#options.remote.retry(file, chunk, error, again);
      });
    } catch (error) {
      if (!(error instanceof BentoError)) throw error;
      this.#layouts.forget(id);
      throw damagedLayer(file.digest, chunk.blobOffset, error, pathOf(this.#entries, id));
    }
  }

  async #inflateResumed(file: LayerFile, chunk: Chunk): Promise<Buffer> {
    const layer = openLayer(file);
    try {
      return await this.#resumed.readAsync(this.#store, layer, chunk);
    } finally {
      layer.blob.close();
    }
  }

  async #bringHere(id: number, chunk: Chunk): Promise<void> {
    await this.#options.remote?.bring(layerFile(this.#store, this.#entries, numberOf(id)), chunk);
  }

  /** A file whose layer is partly in a registry is not copied: that would fetch all of it. */
  #isRemote(id: number): boolean {
    const { storeRoot, digest } = layerFile(this.#store, this.#entries, numberOf(id));
    return isPartlyHere(storeRoot, digest);
  }
}

async function inflateChunk(file: LayerFile, chunk: Chunk, packing: ChunkPacking): Promise<Buffer> {
  const layer = openLayer(file);
  try {
    const bytes = await readChunk(readerOf(layer), chunk, packing);
    noteGarbage(chunk.blobBytes + bytes.length);
    return bytes;
  } finally {
    layer.blob.close();
  }
}

function keyOf(id: number, { fileOffset }: Chunk): string {
  return `${id}:${fileOffset}`;
}

/** What of a chunk lies in a range of the file. */
function partOf(bytes: Buffer, { fileOffset }: Chunk, offset: number, length: number): Buffer {
  return bytes.subarray(Math.max(offset - fileOffset, 0), Math.max(offset + length - fileOffset, 0));
}

/** Reads that end early are noticed by whoever checks the digest. */
function readerOf({ blob }: OpenLayer): BlobReader {
  return {
    sizeBytes: blob.sizeBytes,
    readAt: async (offset, length) => {
      const bytes = Buffer.allocUnsafe(length);
      return bytes.subarray(0, await readBlob(blob, offset, bytes));
    },
  };
}
