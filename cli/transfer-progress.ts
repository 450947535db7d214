import { shortDigest, type Digest } from '../store/digest.ts';
import type { PullEvent } from '../store/transfer/pull.ts';
import type { Context } from './command.ts';
import { formatSize } from './terminal.ts';

/** The rate is shown once this much time has passed. */
const RATE_MS_MIN = 500;

/** Blobs on their way, several at a time, as one line: bytes, rate and time left. */
export class TransferProgress {
  readonly #ctx: Pick<Context, 'progress'>;
  readonly #label: string;
  readonly #startMs: number;
  readonly #done = new Map<Digest, number>();
  /** What each blob had at the beginning, from an earlier run: not of this one's making. */
  readonly #startedAt = new Map<Digest, number>();
  #total = 0;

  constructor(ctx: Pick<Context, 'progress'>, label: string, nowMs = performance.now()) {
    this.#ctx = ctx;
    this.#label = label;
    this.#startMs = nowMs;
  }

  /** So much is to be moved, besides what was said before. */
  plan(sizeBytes: number): void {
    this.#total += sizeBytes;
  }

  /** A blob that need not be sent. */
  leaveOut(sizeBytes: number): void {
    this.#total -= sizeBytes;
    this.#show(performance.now());
  }

  advance(digest: Digest, doneBytes: number, nowMs = performance.now()): void {
    if (!this.#startedAt.has(digest)) this.#startedAt.set(digest, doneBytes);
    this.#done.set(digest, doneBytes);
    this.#show(nowMs);
  }

  #show(nowMs: number): void {
    const done = sum(this.#done.values());
    const passedMs = nowMs - this.#startMs;
    const perSec = ((done - sum(this.#startedAt.values())) * 1000) / passedMs;
    const remark = passedMs < RATE_MS_MIN || perSec < 0 ? undefined : `${formatSize(Math.round(perSec))}/s`;
    const label = this.#label;
    this.#ctx.progress({ label, done, total: this.#total, unit: 'bytes', ...(remark !== undefined && { remark }) });
  }
}

/** Shows how far a pull is, and which image was taken from a list of them. */
export function showPull(event: PullEvent, progress: TransferProgress, ctx: Pick<Context, 'note'>): void {
  if (event.kind === 'planned') progress.plan(event.sizeBytes);
  else if (event.kind === 'blob') progress.advance(event.digest, event.doneBytes);
  else ctx.note(`note: ${shortDigest(event.index)} is a list of images: ${event.platform} is ${event.digest}`);
}

function sum(numbers: Iterable<number>): number {
  let all = 0;
  for (const one of numbers) all += one;
  return all;
}
