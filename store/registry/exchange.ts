import type { IncomingHttpHeaders } from 'node:http';
import type { Dispatcher } from 'undici';

import { BentoError, errnoOf } from '../errors.ts';
import { programVersion } from '../version.ts';
import { CONNECTION_COUNT_MAX, REDIRECT_COUNT_MAX, type TimeLimits } from './limits.ts';
import { Ways, type Proxy } from './proxies.ts';
import { Transient } from './retry.ts';
import { undici } from './undici.ts';

/** Bytes of a request, made anew for every try. */
export interface HttpBody {
  sizeBytes: number;
  open(): AsyncIterable<Uint8Array>;
}

export interface HttpRequest {
  method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  url: URL;
  headers?: Record<string, string>;
  /** Only sent to the origin of `url`, wherever it redirects. */
  authorization?: string | undefined;
  body?: HttpBody | Buffer | undefined;
  signal: AbortSignal;
}

export interface HttpAnswer {
  status: number;
  headers: IncomingHttpHeaders;
  /** Who answered, after all redirects. */
  url: URL;
  /** Read it, or `discard` the answer. */
  body: Dispatcher.ResponseData['body'];
}

/** One header of an answer; of several the first. */
export function headerOf({ headers }: Pick<HttpAnswer, 'headers'>, name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value[0] : value;
}

/** Gives up the body of an answer: a short one is read to its end, so that the connection can be used again. */
export function discard({ body }: Pick<HttpAnswer, 'body'>): void {
  if (!body.closed && !body.destroyed) void body.dump({ limit: DUMP_BYTES_MAX }).catch(() => undefined);
}

const DUMP_BYTES_MAX = 16 << 10;
const REDIRECTS = [301, 302, 303, 307, 308];
const BROKEN_TLS =
  /^(?:CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|ERR_TLS_CERT|HOSTNAME_MISMATCH|INVALID_CA|EPROTO|ERR_SSL)/;
