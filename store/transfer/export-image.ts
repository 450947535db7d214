import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

import { entryOf, type Attachment } from '../attachment.ts';
import { notStored } from '../blob-file.ts';
import type { BlobPool } from '../blobs.ts';
import type { Checkpoint } from '../checkpoint.ts';
import { hexOf, shortDigest, type Digest } from '../digest.ts';
import { syncDir } from '../durable.ts';
import { BentoError, describeSystemError, errnoOf } from '../errors.ts';
import { paddingOf } from '../layers/tar-fields.ts';
import { encodeTarHeader } from '../layers/tar-header.ts';
import { indexEntry, type Descriptor } from '../manifest.ts';
import type { ImagePlace } from './image-place.ts';
import { BLOBS_DIR, encodeIndex, LayoutFolder, OCI_LAYOUT, writeNewFile } from './layout-folder.ts';

/** Two blocks of zeros end a tar. */
const TAR_END = Buffer.alloc(1024);

/** A checkpoint to be written, and the tag it gets there; without one it is listed by its digest alone. */
export interface ImageToExport {
  tag: string | undefined;
  checkpoint: Checkpoint;
}

export interface ExportOptions {
  /** What is attached to the checkpoints, and goes with them. */
  attachments?: readonly Attachment[];
  onEvent?: (event: { bytesDone: number; bytesTotal: number }) => void;
}

export type ExportKind = 'folder' | 'archive';

export interface ExportResult {
  /** Absolute path of the folder or the archive. */
  path: string;
  kind: ExportKind;
  blobCount: number;
  /** Bytes of blobs written: in a folder, those that were there before do not count. */
  writtenBytes: number;
}

interface BlobToWrite {
  digest: Digest;
  size: number;
}

/**
 * Writes checkpoints as an OCI image layout. A folder that is a layout already gets them added, and tags of the same names
 * moved; an archive is always a new file, the same bytes for the same images. Durable when it returns: blobs first, then
 * what lists them. The caller shares the store's blobs (`shareBlobs`).
 *
 * @throws BentoError TARGET_NOT_EMPTY, TARGET_INVALID; BLOB_MISSING or DIGEST_MISMATCH when the store is damaged
 * @see OCI image-spec v1.1, image-layout.md
 */
export async function exportImages(
  pool: BlobPool,
  images: readonly ImageToExport[],
  { place, options = {} }: { place: ImagePlace; options?: ExportOptions },
): Promise<ExportResult> {
  const kind = await kindOfTarget(place);
  const { attachments = [] } = options;
  const blobs = await blobsOf(pool, [...images.map(({ checkpoint }) => checkpoint), ...attachments]);
  const progress = progressOf(blobs, options);
  try {
    const written =
      kind === 'folder'
        ? await writeFolder(pool, { path: place.path, images, attachments, blobs, progress })
        : await writeArchive(pool, { path: place.path, images, attachments, blobs, progress });
    return { path: place.path, kind, blobCount: blobs.length, writtenBytes: written };
  } catch (error) {
    throw describeSystemError(error, `writing ${place.path}`);
  }
}

interface Output {
  path: string;
  images: readonly ImageToExport[];
  attachments: readonly Attachment[];
  blobs: readonly BlobToWrite[];
  progress: (bytes: number) => void;
}

function progressOf(blobs: readonly BlobToWrite[], { onEvent }: ExportOptions): (bytes: number) => void {
  const event = { bytesDone: 0, bytesTotal: blobs.reduce((sum, { size }) => sum + size, 0) };
  return (bytes) => {
    event.bytesDone += bytes;
    onEvent?.(event);
  };
}

/** What will be written there. @throws BentoError TARGET_NOT_EMPTY, TARGET_INVALID */
export async function kindOfTarget({ path, kind }: ImagePlace): Promise<ExportKind> {
  const found = await stat(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    if (errnoOf(error) === 'ENOTDIR') {
      throw new BentoError('TARGET_INVALID', `${path} lies below something that is not a folder`);
    }
    throw describeSystemError(error, `looking at ${path}`);
  });
  const wanted = kind ?? (found?.isDirectory() !== true && path.endsWith('.tar') ? 'archive' : 'folder');
  if (wanted === 'archive' && found !== undefined) {
    throw new BentoError('TARGET_NOT_EMPTY', `${path} is there already`, {
      hint: 'an archive is always a new file: choose another name, or delete it first',
    });
  }
  if (wanted === 'folder' && found?.isDirectory() === false) {
    throw new BentoError('TARGET_INVALID', `${path} is not a folder`, { hint: 'an archive is called <name>.tar' });
  }
  if (/\.(tar\.|t)(gz|xz|zst|bz2)$/.test(path) && found === undefined) {
    throw new BentoError('TARGET_INVALID', `${path} would have to be compressed, but its layers are already`, {
      hint: 'call it <name>.tar',
    });
  }
  return wanted;
}

