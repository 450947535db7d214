import { fstatSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { BentoError } from '../errors.ts';
import { LAZY_BLOCK_BYTES, type ByteSpan, type LazyFile } from '../lazy-file.ts';
import type { RangeOptions, Repository } from '../registry/repository.ts';
import { piecesOf, planRequests, ReadAhead } from './request-plan.ts';

/** Whoever catches up with what is fetched ahead waits for a piece of it as a whole. */
const AHEAD_PIECE_BYTES = 256 << 10;
/** Before a registry that nobody reaches is asked again. */
const PAUSE_MS = 500;

export interface WaitOptions {
  /** Stops waiting, with its reason; what is under way goes on, for others and for the next time. */
  signal?: AbortSignal | undefined;
  /** So long a registry that cannot be reached is asked again, in milliseconds; default: as long as the client does. */
  patienceMs?: number;
}

/**
 * One blob while its bytes are fetched: what several want at the same time is asked for once, neighbours together. Registries
 * that know no ranges send the whole blob, which is then taken as it comes.
 */
export class BlobFetch {
  readonly file: LazyFile;
  readonly #repositories: readonly Repository[];
  readonly #readAhead = new ReadAhead();
  readonly #end = new AbortController();
  /** Block -> the request that brings it. */
  readonly #underWay = new Map<number, Promise<void>>();
  #wanted: ByteSpan[] = [];
  #asking: Promise<void> | undefined;
  #whole: Promise<void> | undefined;
  #onProgress: (() => void)[] = [];
  /** How many wait for bytes now. */
  waitingCount = 0;

  /** @param repositories - those that have the blob, tried in this order */
  constructor(file: LazyFile, repositories: readonly Repository[]) {
    this.file = file;
    this.#repositories = repositories;
  }

  /** Whether the blob was made whole, or thrown away: nothing is to be fetched into this file any more. */
  get isOver(): boolean {
    return fstatSync(this.file.mapFd).nlink === 0;
  }

  /**
   * Waits until bytes are here, and fetches what is likely to be read next.
   *
   * @throws BentoError as `Repository.readRange`, and NO_SPACE; the signal's reason
   */
  async ensure(span: ByteSpan, options: WaitOptions = {}): Promise<void> {
    this.waitingCount += 1;
    try {
      await this.#until(span, options, (missing) => this.#wantWithMore(missing));
    } finally {
      this.waitingCount -= 1;
    }
  }

  /**
   * The same for exactly these bytes, as one request, for whoever fetches everything anyway.
   *
   * @param options.onBytes - as `Repository.readRange`, if nothing of them was here or on its way
   */
  async bring(span: ByteSpan, options: WaitOptions & Pick<RangeOptions, 'onBytes'> = {}): Promise<void> {
    await this.#until(span, options, ([first, ...rest]) => {
      if (first === undefined) return;
      const whole = { offset: first.offset, end: rest.at(-1)?.end ?? first.end };
      if (this.#requestsFor([whole]).length === 0) this.#start(whole, options);
    });
  }

  /** Fetches bytes anew that were not what their digest says. @throws BentoError as `ensure` */
  async again(span: ByteSpan, options: WaitOptions = {}): Promise<void> {
    await Promise.allSettled(this.#requestsFor([span])); // what is under way would mark them again
    this.file.forget(span.offset, span.end);
    await this.ensure(span, options);
  }

  close(): void {
    this.#end.abort(new DOMException('the blob is not fetched any more', 'AbortError'));
    void Promise.allSettled(this.#underWay.values()).then(() => this.file.close());
  }

  async #until(
    span: ByteSpan,
    { signal, patienceMs = 0 }: WaitOptions,
    ask: (missing: readonly ByteSpan[]) => Promise<void> | void,
  ): Promise<void> {
    const untilMs = performance.now() + patienceMs;
    for (let isFirst = true; ; isFirst = false) {
      const missing = this.file.missing(span.offset, span.end);
      if (missing.length === 0 || this.isOver) return;
      if (!isFirst && this.#requestsFor(missing).length === 0) await sleep(1); // what came was not taken: the file is locked
      try {
        await ask(missing);
        await this.#settled(missing, signal);
      } catch (error) {
        const isDown = error instanceof BentoError && error.code === 'REMOTE_UNREACHABLE';
        if (!isDown || performance.now() >= untilMs) throw error;
        await sleep(PAUSE_MS, undefined, signal && { signal });
      }
    }
  }

  /** Until the requests for these spans are answered, or a download of the whole got further. */
  async #settled(spans: readonly ByteSpan[], signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    const answered = Promise.all(this.#requestsFor(spans));
    const isDone = answered.then(() => undefined);
    isDone.catch(() => undefined); // may come after we stopped waiting
    const others: Promise<void>[] = [];
    if (this.#whole !== undefined) others.push(new Promise((resolve) => this.#onProgress.push(resolve)));
    if (signal !== undefined) others.push(aborted(signal));
    await Promise.race([isDone, ...others]);
  }

  #requestsFor(spans: readonly ByteSpan[]): Promise<void>[] {
    const requests = new Set<Promise<void>>();
    for (const block of blocksOf(spans)) {
      const request = this.#underWay.get(block);
      if (request !== undefined) requests.add(request);
    }
    return [...requests];
  }

  async #wantWithMore(missing: readonly ByteSpan[]): Promise<void> {
    const last = missing.at(-1);
    if (last === undefined) return;
    const { now, ahead } = this.#readAhead.next({ offset: missing[0]?.offset ?? 0, end: last.end });
    await this.#want([...missing, { offset: last.offset, end: now.end }]);
    if (ahead !== undefined) void this.#fetchAhead(ahead, this.#requestsFor([now]));
  }

  /**
   * Fetches what nobody waits for yet, piece by piece once what somebody waits for is here: beside it, it would take half of
   * the line. What fails is tried again, and told, when it is read.
   */
  async #fetchAhead(span: ByteSpan, before: readonly Promise<void>[]): Promise<void> {
    await Promise.allSettled(before);
    const pieces = piecesOf(span, AHEAD_PIECE_BYTES)[Symbol.iterator]();
    const lane = async (): Promise<void> => {
      for (const piece of pieces) {
        if (this.#end.signal.aborted || this.isOver) return;
        await this.#want([piece]);
        await Promise.all(this.#requestsFor([piece]));
      }
    };
    await Promise.allSettled([lane(), lane()]);
  }

  /** Those who want something at the same moment are asked for together. */
  async #want(spans: readonly ByteSpan[]): Promise<void> {
    this.#wanted.push(...spans);
    this.#asking ??= new Promise((resolve) => {
      setImmediate(() => {
        this.#asking = undefined;
        const wanted = this.#wanted.splice(0).flatMap((span) => this.#notUnderWay(span));
        for (const request of planRequests(wanted)) this.#start(request);
        resolve();
      });
    });
    await this.#asking;
  }

  /** What of a span is neither here nor on its way. */
  #notUnderWay({ offset, end }: ByteSpan): ByteSpan[] {
    const { sizeBytes } = this.file;
    if (offset >= sizeBytes) return [];
    const missing = this.file.missing(offset, Math.min(end, sizeBytes));
    return blocksOf(missing)
      .filter((block) => !this.#underWay.has(block))
      .map((block) => block * LAZY_BLOCK_BYTES)
      .map((start) => ({ offset: start, end: Math.min(start + LAZY_BLOCK_BYTES, sizeBytes) }));
  }

  #start(span: ByteSpan, options?: Pick<RangeOptions, 'onBytes'>): void {
    const blocks = blocksOf([span]);
    const request = this.#fetch(span, options).finally(() => {
      for (const block of blocks) if (this.#underWay.get(block) === request) this.#underWay.delete(block);
    });
    request.catch(() => undefined); // told to those who wait for it
    for (const block of blocks) this.#underWay.set(block, request);
  }

  async #fetch({ offset, end }: ByteSpan, options?: Pick<RangeOptions, 'onBytes'>): Promise<void> {
    const { digest, sizeBytes } = this.file;
    const range = { offset, length: end - offset, sizeBytes };
    const readOptions = { signal: this.#end.signal, onBytes: options?.onBytes };
    await this.#fromAny(async (repository) => {
      const bytes = this.#whole ? 'ignored' : await repository.readRange(digest, range, readOptions);
      if (bytes !== 'ignored') this.file.write(offset, bytes);
      else await (this.#whole ??= this.#downloadWhole(repository).finally(() => (this.#whole = undefined)));
    });
  }

  /** A registry that does not have the blob any more is no reason not to ask the next. */
  async #fromAny(work: (repository: Repository) => Promise<void>): Promise<void> {
    let failure: unknown = new BentoError('BLOB_REMOTE', `nobody is known to have blob ${this.file.digest}`, {
      hint: 'open the checkpoint again from its registry',
    });
    for (const repository of this.#repositories) {
      try {
        await work(repository);
        return;
      } catch (error) {
        if (this.#end.signal.aborted) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  async #downloadWhole(repository: Repository): Promise<void> {
    const { digest, sizeBytes } = this.file;
    let offset = 0;
    let rest: Buffer = Buffer.alloc(0);
    try {
      for await (const piece of repository.streamBlob({ digest, sizeBytes }, { signal: this.#end.signal })) {
        const bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
        const isLast = offset + bytes.length === sizeBytes;
        const ready = isLast ? bytes.length : bytes.length - (bytes.length % LAZY_BLOCK_BYTES);
        if (ready > 0) this.file.write(offset, bytes.subarray(0, ready));
        offset += ready;
        rest = Buffer.from(bytes.subarray(ready));
        for (const resolve of this.#onProgress.splice(0)) resolve();
      }
    } catch (error) {
      if (error instanceof BentoError && error.code === 'REMOTE_INVALID') this.file.forget(0, sizeBytes);
      throw error;
    } finally {
      for (const resolve of this.#onProgress.splice(0)) resolve();
    }
  }
}

function blocksOf(spans: readonly ByteSpan[]): number[] {
  const blocks: number[] = [];
  for (const { offset, end } of spans) {
    for (let block = Math.floor(offset / LAZY_BLOCK_BYTES); block * LAZY_BLOCK_BYTES < end; block += 1)
      blocks.push(block);
  }
  return blocks;
}

/** Rejects with the signal's reason. */
async function aborted(signal: AbortSignal): Promise<void> {
  await new Promise((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });
}
