import { createHash } from 'node:crypto';
import { fstatSync, readSync } from 'node:fs';

import { digestFromBytes, digestToBytes, shortDigest, type Digest } from './digest.ts';
import { BentoError } from './errors.ts';

/** A stretch of a thin blob. */
export interface ThinPiece {
  /** Where in the blob it begins. */
  at: number;
  lengthBytes: number;
  /** The blob that holds the same bytes; undefined when the recipe's own file has them. */
  base: Digest | undefined;
  /** Where they begin: in the base blob, or in the recipe's own file. */
  offset: number;
}

/** What a thin blob is made of, in order and without gaps. */
export interface Recipe {
  sizeBytes: number;
  /** Bytes at the beginning of the recipe's own file that are pieces of the blob. */
  literalBytes: number;
  pieces: readonly ThinPiece[];
}

/** As many as a checkpoint has layers at most: the bases are layers below. */
export const BASE_COUNT_MAX = 127;
/** A file of 64 GiB of which every second chunk changed. */
export const PIECE_COUNT_MAX = 65_536;

// After the literals: 32 bytes for each base, 24 for each piece, and a footer of 64. All numbers are little-endian.
const BASE_BYTES = 32;
const PIECE_BYTES = 24;
const PIECE_SOURCE = 0; // u32: 0 for the file itself, else the number of a base, counted from 1; then a u32 of 0
const PIECE_OFFSET = 8; // u64
const PIECE_LENGTH = 16; // u64
const FOOTER_BYTES = 64;
const FOOTER_SIZE = 0; // u64, of the blob
const FOOTER_LITERALS = 8; // u64
const FOOTER_BASES = 16; // u32
const FOOTER_PIECES = 20; // u32
const FOOTER_DIGEST = 24; // SHA-256 of bases, pieces and the footer up to here
const FOOTER_MAGIC = 56;
/** The last byte is the version. */
const MAGIC = Buffer.from('BNTTHIN\x01', 'latin1');

/** Everything of a recipe's file but the literals, which stand before it. */
export function encodeRecipe({ sizeBytes, literalBytes, pieces }: Recipe): Buffer {
  const bases = basesOf(pieces);
  if (bases.length > BASE_COUNT_MAX || pieces.length > PIECE_COUNT_MAX) throw new RangeError('too much for a recipe');
  const out = Buffer.alloc(bases.length * BASE_BYTES + pieces.length * PIECE_BYTES + FOOTER_BYTES);
  bases.forEach((base, i) => digestToBytes(base).copy(out, i * BASE_BYTES));
  pieces.forEach(({ base, offset, lengthBytes }, i) => {
    const at = bases.length * BASE_BYTES + i * PIECE_BYTES;
    out.writeUInt32LE(base === undefined ? 0 : bases.indexOf(base) + 1, at + PIECE_SOURCE);
    out.writeBigUInt64LE(BigInt(offset), at + PIECE_OFFSET);
    out.writeBigUInt64LE(BigInt(lengthBytes), at + PIECE_LENGTH);
  });
  const footer = out.subarray(out.length - FOOTER_BYTES);
  footer.writeBigUInt64LE(BigInt(sizeBytes), FOOTER_SIZE);
  footer.writeBigUInt64LE(BigInt(literalBytes), FOOTER_LITERALS);
  footer.writeUInt32LE(bases.length, FOOTER_BASES);
  footer.writeUInt32LE(pieces.length, FOOTER_PIECES);
  const signed = out.subarray(0, out.length - FOOTER_BYTES + FOOTER_DIGEST);
  createHash('sha256').update(signed).digest().copy(footer, FOOTER_DIGEST);
  MAGIC.copy(footer, FOOTER_MAGIC);
  return out;
}

/** The blobs that a recipe takes bytes from, each once. */
export function basesOf(pieces: readonly ThinPiece[]): Digest[] {
  return [...new Set(pieces.flatMap(({ base }) => base ?? []))];
}

/**
 * Reads the recipe at the end of a thin blob's file.
 *
 * @param digest - of the blob: what the file is called
 * @throws BentoError FORMAT_INVALID or FORMAT_UNSUPPORTED naming the blob
 */
export function readRecipe(fd: number, digest: Digest): Recipe {
  const fileBytes = fstatSync(fd).size;
  if (fileBytes < FOOTER_BYTES) throw invalid(digest, 'it is cut off');
  const footer = readAt(fd, fileBytes - FOOTER_BYTES, FOOTER_BYTES, digest);
  const { literalBytes, tableBytes, baseCount, sizeBytes } = decodeFooter(footer, digest);
  if (literalBytes + tableBytes + FOOTER_BYTES !== fileBytes) throw invalid(digest, 'it is not as long as it says');
  const table = readAt(fd, literalBytes, tableBytes, digest);
  const actual = createHash('sha256').update(table).update(footer.subarray(0, FOOTER_DIGEST)).digest();
  if (!actual.equals(footer.subarray(FOOTER_DIGEST, FOOTER_MAGIC))) throw invalid(digest, 'its checksum is wrong');
  const pieces = decodePieces(table, baseCount, digest);
  checkSums({ sizeBytes, literalBytes, pieces }, digest);
  return { sizeBytes, literalBytes, pieces };
}

