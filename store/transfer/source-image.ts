import { parseAttachment, REFERRER_BYTES_MAX, type Attachment } from '../attachment.ts';
import { digestOf, hexOf, shortDigest, type Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { mayBeAttachment } from '../find-attachments.ts';
import {
  CONFIG_BYTES_MAX,
  KEYS,
  MANIFEST_BYTES_MAX,
  parseDescriptor,
  parseObject,
  type Descriptor,
  type Manifest,
} from '../manifest.ts';
import type { Platform } from '../platform.ts';
import { entriesOf, findImage, LISTED_COUNT_MAX } from './find-image.ts';
import { readSourceFile, type ImageSource } from './image-source.ts';
import { tagOfRefName } from '../registry/local-ref.ts';

/** An image in a source: its manifest and config as they are, its layers by the names of the files they lie in. */
export interface SourceImage {
  tag: string | undefined;
  manifest: Manifest;
  manifestBytes: Buffer;
  configBytes: Buffer;
  layers: { descriptor: Descriptor; file: string }[];
}

/** A manifest as the list of a source names it. */
export interface ListedImage {
  tag: string | undefined;
  descriptor: Descriptor;
}

/** Whether a source is an OCI layout. @throws BentoError FORMAT_UNSUPPORTED for a layout of another version */
export async function isOciLayout(source: ImageSource): Promise<boolean> {
  const bytes = await readSourceFile(source, 'oci-layout', MANIFEST_BYTES_MAX);
  if (bytes === undefined) return false;
  const version = parseObject(bytes, `oci-layout in ${source.path}`)['imageLayoutVersion'];
  if (typeof version === 'string' && version.startsWith('1.')) return true;
  const shown = typeof version === 'string' ? JSON.stringify(version.slice(0, 100)) : 'none';
  throw new BentoError('FORMAT_UNSUPPORTED', `${source.path} is an image layout of version ${shown}, not 1`);
}

/** What `index.json` of a layout lists. @throws BentoError FORMAT_INVALID */
export async function listOciImages(source: ImageSource): Promise<ListedImage[]> {
  const what = `index.json in ${source.path}`;
  const bytes = await readSourceFile(source, 'index.json', MANIFEST_BYTES_MAX);
  if (bytes === undefined) throw new BentoError('FORMAT_INVALID', `${source.path} is a layout without index.json`);
  return entriesOf(parseObject(bytes, what), what, LISTED_COUNT_MAX).map((value, at) => {
    const descriptor = parseDescriptor(value, `${what}, manifest ${at}`);
    const name = descriptor.annotations?.[KEYS.refName];
    return { descriptor, tag: name === undefined ? undefined : tagOfRefName(name) };
  });
}

/**
 * Reads what a listed entry names; of an index, the image for a platform.
 *
 * @param platform - default: this machine's
 * @throws BentoError BLOB_MISSING, DIGEST_MISMATCH, FORMAT_INVALID or FORMAT_UNSUPPORTED
 */
export async function readOciImage(
  source: ImageSource,
  { tag, descriptor }: ListedImage,
  platform?: Platform,
): Promise<SourceImage> {
  const read = async (one: Descriptor): Promise<Buffer> => await readBlobOf(source, one, MANIFEST_BYTES_MAX);
  const { bytes, manifest } = await findImage(descriptor, read, { platform, where: source.path });
  const configBytes = await readBlobOf(source, manifest.config, CONFIG_BYTES_MAX);
  const layers = manifest.layers.map((layer) => ({ descriptor: layer, file: blobFile(layer.digest) }));
  return { tag, manifest, manifestBytes: bytes, configBytes, layers };
}

/** An attachment in a source, and the bytes of its manifest. */
export interface SourceAttachment {
  attachment: Attachment;
  bytes: Buffer;
}

/**
 * The attachment that an entry without a tag is.
 *
 * @returns undefined for anything else, and for what the source does not hold: nobody asked for it by name
 */
export async function readOciAttachment(
  source: ImageSource,
  { descriptor }: ListedImage,
): Promise<SourceAttachment | undefined> {
  if (!mayBeAttachment(descriptor) || descriptor.size > REFERRER_BYTES_MAX) return undefined;
  try {
    const bytes = await readBlobOf(source, descriptor, REFERRER_BYTES_MAX);
    const attachment = parseAttachment(bytes, descriptor.digest);
    return attachment && { attachment, bytes };
  } catch (error) {
    if (error instanceof BentoError) return undefined;
    throw error;
  }
}

/** A small blob of a layout, checked against its descriptor. */
async function readBlobOf(source: ImageSource, { digest, size }: Descriptor, sizeMax: number): Promise<Buffer> {
  const bytes = await readSourceFile(source, blobFile(digest), sizeMax);
  if (bytes === undefined) throw missingIn(source, digest);
  if (bytes.length !== size) throw wrongSize(source, { digest, size }, bytes.length);
  if (digestOf(bytes) !== digest) throw damagedIn(source, digest);
  return bytes;
}

export function blobFile(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

export function missingIn({ path }: ImageSource, digest: Digest): BentoError {
  return new BentoError('BLOB_MISSING', `${path} does not hold the blob ${digest} that its image needs`);
}

export function damagedIn({ path }: ImageSource, digest: Digest): BentoError {
  return new BentoError('DIGEST_MISMATCH', `blob integrity check failed: ${shortDigest(digest)} in ${path}`, {
    hint: 'the file was damaged or tampered with; get it again',
  });
}

export function wrongSize(
  { path }: ImageSource,
  { digest, size }: { digest: Digest; size: number },
  found: number,
): BentoError {
  return new BentoError(
    'DIGEST_MISMATCH',
    `blob ${shortDigest(digest)} in ${path} is ${found} bytes, its descriptor says ${size}`,
  );
}
