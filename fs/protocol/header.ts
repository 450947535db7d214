import type { NotifyCode } from './constants.ts';
import { expectAtLeast, expectSize, ProtocolError, readU64, writeU64 } from './wire.ts';

// struct fuse_in_header (linux/fuse.h): 40 bytes, before every request.
export const REQUEST_HEADER_BYTES = 40;
const LENGTH = 0; // u32, the whole request
const OPCODE_AT = 4; // u32
const UNIQUE = 8; // u64, copied into the reply as it is: bit 63 marks a resent request
const NODE_ID = 16; // u64
const UID = 24; // u32
const GID = 28; // u32
const PID = 32; // u32, 0 when the kernel acts on its own
const UNIQUE_BYTES = 8;

// struct fuse_out_header: 16 bytes, before every reply and notification.
export const REPLY_HEADER_BYTES = 16;
const REPLY_LENGTH = 0; // u32, the whole reply
const ERROR = 4; // i32, 0 or a negated errno; positive: a notify code
const REPLY_UNIQUE = 8; // u64, 0 in a notification

export interface Request {
  /** Header and body, nothing more. Valid until the next request is read. */
  bytes: Buffer;
  opcode: number;
  /** The object asked about; for names, the directory. */
  nodeId: number;
  uid: number;
  gid: number;
  pid: number;
}

export interface ReplyHeader {
  /** Header and body. */
  sizeBytes: number;
  /** 0, a negated errno, or a notify code. */
  error: number;
  /** The eight raw bytes of the request's id. */
  unique: Buffer;
}

/**
 * @param bytes - exactly what one read(2) of the device returned
 * @throws ProtocolError when the header is incomplete or its length is not that of `bytes`
 */
export function decodeRequest(bytes: Buffer): Request {
  expectAtLeast(bytes, REQUEST_HEADER_BYTES, 'request header');
  expectSize(bytes, bytes.readUInt32LE(LENGTH), 'request');
  return {
    bytes,
    opcode: bytes.readUInt32LE(OPCODE_AT),
    nodeId: readU64(bytes, NODE_ID),
    uid: bytes.readUInt32LE(UID),
    gid: bytes.readUInt32LE(GID),
    pid: bytes.readUInt32LE(PID),
  };
}

/** Makes `request.bytes` a valid request by filling in its header: what a kernel, or a test, does. */
export function encodeRequestHeader(request: Request, unique: Buffer): void {
  const { bytes } = request;
  bytes.fill(0, 0, REQUEST_HEADER_BYTES);
  bytes.writeUInt32LE(bytes.length, LENGTH);
  bytes.writeUInt32LE(request.opcode, OPCODE_AT);
  unique.copy(bytes, UNIQUE, 0, UNIQUE_BYTES);
  writeU64(bytes, NODE_ID, request.nodeId);
  bytes.writeUInt32LE(request.uid, UID);
  bytes.writeUInt32LE(request.gid, GID);
  bytes.writeUInt32LE(request.pid, PID);
}

/** Whether the bytes hold at least an id, without which nothing can be answered. */
export function isAnswerable(requestBytes: Buffer): boolean {
  return requestBytes.length >= UNIQUE + UNIQUE_BYTES;
}

/** @param error - 0 or a negated errno, -999 to 0; with an error the header is the whole reply */
export function encodeReplyHeader(out: Buffer, requestBytes: Buffer, bodyBytes: number, error: number): number {
  const sizeBytes = REPLY_HEADER_BYTES + bodyBytes;
  out.writeUInt32LE(sizeBytes, REPLY_LENGTH);
  out.writeInt32LE(error, ERROR);
  requestBytes.copy(out, REPLY_UNIQUE, UNIQUE, UNIQUE + UNIQUE_BYTES);
  return sizeBytes;
}

/** A request's id as a number; of an answerable request. */
export function uniqueOf(requestBytes: Buffer): bigint {
  return requestBytes.readBigUInt64LE(UNIQUE);
}

/** Set by the kernel when it sends a request again. @see linux/fuse.h, FUSE_UNIQUE_RESEND */
const RESENT_BIT = 0x80;
const RESENT = 1n << 63n;

export function isResent(requestBytes: Buffer): boolean {
  return ((requestBytes[UNIQUE + UNIQUE_BYTES - 1] ?? 0) & RESENT_BIT) !== 0;
}

/** The id that a request has the first time and every other. */
export function plainUniqueOf(requestBytes: Buffer): bigint {
  const unique = uniqueOf(requestBytes);
  return isResent(requestBytes) ? unique - RESENT : unique;
}

/** A whole reply that says no. */
export function encodeErrorReply(unique: bigint, errno: number): Buffer {
  const reply = Buffer.alloc(REPLY_HEADER_BYTES);
  reply.writeUInt32LE(REPLY_HEADER_BYTES, REPLY_LENGTH);
  reply.writeInt32LE(-errno, ERROR);
  reply.writeBigUInt64LE(unique, REPLY_UNIQUE);
  return reply;
}

/** @throws ProtocolError when the header is incomplete or its length is not that of `reply` */
export function decodeReplyHeader(reply: Buffer): ReplyHeader {
  expectAtLeast(reply, REPLY_HEADER_BYTES, 'reply header');
  const sizeBytes = reply.readUInt32LE(REPLY_LENGTH);
  if (sizeBytes !== reply.length) throw new ProtocolError(`a reply of ${reply.length} bytes claims ${sizeBytes}`);
  return {
    sizeBytes,
    error: reply.readInt32LE(ERROR),
    unique: reply.subarray(REPLY_UNIQUE, REPLY_UNIQUE + UNIQUE_BYTES),
  };
}

/** A message from us to the kernel: the header with no id, and the code where an errno would be. */
export function encodeNotification(code: NotifyCode, body: Buffer = Buffer.alloc(0)): Buffer {
  const out = Buffer.alloc(REPLY_HEADER_BYTES + body.length);
  out.writeUInt32LE(out.length, REPLY_LENGTH);
  out.writeInt32LE(code, ERROR);
  body.copy(out, REPLY_HEADER_BYTES);
  return out;
}
