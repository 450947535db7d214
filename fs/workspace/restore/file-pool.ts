import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';

import { unpackError } from '../../../store/thread-error.ts';
import type { LayerFile } from '../../contents/content-reader.ts';
import { FileWriter } from './file-writer.ts';
import type { FileBatch, FileJob, Refusal, WriteContext } from './file-job.ts';
import type { WriteAnswer } from './write-worker.ts';

const WORKER_COUNT_MAX = 4;
/** Files and compressed bytes of one batch: some milliseconds of work. */
const BATCH_FILES_MAX = 96;
const BATCH_BYTES_MAX = 1 << 20;
/** Starting a thread takes 20 to 30 ms: so many batches must be waiting before it pays. */
const WAITING_BATCHES_MIN = 6;
/** What a thread has before it, so that it need not wait for the next batch. */
const BATCHES_PER_WORKER = 3;
/** Past this many, whoever adds files waits: memory does not grow with the checkpoint. */
const WAITING_BATCHES_MAX = 64;

interface Hand {
  worker: Worker;
  batchCount: number;
}

/**
 * Writes files, on several threads when there are many of them. Files of one layer that are added one after the other go
 * to one thread together.
 */
export class FilePool {
  readonly refused: Refusal[] = [];
  readonly #context: WriteContext;
  readonly #open = new Map<string, FileBatch & { bytes: number }>();
  readonly #waiting: FileBatch[] = [];
  readonly #hands: Hand[] = [];
  #failed: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(context: WriteContext) {
    this.#context = context;
  }

  /** Never blocks; see `room`. */
  add(layer: LayerFile, job: FileJob): void {
    const batch = this.#open.get(layer.path) ?? { layer, jobs: [], bytes: 0 };
    const previous = batch.jobs.at(-1)?.chunks.at(-1)?.blobOffset;
    const [first] = job.chunks;
    const isFull = batch.jobs.length >= BATCH_FILES_MAX || batch.bytes >= BATCH_BYTES_MAX;
    if (isFull && first?.blobOffset !== previous) {
      this.#queue(batch);
      this.#open.set(layer.path, { layer, jobs: [job], bytes: bytesOf(job, undefined) });
      return;
    }
    batch.jobs.push(job);
    batch.bytes += bytesOf(job, previous);
    this.#open.set(layer.path, batch);
  }

  /** Waits until there is room for more. @throws what a thread failed with */
  async room(): Promise<void> {
    if (this.#waiting.length >= WAITING_BATCHES_MIN) this.#start();
    this.#dispatch();
    do await this.#nextAnswer(this.#waiting.length >= WAITING_BATCHES_MAX);
    while (this.#waiting.length >= WAITING_BATCHES_MAX);
  }

  /** Waits until every file is written. @throws what a thread failed with */
  async finish(): Promise<void> {
    for (const batch of this.#open.values()) this.#queue(batch);
    this.#open.clear();
    if (this.#waiting.length >= WAITING_BATCHES_MIN) this.#start();
    if (this.#hands.length === 0) this.#writeHere();
    this.#dispatch();
    while (this.#isBusy()) await this.#nextAnswer(true);
  }

  /** Ends the threads, whatever they are doing. May be called twice. */
  async close(): Promise<void> {
    await Promise.all(this.#hands.splice(0).map(async ({ worker }) => await worker.terminate()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #queue({ layer, jobs }: FileBatch): void {
    this.#waiting.push({ layer, jobs });
  }

  #isBusy(): boolean {
    return this.#waiting.length > 0 || this.#hands.some(({ batchCount }) => batchCount > 0);
  }

  #writeHere(): void {
    const writer = new FileWriter(this.#context);
    try {
      for (const batch of this.#waiting.splice(0)) this.refused.push(...writer.write(batch));
    } finally {
      writer.close();
    }
  }

  #start(): void {
    const count = Math.min(WORKER_COUNT_MAX, availableParallelism());
    while (this.#hands.length < count) {
      const worker = new Worker(new URL('./write-worker.js', import.meta.url), { workerData: this.#context });
      const hand = { worker, batchCount: 0 };
      worker.on('message', (answer: WriteAnswer) => {
        this.#take(hand, answer);
      });
      worker.on('error', (error) => {
        this.#fail(error);
      });
      this.#hands.push(hand);
    }
  }

  #dispatch(): void {
    for (let depth = 1; depth <= BATCHES_PER_WORKER; depth += 1) {
      for (const hand of this.#hands) {
        const batch = hand.batchCount < depth ? this.#waiting.shift() : undefined;
        if (batch === undefined) continue;
        hand.batchCount += 1;
        hand.worker.postMessage(batch);
      }
    }
  }

  #take(hand: Hand, { refused, failed }: WriteAnswer): void {
    hand.batchCount -= 1;
    this.refused.push(...refused);
    if (failed !== undefined) this.#fail(unpackError(failed));
    this.#dispatch();
    this.#wake?.();
  }

  #fail(error: Error): void {
    this.#failed ??= error;
    this.#waiting.length = 0;
    this.#wake?.();
  }

  /** @param mustWait - otherwise only what has arrived already is taken */
  async #nextAnswer(mustWait: boolean): Promise<void> {
    if (this.#failed === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = mustWait ? resolve : undefined;
        if (!mustWait) setImmediate(resolve);
      });
      this.#wake = undefined;
    }
    if (this.#failed !== undefined) throw this.#failed;
  }
}

/** A member that several files lie in is read once. */
function bytesOf({ chunks }: FileJob, previousOffset: number | undefined): number {
  return chunks.reduce((sum, chunk) => sum + (chunk.blobOffset === previousOffset ? 0 : chunk.blobBytes), 0);
}
