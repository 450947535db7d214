import { BentoError } from '../errors.ts';
import { isObject } from '../manifest.ts';
import { connectionError, headerOf, discard, type HttpAnswer } from './exchange.ts';
import { ERROR_BYTES_MAX } from './limits.ts';
import { parseRetryAfter, Transient } from './retry.ts';

/** Statuses that may be others the next time. */
export const TRY_AGAIN = [408, 429, 500, 502, 503, 504];
const TEXT_LENGTH_MAX = 300;

/**
 * The whole body of an answer.
 *
 * @param what - for the error, as in "the manifest ghcr.io/me/ws:latest"
 * @param onBytes - gets its pieces as they come
 * @throws BentoError REMOTE_INVALID when it has more than `bytesMax`; Transient when the connection broke
 */
export async function readBody(
  answer: HttpAnswer,
  bytesMax: number,
  what: string,
  onBytes?: (bytes: Buffer) => void,
): Promise<Buffer> {
  const announced = contentLength(answer);
  if (announced !== undefined && announced > bytesMax) {
    discard(answer);
    throw tooLarge(what, bytesMax);
  }
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of bodyOf(answer)) {
    sizeBytes += chunk.length;
    if (sizeBytes > bytesMax) throw tooLarge(what, bytesMax);
    chunks.push(chunk);
    onBytes?.(chunk);
  }
  return Buffer.concat(chunks);
}

/** The body of an answer, whose errors are those of this folder. Left early, it is given up. */
export async function* bodyOf(answer: HttpAnswer): AsyncGenerator<Buffer, void, undefined> {
  const body = answer.body[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  try {
    for (;;) {
      const next = await body.next().catch((error: unknown) => {
        throw connectionError(answer.url, error);
      });
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    answer.body.destroy();
  }
}

/** Of a header, bytes; undefined where there is none or nonsense. */
export function contentLength(answer: HttpAnswer): number | undefined {
  const text = headerOf(answer, 'content-length');
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/** Passes answers whose status is one of `expected`. @throws what `failure` makes of the others */
export async function expectStatus(answer: HttpAnswer, expected: readonly number[], what: string): Promise<void> {
  if (!expected.includes(answer.status)) throw await failure(answer, what);
}

/** @returns what an answer that is no success means, with the registry's own words; its body is read */
export async function failure(answer: HttpAnswer, what: string): Promise<BentoError | Transient> {
  const { status } = answer;
  const said = await ownWords(answer);
  const message = `${what}: ${answer.url.host} answers ${status}${said === '' ? '' : ` (${said})`}`;
  if (TRY_AGAIN.includes(status)) {
    const error = new BentoError('REMOTE_UNREACHABLE', message, { hint: 'try again later' });
    return new Transient(error, { waitMs: parseRetryAfter(headerOf(answer, 'retry-after')) });
  }
  if (status === 401 || status === 403)
    return new BentoError('REMOTE_DENIED', message, { hint: 'bento login <registry> gives other credentials' });
  if (status === 404)
    return new BentoError('REMOTE_NOT_FOUND', message, { hint: 'check the name, and whether you may see it' });
  if (status >= 400) return new BentoError('REMOTE_REFUSED', message, { hint: 'ask whoever runs the registry' });
  return new BentoError('REMOTE_INVALID', message, { hint: 'ask whoever runs the registry' });
}

/** `errors[].code` and `message` of an error body, on one short line. @see OCI distribution-spec v1.1, "Error Codes" */
async function ownWords(answer: HttpAnswer): Promise<string> {
  try {
    const bytes = await readBody(answer, ERROR_BYTES_MAX, 'an error');
    const json: unknown = JSON.parse(bytes.toString('utf8'));
    const errors: unknown = isObject(json) ? json['errors'] : undefined;
    const first: unknown = Array.isArray(errors) ? errors[0] : undefined;
    if (!isObject(first)) return '';
    const words = [first['code'], first['message']].filter((text) => typeof text === 'string' && text !== '');
    return plain(words.join(': '));
  } catch {
    return ''; // a status is enough
  }
}

/** Text of a stranger for a message: short, on one line, without control characters. */
export function plain(text: string): string {
  // eslint-disable-next-line no-control-regex -- those are what it is about
  return text.slice(0, TEXT_LENGTH_MAX).replace(/[\x00-\x1f\x7f-\x9f]+/g, ' ');
}

function tooLarge(what: string, bytesMax: number): BentoError {
  return new BentoError('REMOTE_INVALID', `${what} is larger than ${bytesMax} bytes`, {
    hint: 'ask whoever runs the registry',
  });
}
