import { REQUEST_HEADER_BYTES } from './header.ts';
import { decodeName, encodeName, expectAtLeast, expectSize } from './wire.ts';

// struct fuse_getxattr_in (linux/fuse.h): 8 bytes; GETXATTR adds a name, LISTXATTR does not.
export const GETXATTR_IN_BYTES = 8;
// struct fuse_getxattr_out: 8 bytes, the answer to a caller who only asks how long the value is.
export const GETXATTR_OUT_BYTES = 8;
const SIZE = 0; // u32 in both

export interface GetxattrIn {
  /** How much room the caller has; 0 asks for the length alone. */
  sizeBytes: number;
  /** One code unit (U+0000 to U+00FF) for each byte. */
  name: string;
}

/** @throws ProtocolError when the request is cut off or its name has no end */
export function decodeGetxattrIn(request: Buffer): GetxattrIn {
  const nameAt = REQUEST_HEADER_BYTES + GETXATTR_IN_BYTES;
  expectAtLeast(request, nameAt, 'getxattr_in');
  return { sizeBytes: request.readUInt32LE(REQUEST_HEADER_BYTES + SIZE), name: decodeName(request, nameAt) };
}

export function encodeGetxattrIn(out: Buffer, at: number, { sizeBytes, name }: GetxattrIn): number {
  return encodeListxattrIn(out, at, sizeBytes) + encodeName(out, at + GETXATTR_IN_BYTES, name);
}

/**
 * @returns how much room the caller has; 0 asks for the length alone
 * @throws ProtocolError when the request is not exactly this long
 */
export function decodeListxattrIn(request: Buffer): number {
  expectSize(request, REQUEST_HEADER_BYTES + GETXATTR_IN_BYTES, 'getxattr_in');
  return request.readUInt32LE(REQUEST_HEADER_BYTES + SIZE);
}

export function encodeListxattrIn(out: Buffer, at: number, sizeBytes: number): number {
  out.fill(0, at, at + GETXATTR_IN_BYTES);
  out.writeUInt32LE(sizeBytes, at + SIZE);
  return GETXATTR_IN_BYTES;
}

// struct fuse_setxattr_in: 16 bytes with SETXATTR_EXT, 8 without; then the name, a NUL, and the value.
const SETXATTR_IN_BYTES = 16;
const SHORT_SETXATTR_IN_BYTES = 8;
const SETXATTR_FLAGS = 4; // u32
const SETXATTR_MORE_FLAGS = 8; // u32
const ACL_KILL_SGID = 1;

export interface SetxattrIn {
  /** XATTR_CREATE or XATTR_REPLACE of setxattr(2). */
  flags: number;
  /** Setting this ACL takes the setgid bit away. */
  killsSetgid: boolean;
  name: string;
  /** A view of the request. */
  value: Buffer;
}

/**
 * @param isExtended - SETXATTR_EXT was agreed on
 * @throws ProtocolError when the name has no end, or the value is not as long as it says
 */
export function decodeSetxattrIn(request: Buffer, isExtended: boolean): SetxattrIn {
  const nameAt = REQUEST_HEADER_BYTES + (isExtended ? SETXATTR_IN_BYTES : SHORT_SETXATTR_IN_BYTES);
  expectAtLeast(request, nameAt, 'setxattr_in');
  const sizeBytes = request.readUInt32LE(REQUEST_HEADER_BYTES + SIZE);
  const valueAt = request.length - sizeBytes;
  expectAtLeast(request, nameAt + sizeBytes, 'setxattr_in and its value');
  const more = isExtended ? request.readUInt32LE(REQUEST_HEADER_BYTES + SETXATTR_MORE_FLAGS) : 0;
  return {
    flags: request.readUInt32LE(REQUEST_HEADER_BYTES + SETXATTR_FLAGS),
    killsSetgid: (more & ACL_KILL_SGID) !== 0,
    name: decodeName(request.subarray(0, valueAt), nameAt),
    value: request.subarray(valueAt),
  };
}

export function encodeSetxattrIn(out: Buffer, at: number, { flags, killsSetgid, name, value }: SetxattrIn): number {
  out.fill(0, at, at + SETXATTR_IN_BYTES);
  out.writeUInt32LE(value.length, at + SIZE);
  out.writeUInt32LE(flags, at + SETXATTR_FLAGS);
  out.writeUInt32LE(killsSetgid ? ACL_KILL_SGID : 0, at + SETXATTR_MORE_FLAGS);
  const nameBytes = encodeName(out, at + SETXATTR_IN_BYTES, name);
  return SETXATTR_IN_BYTES + nameBytes + value.copy(out, at + SETXATTR_IN_BYTES + nameBytes);
}

export function encodeGetxattrOut(out: Buffer, at: number, sizeBytes: number): number {
  out.fill(0, at, at + GETXATTR_OUT_BYTES);
  out.writeUInt32LE(sizeBytes, at + SIZE);
  return GETXATTR_OUT_BYTES;
}

/** @throws ProtocolError when `body` is not 8 bytes long */
export function decodeGetxattrOut(body: Buffer): number {
  expectSize(body, GETXATTR_OUT_BYTES, 'getxattr_out');
  return body.readUInt32LE(SIZE);
}
