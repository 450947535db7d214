import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { setImmediate } from 'node:timers/promises';
import { createGunzip } from 'node:zlib';

import type { LayerToIndex } from '../../index/layer-index.ts';
import { openBlobFile, type BlobFile } from '../../store/blob-file.ts';
import { toText, type ByteString } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import type { Chunk, PackedEntry } from '../../store/entry.ts';
import { BentoError, errnoOf } from '../../store/errors.ts';
import { collectLayer } from '../../store/layers/layer-contents.ts';
import { chunkOf, endOf, inflateStored, storedBytes, streamForeignLayer } from '../../store/layers/layer-reader.ts';
import { ResumePoints, resumePath } from '../../store/layers/resume-points.ts';
import { KEYS, type Descriptor } from '../../store/manifest.ts';
import { readBlobSync, streamBlob } from '../../store/read-blob.ts';
import type { Store } from '../../store/store.ts';
import { layerKind, readSeekable } from '../tree/index-checkpoint.ts';

/** Something wrong inside a layer, or with what was made from it. */
export interface LayerFault {
  kind: 'toc' | 'content' | 'diff-id' | 'archive' | 'cache';
  what: string;
  /** Paths within the layer, at most `FILES_NAMED_MAX`. */
  files: ByteString[];
}

export interface CheckedLayer {
  faults: LayerFault[];
  /** What its rows in the index should say; undefined when the layer cannot be read. */
  contents: LayerToIndex | undefined;
}

export interface LayerToCheck {
  descriptor: Descriptor;
  title: string;
  /** What the configs of its checkpoints call it, uncompressed. */
  diffIds: ReadonlySet<Digest>;
  /** False when the blob is not what its digest says: then only the files that are hit are looked for. */
  isWhole: boolean;
}

const FILES_NAMED_MAX = 20;
/** RFC 1952: two magic bytes, and deflate. */
const GZIP_MAGIC = Buffer.from([0x1f, 0x8b, 8]);
/** A member with several small files is no larger than this, compressed. */
const SHARED_MEMBER_BYTES_MAX = 1 << 20;
/** How many files are read before somebody else gets a turn. */
const FILES_PER_TURN = 64;

/**
 * Checks everything about a layer but its digest: table of contents against the annotation, every chunk and every file
 * against its digest, the uncompressed archive against the diff id, and its resume points if there are any.
 */
export async function checkLayer(store: Store, layer: LayerToCheck): Promise<CheckedLayer> {
  const { descriptor, title, isWhole } = layer;
  let kind: 'tar' | 'tar+gzip';
  try {
    kind = layerKind(descriptor.mediaType, title);
  } catch (error) {
    if (error instanceof BentoError) return { faults: [], contents: undefined }; // its digest is all we understand of it
    throw error;
  }
  const faults: LayerFault[] = [];
  const seekable = kind === 'tar' ? undefined : await faultsAsData(faults, 'toc', () => readTable(store, descriptor));
  if (seekable !== undefined) faults.push(...(await checkContents(store, seekable)));
  if (!isWhole) return { faults, contents: undefined };
  if (faults.length > 0) return { faults, contents: seekable };
  faults.push(...(await checkDiffIds(store, layer, kind)));
  if (seekable !== undefined) return { faults, contents: seekable };
  const contents = await faultsAsData(faults, 'archive', () => readArchive(store, descriptor.digest, kind));
  if (kind === 'tar+gzip') faults.push(...checkPoints(store, layer));
  return { faults, contents };
}

async function readTable(store: Store, { digest, annotations }: Descriptor): Promise<LayerToIndex | undefined> {
  return await readSeekable(store, digest, annotations?.[KEYS.tocDigest]);
}

async function readArchive(store: Store, digest: Digest, kind: 'tar' | 'tar+gzip'): Promise<LayerToIndex> {
  return { digest, kind, ...(await collectLayer(streamForeignLayer(store.blobs.stream({ digest }), kind))) };
}

async function faultsAsData<Result>(
  faults: LayerFault[],
  kind: LayerFault['kind'],
  read: () => Promise<Result>,
): Promise<Result | undefined> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof BentoError)) throw error;
    faults.push({ kind, what: error.message, files: [] });
    return undefined;
  }
}

