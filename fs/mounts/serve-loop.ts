import { readSync, writeSync } from 'node:fs';

import { BentoError, errnoOf, ERRORS } from '../../store/errors.ts';
import { ERRNO, operationName } from '../protocol/constants.ts';
import {
  decodeRequest,
  encodeReplyHeader,
  isAnswerable,
  REPLY_HEADER_BYTES,
  type Request,
} from '../protocol/header.ts';
import { encodeResend } from '../protocol/notify.ts';
import { ProtocolError } from '../protocol/wire.ts';
import { HANDLERS, type Negotiated, notImplemented, type Session, TRANSFER_MAX_BYTES } from './handlers.ts';
import type { ServedTree } from './served-tree.ts';

export type { Negotiated } from './handlers.ts';

export interface FailedRequest {
  /** `READ`, `LOOKUP`, …, or `opcode 99`. */
  operation: string;
  /** 0 when the request itself could not be read. */
  nodeId: number;
}

export interface ServeOptions {
  /**
   * What a predecessor on the same descriptor negotiated: there is no second INIT. Requests that it read but did not
   * answer are asked for again.
   */
  resume?: Negotiated;
  /** Directories that may gain entries while mounted: their missing names are not remembered. */
  mayGrow?: (nodeId: number) => boolean;
  /** Called once, before the kernel learns of the agreement. */
  onInit?: (negotiated: Negotiated) => void;
  /** Called for everything that becomes an errno without being one of the tree's plain answers. */
  onError?: (error: unknown, request: FailedRequest) => void;
}

/** A request may carry `max_write` bytes and its headers; the kernel refuses to be read with a smaller buffer. */
const REQUEST_MAX_BYTES = TRANSFER_MAX_BYTES + 4096;
const PAUSE_MS = 1;

/**
 * Answers every request of one FUSE mount until it is unmounted. Blocks: belongs in a worker thread of its own.
 *
 * Call it on a mounted `/dev/fuse` descriptor. To end it, unmount; ending the thread instead could lose a request, and its
 * caller would hang for good. The tree must not touch the mount it serves.
 *
 * @param fd - stays open; whoever opened it closes it
 * @throws what reading or writing the device throws, but for the errors that are part of its life
 */
export function serve(fd: number, tree: ServedTree, options: ServeOptions = {}): void {
  const session = openSession(tree, options);
  if (options.resume?.flags.includes('HAS_RESEND') === true) writeSync(fd, encodeResend());
  const input = Buffer.allocUnsafeSlow(REQUEST_MAX_BYTES);
  for (;;) {
    const sizeBytes = readRequest(fd, input);
    if (sizeBytes === undefined) return;
    const requestBytes = input.subarray(0, sizeBytes);
    const replyBytes = answer(session, requestBytes, options.onError);
    if (replyBytes > 0) sendReply(fd, session, { requestBytes, replyBytes });
  }
}

export function openSession(tree: ServedTree, options: ServeOptions = {}): Session {
  return {
    tree,
    negotiated: options.resume,
    reply: Buffer.allocUnsafeSlow(REPLY_HEADER_BYTES + TRANSFER_MAX_BYTES),
    listings: new Map(),
    mayGrow: options.mayGrow ?? (() => false),
    onInit: options.onInit ?? (() => undefined),
  };
}

/** @returns how many bytes one request has, or undefined when the mount is gone */
function readRequest(fd: number, input: Buffer): number | undefined {
  for (;;) {
    try {
      return readSync(fd, input, 0, input.length, null);
    } catch (error) {
      if (errnoOf(error) === 'ENODEV') return undefined;
      retryOrThrow(error);
    }
  }
}

/** ENOENT: the request was taken back at that moment. EAGAIN: somebody made the descriptor non-blocking. */
function retryOrThrow(error: unknown): void {
  switch (errnoOf(error)) {
    case 'ENOENT':
    case 'EINTR':
      return;
    case 'EAGAIN':
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS);
      return;
    default:
      throw error;
  }
}

/**
 * Builds the reply to one request in `session.reply`.
 *
 * @returns how many bytes of it to send; 0 when this request gets no reply
 */
export function answer(session: Session, requestBytes: Buffer, onError: ServeOptions['onError']): number {
  let request: Request | undefined;
  try {
    request = decodeRequest(requestBytes);
    const handle = HANDLERS.get(request.opcode) ?? notImplemented;
    const outcome = handle(session, request);
    return outcome === 'no reply' ? 0 : encodeOutcome(session, requestBytes, outcome);
  } catch (error) {
    report(error, request, onError);
    return isAnswerable(requestBytes) ? encodeOutcome(session, requestBytes, -errnoNumberOf(error)) : 0;
  }
}

/** @param outcome - the body's size in bytes, or a negated errno */
function encodeOutcome(session: Session, requestBytes: Buffer, outcome: number): number {
  return encodeReplyHeader(session.reply, requestBytes, Math.max(outcome, 0), Math.min(outcome, 0));
}

function errnoNumberOf(error: unknown): number {
  if (error instanceof ProtocolError) return ERRNO[error.errno];
  return error instanceof BentoError ? ERRNO[ERRORS[error.code].errno] : ERRNO.EIO;
}

/** A log that fails must not cost the caller its reply. */
function report(error: unknown, request: Request | undefined, onError: ServeOptions['onError']): void {
  const operation = request === undefined ? 'request' : operationName(request.opcode);
  try {
    onError?.(error, { operation, nodeId: request?.nodeId ?? 0 });
  } catch {
    // Nobody is left to tell.
  }
}

/** A reply the kernel refuses (EINVAL) would leave its caller waiting for ever, so that one gets EIO instead. */
function sendReply(fd: number, session: Session, reply: { requestBytes: Buffer; replyBytes: number }): void {
  try {
    writeReply(fd, session.reply, reply.replyBytes);
  } catch (error) {
    if (errnoOf(error) !== 'EINVAL') throw error;
    writeReply(fd, session.reply, encodeOutcome(session, reply.requestBytes, -ERRNO.EIO));
  }
}

function writeReply(fd: number, reply: Buffer, sizeBytes: number): void {
  for (;;) {
    try {
      writeSync(fd, reply, 0, sizeBytes, null);
      return;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENODEV') return; // the caller, or the mount, is gone
      if (errnoOf(error) !== 'EINTR') throw error;
    }
  }
}
