import { digestOf, type Digest } from '../../store/digest.ts';
import type { Chunk } from '../../store/entry.ts';
import { BentoError } from '../../store/errors.ts';
import type { ContentCache } from './content-cache.ts';
import type { PartialContent } from './partial-content.ts';
import type { Priority } from './work-queue.ts';

/** When so much of a file was read, the rest is brought, too: one part in so many. */
const ASKED_PART = 8;
/** Chunks of the rest under way at once; for somebody who waits, as many as there are threads to inflate them. */
const BACKGROUND_LANES = 2;
const READER_LANES = 4;

export interface FileToFill {
  /** Its entry in the index. */
  id: number;
  digest: Digest;
  sizeBytes: number;
  chunks: readonly Chunk[];
}

/** How a fill ended. `failed` with what was wrong with the layer, or with the whole; `no room` for whatever the disk said. */
export type FillOutcome = { kind: 'kept' | 'no room' | 'stopped' } | { kind: 'failed'; error: Error };

export interface FillOptions {
  cache: ContentCache;
  /** Reads a chunk in its turn and gives it to `take`. */
  bring: (fill: LargeFill, chunk: Chunk, priority: Priority) => Promise<void>;
  onEnd: (fill: LargeFill, outcome: FillOutcome) => void;
}

/**
 * The copy of one large file on its way into the cache. What readers inflate goes into it; once they have asked for a part of
 * the file that is worth it, the rest is brought in the background.
 */
export class LargeFill {
  readonly file: FileToFill;
  /** Resolves when what is taken is written, or when it is over already. */
  readonly begun: Promise<void>;
  #lastUsedMs = Date.now();
  readonly #options: FillOptions;
  #partial: PartialContent | undefined;
  #outcome: FillOutcome | undefined;
  readonly #asked = new Set<number>();
  #askedBytes = 0;
  readonly #ended: Promise<void>;
  #tellEnd: () => void = () => undefined;
  #isCompleting = false;
  #isCommitting = false;

  constructor(file: FileToFill, options: FillOptions) {
    this.file = file;
    this.#options = options;
    this.#ended = new Promise((resolve) => (this.#tellEnd = resolve));
    this.begun = this.#begin();
  }

  /** When somebody last asked for a part of the file. */
  get lastUsedMs(): number {
    return this.#lastUsedMs;
  }

  get isOver(): boolean {
    return this.#outcome !== undefined;
  }

  /** Whether it goes on by itself, without readers. */
  get isCompleting(): boolean {
    return this.#isCompleting;
  }

  /** Notes that somebody reads these chunks. */
  ask(chunks: readonly Chunk[]): void {
    this.#lastUsedMs = Date.now();
    for (const { fileOffset, sizeBytes } of chunks) {
      if (!this.#asked.has(fileOffset)) this.#askedBytes += sizeBytes;
      this.#asked.add(fileOffset);
    }
    const isWorthIt = this.#askedBytes >= this.file.sizeBytes / ASKED_PART;
    if (isWorthIt && !this.#isCompleting && !this.isOver) void this.#bringRest('background');
  }

  holds(chunk: Chunk): boolean {
    return this.#partial?.has(chunk.fileOffset) ?? false;
  }

  /** A chunk from the part that is there already: read back and verified. */
  async copied(chunk: Chunk): Promise<Buffer | undefined> {
    if (this.isOver || !this.holds(chunk)) return undefined;
    try {
      const bytes = await this.#partial?.read(chunk.fileOffset, chunk.sizeBytes);
      return bytes !== undefined && digestOf(bytes) === chunk.digest ? bytes : undefined;
    } catch {
      return undefined; // the layer has it
    }
  }

  /** Writes a verified chunk; with the last one, the copy is put in its place later. Never rejects: what goes wrong ends the fill. */
  async take(chunk: Chunk, bytes: Buffer): Promise<void> {
    const partial = this.#partial;
    if (partial === undefined || this.isOver) return;
    try {
      await partial.write(chunk.fileOffset, bytes);
    } catch {
      this.#end({ kind: 'no room' });
      return;
    }
    if (partial.isWhole) void this.#commit(partial);
  }

  /** Brings all that is missing now, before background work, and waits for the end, whatever that is. */
  async complete(): Promise<void> {
    await this.#bringRest('reader');
    await this.#ended;
  }

  stop(): void {
    this.#end({ kind: 'stopped' });
  }

  async #begin(): Promise<void> {
    const { digest, sizeBytes } = this.file;
    const partial = await this.#options.cache.begin(digest, sizeBytes).catch((error: unknown) => {
      this.#end({ kind: 'failed', error: asError(error) });
      return undefined;
    });
    if (partial === undefined) this.#end({ kind: 'no room' });
    else if (this.isOver) await partial.abort().catch(() => undefined);
    else this.#partial = partial;
  }

  /** Never rejects. */
  async #bringRest(priority: Priority): Promise<void> {
    this.#isCompleting = true;
    await this.begun;
    const { chunks } = this.file;
    let next = 0;
    const lane = async (): Promise<void> => {
      for (let chunk = chunks[next++]; chunk !== undefined && !this.isOver; chunk = chunks[next++]) {
        if (!this.holds(chunk)) await this.#options.bring(this, chunk, priority);
      }
    };
    const laneCount = priority === 'reader' ? READER_LANES : BACKGROUND_LANES;
    try {
      await Promise.all(Array.from({ length: laneCount }, lane));
    } catch (error) {
      this.#end({ kind: 'failed', error: asError(error) });
    }
  }

  /** Never rejects. */
  async #commit(partial: PartialContent): Promise<void> {
    if (this.#isCommitting) return;
    this.#isCommitting = true;
    try {
      const content = await partial.commit();
      content?.close();
      this.#end({ kind: content === undefined ? 'no room' : 'kept' });
    } catch (error) {
      this.#end(error instanceof BentoError ? { kind: 'failed', error } : { kind: 'no room' });
    }
  }

  #end(outcome: FillOutcome): void {
    if (this.#outcome !== undefined) return;
    this.#outcome = outcome;
    void this.#clear().then(() => {
      this.#options.onEnd(this, outcome);
      this.#tellEnd();
    });
  }

  /** Of what cannot be removed now, the next who makes room in the cache takes care. */
  async #clear(): Promise<void> {
    await this.#partial?.abort().catch(() => undefined);
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
