import type { Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { expectStatus, failure } from './answers.ts';
import type { BlobPlace } from './blob-reader.ts';
import { discard, headerOf, redirectTarget, type HttpAnswer, type HttpBody } from './exchange.ts';
import type { Host, HostRequest } from './host.ts';
import type { Uploaded, UploadOptions, UploadSource } from './repository.ts';
import { Transient, type Retries } from './retry.ts';

const PIECE_BYTES = 16 << 20;
const MOUNT_COUNT_MAX = 8;

export interface UploadPlace extends BlobPlace {
  /** Whether the blob is there by now. */
  has(): Promise<boolean>;
}

export interface BlobToSend {
  digest: Digest;
  sizeBytes: number;
  source: UploadSource;
}

/** Mounts a blob from another repository or sends it. @see OCI distribution-spec v1.1, "Pushing blobs" */
export async function uploadBlob(
  host: Host,
  place: UploadPlace,
  blob: BlobToSend,
  options?: UploadOptions,
): Promise<Uploaded> {
  const what = `sending ${blob.digest} to ${place.shown}`;
  using cancel = host.cancel(options, what, undefined);
  const upload = new BlobUpload(host, place, { blob, what, signal: cancel.signal, options });
  return (await upload.mount()) ? 'mounted' : await upload.send();
}

interface UploadSetup {
  blob: BlobToSend;
  what: string;
  signal: AbortSignal;
  options: UploadOptions | undefined;
}

/** One upload: its session at the registry is made anew when the registry has lost it. */
class BlobUpload {
  readonly #host: Host;
  readonly #place: UploadPlace;
  readonly #setup: UploadSetup;
  #session: URL | undefined;
  /** The most that the registry ever had: only more of it is progress. */
  #bestBytes = 0;

  constructor(host: Host, place: UploadPlace, setup: UploadSetup) {
    this.#host = host;
    this.#place = place;
    this.#setup = setup;
  }

  /** Tries the candidates. A registry that does not mount opens a session instead, which serves for sending. */
  async mount(): Promise<boolean> {
    const { path } = this.#place;
    const candidates = [...new Set(this.#setup.options?.mountFrom)].filter((from) => from !== path);
    for (const from of candidates.slice(0, MOUNT_COUNT_MAX)) {
      const answer = await this.#start({ mount: this.#setup.blob.digest, from }, [`repository:${from}:pull`]);
      if (answer === 'mounted') return true;
    }
    return false;
  }

  async #start(query: Record<string, string>, scopes: readonly string[]): Promise<'mounted' | 'open' | 'no'> {
    const isMount = scopes.length > 0;
    const url = new URL(`/v2/${this.#place.path}/blobs/uploads/`, this.#host.origin);
    for (const [key, value] of Object.entries(query)) url.searchParams.set(key, value);
    const request = { method: 'POST', url, scopes: [...this.#place.scopes, ...scopes], body: Buffer.alloc(0) } as const;
    const { what, signal } = this.#setup;
    try {
      return await this.#host.ask(request, { options: { signal }, what }, async (answer) => {
        if (isMount && answer.status === 201) return 'mounted';
        await expectStatus(answer, [202], what);
        await this.#abandon();
        this.#move(answer);
        return 'open';
      });
    } catch (error) {
      const isRefused =
        error instanceof BentoError && ['REMOTE_DENIED', 'REMOTE_NOT_FOUND', 'REMOTE_REFUSED'].includes(error.code);
      if (isMount && isRefused) return 'no'; // it may not be read there; it can still be sent
      throw error;
    }
  }

  /** Tells the registry that a session is not wanted any more; it forgets it by itself, too. */
  async #abandon(): Promise<void> {
    const { signal, what } = this.#setup;
    const url = this.#session;
    this.#session = undefined;
    if (url === undefined) return;
    try {
      discard(await this.#host.once({ method: 'DELETE', url, scopes: this.#place.scopes }, what, signal));
    } catch {
      if (signal.aborted) throw signal.reason;
    }
  }

  /** In one request; where that breaks, from where the registry has it, in pieces. */
  async send(): Promise<Uploaded> {
    const retries = this.#host.retries(this.#setup.signal);
    let isBroken = false;
    for (;;) {
      try {
        const wasThere = isBroken ? await this.#resume(retries) : await this.#sendWhole();
        this.#setup.options?.onProgress?.(this.#setup.blob.sizeBytes);
        return wasThere ? 'there' : 'sent';
      } catch (error) {
        if (this.#setup.signal.aborted) throw this.#setup.signal.reason;
        await retries.failed(error);
        isBroken = true;
      }
    }
  }

  async #sendWhole(): Promise<boolean> {
    const { sizeBytes } = this.#setup.blob;
    if (this.#session === undefined) await this.#start({}, []);
    await this.#finish(this.#body(0, sizeBytes));
    return false;
  }

  /** @returns whether the registry turned out to have the blob */
  async #resume(retries: Retries): Promise<boolean> {
    let offset = await this.#offset();
    if (offset === undefined) {
      this.#session = undefined;
      if (await this.#place.has()) return true; // only the answer was lost
      return await this.#sendWhole();
    }
    const { sizeBytes } = this.#setup.blob;
    while (offset < sizeBytes) {
      if (offset > this.#bestBytes) {
        this.#bestBytes = offset;
        retries.progressed();
      }
      const next = await this.#sendPiece(offset, Math.min(PIECE_BYTES, sizeBytes - offset));
      if (next === undefined) return this.#lost();
      offset = next;
    }
    await this.#finish(undefined);
    return false;
  }

  /** The session is of no use: the next try makes another. */
  #lost(): never {
    this.#session = undefined;
    const { what } = this.#setup;
    throw new Transient(
      new BentoError('REMOTE_INVALID', `${what}: the registry does not go on with an upload that broke`, {
        hint: 'try again',
      }),
    );
  }

  /** How many bytes the registry has; undefined when it does not know the session. */
  async #offset(): Promise<number | undefined> {
    if (this.#session === undefined) return undefined;
    const answer = await this.#once({ method: 'GET', url: this.#session });
    if (answer.status !== 204 && answer.status !== 202) return (discard(answer), undefined);
    this.#move(answer);
    const offset = offsetOf(headerOf(answer, 'range'));
    return offset === undefined || offset > this.#setup.blob.sizeBytes ? undefined : offset;
  }

  /** @returns where to go on; undefined when the registry does not take it */
  async #sendPiece(offset: number, length: number): Promise<number | undefined> {
    const { what } = this.#setup;
    const headers = {
      'content-type': 'application/octet-stream',
      'content-range': `${offset}-${offset + length - 1}`,
    };
    if (this.#session === undefined) return undefined;
    const answer = await this.#once({ method: 'PATCH', url: this.#session, headers, body: this.#body(offset, length) });
    if (answer.status === 404 || answer.status === 416) return (discard(answer), undefined);
    await expectStatus(answer, [202, 204, 201], what);
    this.#move(answer);
    const next = offsetOf(headerOf(answer, 'range')) ?? offset + length;
    return next > offset && next <= offset + length ? next : undefined;
  }

  async #finish(body: HttpBody | undefined): Promise<void> {
    const { blob, what } = this.#setup;
    if (this.#session === undefined) throw new TypeError('no session');
    const url = new URL(this.#session);
    url.search += `${url.search === '' ? '?' : '&'}digest=${encodeURIComponent(blob.digest)}`; // the rest stays as it came
    const headers = { 'content-type': 'application/octet-stream' };
    const answer = await this.#once({ method: 'PUT', url, headers, body: body ?? Buffer.alloc(0) });
    if (body === undefined && [400, 404, 416].includes(answer.status)) return (discard(answer), this.#lost());
    if (answer.status === 404) {
      const error = await failure(answer, what);
      this.#session = undefined;
      throw error instanceof BentoError ? new Transient(error) : error;
    }
    await expectStatus(answer, [201, 204], what);
    discard(answer);
  }

  async #once(request: Omit<HostRequest, 'scopes'>): Promise<HttpAnswer> {
    const { what, signal } = this.#setup;
    return await this.#host.once({ ...request, scopes: this.#place.scopes }, what, signal);
  }

  /** Where the session goes on: registries may keep its state in the address. */
  #move(answer: HttpAnswer): void {
    discard(answer);
    const location = headerOf(answer, 'location');
    if (location !== undefined) this.#session = redirectTarget(answer.url, location);
    else if (this.#session === undefined) redirectTarget(answer.url, undefined);
  }

  #body(offset: number, length: number): HttpBody {
    const { blob, options } = this.#setup;
    return {
      sizeBytes: length,
      async *open() {
        let sentBytes = 0;
        options?.onProgress?.(offset);
        for await (const chunk of blob.source(offset)) {
          const isPiece = offset + length < blob.sizeBytes;
          const part = isPiece ? chunk.subarray(0, length - sentBytes) : chunk; // of the whole rest, too much is an error
          if (part.length > 0) yield part;
          sentBytes += part.length;
          options?.onProgress?.(offset + Math.min(sentBytes, length));
          if (isPiece && sentBytes === length) return;
        }
      },
    };
  }
}

/** `0-<last>` to how many bytes that are. Registries say `0-0` for none, too, so that a single byte is sent again. */
function offsetOf(range: string | undefined): number | undefined {
  const last = /^(?:bytes=)?0-(\d{1,15})$/.exec(range?.trim() ?? '')?.[1];
  if (last === undefined) return undefined;
  return last === '0' ? 0 : Number(last) + 1;
}