interface Footer {
  sizeBytes: number;
  literalBytes: number;
  baseCount: number;
  tableBytes: number;
}

function decodeFooter(footer: Buffer, digest: Digest): Footer {
  const magic = footer.subarray(FOOTER_MAGIC);
  if (!magic.subarray(0, -1).equals(MAGIC.subarray(0, -1))) throw invalid(digest, 'it does not end like one');
  if (!magic.equals(MAGIC)) {
    const version = magic.readUInt8(MAGIC.length - 1);
    throw new BentoError('FORMAT_UNSUPPORTED', `thin blob ${digest} is of version ${version}, which is too new`, {
      hint: 'use the version of bento that wrote it, or a newer one',
    });
  }
  const baseCount = footer.readUInt32LE(FOOTER_BASES);
  const pieceCount = footer.readUInt32LE(FOOTER_PIECES);
  if (baseCount > BASE_COUNT_MAX) throw invalid(digest, `it has ${baseCount} bases, limit ${BASE_COUNT_MAX}`);
  if (pieceCount > PIECE_COUNT_MAX) throw invalid(digest, `it has ${pieceCount} pieces, limit ${PIECE_COUNT_MAX}`);
  return {
    sizeBytes: safeNumber(footer.readBigUInt64LE(FOOTER_SIZE), digest),
    literalBytes: safeNumber(footer.readBigUInt64LE(FOOTER_LITERALS), digest),
    baseCount,
    tableBytes: baseCount * BASE_BYTES + pieceCount * PIECE_BYTES,
  };
}

function decodePieces(table: Buffer, baseCount: number, digest: Digest): ThinPiece[] {
  const bases: Digest[] = [];
  for (let i = 0; i < baseCount; i += 1) {
    bases.push(digestFromBytes(table.subarray(i * BASE_BYTES, (i + 1) * BASE_BYTES)));
  }
  if (bases.includes(digest)) throw invalid(digest, 'it is made of itself');
  const pieces: ThinPiece[] = [];
  let at = 0;
  for (let entry = baseCount * BASE_BYTES; entry < table.length; entry += PIECE_BYTES) {
    const source = table.readUInt32LE(entry + PIECE_SOURCE);
    if (source > baseCount) throw invalid(digest, `it has no base ${source}`);
    const offset = safeNumber(table.readBigUInt64LE(entry + PIECE_OFFSET), digest);
    const lengthBytes = safeNumber(table.readBigUInt64LE(entry + PIECE_LENGTH), digest);
    if (lengthBytes === 0) throw invalid(digest, 'a piece of it is empty');
    pieces.push({ at, lengthBytes, base: source === 0 ? undefined : bases[source - 1], offset });
    at = safeNumber(at + lengthBytes, digest);
  }
  return pieces;
}

/** The pieces make up the blob, and the literals follow one another in the file. */
function checkSums({ sizeBytes, literalBytes, pieces }: Recipe, digest: Digest): void {
  const last = pieces.at(-1);
  if ((last === undefined ? 0 : last.at + last.lengthBytes) !== sizeBytes)
    throw invalid(digest, 'its pieces do not make up its size');
  let literalsDone = 0;
  for (const { base, offset, lengthBytes } of pieces) {
    if (base !== undefined) continue;
    if (offset !== literalsDone) throw invalid(digest, 'its own pieces overlap or leave gaps');
    literalsDone += lengthBytes;
  }
  if (literalsDone !== literalBytes) throw invalid(digest, 'its own pieces are not as long as it says');
}

function safeNumber(value: bigint | number, digest: Digest): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number)) throw invalid(digest, 'a number in it is too large');
  return number;
}

function readAt(fd: number, offset: number, lengthBytes: number, digest: Digest): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  for (let done = 0; done < lengthBytes;) {
    const read = readSync(fd, bytes, done, lengthBytes - done, offset + done);
    if (read === 0) throw invalid(digest, 'it is cut off');
    done += read;
  }
  return bytes;
}

function invalid(digest: Digest, why: string): BentoError {
  return new BentoError('FORMAT_INVALID', `the recipe of thin blob ${shortDigest(digest)} cannot be used: ${why}`, {
    hint: '`bento verify` says which checkpoints need it',
  });
}
