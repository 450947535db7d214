/**
 * What every structure here is made of. The kernel speaks in host byte order, which is little-endian on x86-64 and arm64.
 *
 * A request is held as a view of exactly its own bytes, so that reading past its end is impossible: Node throws first.
 */

const HIGH = 4;
const WORD = 2 ** 32;

/** A request that is cut off, too long or otherwise not what the protocol says. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
  /** What its sender is answered. */
  readonly errno: 'EINVAL' | 'EPROTO';

  constructor(message: string, errno: 'EINVAL' | 'EPROTO' = 'EINVAL') {
    super(message);
    this.errno = errno;
  }
}

/** @throws ProtocolError unless `bytes` is `expected` bytes long: structures change size only when negotiated */
export function expectSize(bytes: Buffer, expected: number, what: string): void {
  if (bytes.length === expected) return;
  throw new ProtocolError(`${what}: expected ${expected} bytes, got ${bytes.length}`);
}

/** @throws ProtocolError when `bytes` is shorter than `least` */
export function expectAtLeast(bytes: Buffer, least: number, what: string): void {
  if (bytes.length >= least) return;
  throw new ProtocolError(`${what}: expected at least ${least} bytes, got ${bytes.length}`);
}

/**
 * Reads a u64 as a number, without BigInt on the hot path.
 *
 * @throws ProtocolError from 2^53 on: we hand out no such node, and no file is that long
 */
export function readU64(bytes: Buffer, at: number): number {
  const value = bytes.readUInt32LE(at + HIGH) * WORD + bytes.readUInt32LE(at);
  if (Number.isSafeInteger(value)) return value;
  throw new ProtocolError(`a number beyond 2^53 at byte ${at}`);
}

export function writeU64(out: Buffer, at: number, value: number): void {
  const low = value >>> 0; // modulo 2^32, also of numbers beyond it
  out.writeUInt32LE(low, at);
  out.writeUInt32LE((value - low) / WORD, at + HIGH);
}

/** Reads a two's complement i64, as the seconds of a time before 1970 are. */
export function readI64(bytes: Buffer, at: number): number {
  return bytes.readInt32LE(at + HIGH) * WORD + bytes.readUInt32LE(at);
}

export function writeI64(out: Buffer, at: number, value: number): void {
  const low = value >>> 0; // modulo 2^32, and so never negative
  out.writeUInt32LE(low, at);
  out.writeInt32LE((value - low) / WORD, at + HIGH);
}

export function alignUp(sizeBytes: number, unit: number): number {
  return Math.ceil(sizeBytes / unit) * unit;
}

/**
 * Reads the name that ends a request: bytes up to a NUL, which is the request's last byte.
 *
 * @returns a string with one code unit (U+0000 to U+00FF) for each byte
 * @throws ProtocolError when it is empty, has no NUL or is followed by more
 */
export function decodeName(request: Buffer, at: number): string {
  const end = request.length - 1;
  if (end > at && request.indexOf(0, at) === end) return request.toString('latin1', at, end);
  throw new ProtocolError(`no name of ${end - at} bytes at the end of the request`);
}

/** Writes a name and its NUL; returns how many bytes that took. */
export function encodeName(out: Buffer, at: number, name: string): number {
  const sizeBytes = out.write(name, at, 'latin1');
  out[at + sizeBytes] = 0;
  return sizeBytes + 1;
}
