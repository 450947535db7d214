import { closeSync, fstatSync } from 'node:fs';

import { thinPath, wholePath } from './blob-paths.ts';
import { shortDigest, type Digest } from './digest.ts';
import { BentoError } from './errors.ts';
import { openIfThere } from './open-if-there.ts';
import { BlobNotHere, LazyFile } from './lazy-file.ts';
import { basesOf, readRecipe, type Recipe, type ThinPiece } from './thin-recipe.ts';

/** Bytes of a blob by the name that others may give them. */
export interface BlobPlace {
  digest: Digest;
  offset: number;
}

/** A stretch of a blob as it lies in one open file. */
export interface BlobRange {
  fd: number;
  /** In the file. */
  offset: number;
  lengthBytes: number;
  /** What a recipe may call it: bytes that the file of this blob itself holds. */
  place: BlobPlace;
}

/**
 * A blob held open for reading at random, whole, thin or partly here; nobody need know which. The bytes are not verified: whoever reads
 * parts checks the chunk digests.
 */
export interface BlobFile {
  readonly digest: Digest;
  readonly sizeBytes: number;
  /** How many files it may hold open. */
  readonly fileCount: number;
  /** Whether a stretch can be read without a registry. */
  isHere(offset: number, lengthBytes: number): boolean;
  /**
   * Where a stretch lies.
   *
   * @throws BentoError BLOB_MISSING or FORMAT_INVALID when that of a thin blob is not to be had; BLOB_REMOTE when it is not
   *   here yet; RangeError outside the blob
   */
  ranges(offset: number, lengthBytes: number): BlobRange[];
  /** The same for bytes that lie in the blob's own file: all of a whole blob, the literals of a thin one. */
  ownRange(offset: number, lengthBytes: number): BlobRange;
  close(): void;
}

/** @throws BentoError BLOB_MISSING, or FORMAT_INVALID when it is thin and its recipe damaged */
export function openBlobFile(storeRoot: string, digest: Digest): BlobFile {
  const file =
    openWhole(storeRoot, digest) ??
    openThin(storeRoot, digest) ??
    LazyFile.open(storeRoot, digest) ??
    openWhole(storeRoot, digest); // what is thin or partly here may become whole between the looks
  if (file === undefined) throw missingBlob(digest);
  return file;
}

