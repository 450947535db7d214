import { StringDecoder } from 'node:string_decoder';

import type { Digest } from '../../store/digest.ts';
import { BentoError, ERRORS, type ErrorCode } from '../../store/errors.ts';

/**
 * What is said on the daemon's control socket: one JSON object a line, each request answered by one line.
 *
 * `prepare` makes a checkpoint appear in the tree; `serve` mounts one alone through fusermount3, for users who may not
 * bind; `stop` ends the daemon as soon as nothing uses its mounts any more.
 */
export type ControlRequest =
  | { op: 'hello' }
  | { op: 'prepare'; manifest: Digest }
  | { op: 'serve'; manifest: Digest; target: string }
  | { op: 'release'; target: string; lazy: boolean }
  | { op: 'stop' };

export type ControlReply =
  | { ok: true; pid: number; version: string; tree: string | undefined }
  | { ok: false; code: ErrorCode; message: string; hint: string | undefined };

/** The longest line either side reads; beyond it the other is not one of us. */
export const LINE_BYTES_MAX = 64 << 10;

export function encodeError(error: unknown): ControlReply {
  if (error instanceof BentoError) return { ok: false, code: error.code, message: error.message, hint: error.hint };
  return {
    ok: false,
    code: 'DAEMON_FAILED',
    message: error instanceof Error ? error.message : String(error),
    hint: undefined,
  };
}

/** The error a reply carries, as if it had happened here. */
export function decodeError(reply: Extract<ControlReply, { ok: false }>): BentoError {
  const code = Object.hasOwn(ERRORS, reply.code) ? reply.code : 'DAEMON_FAILED';
  return new BentoError(code, reply.message, reply.hint === undefined ? {} : { hint: reply.hint });
}

/** Splits what a socket delivers into lines; the callback throws or the stream ends when a line is too long. */
export function lineReader(onLine: (line: string) => void): (piece: Buffer) => void {
  const decoder = new StringDecoder('utf8'); // a piece may end in the middle of a character
  let rest = '';
  return (piece) => {
    const lines = (rest + decoder.write(piece)).split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > LINE_BYTES_MAX) throw new BentoError('DAEMON_FAILED', 'control message too long');
    for (const line of lines) onLine(line);
  };
}
