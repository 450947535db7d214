import { writeSync } from 'node:fs';

import { BentoError, errnoOf, ERRORS } from '../../store/errors.ts';
import { readOnce } from '../../store/file-calls.ts';
import { ContentNotHere, type FilePart } from '../contents/content-not-here.ts';
import { ERRNO, OPCODE, operationName } from '../protocol/constants.ts';
import {
  decodeRequest,
  encodeErrorReply,
  encodeReplyHeader,
  isAnswerable,
  REPLY_HEADER_BYTES,
  REQUEST_HEADER_BYTES,
  type Request,
  uniqueOf,
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

export interface ServeOptions extends Partial<Pick<Session, 'mayGrow' | 'xattrs' | 'opener' | 'wanted' | 'handlers'>> {
  /**
   * What was negotiated before on the same descriptor, by a predecessor or by whoever mounted: there is no second INIT.
   * Requests that were read but not answered are asked for again.
   */
  resume?: Negotiated;
  /** Called once, before the kernel learns of the agreement; not after `resume`. */
  onInit?: (negotiated: Negotiated) => void;
  /** Called for everything that becomes an errno without being one of the tree's plain answers. */
  onError?: (error: unknown, request: FailedRequest) => void;
  /**
   * Takes a copy of a request that takes long, and sees to it that somebody replies. Without it, such a request fails.
   *
   * @param missing - set when it has to be answered by `answerAgain`, once this part of a file was fetched
   */
  onSlow?: (requestBytes: Uint8Array, missing: FilePart | undefined) => void;
  /** Buffers to share with other connections that the same thread serves. */
  buffers?: ServeBuffers;
}

/** A request may carry `max_write` bytes and its headers; the kernel refuses to be read with a smaller buffer. */
const REQUEST_MAX_BYTES = TRANSFER_MAX_BYTES + 4096;
/** How many requests in the slow lane are remembered for an INTERRUPT; the kernel has fewer under way. */
const SLOW_MAX = 1024;
/** struct fuse_interrupt_in (linux/fuse.h): the id of the request it is about, after the header. */
const INTERRUPT_BYTES = REQUEST_HEADER_BYTES + 8;
const PAUSE_MS = 1;

/** Room for one request and its reply: what a thread needs once, however many connections it serves. */
export interface ServeBuffers {
  input: Buffer;
  reply: Buffer;
}

export function serveBuffers(): ServeBuffers {
  return {
    input: Buffer.allocUnsafeSlow(REQUEST_MAX_BYTES),
    reply: Buffer.allocUnsafeSlow(REPLY_HEADER_BYTES + TRANSFER_MAX_BYTES),
  };
}

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
  const connection = new Connection(fd, tree, options);
  for (;;) {
    const outcome = connection.answerOne();
    if (outcome === 'ended') return;
    if (outcome === 'idle') pause(); // somebody made the descriptor non-blocking
  }
}

function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS);
}

/** One FUSE mount as the thread that answers for it sees it. */
export class Connection {
  readonly fd: number;
  readonly #session: Session;
  readonly #input: Buffer;
  readonly #options: ServeOptions;
  /** Requests handed to the slow lane: id -> opcode, oldest first. */
  readonly #slow = new Map<bigint, number>();

  constructor(fd: number, tree: ServedTree, options: ServeOptions = {}) {
    const { input, reply } = options.buffers ?? serveBuffers();
    this.fd = fd;
    this.#input = input;
    this.#session = openSession(tree, options, reply);
    this.#options = options;
    if (options.resume?.flags.includes('HAS_RESEND') === true) askAgain(fd);
  }