async function checkContents(store: Store, { digest, entries }: LayerToIndex): Promise<LayerFault[]> {
  const blob = openBlobFile(store.root, digest);
  try {
    const readChunk = chunkReader(blob);
    const bad: ByteString[] = [];
    for (const [at, entry] of entries.entries()) {
      if (!isEntryWhole(readChunk, entry)) bad.push(entry.path);
      if (at % FILES_PER_TURN === 0) await setImmediate();
    }
    if (bad.length === 0) return [];
    const what = `${bad.length} file(s) in it cannot be read, first ${toText(bad[0] ?? '')}`;
    return [{ kind: 'content', what, files: bad.slice(0, FILES_NAMED_MAX) }];
  } finally {
    blob.close();
  }
}

/** Tells whether a gzip member begins somewhere in a layer. The caller closes it. */
export function memberStarts(
  store: Store,
  digest: Digest,
): { isStart: (offset: number) => boolean; close: () => void } {
  const blob = openBlobFile(store.root, digest);
  const magic = Buffer.alloc(GZIP_MAGIC.length);
  const isStart = (offset: number): boolean =>
    offset + magic.length <= blob.sizeBytes &&
    readBlobSync(blob, offset, magic) === magic.length &&
    magic.equals(GZIP_MAGIC);
  return { isStart, close: () => blob.close() };
}

/** Reads chunks, each checked. Neighbours that share a member inflate it once. */
function chunkReader(blob: BlobFile): (chunk: Chunk) => Buffer {
  let last: { blobOffset: number; inflated: Buffer } = { blobOffset: -1, inflated: Buffer.alloc(0) };
  return (chunk) => {
    const { blobOffset, blobBytes } = chunk;
    if (blobOffset !== last.blobOffset || last.inflated.length < endOf(chunk)) {
      const length = blobBytes <= SHARED_MEMBER_BYTES_MAX ? blobBytes : storedBytes(chunk, 'gzip');
      if (blobOffset + length > blob.sizeBytes) throw new BentoError('FORMAT_INVALID', 'a layer is cut off');
      last = { blobOffset, inflated: inflateStored(readExactly(blob, blobOffset, length), 'gzip', endOf(chunk)) };
    }
    return chunkOf(last.inflated, chunk);
  };
}

function readExactly(blob: BlobFile, offset: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  if (readBlobSync(blob, offset, bytes) === length) return bytes;
  throw new BentoError('FORMAT_INVALID', 'a layer is cut off');
}

function isEntryWhole(readChunk: (chunk: Chunk) => Buffer, entry: PackedEntry): boolean {
  if (entry.type !== 'file') return true;
  const hash = createHash('sha256');
  let readBytes = 0;
  try {
    for (const chunk of entry.chunks) {
      if (chunk.fileOffset !== readBytes) return false;
      hash.update(readChunk(chunk));
      readBytes += chunk.sizeBytes;
    }
  } catch (error) {
    if (error instanceof BentoError) return false;
    throw error;
  }
  return (
    readBytes === entry.sizeBytes && (entry.digest === undefined || `sha256:${hash.digest('hex')}` === entry.digest)
  );
}

async function checkDiffIds(store: Store, layer: LayerToCheck, kind: 'tar' | 'tar+gzip'): Promise<LayerFault[]> {
  const { descriptor, diffIds } = layer;
  let actual: Digest = descriptor.digest;
  if (kind === 'tar+gzip') {
    const hash = createHash('sha256');
    const blob = openBlobFile(store.root, descriptor.digest);
    try {
      await pipeline(streamBlob(blob), createGunzip(), hash);
    } catch (error) {
      if (errnoOf(error)?.startsWith('Z_') !== true) throw error;
      return [{ kind: 'archive', what: `it does not unpack: ${(error as Error).message}`, files: [] }];
    } finally {
      blob.close();
    }
    actual = `sha256:${hash.digest('hex')}`;
  }
  const wrong = [...diffIds].filter((diffId) => diffId !== actual);
  return wrong.map((diffId) => ({
    kind: 'diff-id',
    what: `its uncompressed bytes are ${actual}, the config says ${diffId}`,
    files: [],
  }));
}

/** From where files of a compressed foreign layer can be inflated is a cache: it is looked at where there is one. */
function checkPoints(store: Store, { descriptor: { digest } }: LayerToCheck): LayerFault[] {
  const path = resumePath(store.cacheDir, digest);
  if (!existsSync(path)) return [];
  const isWhole = ResumePoints.load(path, digest)?.isWhole() === true;
  return isWhole ? [] : [{ kind: 'cache', what: `its resume points ${path} are damaged`, files: [] }];
}
