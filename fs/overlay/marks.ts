import { constants } from 'node:fs';

import { statOf, type FileStat } from '../../store/file-calls.ts';
import type { ByteString } from '../../store/byte-string.ts';

/**
 * What an upper directory says beyond its files: the marks of the kernel's overlayfs, and one of our own, which overlayfs
 * neither shows nor minds. All are attributes that only root may set, or `user.` ones where nobody is root.
 *
 * @see Linux Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories", "redirect_dir", "userxattr"
 */
export interface MarkNames {
  /** `y`: nothing of the lower directory shows through. */
  opaque: ByteString;
  /** Where in the lower tree the directory comes from: `/` and a path, or another name in the same directory. */
  redirect: ByteString;
  /** On the upper directory itself: the manifest of the checkpoint below, where that is not the one it was made over. */
  base: ByteString;
  /** {@link OriginMark}: from which file of the checkpoint this one was copied, and how much of it. */
  origin: ByteString;
}

function namesWith(prefix: string): MarkNames {
  return {
    opaque: `${prefix}opaque`,
    redirect: `${prefix}redirect`,
    base: `${prefix}bento.base`,
    origin: `${prefix}bento.origin`,
  };
}

const PREFIXES = { trusted: 'trusted.overlay.', user: 'user.overlay.' } as const;
export const TRUSTED_MARKS = namesWith(PREFIXES.trusted);
export const USER_MARKS = namesWith(PREFIXES.user);

/** Attributes that nobody but an overlay may see or set. */
export function isMark(name: ByteString): boolean {
  return name.startsWith(PREFIXES.trusted) || name.startsWith(PREFIXES.user);
}

/** A name that is gone. */
export function isWhiteout({ mode, rdevMajor, rdevMinor }: FileStat): boolean {
  return (mode & constants.S_IFMT) === constants.S_IFCHR && rdevMajor === 0 && rdevMinor === 0;
}

export function isWhiteoutAt(path: ByteString): boolean {
  const stat = statOf(path);
  return typeof stat !== 'number' && isWhiteout(stat);
}

/** An entry of a layer, named so that it can be found again when the index was made anew. */
export interface LayerEntry {
  /** SHA-256 of the layer's blob, 32 bytes. */
  layer: Buffer;
  /** Its position in the layer's table of contents, and whatever marks the node id had besides. */
  position: number;
}

/**
 * Kept with every file that was copied up: it goes on under the id that it had, so that whoever remembers its inode number
 * finds the same file. Of a large file only the granules that were written are copied; the others are read below.
 */
export interface OriginMark extends LayerEntry {
  /** Undefined when all of the file is in the upper directory. */
  partial: PartialMap | undefined;
}

export interface PartialMap {
  /** A granule is 2^shift bytes. */
  granuleShift: number;
  /** Only so many bytes of the lower file show, however long it is: the rest was cut off. */
  limitBytes: number;
  /** A bit for each granule that the upper file has, lowest bit first. */
  bits: Buffer;
}

// version u8, granule shift u8 (0: not partial), zero u16, position u32, limit u64, layer 32 bytes, then the bits.
const VERSION = 1;
const SHIFT_AT = 1;
const POSITION_AT = 4;
const LIMIT_AT = 8;
const LAYER_AT = 16;
const LAYER_BYTES = 32;
const BITS_AT = LAYER_AT + LAYER_BYTES;
const SHIFT_MAX = 40;

export function encodeOrigin({ layer, position, partial }: OriginMark): Buffer {
  const out = Buffer.alloc(BITS_AT + (partial?.bits.length ?? 0));
  out[0] = VERSION;
  out[SHIFT_AT] = partial?.granuleShift ?? 0;
  out.writeUInt32LE(position, POSITION_AT);
  out.writeBigUInt64LE(BigInt(partial?.limitBytes ?? 0), LIMIT_AT);
  layer.copy(out, LAYER_AT, 0, LAYER_BYTES);
  partial?.bits.copy(out, BITS_AT);
  return out;
}

/** @returns undefined for what is no mark of ours, one of a later version, or one whose map has not all granules */
export function decodeOrigin(value: Buffer): OriginMark | undefined {
  if (value.length < BITS_AT || value[0] !== VERSION) return undefined;
  const granuleShift = value[SHIFT_AT] ?? 0;
  const limitBytes = Number(value.readBigUInt64LE(LIMIT_AT));
  if (granuleShift > SHIFT_MAX || !Number.isSafeInteger(limitBytes)) return undefined;
  const bits = Buffer.from(value.subarray(BITS_AT));
  if (granuleShift !== 0 && limitBytes / 2 ** granuleShift > bits.length * 8) return undefined;
  return {
    layer: Buffer.from(value.subarray(LAYER_AT, BITS_AT)),
    position: value.readUInt32LE(POSITION_AT),
    partial: granuleShift === 0 ? undefined : { granuleShift, limitBytes, bits },
  };
}
