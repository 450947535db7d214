import { setTimeout as sleep } from 'node:timers/promises';

import type { BentoError } from '../errors.ts';
import type { TimeLimits } from './limits.ts';

/** Something failed that may work the next time; it never leaves store/registry/, `error` does. */
export class Transient extends Error {
  readonly error: BentoError;
  /** What `Retry-After` asked for. */
  readonly waitMs: number | undefined;
  /** How long to go on trying at least, from the first failure on. */
  readonly patienceMs: number;

  constructor(
    error: BentoError,
    { waitMs, patienceMs = 0 }: { waitMs?: number | undefined; patienceMs?: number } = {},
  ) {
    super(error.message, { cause: error });
    this.error = error;
    this.waitMs = waitMs;
    this.patienceMs = patienceMs;
  }
}

export interface RetryOptions {
  limits: TimeLimits;
  signal: AbortSignal;
  onRetry: ((note: string) => void) | undefined;
}

/** Counts what fails, and waits before it is tried again: exponentially, with jitter, and as `Retry-After` says. */
export class Retries {
  readonly #options: RetryOptions;
  #failureCount = 0;
  #sinceMs = 0;

  constructor(options: RetryOptions) {
    this.#options = options;
  }

  /** Something got further: what failed before does not count any more. */
  progressed(): void {
    this.#failureCount = 0;
  }

  /** Waits after a failure. @throws the error itself when it is no `Transient`; its BentoError when it was the last try */
  async failed(error: unknown): Promise<void> {
    if (!(error instanceof Transient)) throw error;
    const { limits, signal, onRetry } = this.#options;
    if (this.#failureCount === 0) this.#sinceMs = performance.now();
    this.#failureCount++;
    const isPatient = performance.now() - this.#sinceMs < error.patienceMs;
    if (this.#failureCount >= limits.tryCountMax && !isPatient) throw error.error;
    const waitMs = pauseOf(this.#failureCount, error.waitMs, limits);
    onRetry?.(`${error.error.message}; trying again in ${Math.ceil(waitMs / 1000)} s`);
    try {
      await sleep(waitMs, undefined, { signal });
    } catch {
      throw signal.reason;
    }
  }
}

function pauseOf(failureCount: number, askedMs: number | undefined, limits: TimeLimits): number {
  const fullMs = Math.min(limits.pauseMs * 2 ** (failureCount - 1), limits.pauseMaxMs);
  const pauseMs = fullMs / 2 + (Math.random() * fullMs) / 2; // many clients that failed together must not come back together
  return askedMs === undefined ? pauseMs : Math.max(Math.min(askedMs, limits.retryAfterMaxMs), pauseMs);
}

/** Calls `attempt` until it gives something, fails for good, or has failed too often. */
export async function withRetries<T>(options: RetryOptions, attempt: () => Promise<T>): Promise<T> {
  const retries = new Retries(options);
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      await retries.failed(error);
    }
  }
}

/** Milliseconds that a `Retry-After` header asks for: seconds, or a date. */
export function parseRetryAfter(header: string | undefined, nowMs = Date.now()): number | undefined {
  if (header === undefined) return undefined;
  if (/^\s*\d{1,9}\s*$/.test(header)) return Number(header) * 1000;
  const atMs = Date.parse(header);
  return Number.isNaN(atMs) ? undefined : Math.max(0, atMs - nowMs);
}
