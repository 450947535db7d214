import { BentoError } from '../errors.ts';

/**
 * What a code of a deflate block means, in one number:
 * bits 0 to 4 how many bits to go on by, 5 to 8 how many of those behind the code add to the value, 9 to 11 the kind, from 16 on
 * the value (inflated bytes, or where the entries of a longer code begin).
 */
export const ENTRY = {
  bits: 0x1f,
  extraShift: 5,
  extra: 0xf,
  kind: 0x7 << 9,
  /** Literals, one or several, or a distance: nothing but bits to go on by and a value. */
  plain: 0,
  length: 1 << 9,
  endOfBlock: 2 << 9,
  /** The code is longer than the first level of the table. */
  longer: 3 << 9,
  /** No code begins so. */
  nothing: 4 << 9,
  valueShift: 16,
} as const;

/** RFC 1951, section 3.2.7. */
export const CODE_BITS_MAX = 15;
export const LITERAL_COUNT_MAX = 286;
export const DISTANCE_COUNT_MAX = 30;
const END_OF_BLOCK = 256;

/** Bits looked up at once, and then those of a longer code. */
export const LITERAL_ROOT_BITS = 11;
export const DISTANCE_ROOT_BITS = 9;
export const CODE_LENGTH_ROOT_BITS = 7;

/** RFC 1951, section 3.2.5: symbols 257 to 285. */
const LENGTH_BASES = [
  3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258,
];
const LENGTH_EXTRA_BITS = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];

/** What the entry of a symbol says besides the length of its code. */
type Meaning = (symbol: number) => number;

/** A table to be filled anew for each block: first level, and behind it the rest of longer codes. */
export interface HuffmanTable {
  entries: Int32Array;
  rootBits: number;
}

/** Room for any code of so many symbols. */
export function newTable(rootBits: number, symbolCount: number): HuffmanTable {
  return { entries: new Int32Array((1 << rootBits) + (symbolCount << (CODE_BITS_MAX - rootBits))), rootBits };
}

/** Literals are counted, not looked at: several short ones become one entry. @throws BentoError FORMAT_INVALID */
export function fillLiterals(table: HuffmanTable, lengths: Uint8Array): void {
  if (lengths[END_OF_BLOCK] === 0) throw invalidCode('a block never ends');
  fill(table, lengths, literalMeaning);
  joinLiterals(table);
}

/** Distances are passed over: an entry says how many bits code and distance take. @throws BentoError FORMAT_INVALID */
export function fillDistances(table: HuffmanTable, lengths: Uint8Array): void {
  fill(table, lengths, distanceMeaning);
}

/** The code in which the lengths of the others are written. @throws BentoError FORMAT_INVALID */
export function fillCodeLengths(table: HuffmanTable, lengths: Uint8Array): void {
  if (!lengths.some((bits) => bits > 0)) throw invalidCode('there are no codes');
  fill(table, lengths, (symbol) => symbol << ENTRY.valueShift, false);
}

function literalMeaning(symbol: number): number {
  if (symbol < END_OF_BLOCK) return ENTRY.plain | (1 << ENTRY.valueShift);
  if (symbol === END_OF_BLOCK) return ENTRY.endOfBlock;
  const base = LENGTH_BASES[symbol - END_OF_BLOCK - 1];
  const extraBits = LENGTH_EXTRA_BITS[symbol - END_OF_BLOCK - 1];
  if (base === undefined || extraBits === undefined) return ENTRY.nothing;
  return ENTRY.length | (extraBits << ENTRY.extraShift) | (base << ENTRY.valueShift);
}

/** Added to the length of the code. */
function distanceMeaning(symbol: number): number {
  if (symbol >= DISTANCE_COUNT_MAX) return ENTRY.nothing;
  return symbol < 4 ? 0 : (symbol >> 1) - 1;
}

