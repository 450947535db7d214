import { chmod, mkdir, open, rename, rm, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';

import type { BlobPlace } from './blob-file.ts';
import { thinDir, thinPath } from './blob-paths.ts';
import type { Digest } from './digest.ts';
import { syncDir, temporaryBeside } from './durable.ts';
import { faultPoint } from './fault-point.ts';
import { BASE_COUNT_MAX, encodeRecipe, PIECE_COUNT_MAX, type ThinPiece } from './thin-recipe.ts';

/** A stretch of a blob that another blob holds. */
export interface BorrowedPiece {
  at: number;
  lengthBytes: number;
  place: BlobPlace;
  /** CRC32 of the bytes as they were seen. */
  crc: number;
}

export interface BlobToStore {
  /** All bytes of the blob that are not borrowed, each at its place in the blob. */
  handle: FileHandle;
  sizeBytes: number;
  /** In order. */
  borrowed: readonly BorrowedPiece[];
}

/** Other programs cannot read a thin blob, so it must be worth it: in bytes, and as a part of the blob. */
export const SAVED_BYTES_MIN = 1 << 20;
export const SAVED_PART_MIN = 1 / 2;

const COPY_BYTES = 1 << 20;

/** Whether a blob is to be stored as a recipe. */
export function isWorthThin(borrowed: readonly BorrowedPiece[], sizeBytes: number, digest: Digest): boolean {
  const savedBytes = borrowed.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  if (savedBytes < SAVED_BYTES_MIN || savedBytes < sizeBytes * SAVED_PART_MIN) return false;
  const bases = new Set(borrowed.map(({ place }) => place.digest));
  const pieceCountMax = 2 * borrowed.length + 1;
  return bases.size <= BASE_COUNT_MAX && pieceCountMax <= PIECE_COUNT_MAX && !bases.has(digest);
}

/**
 * Stores a blob as a recipe, durably: literals, table, footer, in a temporary file that is renamed.
 *
 * @returns what it takes on disk
 */
export async function storeThin(storeRoot: string, digest: Digest, blob: BlobToStore): Promise<number> {
  const dir = thinDir(storeRoot);
  const madeDir = await mkdir(dir, { recursive: true });
  if (madeDir !== undefined) await syncDir(dirname(dir)).then(async () => await syncDir(storeRoot));
  const temporary = temporaryBeside(thinPath(storeRoot, digest));
  try {
    const fileBytes = await writeThin(temporary, blob);
    await chmod(temporary, 0o444);
    faultPoint('thin.written');
    await rename(temporary, thinPath(storeRoot, digest));
    faultPoint('thin.renamed');
    await syncDir(dir);
    return fileBytes;
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

async function writeThin(path: string, { handle, sizeBytes, borrowed }: BlobToStore): Promise<number> {
  const { pieces, literalBytes } = piecesOf(borrowed, sizeBytes);
  const out = await open(path, 'wx', 0o600);
  try {
    for (const { at, lengthBytes, base, offset } of pieces) {
      if (base === undefined) await copyBytes(handle, out, { from: at, to: offset, lengthBytes });
    }
    const recipe = encodeRecipe({ sizeBytes, literalBytes, pieces });
    await writeFully(out, recipe, literalBytes);
    await out.sync();
    return literalBytes + recipe.length;
  } finally {
    await out.close();
  }
}

/** What is borrowed, and what is between it. */
function piecesOf(
  borrowed: readonly BorrowedPiece[],
  sizeBytes: number,
): { pieces: ThinPiece[]; literalBytes: number } {
  const pieces: ThinPiece[] = [];
  let literalBytes = 0;
  let done = 0;
  const addLiteral = (end: number): void => {
    if (end > done) pieces.push({ at: done, lengthBytes: end - done, base: undefined, offset: literalBytes });
    literalBytes += end - done;
    done = end;
  };
  for (const { at, lengthBytes, place } of borrowed) {
    addLiteral(at);
    pieces.push({ at, lengthBytes, base: place.digest, offset: place.offset });
    done += lengthBytes;
  }
  addLiteral(sizeBytes);
  return { pieces, literalBytes };
}

async function copyBytes(
  source: FileHandle,
  target: FileHandle,
  { from, to, lengthBytes }: { from: number; to: number; lengthBytes: number },
): Promise<void> {
  const bytes = Buffer.allocUnsafe(Math.min(COPY_BYTES, lengthBytes));
  for (let done = 0; done < lengthBytes;) {
    const wanted = Math.min(bytes.length, lengthBytes - done);
    const { bytesRead } = await source.read(bytes, 0, wanted, from + done);
    if (bytesRead === 0) throw new RangeError('a temporary file is shorter than what was written to it');
    await writeFully(target, bytes.subarray(0, bytesRead), to + done);
    done += bytesRead;
  }
}

async function writeFully(target: FileHandle, bytes: Buffer, at: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await target.write(bytes, done, bytes.length - done, at + done);
    done += bytesWritten;
  }
}
