import { setMaxListeners } from 'node:events';

import { BentoError } from '../errors.ts';

/** One signal for all that may end an operation: whoever asked, the client, and time. Dispose of it at the end. */
export class Cancel {
  readonly #controller = new AbortController();
  readonly #undo: (() => void)[] = [];

  /**
   * @param deadlineMs - `performance.now()` milliseconds
   * @param what - for the error, as in "reading ghcr.io/me/ws"
   */
  constructor(sources: readonly (AbortSignal | undefined)[], deadlineMs: number | undefined, what: string) {
    setMaxListeners(0, this.#controller.signal);
    for (const source of sources) if (source !== undefined) this.#follow(source);
    if (deadlineMs !== undefined) this.#endAt(deadlineMs, what);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  #follow(source: AbortSignal): void {
    const end = (): void => this.#controller.abort(source.reason);
    if (source.aborted) return end();
    setMaxListeners(0, source); // an operation has one each, and there may be many
    source.addEventListener('abort', end, { once: true });
    this.#undo.push(() => source.removeEventListener('abort', end));
  }

  #endAt(deadlineMs: number, what: string): void {
    const late = new BentoError('REMOTE_UNREACHABLE', `no answer in time while ${what}`, {
      hint: 'check the network, and try again',
    });
    const leftMs = Math.min(Math.max(0, deadlineMs - performance.now()), 2 ** 31 - 1);
    const timer = setTimeout(() => this.#controller.abort(late), leftMs);
    this.#undo.push(() => clearTimeout(timer));
  }

  [Symbol.dispose](): void {
    for (const undo of this.#undo.splice(0)) undo();
  }
}
