import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { POSITION_MAX, ROOT_POSITION } from '../../index/rows.ts';
import { hexOf, type Digest } from '../../store/digest.ts';
import { temporaryBeside } from '../../store/durable.ts';

/**
 * Which files of a layer were read first, while it was mounted, by their positions in its table of contents: those mean the
 * same in every index. A cache: it may go at any time, and a damaged file counts as none.
 *
 * File: magic (8 bytes), positions (u32 each, little-endian), SHA-256 of all that (32 bytes).
 */

const MAGIC = Buffer.from('bentoFR1');
const HASH_BYTES = 32;
const POSITION_BYTES = 4;
/** No more files of a layer are remembered, or put before the others. */
export const FIRST_FILES_MAX = 2000;
/** A larger file is read in parts, if at all: it is not fetched as a whole before anybody asks. */
export const FIRST_FILE_BYTES_MAX = 8 * 1024 * 1024;
const FILE_BYTES_MAX = MAGIC.length + FIRST_FILES_MAX * POSITION_BYTES + HASH_BYTES;

/** The folder with a file for each layer, named by its hex digest. */
export function firstReadsDir(cacheDir: string): string {
  return join(cacheDir, 'first-reads');
}

/** The positions of the files that were read first, in that order; none when nothing is known. */
export function loadFirstReads(cacheDir: string, layer: Digest): number[] {
  try {
    return decode(readFileSync(pathOf(cacheDir, layer))) ?? [];
  } catch {
    return []; // the usual case: there is none
  }
}

/**
 * Remembers what was read first, each position once and no more of them than there may be. Replaces the file as a whole, so
 * a reader sees the old or the new one; it need not outlive a power cut.
 *
 * @throws what writing the file throws
 */
export function storeFirstReads(cacheDir: string, layer: Digest, positions: Iterable<number>): void {
  const path = pathOf(cacheDir, layer);
  const temporary = temporaryBeside(path);
  mkdirSync(firstReadsDir(cacheDir), { recursive: true, mode: 0o755 });
  try {
    writeFileSync(temporary, encode([...new Set(positions)].slice(0, FIRST_FILES_MAX)), { mode: 0o600 });
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

function pathOf(cacheDir: string, layer: Digest): string {
  return join(firstReadsDir(cacheDir), hexOf(layer));
}

function encode(positions: readonly number[]): Buffer {
  const body = Buffer.alloc(MAGIC.length + positions.length * POSITION_BYTES);
  MAGIC.copy(body);
  positions.forEach((position, at) => body.writeUInt32LE(position, MAGIC.length + at * POSITION_BYTES));
  return Buffer.concat([body, hashOf(body)]);
}

function decode(bytes: Buffer): number[] | undefined {
  if (bytes.length < MAGIC.length + HASH_BYTES || bytes.length > FILE_BYTES_MAX) return undefined;
  const body = bytes.subarray(0, -HASH_BYTES);
  if (!body.subarray(0, MAGIC.length).equals(MAGIC) || !hashOf(body).equals(bytes.subarray(-HASH_BYTES)))
    return undefined;
  const positions: number[] = [];
  for (let at = MAGIC.length; at + POSITION_BYTES <= body.length; at += POSITION_BYTES) {
    const position = body.readUInt32LE(at);
    if (position > ROOT_POSITION && position <= POSITION_MAX) positions.push(position);
  }
  return positions;
}

function hashOf(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest();
}