/** Every blob that these manifests need, once, in the order of its digest. */
async function blobsOf(
  pool: BlobPool,
  manifests: readonly Pick<Checkpoint, 'digest' | 'size' | 'manifest'>[],
): Promise<BlobToWrite[]> {
  const sizes = new Map<Digest, number>();
  for (const { digest, size, manifest } of manifests) {
    for (const blob of [{ digest, size }, manifest.config, ...manifest.layers]) sizes.set(blob.digest, blob.size);
  }
  for (const [digest, size] of sizes) {
    const stored = await pool.sizeOf(digest);
    if (stored === undefined) throw notStored(pool.storeRoot, digest);
    if (stored !== size) {
      const what = `blob ${shortDigest(digest)} is ${stored} bytes, its descriptor says ${size}`;
      throw new BentoError('DIGEST_MISMATCH', what, { hint: '`bento verify` says which checkpoints are whole' });
    }
  }
  return [...sizes].map(([digest, size]) => ({ digest, size })).sort((a, b) => (a.digest < b.digest ? -1 : 1));
}

async function writeFolder(pool: BlobPool, { path, blobs, progress, ...listed }: Output): Promise<number> {
  const folder = await LayoutFolder.prepare(path);
  let writtenBytes = 0;
  for (const { digest, size } of blobs) {
    if (await folder.hasBlob({ digest, size })) {
      progress(size);
      continue;
    }
    await folder.putBlob(digest, async (handle) => {
      for await (const piece of pool.stream({ digest })) {
        await handle.writeFile(piece);
        progress(piece.length);
      }
    });
    writtenBytes += size;
  }
  await folder.list(entriesOf(listed));
  return writtenBytes;
}

/** What the list of a folder or archive gets. */
function entriesOf({ images, attachments }: Pick<Output, 'images' | 'attachments'>): Descriptor[] {
  const own = images.map(({ tag, checkpoint: { digest, size, manifest } }) =>
    indexEntry({ mediaType: manifest.mediaType, digest, size }, tag),
  );
  return [...own, ...attachments.map(entryOf)];
}

/** Sorted, without times and owners: the same images make the same archive. */
async function writeArchive(pool: BlobPool, { path, blobs, progress, ...listed }: Output): Promise<number> {
  await mkdir(dirname(path), { recursive: true });
  await writeNewFile(path, async (handle) => {
    for (const dir of ['blobs', BLOBS_DIR]) await handle.writeFile(headerOf(dir, undefined));
    for (const { digest, size } of blobs) {
      await handle.writeFile(headerOf(`${BLOBS_DIR}/${hexOf(digest)}`, size));
      for await (const piece of pool.stream({ digest })) {
        await handle.writeFile(piece);
        progress(piece.length);
      }
      await handle.writeFile(Buffer.alloc(paddingOf(size)));
    }
    await handle.writeFile(smallMember('index.json', encodeIndex(entriesOf(listed))));
    await handle.writeFile(smallMember('oci-layout', OCI_LAYOUT));
    await handle.writeFile(TAR_END);
  });
  await syncDir(dirname(path));
  return blobs.reduce((sum, { size }) => sum + size, 0);
}

/** @param sizeBytes - undefined for a folder */
function headerOf(path: string, sizeBytes: number | undefined): Buffer {
  const times = { mtimeSec: 0, mtimeNsec: 0, uid: 0, gid: 0 };
  return sizeBytes === undefined
    ? encodeTarHeader({ path, type: 'dir', mode: 0o755, sizeBytes: 0, ...times })
    : encodeTarHeader({ path, type: 'file', mode: 0o644, sizeBytes, ...times });
}

function smallMember(path: string, text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([headerOf(path, bytes.length), bytes, Buffer.alloc(paddingOf(bytes.length))]);
}
