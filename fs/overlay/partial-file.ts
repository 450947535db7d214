import {
  closeFile,
  fsetXattr,
  readAt,
  seek,
  SEEK_HOLE,
  syncFile,
  writeAt,
  type FileStat,
} from '../../store/file-calls.ts';
import type { ByteString } from '../../store/byte-string.ts';
import type { CowNode } from './cow-node.ts';
import type { CowTree } from './cow-tree.ts';
import { ErrnoError, succeed } from './errno-error.ts';
import type { LowerTree } from './lower-tree.ts';
import { encodeOrigin, type LayerEntry, type MarkNames, type OriginMark, type PartialMap } from './marks.ts';
import { openForBoth } from './upper-file.ts';

/** No file smaller than this is in parts: copying it takes a millisecond or two. */
export const PARTIAL_BYTES_MIN = 256 << 10;
const GRANULE_SHIFT_MIN = 16;
/** The map is an attribute of the file, and has to fit beside the others. */
const GRANULE_COUNT_MAX = 8192;

/** A map of a file of which nothing was copied yet. */
export function emptyMap(sizeBytes: number): PartialMap {
  let granuleShift = GRANULE_SHIFT_MIN;
  while (sizeBytes / 2 ** granuleShift > GRANULE_COUNT_MAX) granuleShift += 1;
  const granules = Math.ceil(sizeBytes / 2 ** granuleShift);
  return { granuleShift, limitBytes: sizeBytes, bits: Buffer.alloc(Math.ceil(granules / 8)) };
}

/**
 * A large file of the checkpoint that was changed here and there: the upper directory has a sparse file of its size with the
 * granules that were written to, and a map of them; the rest is read below. A granule's bytes are there before its bit is
 * set, and a bit whose bytes a power cut took counts for nothing: then the granule is again what it was below.
 */
export class PartialFile {
  readonly #lower: LowerTree;
  readonly #lowerId: number;
  readonly #entry: LayerEntry;
  readonly #map: PartialMap;
  readonly #markName: ByteString;

  constructor(lower: LowerTree, lowerId: number, origin: OriginMark & { partial: PartialMap }, marks: MarkNames) {
    this.#lower = lower;
    this.#lowerId = lowerId;
    this.#entry = { layer: origin.layer, position: origin.position };
    this.#map = origin.partial;
    this.#markName = marks.origin;
  }

  /** From the mark of a file that is found in the upper directory. */
  static open(
    tree: CowTree,
    node: CowNode,
    { path, origin, stat }: { path: ByteString; origin: OriginMark; stat: FileStat },
  ): PartialFile | undefined {
    if (origin.partial === undefined || node.lower === undefined) return undefined;
    const partial = new PartialFile(tree.lower, node.lower, { ...origin, partial: origin.partial }, tree.marks);
    partial.#map.limitBytes = Math.min(partial.#map.limitBytes, stat.sizeBytes);
    const fd = openForBoth(path);
    try {
      partial.#takeBackLost(fd);
    } finally {
      closeFile(fd);
    }
    return partial;
  }

  #takeBackLost(fd: number): void {
    for (let granule = 0; granule < this.#granuleCount; granule += 1) {
      if (!this.#has(granule)) continue;
      const [start, end] = this.#bounds(granule);
      const hole = seek(fd, start, SEEK_HOLE);
      if (hole >= 0 && hole < end) this.#setBit(granule, false);
    }
  }

