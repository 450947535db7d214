import { createHash } from 'node:crypto';
import { pipeline, Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';

import { digestOf, type Digest } from '../digest.ts';
import type { Chunk } from '../entry.ts';
import { BentoError, errnoOf } from '../errors.ts';
import { decodeFooter, FOOTER_BYTES, type Footer } from './footer.ts';
import { readForeignItems } from './foreign-layer.ts';
import { gunzipMember, gunzipPrefix, gunzipPrefixSync, memberBytesMax } from './gzip-member.ts';
import type { LayerItem } from './layer-contents.ts';
import { TOC_NAME } from './reserved-names.ts';
import { BLOCK_BYTES } from './tar-fields.ts';
import { decodeTarHeader } from './tar-header.ts';
import { TarInput, type TarBytesListener } from './tar-input.ts';
import { decodeToc, TocDecoder, type TocContents } from './toc-decode.ts';
import { TOC_JSON_BYTES_MAX } from './toc.ts';

const TOC_MEMBER_BYTES_MAX = 128 * 1024 * 1024;
const GUNZIP_CHUNK_BYTES = 256 * 1024;

/** Random access to a blob. */
export interface BlobReader {
  readonly sizeBytes: number;
  /** Exactly `length` bytes; the range lies inside the blob. */
  readAt(offset: number, length: number): Promise<Buffer>;
}

export interface LayerToc extends TocContents {
  /** Of the JSON as stored: the value of the annotation `containerd.io/snapshot/stargz/toc.digest`. */
  tocDigest: Digest;
  tocOffset: number;
}

/** Whether a chunk lies in a gzip member, or bare in an uncompressed tar. */
export type ChunkPacking = 'gzip' | 'bare';

/** @throws BentoError FORMAT_INVALID when there is a footer but it points outside the blob */
export async function readFooter(reader: BlobReader): Promise<Footer | undefined> {
  const length = Math.min(FOOTER_BYTES, reader.sizeBytes);
  return decodeFooter(await readExactly(reader, reader.sizeBytes - length, length), reader.sizeBytes);
}

/**
 * Reads the table of contents of an eStargz layer.
 *
 * @param expected - from the manifest; without it nothing ties the table to the manifest but the digest of the whole blob
 * @returns undefined when the blob has none, or one whose chunks cannot be read one by one: `streamForeignLayer` reads it
 * @throws BentoError DIGEST_MISMATCH when it is not the `expected` one, FORMAT_INVALID when it breaks a rule
 */
export async function readToc(reader: BlobReader, expected?: Digest): Promise<LayerToc | undefined> {
  const stored = await readTocJson(reader, expected);
  if (stored === undefined) return undefined;
  const contents = decodeStoredToc(stored);
  return contents && { ...contents, tocDigest: stored.tocDigest, tocOffset: stored.tocOffset };
}

/** A table of contents as it is stored. */
export interface StoredToc {
  json: Buffer;
  tocDigest: Digest;
  tocOffset: number;
}

/** As `readToc`, but nobody looks into it. */
export async function readTocJson(reader: BlobReader, expected?: Digest): Promise<StoredToc | undefined> {
  const footer = await readFooter(reader);
  if (footer === undefined || footer.kind === 'external') return undefined;
  const { tocOffset, footerBytes } = footer;
  const memberBytes = reader.sizeBytes - footerBytes - tocOffset;
  if (memberBytes > TOC_MEMBER_BYTES_MAX) throw invalidLayer('its table of contents is too large');
  const json = tocJson(
    await gunzipMember(await readExactly(reader, tocOffset, memberBytes), { sizeMax: TOC_JSON_BYTES_MAX }),
  );
  const tocDigest = digestOf(json);
  if (expected !== undefined) checkTocDigest(tocDigest, expected);
  return { json, tocDigest, tocOffset };
}

function checkTocDigest(digest: Digest, expected: Digest): void {
  if (digest === expected) return;
  throw new BentoError('DIGEST_MISMATCH', `the table of contents of a layer is ${digest}, not ${expected}`);
}

/**
 * As `readToc`, of the member as its bytes arrive: it is decoded while more are on their way.
 *
 * @throws BentoError DIGEST_MISMATCH when it is not the `expected` one, FORMAT_INVALID, FORMAT_UNSUPPORTED
 */
export async function streamToc(
  member: AsyncIterable<Buffer>,
  { expected, tocOffset }: { expected: Digest; tocOffset: number },
): Promise<TocContents> {
  const decoder = new TocDecoder();
  const hash = createHash('sha256');
  let head: Buffer | undefined = Buffer.alloc(0);
  let leftBytes = -1;
  for await (const bytes of gunzip(member)) {
    let json = bytes;
    if (head !== undefined) {
      head = Buffer.concat([head, bytes]);
      if (head.length < BLOCK_BYTES) continue;
      leftBytes = tocBytes(head);
      json = head.subarray(BLOCK_BYTES);
      head = undefined;
    }
    const ours = json.subarray(0, leftBytes);
    hash.update(ours);
    decoder.push(ours);
    leftBytes -= ours.length;
    if (leftBytes === 0) break;
  }
  if (leftBytes !== 0) throw invalidLayer('its table of contents is cut off');
  checkTocDigest(`sha256:${hash.digest('hex')}`, expected);
  return decoder.finish({ tocOffset });
}

/** @returns undefined when chunks cannot be read one by one with it @throws BentoError FORMAT_INVALID */
export function decodeStoredToc({ json, tocOffset }: StoredToc): TocContents | undefined {
  try {
    return decodeToc(json, { tocOffset });
  } catch (error) {
    if (error instanceof BentoError && error.code === 'FORMAT_UNSUPPORTED') return undefined;
    throw error;
  }
}

/** The last member is a tar header, the JSON, padding and the end of the archive. */
function tocJson(tar: Buffer): Buffer {
  if (tar.length < BLOCK_BYTES) throw invalidLayer('its table of contents is cut off');
  const sizeBytes = tocBytes(tar);
  if (sizeBytes > tar.length - BLOCK_BYTES) throw invalidLayer('its table of contents is cut off');
  return tar.subarray(BLOCK_BYTES, BLOCK_BYTES + sizeBytes);
}

/** How long the JSON is. @param tar - its header, and what follows */
function tocBytes(tar: Buffer): number {
  const { name, sizeBytes } = decodeTarHeader(tar.subarray(0, BLOCK_BYTES));
  if (name !== TOC_NAME) throw invalidLayer('its footer points at something else than a table of contents');
  if (sizeBytes < 0) throw invalidLayer('its table of contents is cut off');
  return sizeBytes;
}

/**
 * Reads any other layer from end to end: a tar, bare or in any number of gzip members. Chunks of the entries are ranges
 * of the uncompressed tar, so `onTarBytes` can put that where they will be read.
 *
 * @param onTarBytes - sees the whole uncompressed tar; what it returns is awaited
 * @throws BentoError FORMAT_INVALID when it is cut off, damaged or beyond a limit, FORMAT_UNSUPPORTED for sparse files
 */
export async function* streamForeignLayer(
  input: AsyncIterable<Buffer>,
  kind: 'tar' | 'tar+gzip',
  onTarBytes?: TarBytesListener,
): AsyncGenerator<LayerItem, void, undefined> {
  const tar = new TarInput(kind === 'tar' ? input : gunzip(input), onTarBytes);
  try {
    yield* readForeignItems(tar);
  } finally {
    await tar.close();
  }
}

/** @throws BentoError FORMAT_INVALID when it is cut off or damaged */
export async function* gunzip(input: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, undefined> {
  const inflated = createGunzip({ chunkSize: GUNZIP_CHUNK_BYTES });
  pipeline(Readable.from(input), inflated, () => undefined); // an error reaches the loop below through `inflated`
  try {
    for await (const bytes of inflated) yield bytes as Buffer;
  } catch (error) {
    if (errnoOf(error)?.startsWith('Z_') !== true) throw error;
    throw invalidLayer((error as Error).message, error);
  }
}

/**
 * Reads one piece of a file and checks it.
 *
 * @throws BentoError DIGEST_MISMATCH when the bytes are not the ones the chunk promises, FORMAT_INVALID when its range
 *   is not inside the blob or not a gzip member
 */
export async function readChunk(reader: BlobReader, chunk: Chunk, packing: ChunkPacking = 'gzip'): Promise<Buffer> {
  const { offset, length } = rangeOf(reader, chunk, packing);
  const stored = await reader.readAt(offset, length);
  if (packing === 'bare') return verified(stored, chunk);
  return verified(cutOut(await gunzipPrefix(stored, endOf(chunk)), chunk), chunk);
}

/**
 * The part of a chunk's member that must be read for its first `endBytes` inflated bytes: where several chunks lie in one
 * member, those up to the end of the last one wanted.
 */
export function storedBytes(chunk: Chunk, packing: ChunkPacking, endBytes = endOf(chunk)): number {
  // A foreign member may run on for long after the piece we want: its tail is not even read.
  return packing === 'bare' ? chunk.sizeBytes : Math.min(chunk.blobBytes, memberBytesMax(endBytes));
}

/**
 * Inflates a member once for all the chunks wanted of it.
 *
 * @param stored - as many bytes as `storedBytes` says
 * @returns `endBytes` bytes or more; fewer only of a damaged member, which `chunkOf` notices
 */
export function inflateStored(stored: Buffer, packing: ChunkPacking, endBytes: number): Buffer {
  return packing === 'bare' ? stored : gunzipPrefixSync(stored, endBytes);
}

/** Cuts a chunk out of its inflated member and checks it. @throws BentoError DIGEST_MISMATCH */
export function chunkOf(inflated: Buffer, chunk: Chunk): Buffer {
  return verified(cutOut(inflated, chunk), chunk);
}

function rangeOf(
  reader: { sizeBytes: number },
  chunk: Chunk,
  packing: ChunkPacking,
): { offset: number; length: number } {
  const offset = chunk.blobOffset;
  const length = storedBytes(chunk, packing);
  if (offset + length > reader.sizeBytes) throw invalidLayer(`it ends before the chunk at ${offset}`);
  return { offset, length };
}

/** How many inflated bytes of its member are needed for a chunk. */
export function endOf(chunk: Chunk): number {
  return chunk.innerOffset + chunk.sizeBytes;
}

function cutOut(inflated: Buffer, chunk: Chunk): Buffer {
  return inflated.subarray(chunk.innerOffset, endOf(chunk));
}

function verified(bytes: Buffer, chunk: Chunk): Buffer {
  if (bytes.length === chunk.sizeBytes && digestOf(bytes) === chunk.digest) return bytes;
  const where = `the chunk at offset ${chunk.blobOffset} of a layer`;
  throw new BentoError('DIGEST_MISMATCH', `${where} is not what its digest ${chunk.digest} says`, {
    hint: 'the store is damaged; pull the layer again',
  });
}

async function readExactly(reader: BlobReader, offset: number, length: number): Promise<Buffer> {
  const bytes = await reader.readAt(offset, length);
  if (bytes.length !== length) throw invalidLayer(`it ends before offset ${offset + length}`);
  return bytes;
}

function invalidLayer(why: string, cause?: unknown): BentoError {
  return new BentoError('FORMAT_INVALID', `a layer cannot be read: ${why}`, { cause });
}