/** @param mayBeSingle - a code of one symbol, which has one bit, is the only one that may leave something undefined */
function fill(table: HuffmanTable, lengths: Uint8Array, meaning: Meaning, mayBeSingle = true): void {
  const { entries, rootBits } = table;
  const nextCode = firstCodes(lengths, mayBeSingle);
  entries.fill(ENTRY.nothing, 0, 1 << rootBits);
  let end = 1 << rootBits;
  for (let symbol = 0; symbol < lengths.length; symbol += 1) {
    const bits = lengths[symbol] ?? 0;
    if (bits === 0) continue;
    const code = reversed(nextCode[bits] ?? 0, bits);
    nextCode[bits] = (nextCode[bits] ?? 0) + 1;
    const entry = meaning(symbol) + bits;
    if (bits <= rootBits) {
      for (let at = code; at < 1 << rootBits; at += 1 << bits) entries[at] = entry;
      continue;
    }
    end = fillLonger(table, { code, bits, entry }, end);
  }
}

/** @param end - of the entries in use; those of longer codes that begin alike lie together */
function fillLonger(
  { entries, rootBits }: HuffmanTable,
  { code, bits, entry }: { code: number; bits: number; entry: number },
  end: number,
): number {
  const longerBits = CODE_BITS_MAX - rootBits;
  const root = code & ((1 << rootBits) - 1);
  const isNew = ((entries[root] ?? 0) & ENTRY.kind) !== ENTRY.longer;
  if (isNew) {
    entries[root] = ENTRY.longer | (end << ENTRY.valueShift);
    entries.fill(ENTRY.nothing, end, end + (1 << longerBits));
  }
  const start = (entries[root] ?? 0) >>> ENTRY.valueShift;
  for (let at = code >>> rootBits; at < 1 << longerBits; at += 1 << (bits - rootBits)) entries[start + at] = entry;
  return isNew ? end + (1 << longerBits) : end;
}

/** RFC 1951, section 3.2.2: the first code of each length. @throws BentoError FORMAT_INVALID when they do not fit */
function firstCodes(lengths: Uint8Array, mayBeSingle: boolean): Uint16Array {
  const counts = new Uint16Array(CODE_BITS_MAX + 1);
  for (const bits of lengths) counts[bits] = (counts[bits] ?? 0) + 1;
  counts[0] = 0;
  const first = new Uint16Array(CODE_BITS_MAX + 1);
  let code = 0;
  let left = 1;
  let longest = 0;
  for (let bits = 1; bits <= CODE_BITS_MAX; bits += 1) {
    const count = counts[bits] ?? 0;
    code = (code + (counts[bits - 1] ?? 0)) << 1;
    first[bits] = code;
    left = left * 2 - count;
    if (left < 0) throw invalidCode('it has more codes than there can be');
    if (count > 0) longest = bits;
  }
  if (left > 0 && longest > 0 && !(mayBeSingle && longest === 1)) throw invalidCode('it lacks codes');
  return first;
}

/** Codes come with their first bit lowest. */
function reversed(code: number, bits: number): number {
  let out = 0;
  for (let i = 0; i < bits; i += 1) out |= ((code >>> i) & 1) << (bits - 1 - i);
  return out;
}

/** Where a literal leaves bits in the first level for those that follow it, they are taken together. */
function joinLiterals({ entries, rootBits }: HuffmanTable): void {
  for (let at = 0; at < 1 << rootBits; at += 1) {
    const entry = entries[at] ?? 0;
    if ((entry & ENTRY.kind) !== ENTRY.plain) continue;
    const next = entries[at >>> (entry & ENTRY.bits)] ?? 0;
    const bits = (entry & ENTRY.bits) + (next & ENTRY.bits);
    if ((next & ENTRY.kind) === ENTRY.plain && bits <= rootBits) entries[at] = entry + next;
  }
}

function invalidCode(why: string): BentoError {
  return new BentoError('FORMAT_INVALID', `a gzip member cannot be read: ${why}`);
}
