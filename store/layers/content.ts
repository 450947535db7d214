import { createHash } from 'node:crypto';

import { digestOf, type Digest } from '../digest.ts';
import type { Chunk } from '../entry.ts';
import { BentoError } from '../errors.ts';
import { gzipMember, inflateMember } from './gzip-member.ts';
import type { Lane } from './in-flight.ts';
import { Spool } from './spool.ts';
import { CHUNK_BYTES } from './toc.ts';

/** The bytes of a file, pulled in pieces of any size. A yielded buffer belongs to the reader and is not used again. */
export interface ContentSource {
  read(): AsyncIterable<Buffer> | Iterable<Buffer>;
}

/** A piece of a file as some layer already holds it. */
export interface PackedMember extends Pick<Chunk, 'sizeBytes' | 'digest'> {
  /** From the first byte of its gzip member; bytes behind the end of the member do no harm. */
  read(): Promise<Buffer>;
}

/** A member together with what it inflates to. */
export interface ReadyMember {
  raw: Buffer;
  member: Buffer;
  digest: Digest;
}

/** A file's content, compressed and measured: the tar header can be written now. */
export interface PackedContent {
  sizeBytes: number;
  digest: Digest | undefined;
  members(): AsyncIterable<ReadyMember> | Iterable<ReadyMember>;
  close(): Promise<void>;
}

/** How many chunks of one large file are compressed at the same time. */
const CHUNKS_AHEAD = 3;

const closeNothing = (): Promise<void> => Promise.resolve();
const EMPTY: PackedContent = { sizeBytes: 0, digest: digestOf(''), members: () => [], close: closeNothing };

export interface PackPlace {
  /** Where large files take turns. */
  lane: Lane;
  tempDir: string;
  /** Aborted when the layer has failed: there is no use in reading on. */
  signal: AbortSignal;
}

/**
 * Reads a source to its end and compresses it. Files of less than a chunk are held in memory; larger ones take turns on
 * the `lane`, which bounds the memory of all of them together, whatever their declared sizes were.
 */
export async function packContent(source: ContentSource, place: PackPlace): Promise<PackedContent> {
  const chunks = cutChunks(source.read());
  try {
    const first = await chunks.next();
    if (first.done === true) return EMPTY;
    if (first.value.length < CHUNK_BYTES) return await packSmall(first.value);
    return await place.lane.run(() => packLarge(first.value, chunks, place));
  } finally {
    await chunks.return();
  }
}

async function packSmall(raw: Buffer): Promise<PackedContent> {
  const member = await gzipMember(raw);
  const digest = digestOf(raw);
  return { sizeBytes: raw.length, digest, members: () => [{ raw, member, digest }], close: closeNothing };
}

async function packLarge(first: Buffer, rest: AsyncIterable<Buffer>, place: PackPlace): Promise<PackedContent> {
  const spool = new Spool(place.tempDir);
  const hash = createHash('sha256');
  const packed: Pick<Chunk, 'sizeBytes' | 'digest'>[] = [];
  const ahead: Promise<Buffer>[] = [];
  const spoolOldest = async (): Promise<void> => spool.append((await ahead.shift()) ?? Buffer.alloc(0));
  try {
    for await (const raw of startingWith(first, rest)) {
      place.signal.throwIfAborted();
      hash.update(raw);
      packed.push({ sizeBytes: raw.length, digest: digestOf(raw) });
      ahead.push(gzipMember(raw));
      if (ahead.length >= CHUNKS_AHEAD) await spoolOldest();
    }
    while (ahead.length > 0) await spoolOldest();
  } catch (error) {
    await Promise.allSettled(ahead);
    await spool.close();
    throw error;
  }
  return {
    sizeBytes: sizeOf(packed),
    digest: `sha256:${hash.digest('hex')}`,
    members: () => inflateSpooled(spool, packed),
    close: () => spool.close(),
  };
}

/** The uncompressed bytes of a large file were not kept: they are inflated again when their turn to be hashed comes. */
async function* inflateSpooled(
  spool: Spool,
  packed: readonly Pick<Chunk, 'sizeBytes' | 'digest'>[],
): AsyncGenerator<ReadyMember, void, undefined> {
  let i = 0;
  for await (const bytes of spool.read()) {
    const chunk = packed[i++];
    if (chunk) yield await inflateVerified(bytes, chunk);
  }
}

/** Content that is copied verbatim; its chunk digests are checked on the way. */
export function adoptMembers(members: readonly PackedMember[], digest: Digest | undefined): PackedContent {
  const only = members.length === 1 ? members[0]?.digest : undefined;
  return {
    sizeBytes: sizeOf(members),
    digest: members.length === 0 ? digestOf('') : (digest ?? only),
    members: () => readMembers(members),
    close: closeNothing,
  };
}

async function* readMembers(members: readonly PackedMember[]): AsyncGenerator<ReadyMember, void, undefined> {
  for (const member of members) yield await inflateVerified(await member.read(), member);
}

/** @throws BentoError DIGEST_MISMATCH when the member is not the chunk, whole and alone */
async function inflateVerified(stored: Buffer, chunk: Pick<Chunk, 'sizeBytes' | 'digest'>): Promise<ReadyMember> {
  const { bytes: raw, memberBytes } = await inflateMember(stored, { sizeMax: chunk.sizeBytes });
  const digest = digestOf(raw);
  if (digest !== chunk.digest) {
    throw new BentoError('DIGEST_MISMATCH', `a packed chunk is ${digest}, not ${chunk.digest}`);
  }
  return { raw, member: stored.subarray(0, memberBytes), digest };
}

/** Cuts pieces of any size into chunks of one size; only the last may be shorter, and none is empty. */
export async function* cutChunks(
  pieces: AsyncIterable<Buffer> | Iterable<Buffer>,
): AsyncGenerator<Buffer, void, undefined> {
  let held: Buffer[] = [];
  let heldBytes = 0;
  for await (const whole of pieces) {
    for (let piece = whole; piece.length > 0;) {
      const part = piece.subarray(0, CHUNK_BYTES - heldBytes);
      held.push(part);
      heldBytes += part.length;
      piece = piece.subarray(part.length);
      if (heldBytes < CHUNK_BYTES) continue;
      yield Buffer.concat(held, heldBytes);
      held = [];
      heldBytes = 0;
    }
  }
  if (heldBytes > 0) yield Buffer.concat(held, heldBytes);
}

async function* startingWith(first: Buffer, rest: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, undefined> {
  yield first;
  yield* rest;
}

function sizeOf(chunks: readonly Pick<Chunk, 'sizeBytes'>[]): number {
  return chunks.reduce((sum, chunk) => sum + chunk.sizeBytes, 0);
}
