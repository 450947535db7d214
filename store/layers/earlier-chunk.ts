import { readSync } from 'node:fs';

import type { BlobRange } from '../blob-file.ts';
import type { Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { GZIP_HEADER, inflateMemberSync, SEGMENT_BYTES, SEGMENT_END } from './gzip-member.ts';
import type { SharedBytes } from './layer-output.ts';

/** A chunk that a file had before, and where in the store its member lies, in a form that goes from thread to thread. */
export interface EarlierChunk {
  /** Of the uncompressed bytes. */
  digest: Digest;
  sizeBytes: number;
  /** Together the member, and perhaps what follows it. */
  ranges: readonly BlobRange[];
}

/** What a large file was before: most of it may be the same now. */
export interface EarlierContent {
  /** The chunk that began there; undefined when there was none, or it cannot be had. */
  chunkAt(fileOffset: number): EarlierChunk | undefined;
}

/** A stretch of a member that an earlier one has, too. */
export interface SameBytes {
  at: number;
  /** Where in the earlier member. */
  from: number;
  lengthBytes: number;
}

/** What is shorter than this is not worth a piece of its own. */
const SAME_BYTES_MIN = 4096;
/** Begins a segment: enough to tell it from nearly all others. */
const KEY_BYTES = 16;
/** The checksum of a member is another as soon as anything in it is. */
const TRAILER_BYTES = 8;

/** The bytes of the earlier member, and perhaps what follows it; undefined when they cannot be read. */
export function readEarlier({ ranges }: EarlierChunk): Buffer | undefined {
  const bytes = Buffer.allocUnsafe(ranges.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0));
  let done = 0;
  try {
    for (const { fd, offset, lengthBytes } of ranges) {
      for (let part = 0; part < lengthBytes;) {
        const read = readSync(fd, bytes, done, lengthBytes - part, offset + part);
        if (read === 0) return undefined;
        part += read;
        done += read;
      }
    }
    return bytes;
  } catch {
    return undefined; // it is only a shortcut
  }
}

/**
 * The earlier member, when it is what compressing these bytes would give: so they need not be compressed again.
 *
 * @param earlier - as read, and perhaps damaged: it is inflated and compared
 */
export function reusableMember(earlier: Buffer, raw: Buffer): Buffer | undefined {
  if (!earlier.subarray(0, GZIP_HEADER.length).equals(GZIP_HEADER)) return undefined;
  try {
    const { bytes, memberBytes } = inflateMemberSync(earlier, { sizeMax: raw.length });
    const member = earlier.subarray(0, memberBytes);
    return bytes.equals(raw) && hasSegments(member, raw.length) ? member : undefined;
  } catch (error) {
    if (error instanceof BentoError) return undefined;
    throw error;
  }
}

/** A member of another program, or of an earlier version of this one, is compressed otherwise. */
function hasSegments(member: Buffer, rawBytes: number): boolean {
  return segmentStarts(member).length >= Math.ceil(rawBytes / SEGMENT_BYTES);
}

/** What of a new member the earlier one has, too, segment by segment: by comparing bytes, so that nothing can be mistaken. */
export function sameBytes(member: Buffer, earlier: Buffer): SameBytes[] {
  const known = new Map<string, number>();
  for (const start of segmentStarts(earlier)) known.set(keyAt(earlier, start), start);
  const starts = segmentStarts(member);
  const same: SameBytes[] = [];
  for (const [i, at] of starts.entries()) {
    const lengthBytes = (starts[i + 1] ?? member.length - TRAILER_BYTES) - at;
    const segment = member.subarray(at, at + lengthBytes);
    const last = same.at(-1);
    const next = last !== undefined && last.at + last.lengthBytes === at ? last.from + last.lengthBytes : undefined;
    if (last !== undefined && next !== undefined && isAt(earlier, next, segment)) {
      last.lengthBytes += lengthBytes;
      continue;
    }
    const from = known.get(keyAt(member, at));
    if (from !== undefined && isAt(earlier, from, segment)) same.push({ at, from, lengthBytes });
  }
  return same.filter(({ lengthBytes }) => lengthBytes >= SAME_BYTES_MIN);
}

/** Where segments may begin: after every end of one. In compressed bytes the same four may come by chance, which does no harm. */
function segmentStarts(member: Buffer): number[] {
  const starts = [0];
  for (let at = member.indexOf(SEGMENT_END); at >= 0; at = member.indexOf(SEGMENT_END, at + SEGMENT_END.length)) {
    starts.push(at + SEGMENT_END.length);
  }
  return starts.filter((start) => start < member.length - TRAILER_BYTES);
}

function keyAt(bytes: Buffer, at: number): string {
  return bytes.toString('latin1', at, at + KEY_BYTES);
}

function isAt(bytes: Buffer, at: number, wanted: Buffer): boolean {
  return wanted.length > 0 && wanted.equals(bytes.subarray(at, at + wanted.length));
}

/** What of a member lies elsewhere, by the names that a recipe gives it. */
export function sharedBytes(same: readonly SameBytes[], { ranges }: Pick<EarlierChunk, 'ranges'>): SharedBytes[] {
  return same.flatMap(({ at, from, lengthBytes }) =>
    ranges.flatMap((range, i) => {
      const rangeStart = ranges.slice(0, i).reduce((sum, before) => sum + before.lengthBytes, 0);
      const start = Math.max(from, rangeStart);
      const end = Math.min(from + lengthBytes, rangeStart + range.lengthBytes);
      if (end <= start) return [];
      const place = { digest: range.place.digest, offset: range.place.offset + start - rangeStart };
      return [{ at: at + start - from, lengthBytes: end - start, place }];
    }),
  );
}
