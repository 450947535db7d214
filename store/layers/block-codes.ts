import { BentoError } from '../errors.ts';
import {
  CODE_LENGTH_ROOT_BITS,
  DISTANCE_COUNT_MAX,
  DISTANCE_ROOT_BITS,
  ENTRY,
  fillCodeLengths,
  fillDistances,
  fillLiterals,
  LITERAL_COUNT_MAX,
  LITERAL_ROOT_BITS,
  newTable,
  type HuffmanTable,
} from './huffman-table.ts';

/** The two codes of a deflate block. */
export interface BlockCodes {
  literals: HuffmanTable;
  distances: HuffmanTable;
}

/** RFC 1951, section 3.2.7. */
const CODE_LENGTH_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const REPEAT_LAST = 16;
const REPEAT_ZERO_LONG = 18;
/** The fixed codes have two symbols more of each kind, without a meaning. */
const FIXED_LITERAL_COUNT = 288;
const FIXED_DISTANCE_COUNT = 32;

/** To be filled by `readDynamicCodes`, again and again. */
export function newCodes(): BlockCodes {
  return {
    literals: newTable(LITERAL_ROOT_BITS, FIXED_LITERAL_COUNT),
    distances: newTable(DISTANCE_ROOT_BITS, FIXED_DISTANCE_COUNT),
  };
}

let fixed: BlockCodes | undefined;

/** RFC 1951, section 3.2.6. */
export function fixedCodes(): BlockCodes {
  if (fixed !== undefined) return fixed;
  const lengths = new Uint8Array(FIXED_LITERAL_COUNT).fill(8);
  lengths.fill(9, 144, 256);
  lengths.fill(7, 256, 280);
  fixed = newCodes();
  fillLiterals(fixed.literals, lengths);
  fillDistances(fixed.distances, new Uint8Array(FIXED_DISTANCE_COUNT).fill(5));
  return fixed;
}

const codeLengthCode = newTable(CODE_LENGTH_ROOT_BITS, 0);

/**
 * Reads the codes with which a dynamic block begins.
 *
 * @param bit - of `bytes`, behind the type of the block; 1 KiB can be read from there
 * @returns the bit behind them
 * @throws BentoError FORMAT_INVALID
 */
export function readDynamicCodes(bytes: Buffer, bit: number, codes: BlockCodes): number {
  const literalCount = bitsAt(bytes, bit, 5) + 257;
  const distanceCount = bitsAt(bytes, bit + 5, 5) + 1;
  const codeLengthCount = bitsAt(bytes, bit + 10, 4) + 4;
  if (literalCount > LITERAL_COUNT_MAX || distanceCount > DISTANCE_COUNT_MAX) {
    throw invalidBlock('a block has too many length or distance symbols');
  }
  fillCodeLengths(codeLengthCode, readCodeLengthLengths(bytes, bit + 14, codeLengthCount));
  const lengths = new Uint8Array(literalCount + distanceCount);
  const end = readLengths(bytes, bit + 14 + codeLengthCount * 3, lengths);
  fillLiterals(codes.literals, lengths.subarray(0, literalCount));
  fillDistances(codes.distances, lengths.subarray(literalCount));
  return end;
}

function readCodeLengthLengths(bytes: Buffer, bit: number, count: number): Uint8Array {
  const lengths = new Uint8Array(CODE_LENGTH_ORDER.length);
  for (let i = 0; i < count; i += 1) lengths[CODE_LENGTH_ORDER[i] ?? 0] = bitsAt(bytes, bit + i * 3, 3);
  return lengths;
}

/** @param lengths - filled @returns the bit behind them */
function readLengths(bytes: Buffer, start: number, lengths: Uint8Array): number {
  let bit = start;
  for (let done = 0; done < lengths.length;) {
    const entry = codeLengthCode.entries[bitsAt(bytes, bit, CODE_LENGTH_ROOT_BITS)] ?? 0;
    const symbol = entry >>> ENTRY.valueShift;
    if ((entry & ENTRY.kind) !== ENTRY.plain) throw invalidBlock('invalid code lengths set');
    bit += entry & ENTRY.bits;
    if (symbol < REPEAT_LAST) {
      lengths[done++] = symbol;
      continue;
    }
    if (symbol === REPEAT_LAST && done === 0) throw invalidBlock('invalid bit length repeat');
    const countBits = symbol === REPEAT_LAST ? 2 : symbol === REPEAT_ZERO_LONG ? 7 : 3;
    const end = done + bitsAt(bytes, bit, countBits) + (symbol === REPEAT_ZERO_LONG ? 11 : 3);
    bit += countBits;
    if (end > lengths.length) throw invalidBlock('invalid bit length repeat');
    lengths.fill(symbol === REPEAT_LAST ? (lengths[done - 1] ?? 0) : 0, done, end);
    done = end;
  }
  return bit;
}

/** Up to 16 bits, the first lowest. */
export function bitsAt(bytes: Buffer, bit: number, count: number): number {
  const at = bit >> 3;
  const three = (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16);
  return (three >>> (bit & 7)) & ((1 << count) - 1);
}

function invalidBlock(why: string): BentoError {
  return new BentoError('FORMAT_INVALID', `a gzip member cannot be read: ${why}`);
}
