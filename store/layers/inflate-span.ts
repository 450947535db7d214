import { promisify } from 'node:util';
import { constants, gunzip, gunzipSync, inflateRaw, inflateRawSync, type ZlibOptions } from 'node:zlib';

import { BentoError, errnoOf } from '../errors.ts';
import { prefixRoom, putPrefix, type ResumePrefix } from './resume-prefix.ts';

/** What is known of a span before the bytes are read that it inflates from. */
export interface SpanStart {
  prefix: ResumePrefix;
  /** The inflated bytes before it, as many as it may refer to. */
  window: Buffer;
  /** How many bytes it inflates to. */
  tarBytes: number;
}

interface Inflated {
  buffer: Buffer;
  engine: { bytesWritten: number };
}

const GZIP_TRAILER_BYTES = 8;
/** A span ends in the midst of a byte, in which there may be symbols of the next: few, but each may be 258 bytes. */
const OVERRUN_BYTES_MAX = 4096;

const inflateRawAsync = promisify(inflateRaw) as unknown as (bytes: Buffer, options: ZlibOptions) => Promise<Inflated>;
const gunzipAsync = promisify(gunzip) as (bytes: Buffer, options: ZlibOptions) => Promise<Buffer>;

/** A buffer for the compressed bytes of a span: they go behind the first `room`. */
export function spanBuffer({ prefix }: SpanStart, blobBytes: number): { buffer: Buffer; room: number } {
  const room = prefixRoom(prefix);
  return { buffer: Buffer.allocUnsafe(room + blobBytes), room };
}

/**
 * Inflates a span from the midst of a stream. Checksums are nobody's business here: the caller holds digests.
 *
 * @param buffer - from `spanBuffer`, with the blob's bytes in it
 * @returns fewer bytes than `tarBytes` only of a damaged blob
 * @throws BentoError FORMAT_INVALID of a damaged blob
 */
export function inflateSpanSync(start: SpanStart, buffer: Buffer): Buffer {
  putPrefix(start.prefix, buffer);
  try {
    const first = inflateRawSync(buffer, firstOptions(start)) as unknown as Inflated;
    const rest = restOf(start, buffer, first);
    return joined(start, first, rest && gunzipSync(rest, limits(start.tarBytes - first.buffer.length)));
  } catch (error) {
    throw spanError(error);
  }
}

/** `inflateSpanSync` on a thread of zlib's pool. */
export async function inflateSpan(start: SpanStart, buffer: Buffer): Promise<Buffer> {
  putPrefix(start.prefix, buffer);
  try {
    const first = await inflateRawAsync(buffer, firstOptions(start));
    const rest = restOf(start, buffer, first);
    return joined(start, first, rest && (await gunzipAsync(rest, limits(start.tarBytes - first.buffer.length))));
  } catch (error) {
    throw spanError(error);
  }
}

function firstOptions({ window, tarBytes }: SpanStart): ZlibOptions {
  return { ...limits(tarBytes), ...(window.length > 0 && { dictionary: window }), info: true };
}

/** One buffer for all that comes out. */
function limits(tarBytes: number): ZlibOptions {
  const outputBytes = tarBytes + OVERRUN_BYTES_MAX;
  const finishFlush = constants.Z_SYNC_FLUSH; // a cut-off end is no error
  return { chunkSize: outputBytes, maxOutputLength: outputBytes, finishFlush };
}

/** What follows the end of the member in which the span begins: other members, which zlib goes through by itself. */
function restOf({ tarBytes }: SpanStart, buffer: Buffer, { buffer: out, engine }: Inflated): Buffer | undefined {
  const rest = buffer.subarray(engine.bytesWritten + GZIP_TRAILER_BYTES);
  return out.length < tarBytes && rest.length > 0 ? rest : undefined;
}

function joined({ tarBytes }: SpanStart, { buffer }: Inflated, rest: Buffer | undefined): Buffer {
  return (rest === undefined ? buffer : Buffer.concat([buffer, rest])).subarray(0, tarBytes);
}

function spanError(error: unknown): unknown {
  const code = errnoOf(error) ?? '';
  if (code !== 'ERR_BUFFER_TOO_LARGE' && !code.startsWith('Z_')) return error;
  return new BentoError('FORMAT_INVALID', `a layer cannot be inflated from its middle: ${(error as Error).message}`, {
    cause: error,
  });
}