  get #granuleBytes(): number {
    return 2 ** this.#map.granuleShift;
  }

  get #granuleCount(): number {
    return Math.ceil(this.#map.limitBytes / this.#granuleBytes);
  }

  /** @returns from where to where the granule can be read below */
  #bounds(granule: number): [start: number, end: number] {
    return [granule * this.#granuleBytes, Math.min((granule + 1) * this.#granuleBytes, this.#map.limitBytes)];
  }

  /** Beyond what can be read below, all there is is in the upper file. */
  #has(granule: number): boolean {
    return granule >= this.#granuleCount || ((this.#map.bits[granule >>> 3] ?? 0) & (1 << (granule & 7))) !== 0;
  }

  #setBit(granule: number, isSet: boolean): void {
    const at = granule >>> 3;
    const bit = 1 << (granule & 7);
    const byte = this.#map.bits[at] ?? 0;
    this.#map.bits[at] = isSet ? byte | bit : byte & ~bit;
  }

  /** Nothing is read below any more. */
  get isWhole(): boolean {
    for (let granule = 0; granule < this.#granuleCount; granule += 1) if (!this.#has(granule)) return false;
    return true;
  }

  /** @returns how many bytes, fewer than there is room for only at the end of the file @throws ErrnoError */
  read(fd: number, out: Buffer, offset: number, sizeBytes: number): number {
    const end = Math.min(offset + out.length, sizeBytes);
    for (let at = offset; at < end;) {
      const [stop, isUpper] = this.#run(at, end);
      const into = out.subarray(at - offset, stop - offset);
      const count = isUpper ? succeed(readAt(fd, into, at)) : this.#lower.read(this.#lowerId, at, into);
      if (count < into.length) into.fill(0, count);
      at = stop;
    }
    return Math.max(0, end - offset);
  }

  /** How far from `at` all bytes lie at the same place. */
  #run(at: number, end: number): [stop: number, isUpper: boolean] {
    const { limitBytes } = this.#map;
    if (at >= limitBytes) return [end, true];
    let granule = Math.floor(at / this.#granuleBytes);
    const isUpper = this.#has(granule);
    do granule += 1;
    while (granule * this.#granuleBytes < end && this.#has(granule) === isUpper);
    const stop = Math.min(granule * this.#granuleBytes, end);
    return [isUpper ? stop : Math.min(stop, limitBytes), isUpper];
  }

  /** @returns how many bytes were written @throws ErrnoError */
  write(fd: number, bytes: Buffer, offset: number): number {
    const touched = this.#missing(offset, offset + bytes.length);
    const end = offset + bytes.length;
    for (const granule of touched) {
      const [start, stop] = this.#bounds(granule);
      if (start < offset || stop > end) this.#fill(fd, granule);
    }
    const written = succeed(writeAt(fd, bytes, offset));
    if (touched.length === 0) return written;
    for (const granule of touched) {
      const [start, stop] = this.#bounds(granule);
      const isThere = start < offset || stop > end || stop <= offset + written;
      if (isThere) this.#setBit(granule, true);
    }
    this.#keep(fd);
    return written;
  }

  #missing(offset: number, end: number): number[] {
    const missing: number[] = [];
    const last = Math.min(Math.ceil(end / this.#granuleBytes), this.#granuleCount);
    for (let granule = Math.floor(offset / this.#granuleBytes); granule < last; granule += 1)
      if (!this.#has(granule)) missing.push(granule);
    return missing;
  }

  #fill(fd: number, granule: number): void {
    const [start, end] = this.#bounds(granule);
    const bytes = Buffer.alloc(end - start);
    this.#lower.read(this.#lowerId, start, bytes);
    if (succeed(writeAt(fd, bytes, start)) < bytes.length) throw new ErrnoError('ENOSPC');
  }

  /** To be called after the file was cut: what is beyond its end now is never read below again. */
  cut(fd: number, sizeBytes: number): void {
    if (sizeBytes >= this.#map.limitBytes) return;
    this.#map.limitBytes = sizeBytes;
    this.#keep(fd);
  }

  /** Copies what is missing. From then on the file is like any other. @throws ErrnoError */
  complete(fd: number): void {
    for (let granule = 0; granule < this.#granuleCount; granule += 1) {
      if (this.#has(granule)) continue;
      this.#fill(fd, granule);
      this.#setBit(granule, true);
    }
    succeed(syncFile(fd, true)); // before nothing says any more where else the bytes can be had
    succeed(fsetXattr(fd, this.#markName, encodeOrigin({ ...this.#entry, partial: undefined })));
  }

  #keep(fd: number): void {
    succeed(fsetXattr(fd, this.#markName, encodeOrigin({ ...this.#entry, partial: this.#map })));
  }
}
