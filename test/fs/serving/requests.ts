import { answer } from '../../../fs/serving/serve-loop.ts';
import type { Session } from '../../../fs/serving/handlers.ts';
import { OPCODE, type Operation } from '../../../fs/protocol/constants.ts';
import { decodeReplyHeader, encodeRequestHeader, REPLY_HEADER_BYTES } from '../../../fs/protocol/header.ts';
import { encodeReadIn, READ_IN_BYTES } from '../../../fs/protocol/read.ts';

/** The id that every request here has, as it lies in memory. */
export const UNIQUE = Buffer.from('0102030405060788', 'hex');

export function requestFor(opcode: number, nodeId: number, body: Buffer = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(40), body]);
  encodeRequestHeader({ bytes, opcode, nodeId, uid: 0, gid: 0, pid: 0 }, UNIQUE);
  return bytes;
}

export function nameBody(name: string): Buffer {
  return Buffer.from(`${name}\0`, 'latin1');
}

export function readBody(offset: number, sizeBytes: number): Buffer {
  const body = Buffer.alloc(READ_IN_BYTES);
  encodeReadIn(body, 0, { fh: 0, offset, sizeBytes });
  return body;
}

export interface Reply {
  /** 0 or a negated errno. */
  error: number;
  body: Buffer;
}

/** What a kernel would be told; `slow` when somebody else has to. Errors that are no plain answers are thrown. */
export function ask(session: Session, operation: Operation, nodeId: number, body?: Buffer): Reply | 'slow' {
  const replyBytes = answer(session, requestFor(OPCODE[operation], nodeId, body), (error) => {
    throw error;
  });
  if (replyBytes === 'slow') return 'slow';
  const reply = Buffer.from(session.reply.subarray(0, replyBytes));
  return { error: decodeReplyHeader(reply).error, body: reply.subarray(REPLY_HEADER_BYTES) };
}

/** As `ask`, where the answer must be at hand and no error. */
export function askNow(session: Session, operation: Operation, nodeId: number, body?: Buffer): Buffer {
  const reply = ask(session, operation, nodeId, body);
  if (reply === 'slow' || reply.error !== 0) throw new Error(`${operation}: ${reply === 'slow' ? reply : reply.error}`);
  return reply.body;
}