/** @throws BentoError as `openBlobFile`; undefined when the store has no such thin blob */
export function openThin(storeRoot: string, digest: Digest): ThinFile | undefined {
  const fd = openIfThere(thinPath(storeRoot, digest));
  if (fd === undefined) return undefined;
  try {
    return new ThinFile(storeRoot, digest, { fd, recipe: readRecipe(fd, digest) });
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function openWhole(storeRoot: string, digest: Digest): BlobFile | undefined {
  const fd = openIfThere(wholePath(storeRoot, digest));
  return fd === undefined ? undefined : new WholeFile(digest, fd);
}

/** A file that holds all bytes of a blob. */
export class WholeFile implements BlobFile {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly fileCount = 1;
  readonly #fd: number;

  /** @param fd - closed by `close` */
  constructor(digest: Digest, fd: number) {
    this.digest = digest;
    this.#fd = fd;
    this.sizeBytes = fstatSync(fd).size;
  }

  isHere(): boolean {
    return true;
  }

  ranges(offset: number, lengthBytes: number): BlobRange[] {
    return lengthBytes === 0 ? [] : [this.ownRange(offset, lengthBytes)];
  }

  ownRange(offset: number, lengthBytes: number): BlobRange {
    if (offset + lengthBytes > this.sizeBytes) throw endsBefore(this, offset + lengthBytes);
    return { fd: this.#fd, offset, lengthBytes, place: { digest: this.digest, offset } };
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** A recipe, and the blobs it names, each opened when first needed: one that is missing costs no more than its pieces. */
export class ThinFile implements BlobFile {
  readonly digest: Digest;
  readonly recipe: Recipe;
  readonly #storeRoot: string;
  readonly #fd: number;
  readonly #bases = new Map<Digest, BlobFile>();
  /** The blobs that it takes bytes from. */
  readonly bases: readonly Digest[];

  constructor(storeRoot: string, digest: Digest, { fd, recipe }: { fd: number; recipe: Recipe }) {
    this.#storeRoot = storeRoot;
    this.digest = digest;
    this.#fd = fd;
    this.recipe = recipe;
    this.bases = basesOf(recipe.pieces);
  }

  get sizeBytes(): number {
    return this.recipe.sizeBytes;
  }

  get fileCount(): number {
    return this.bases.length + 1;
  }

  isHere(offset: number, lengthBytes: number): boolean {
    return this.#partsOf(offset, lengthBytes).every(({ piece: { at, base, offset: inBase }, from, partBytes }) => {
      return base === undefined || this.#base(base).isHere(inBase + from - at, partBytes);
    });
  }

  ranges(offset: number, lengthBytes: number): BlobRange[] {
    return this.#partsOf(offset, lengthBytes).map(({ piece, from, partBytes }) =>
      this.#rangeOf(piece, from, partBytes),
    );
  }

  /** A stretch, cut where its pieces end. */
  #partsOf(offset: number, lengthBytes: number): { piece: ThinPiece; from: number; partBytes: number }[] {
    if (offset + lengthBytes > this.sizeBytes) throw endsBefore(this, offset + lengthBytes);
    const parts = [];
    const end = offset + lengthBytes;
    for (let i = this.#pieceAt(offset), from = offset; from < end; i += 1) {
      const piece = this.recipe.pieces[i];
      if (piece === undefined) throw new RangeError('a recipe without gaps has a gap');
      const partBytes = Math.min(piece.at + piece.lengthBytes, end) - from;
      parts.push({ piece, from, partBytes });
      from += partBytes;
    }
    return parts;
  }

  ownRange(offset: number, lengthBytes: number): BlobRange {
    if (offset + lengthBytes > this.sizeBytes) throw endsBefore(this, offset + lengthBytes);
    const piece = this.recipe.pieces[this.#pieceAt(offset)];
    if (piece?.base === undefined && piece !== undefined && offset + lengthBytes <= piece.at + piece.lengthBytes)
      return this.#rangeOf(piece, offset, lengthBytes);
    throw new BentoError(
      'FORMAT_INVALID',
      `thin blob ${shortDigest(this.digest)} does not hold bytes ${offset} to ${offset + lengthBytes} itself`,
      { hint: 'recipes name no bytes that lie elsewhere again: `bento verify` says which checkpoints are whole' },
    );
  }

  close(): void {
    closeSync(this.#fd);
    for (const base of this.#bases.values()) base.close();
    this.#bases.clear();
  }

  #rangeOf({ at, base, offset }: ThinPiece, from: number, lengthBytes: number): BlobRange {
    const inSource = offset + from - at;
    if (base !== undefined) return this.#base(base).ownRange(inSource, lengthBytes);
    return { fd: this.#fd, offset: inSource, lengthBytes, place: { digest: this.digest, offset: from } };
  }

  #base(digest: Digest): BlobFile {
    const known = this.#bases.get(digest);
    if (known !== undefined) return known;
    const file = openBlobFile(this.#storeRoot, digest);
    this.#bases.set(digest, file);
    return file;
  }

  /** The piece that holds a byte. */
  #pieceAt(offset: number): number {
    const { pieces } = this.recipe;
    let [low, high] = [0, pieces.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      const piece = pieces[middle];
      if (piece !== undefined && piece.at + piece.lengthBytes <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** What to say of a blob that has to be whole and is not. */
export function notStored(storeRoot: string, digest: Digest): BentoError {
  const file = LazyFile.open(storeRoot, digest);
  file?.close();
  if (file === undefined) return missingBlob(digest);
  return new BlobNotHere(`blob ${shortDigest(digest)} was not fetched as a whole yet`, { storeRoot, digest });
}

export function missingBlob(digest: Digest): BentoError {
  return new BentoError('BLOB_MISSING', `blob ${digest} is not in the store`, {
    hint: 'another checkpoint may be whole: see `bento list`',
  });
}

function endsBefore({ digest }: BlobFile, end: number): BentoError {
  return new BentoError('FORMAT_INVALID', `blob ${shortDigest(digest)} ends before byte ${end}`);
}
