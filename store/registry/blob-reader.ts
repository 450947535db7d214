import { createHash } from 'node:crypto';

import type { Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { bodyOf, contentLength, expectStatus, readBody } from './answers.ts';
import { headerOf, type HttpAnswer } from './exchange.ts';
import type { Host, HostRequest } from './host.ts';
import { BYTES_PER_MS_MIN } from './limits.ts';
import type { RangeOptions, ReadOptions } from './repository.ts';
import { Transient } from './retry.ts';

const TARGET_COUNT_MAX = 1000;
/** What storage answers when an address that it signed has expired, or is not known any more. */
const EXPIRED = [400, 401, 403, 404, 410];

export interface BlobPlace {
  /** Of the repository, as the registry knows it. */
  path: string;
  /** For messages: `ghcr.io/me/ws`. */
  shown: string;
  scopes: readonly string[];
}

interface Range {
  offset: number;
  length: number;
  sizeBytes: number;
}

/** Reads blobs of one repository; it keeps where the registry redirected to. */
export class BlobReader {
  readonly #host: Host;
  readonly #place: BlobPlace;
  readonly #targets = new Map<Digest, URL>();

  constructor(host: Host, place: BlobPlace) {
    this.#host = host;
    this.#place = place;
  }

  /** As `Repository.blobSize`. */
  async size(digest: Digest, options?: ReadOptions): Promise<number | undefined> {
    const what = `looking for ${this.#named(digest)}`;
    return await this.#host.ask(this.#request('HEAD', digest), { options, what }, async (answer) => {
      if (answer.status === 404) return undefined;
      await expectStatus(answer, [200], what);
      const size = contentLength(answer);
      if (size === undefined) throw this.#invalid(digest, 'has no size');
      return size;
    });
  }

  /** As `Repository.readRange`. */
  async readRange(digest: Digest, range: Range, options?: RangeOptions): Promise<Buffer | 'ignored'> {
    const { offset, length, sizeBytes } = range;
    if (!(offset >= 0 && length >= 0 && offset + length <= sizeBytes))
      throw new RangeError(`${offset}+${length} is not within ${sizeBytes} bytes`);
    if (length === 0) return Buffer.alloc(0);
    const what = `reading ${this.#named(digest)}`;
    const wholeMs = this.#host.limits.wholeMs + length / BYTES_PER_MS_MIN;
    const asked = this.#retargeting(digest, async (target) => {
      const request = { ...this.#request('GET', digest, rangeHeader(offset, offset + length)), ...target };
      return await this.#host.ask(request, { options, what, wholeMs }, async (answer) => {
        if (target !== undefined && EXPIRED.includes(answer.status)) return 'expired';
        this.#remember(digest, answer);
        if (answer.status === 200) return (answer.body.destroy(), 'ignored' as const);
        await this.#checkRange(digest, answer, range, what);
        let at = offset;
        const bytes = await readBody(answer, length, `the range of ${this.#named(digest)}`, (piece) => {
          options?.onBytes?.(at, piece);
          at += piece.length;
        });
        if (bytes.length !== length) throw this.#invalid(digest, `gives ${bytes.length} bytes for ${length}`);
        return bytes;
      });
    });
    return await asked;
  }

  /** As `Repository.streamBlob`. */
  async *stream(
    { digest, sizeBytes }: { digest: Digest; sizeBytes: number },
    options?: ReadOptions & { offset?: number },
  ): AsyncGenerator<Buffer, void, undefined> {
    const what = `reading ${this.#named(digest)}`;
    const start = options?.offset ?? 0;
    if (!(start >= 0 && start <= sizeBytes)) throw new RangeError(`${start} is not within ${sizeBytes} bytes`);
    const hash = start === 0 ? createHash('sha256') : undefined;
    using cancel = this.#host.cancel(options, what, undefined);
    const retries = this.#host.retries(cancel.signal);
    let at = start;
    for (let isWhole = start > 0 && start === sizeBytes; !isWhole;) {
      try {
        for await (const chunk of this.#from(digest, { at, sizeBytes }, cancel.signal)) {
          at += chunk.length;
          hash?.update(chunk);
          retries.progressed();
          yield chunk;
        }
        isWhole = true;
      } catch (error) {
        if (cancel.signal.aborted) throw cancel.signal.reason;
        isWhole = at === sizeBytes && at > 0 && error instanceof Transient;
        if (!isWhole) await retries.failed(error);
      }
    }
    if (hash !== undefined && `sha256:${hash.digest('hex')}` !== digest) throw this.#invalid(digest, 'has other bytes');
  }

  /** One answer's bytes from `at` on: exactly those up to the end. */
  async *#from(
    digest: Digest,
    { at, sizeBytes }: { at: number; sizeBytes: number },
    signal: AbortSignal,
  ): AsyncGenerator<Buffer, void, undefined> {
    const answer = await this.#open(digest, at === 0 ? undefined : rangeHeader(at, sizeBytes), signal);
    let skipBytes = answer.status === 200 ? at : 0;
    let leftBytes = sizeBytes - at;
    try {
      await this.#checkStart(digest, answer, { at, sizeBytes });
      for await (const chunk of bodyOf(answer)) {
        const part = chunk.subarray(skipBytes);
        skipBytes -= chunk.length - part.length;
        leftBytes -= part.length;
        if (leftBytes < 0) throw this.#invalid(digest, `has more than ${sizeBytes} bytes`);
        if (part.length > 0) yield part;
      }
    } finally {
      answer.body.destroy();
    }
    if (leftBytes > 0) throw this.#invalid(digest, `has only ${sizeBytes - leftBytes} of ${sizeBytes} bytes`);
  }

  async #open(digest: Digest, headers: Record<string, string> | undefined, signal: AbortSignal): Promise<HttpAnswer> {
    const what = `reading ${this.#named(digest)}`;
    return await this.#retargeting(digest, async (target) => {
      const answer = await this.#host.once({ ...this.#request('GET', digest, headers), ...target }, what, signal);
      if (target !== undefined && EXPIRED.includes(answer.status)) return (answer.body.destroy(), 'expired');
      this.#remember(digest, answer);
      return answer;
    });
  }

  /** @throws BentoError REMOTE_INVALID when the bytes that follow cannot be the wanted ones */
  async #checkStart(digest: Digest, answer: HttpAnswer, range: { at: number; sizeBytes: number }): Promise<void> {
    const { at, sizeBytes } = range;
    const what = `reading ${this.#named(digest)}`;
    if (answer.status === 206 && at > 0) {
      await this.#checkRange(digest, answer, { offset: at, length: sizeBytes - at, sizeBytes }, what);
      return;
    }
    await expectStatus(answer, [200], what);
    const told = contentLength(answer);
    if (told !== undefined && told !== sizeBytes) throw this.#invalid(digest, `has ${told} bytes, not ${sizeBytes}`);
  }

  async #checkRange(digest: Digest, answer: HttpAnswer, range: Range, what: string): Promise<void> {
    if (answer.status === 416) throw this.#invalid(digest, 'has no such range');
    await expectStatus(answer, [206], what);
    const { offset, length, sizeBytes } = range;
    const told = headerOf(answer, 'content-range')?.trim();
    if (told !== `bytes ${offset}-${offset + length - 1}/${sizeBytes}`)
      throw this.#invalid(digest, `gives another range than ${offset}-${offset + length - 1}/${sizeBytes}`);
  }

  /** Asks where the registry redirected to the last time; when that does not do any more, the registry again. */
  async #retargeting<T>(
    digest: Digest,
    ask: (target: { url: URL } | undefined) => Promise<T | 'expired'>,
  ): Promise<Exclude<T, 'expired'>> {
    const target = this.#targets.get(digest);
    const first = await ask(target && { url: target });
    if (first !== 'expired') return first as Exclude<T, 'expired'>;
    this.#targets.delete(digest);
    return (await ask(undefined)) as Exclude<T, 'expired'>;
  }

  #remember(digest: Digest, { status, url }: HttpAnswer): void {
    if (url.origin === this.#host.origin.origin || (status !== 200 && status !== 206)) return;
    if (this.#targets.size >= TARGET_COUNT_MAX) this.#targets.clear();
    this.#targets.set(digest, url);
  }

  #request(method: 'GET' | 'HEAD', digest: Digest, headers?: Record<string, string>): HostRequest {
    const url = new URL(`/v2/${this.#place.path}/blobs/${digest}`, this.#host.origin);
    return { method, url, scopes: this.#place.scopes, ...(headers !== undefined && { headers }) };
  }

  #named(digest: Digest): string {
    return `${this.#place.shown}@${digest}`;
  }

  #invalid(digest: Digest, why: string): BentoError {
    return new BentoError('REMOTE_INVALID', `${this.#named(digest)} ${why}`, { hint: 'ask whoever runs the registry' });
  }
}

/** @param end - exclusive */
function rangeHeader(offset: number, end: number): Record<string, string> {
  return { range: `bytes=${offset}-${end - 1}` };
}