/** What undici says of a proxy that makes no connection and will not the next time. */
const PROXY_REFUSES = /^Proxy (?:response \(4|Authentication Required)/;
const BAD_ANSWER = /^(?:HPE_(?!INVALID_EOF)|UND_ERR_HEADERS_OVERFLOW|UND_ERR_RES_EXCEEDED)/;

/** Requests and answers over HTTP: connections, proxies, time limits and redirects. It knows nothing of registries. */
export class Exchange {
  readonly #limits: TimeLimits;
  readonly #ways: Ways;
  readonly #userAgent = `bento/${programVersion()}`;
  /** Origins that have answered: when one cannot be reached now, it is the network. */
  readonly #answered = new Set<string>();

  constructor(limits: TimeLimits) {
    this.#limits = limits;
    const { connectMs: connectTimeout, idleMs: bodyTimeout } = limits;
    const options = { connections: CONNECTION_COUNT_MAX, connectTimeout, bodyTimeout };
    this.#ways = new Ways(options, process.env);
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    await this.#ways.destroy();
  }

  /**
   * Sends a request, follows redirects by hand: never from HTTPS to anything else, and without `Authorization` once
   * the origin is another.
   *
   * @throws Transient when the connection failed; BentoError REMOTE_INVALID, REMOTE_UNREACHABLE; the signal's reason
   */
  async send(request: HttpRequest): Promise<HttpAnswer> {
    const { method } = request;
    let { url } = request;
    for (let count = 0; count <= REDIRECT_COUNT_MAX; count++) {
      const authorization = url.origin === request.url.origin ? request.authorization : undefined;
      const answer = await this.#one({ ...request, url, authorization });
      if (!REDIRECTS.includes(answer.status)) return answer;
      discard(answer);
      const keeps = answer.status === 307 || answer.status === 308 || method === 'GET' || method === 'HEAD';
      if (!keeps) throw invalid(url, `answers ${method} with a redirect of kind ${answer.status}`);
      url = redirectTarget(url, headerOf(answer, 'location'));
    }
    throw invalid(request.url, `redirects more than ${REDIRECT_COUNT_MAX} times`);
  }

  async #one({ method, url, headers, authorization, body, signal }: HttpRequest): Promise<HttpAnswer> {
    signal.throwIfAborted();
    const { dispatcher, proxy } = this.#ways.to(url);
    const upload =
      body === undefined || Buffer.isBuffer(body) ? undefined : new Upload(body, this.#limits.idleMs, signal);
    try {
      const answer = await undici.request(url, {
        method,
        headers: {
          'user-agent': this.#userAgent,
          'accept-encoding': 'identity',
          ...headers,
          ...upload?.headers,
          ...(authorization !== undefined && { authorization }),
        },
        body: (upload?.bytes() ?? body ?? null) as Buffer | null, // it takes what gives chunks, too
        dispatcher,
        signal: upload?.signal ?? signal,
        headersTimeout: upload === undefined ? this.#limits.headersMs : this.#limits.commitMs,
        bodyTimeout: this.#limits.idleMs,
      });
      answer.body.on('error', () => undefined); // whoever reads it is told, and a body that nobody reads must not end the process
      this.#answered.add(url.origin);
      return { status: answer.statusCode, headers: answer.headers, url, body: answer.body };
    } catch (error) {
      signal.throwIfAborted();
      const cause: unknown = upload?.signal.aborted === true ? upload.signal.reason : error;
      throw upload?.sourceError ?? this.#failed(url, cause, proxy);
    } finally {
      upload?.end();
    }
  }

  #failed(url: URL, cause: unknown, proxy: Proxy | undefined): Error {
    const error = connectionError(url, cause, proxy);
    if (!(error instanceof Transient) || !this.#answered.has(url.origin)) return error;
    return new Transient(error.error, { waitMs: error.waitMs, patienceMs: this.#limits.outageMs });
  }
}

/** A body on its way: told apart are errors of the source and of the connection, and one that stands still ends. */
class Upload {
  readonly #body: HttpBody;
  readonly #idleMs: number;
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal;
  readonly #abort = (): void => this.#controller.abort(this.#outer.reason);
  #timer: NodeJS.Timeout | undefined;
  sourceError: Error | undefined;

  constructor(body: HttpBody, idleMs: number, outer: AbortSignal) {
    this.#body = body;
    this.#idleMs = idleMs;
    this.#outer = outer;
    outer.addEventListener('abort', this.#abort, { once: true });
  }

  get headers(): Record<string, string> {
    return { 'content-length': String(this.#body.sizeBytes) };
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  async *bytes(): AsyncGenerator<Uint8Array, void, undefined> {
    let leftBytes = this.#body.sizeBytes;
    try {
      for await (const chunk of this.#body.open()) {
        leftBytes -= chunk.length;
        if (leftBytes < 0) throw new BentoError('DIGEST_MISMATCH', 'what is sent has more bytes than was said');
        this.#timer = setTimeout(
          () => this.#controller.abort(new Error('the connection takes no bytes')),
          this.#idleMs,
        );
        yield chunk;
        clearTimeout(this.#timer);
      }
      if (leftBytes > 0)
        throw new BentoError('DIGEST_MISMATCH', `what is sent has ${leftBytes} bytes less than was said`);
    } catch (error) {
      this.sourceError ??= error instanceof Error ? error : new Error(String(error));
      throw error;
    } finally {
      clearTimeout(this.#timer);
    }
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#outer.removeEventListener('abort', this.#abort);
  }
}

/** @throws BentoError REMOTE_INVALID when nobody should go there */
export function redirectTarget(from: URL, location: string | undefined): URL {
  if (location === undefined || !URL.canParse(location, from.href)) throw invalid(from, 'redirects to no address');
  const target = new URL(location, from);
  const isWorse = target.protocol !== 'https:' && (target.protocol !== 'http:' || from.protocol === 'https:');
  if (isWorse) throw invalid(from, `redirects from ${from.protocol} to ${target.protocol}`);
  target.username = '';
  target.password = '';
  target.hash = '';
  return target;
}

/** What went wrong with a connection, or in the middle of a body; @returns Transient where trying again may help */
export function connectionError(url: URL, cause: unknown, proxy?: Proxy): Transient | BentoError {
  if (cause instanceof BentoError || cause instanceof Transient) return cause;
  const code = errnoOf(cause) ?? '';
  const why = cause instanceof Error ? cause.message || code : String(cause);
  if (BAD_ANSWER.test(code)) return invalid(url, `does not speak HTTP (${code})`);
  const through = proxy === undefined ? '' : ` through the proxy ${proxy.shown}`;
  const hint = proxy === undefined || BROKEN_TLS.test(code) ? hintFor(code) : proxyHint(proxy, url);
  const error = new BentoError('REMOTE_UNREACHABLE', `no connection with ${url.host}${through}: ${why}`, {
    hint,
    cause,
  });
  return BROKEN_TLS.test(code) || code === 'ENOTFOUND' || PROXY_REFUSES.test(why) ? error : new Transient(error);
}

function proxyHint({ variable }: Proxy, { host }: URL): string {
  return `check the proxy that ${variable} names, or list ${host} in no_proxy to go without it`;
}

function hintFor(code: string): string {
  if (code === 'ENOTFOUND') return 'check the name of the registry';
  if (/^(?:EPROTO|ERR_SSL)/.test(code)) return 'if the registry has no TLS, name it in BENTO_INSECURE_REGISTRIES';
  if (BROKEN_TLS.test(code))
    return 'its certificate is not trusted; NODE_EXTRA_CA_CERTS names a file with more authorities';
  return 'check the network, and try again';
}

function invalid(url: URL, why: string): BentoError {
  return new BentoError('REMOTE_INVALID', `${url.host} ${why}`, { hint: 'ask whoever runs the registry' });
}
