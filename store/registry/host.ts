import { failure, TRY_AGAIN } from './answers.ts';
import type { Authorizer } from './auth.ts';
import { Cancel } from './cancel.ts';
import { discard, type Exchange, type HttpAnswer, type HttpRequest } from './exchange.ts';
import type { TimeLimits } from './limits.ts';
import type { ReadOptions } from './repository.ts';
import { Retries, withRetries, type RetryOptions } from './retry.ts';

/** One request to a registry: who asks, and when to give up, comes from its host. */
export interface HostRequest extends Omit<HttpRequest, 'signal' | 'authorization'> {
  /** What a token has to allow, as in `repository:me/ws:pull`. */
  scopes: readonly string[];
}

export interface HostOptions {
  exchange: Exchange;
  authorizer: Authorizer;
  origin: URL;
  limits: TimeLimits;
  onRetry: ((note: string) => void) | undefined;
  /** What ends all of the client's operations. */
  ends: readonly AbortSignal[];
}

/** A registry as one repository sees it: requests with the right `Authorization`, tried again where that may help. */
export class Host {
  readonly #options: HostOptions;

  constructor(options: HostOptions) {
    this.#options = options;
  }

  get origin(): URL {
    return this.#options.origin;
  }

  /** Whether the registry ever wanted to know who asks. */
  get hasAnswered401(): boolean {
    return this.#options.authorizer.wasChallenged;
  }

  get limits(): TimeLimits {
    return this.#options.limits;
  }

  /** What ends an operation; dispose of it. @param wholeMs - time for all of it; undefined for none */
  cancel(options: ReadOptions | undefined, what: string, wholeMs: number | undefined): Cancel {
    const ends = [options?.deadlineMs, wholeMs === undefined ? undefined : performance.now() + wholeMs];
    const deadlineMs = Math.min(...ends.map((endMs) => endMs ?? Infinity));
    return new Cancel([...this.#options.ends, options?.signal], deadlineMs === Infinity ? undefined : deadlineMs, what);
  }

  retries(signal: AbortSignal): Retries {
    return new Retries(this.#retryOptions(signal));
  }

  /**
   * Sends a request, as often as that may help, and reads the answer as part of it.
   *
   * @param what - for errors, as in "reading the tags of ghcr.io/me/ws"
   */
  async ask<T>(
    request: HostRequest,
    {
      options,
      what,
      wholeMs = this.limits.wholeMs,
    }: { options?: ReadOptions | undefined; what: string; wholeMs?: number },
    read: (answer: HttpAnswer) => Promise<T> | T,
  ): Promise<T> {
    using cancel = this.cancel(options, what, undefined);
    return await withRetries(this.#retryOptions(cancel.signal), async () => {
      using attempt = this.cancel({ signal: cancel.signal }, what, wholeMs);
      const answer = await this.once(request, what, attempt.signal);
      try {
        return await read(answer);
      } catch (error) {
        throw attempt.signal.aborted ? attempt.signal.reason : error;
      } finally {
        discard(answer);
      }
    });
  }

  /**
   * One request, two when the first was answered 401.
   *
   * @throws Transient for answers that may be others the next time; BentoError REMOTE_DENIED
   */
  async once(request: HostRequest, what: string, signal: AbortSignal): Promise<HttpAnswer> {
    const { exchange, authorizer, origin } = this.#options;
    const isOurs = request.url.origin === origin.origin;
    const authorization = isOurs ? await authorizer.known(request.scopes, signal) : undefined;
    const answer = await exchange.send({ ...request, authorization, signal });
    if (answer.status !== 401 || answer.url.origin !== origin.origin) return await settled(answer, what);
    const better = await authorizer.renew(answer.headers['www-authenticate'], authorization, request.scopes, signal);
    if (better === undefined) throw await failure(answer, what);
    discard(answer);
    const second = await exchange.send({ ...request, authorization: better, signal });
    if (second.status === 401 && second.url.origin === origin.origin) throw await failure(second, what);
    return await settled(second, what);
  }

  #retryOptions(signal: AbortSignal): RetryOptions {
    const { limits, onRetry } = this.#options;
    return { limits, onRetry, signal };
  }
}

async function settled(answer: HttpAnswer, what: string): Promise<HttpAnswer> {
  if (TRY_AGAIN.includes(answer.status)) throw await failure(answer, what);
  return answer;
}