  /** Reads one request and replies to it, or hands it on; `idle` when a descriptor that does not block has none. */
  answerOne(): 'answered' | 'idle' | 'ended' {
    const sizeBytes = readRequest(this.fd, this.#input);
    if (typeof sizeBytes === 'string') return sizeBytes;
    this.#answer(this.#input.subarray(0, sizeBytes));
    return 'answered';
  }

  /** Answers a request that waited for something; nobody waits any more for one that was interrupted. */
  answerAgain(request: Uint8Array): void {
    this.#input.set(request);
    const requestBytes = this.#input.subarray(0, request.length);
    if (this.#slow.delete(uniqueOf(requestBytes))) this.#answer(requestBytes);
  }

  #answer(requestBytes: Buffer): void {
    const replyBytes = answer(this.#session, requestBytes, this.#options.onError);
    if (replyBytes === 'slow') this.#handOver(requestBytes);
    else if (replyBytes > 0) sendReply(this.fd, this.#session, { requestBytes, replyBytes });
    else this.#interruptSlow(requestBytes);
  }

  #handOver(requestBytes: Buffer): void {
    const { onSlow } = this.#options;
    if (onSlow === undefined) return refuse(this.fd, requestBytes, ERRNO.EIO);
    for (const oldest of this.#slow.keys()) {
      if (this.#slow.size < SLOW_MAX) break;
      this.#slow.delete(oldest);
    }
    this.#slow.set(uniqueOf(requestBytes), decodeRequest(requestBytes).opcode);
    onSlow(Uint8Array.from(requestBytes), this.#session.missing);
  }

  /**
   * A caller that was sent a signal need not wait for the slow lane. Reads are finished all the same: others may wait for
   * the same page, and an error would reach them.
   */
  #interruptSlow(requestBytes: Buffer): void {
    if (this.#slow.size === 0 || requestBytes.length < INTERRUPT_BYTES) return;
    if (decodeRequest(requestBytes).opcode !== OPCODE.INTERRUPT) return;
    const unique = requestBytes.readBigUInt64LE(REQUEST_HEADER_BYTES);
    const opcode = this.#slow.get(unique);
    if (opcode === undefined || opcode === OPCODE.READ) return;
    this.#slow.delete(unique);
    writeReply(this.fd, encodeErrorReply(unique, ERRNO.EINTR));
  }
}

export function openSession(
  tree: ServedTree,
  options: ServeOptions = {},
  reply: Buffer = serveBuffers().reply,
): Session {
  return {
    tree,
    handlers: options.handlers ?? HANDLERS,
    negotiated: options.resume,
    reply,
    listings: new Map(),
    xattrs: options.xattrs ?? true,
    mayGrow: options.mayGrow ?? (() => false),
    onInit: options.onInit ?? (() => undefined),
    opener: options.opener,
    wanted: options.wanted,
  };
}

/** A kernel that took the mount away meanwhile is no error. */
function askAgain(fd: number): void {
  try {
    writeSync(fd, encodeResend());
  } catch (error) {
    if (errnoOf(error) !== 'ENODEV' && errnoOf(error) !== 'ENOTCONN') throw error;
  }
}

/** @returns how many bytes one request has; `ended` when the mount is gone */
function readRequest(fd: number, input: Buffer): number | 'idle' | 'ended' {
  for (;;) {
    const sizeBytes = readOnce(fd, input);
    if (sizeBytes >= 0) return sizeBytes;
    switch (-sizeBytes) {
      case ERRNO.ENODEV:
      case ERRNO.ECONNABORTED:
        return 'ended';
      case ERRNO.EAGAIN:
        return 'idle';
      case ERRNO.ENOENT: // the request was taken back at that moment
      case ERRNO.EINTR:
        continue;
      default:
        throw new Error(`errno ${-sizeBytes} from the FUSE device`);
    }
  }
}

/**
 * Builds the reply to one request in `session.reply`.
 *
 * @returns how many bytes of it to send; 0 when this request gets no reply; `slow` when somebody else must answer it
 */
export function answer(session: Session, requestBytes: Buffer, onError: ServeOptions['onError']): number | 'slow' {
  let request: Request | undefined;
  session.missing = undefined;
  try {
    request = decodeRequest(requestBytes);
    const handle = session.handlers.get(request.opcode) ?? notImplemented;
    const outcome = handle(session, request);
    if (outcome === 'slow') return 'slow';
    return outcome === 'no reply' ? 0 : encodeOutcome(session, requestBytes, outcome);
  } catch (error) {
    if (error instanceof ContentNotHere) {
      session.missing = error.part;
      return 'slow';
    }
    report(error, request, onError);
    return isAnswerable(requestBytes) ? encodeOutcome(session, requestBytes, -errnoNumberOf(error)) : 0;
  }
}

/** @param outcome - the body's size in bytes, or a negated errno */
function encodeOutcome(session: Session, requestBytes: Buffer, outcome: number): number {
  return encodeReplyHeader(session.reply, requestBytes, Math.max(outcome, 0), Math.min(outcome, 0));
}

/** The errno that tells a caller of a file operation what went wrong. */
export function errnoNumberOf(error: unknown): number {
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

/** Replies with an errno, from any thread; whoever replies second is not heard. */
export function refuse(fd: number, requestBytes: Buffer, errno: number): void {
  writeReply(fd, encodeErrorReply(uniqueOf(requestBytes), errno));
}

/** One write(2), from any thread. */
export function writeReply(fd: number, reply: Buffer, sizeBytes = reply.length): void {
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
