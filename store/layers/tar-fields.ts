import { BentoError } from '../errors.ts';
import { fromBytes, type ByteString } from '../byte-string.ts';

/** Everything in a tar is padded to this. */
export const BLOCK_BYTES = 512;

export interface Field {
  at: number;
  bytes: number;
}

// POSIX.1-2017, pax, "ustar Interchange Format".
export const NAME: Field = { at: 0, bytes: 100 };
export const MODE: Field = { at: 100, bytes: 8 };
export const UID: Field = { at: 108, bytes: 8 };
export const GID: Field = { at: 116, bytes: 8 };
export const SIZE: Field = { at: 124, bytes: 12 };
export const MTIME: Field = { at: 136, bytes: 12 };
const CHECKSUM: Field = { at: 148, bytes: 8 };
export const TYPE_FLAG: Field = { at: 156, bytes: 1 };
export const LINK_NAME: Field = { at: 157, bytes: 100 };
export const MAGIC: Field = { at: 257, bytes: 8 };
export const DEV_MAJOR: Field = { at: 329, bytes: 8 };
export const DEV_MINOR: Field = { at: 337, bytes: 8 };
export const PREFIX: Field = { at: 345, bytes: 155 };

/** Magic and version together; GNU tar writes `ustar  \0` and has no prefix field. */
export const USTAR_MAGIC = 'ustar\x0000';

/** How many zero bytes follow `sizeBytes` of content. */
export function paddingOf(sizeBytes: number): number {
  return (BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES;
}

export function putText(block: Buffer, field: Field, text: ByteString): void {
  if (text.length > field.bytes) throw new RangeError(`${text.length} bytes do not fit a field of ${field.bytes}`);
  block.write(text, field.at, 'latin1');
}

export function getText(block: Buffer, field: Field): ByteString {
  const bytes = block.subarray(field.at, field.at + field.bytes);
  const end = bytes.indexOf(0);
  return fromBytes(end < 0 ? bytes : bytes.subarray(0, end));
}

const OCTAL_MAX = Array.from({ length: 13 }, (_, bytes) => 8 ** (bytes - 1) - 1);

/** The largest number that fits in octal digits and a NUL. */
export function octalMax(field: Field): number {
  return OCTAL_MAX[field.bytes] ?? 0;
}

export function putOctal(block: Buffer, field: Field, value: number): void {
  if (!Number.isInteger(value) || value < 0 || value > octalMax(field)) {
    throw new RangeError(`${value} does not fit ${field.bytes - 1} octal digits`);
  }
  let rest = value;
  for (let at = field.at + field.bytes - 2; at >= field.at; at -= 1) {
    block[at] = 0x30 + (rest % 8);
    rest = Math.floor(rest / 8);
  }
}

/** A number in octal, or in base-256 (GNU and star: top bit set, big-endian two's complement). */
export function getNumber(block: Buffer, field: Field): number {
  const bytes = block.subarray(field.at, field.at + field.bytes);
  if (((bytes[0] ?? 0) & 0x80) !== 0) return parseBase256(bytes);
  const digits = fromBytes(bytes)
    .replace(/^[ \0]+/, '')
    .replace(/[ \0].*$/s, '');
  if (!/^[0-7]*$/.test(digits)) throw new BentoError('FORMAT_INVALID', 'a tar header holds a number that is not octal');
  return safeInteger(digits === '' ? 0 : parseInt(digits, 8));
}

function parseBase256(bytes: Buffer): number {
  const bits = bytes.length * 8;
  const raw = BigInt(`0x${bytes.toString('hex')}`) & ((1n << BigInt(bits - 1)) - 1n); // without the marker bit
  return safeInteger(Number(BigInt.asIntN(bits - 1, raw)));
}

function safeInteger(value: number): number {
  if (Number.isSafeInteger(value)) return value;
  throw new BentoError('FORMAT_INVALID', 'a tar header holds a number beyond all reason');
}

/** Fills in the checksum: six octal digits, NUL, space, as every tar since V7 has written it. */
export function sealHeader(block: Buffer): Buffer {
  block.fill(0x20, CHECKSUM.at, CHECKSUM.at + CHECKSUM.bytes); // the field itself counts as spaces
  let sum = 0;
  for (let i = 0; i < BLOCK_BYTES; i++) sum += block[i] ?? 0;
  putOctal(block, { at: CHECKSUM.at, bytes: CHECKSUM.bytes - 1 }, sum);
  block[CHECKSUM.at + CHECKSUM.bytes - 2] = 0;
  return block;
}

/** Old tars summed signed characters: both sums are accepted, as everybody does. */
export function hasValidChecksum(block: Buffer): boolean {
  const stored = getNumber(block, CHECKSUM);
  const { unsigned, signed } = checksumOf(block);
  return stored === unsigned || stored === signed;
}

function checksumOf(block: Buffer): { unsigned: number; signed: number } {
  let unsigned = CHECKSUM.bytes * 0x20; // the field itself counts as spaces
  let highBytes = 0;
  for (let i = 0; i < BLOCK_BYTES; i++) {
    if (i >= CHECKSUM.at && i < CHECKSUM.at + CHECKSUM.bytes) continue;
    const byte = block[i] ?? 0;
    unsigned += byte;
    if (byte >= 0x80) highBytes++;
  }
  return { unsigned, signed: unsigned - 256 * highBytes };
}
