import { arch } from 'node:process';

import { parseAttachment, REFERRER_BYTES_MAX, type Attachment } from '../attachment.ts';
import { digestOf, hexOf, shortDigest, type Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { mayBeAttachment } from '../find-attachments.ts';
import {
  CONFIG_BYTES_MAX,
  isObject,
  KEYS,
  MANIFEST_BYTES_MAX,
  MEDIA_TYPES,
  parseDescriptor,
  parseManifest,
  parseObject,
  type Descriptor,
  type Manifest,
} from '../manifest.ts';
import { readSourceFile, type ImageSource } from './image-source.ts';
import { tagOfRefName } from './image-place.ts';

/** How many images one source may list, and how many manifests one index. */
export const IMAGE_COUNT_MAX = 1000;
/** How many manifests a source may list, what is attached to its images included. */
export const LISTED_COUNT_MAX = 20_000;
/** An index may name an index; nobody goes deeper than two. */
export const INDEX_DEPTH_MAX = 4;

const INDEX_TYPES: readonly string[] = [MEDIA_TYPES.index, 'application/vnd.docker.distribution.manifest.list.v2+json'];
const LAYER_TYPE = /[.+]gzip$|[.]tar$/;

/** Node's name of a processor to that of images. @see OCI image-spec v1.1, image-index.md: values of GOARCH */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' };

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
 * Reads what a listed entry names; of an index, the image for this machine.
 *
 * @throws BentoError BLOB_MISSING, DIGEST_MISMATCH, FORMAT_INVALID or FORMAT_UNSUPPORTED
 */
export async function readOciImage(source: ImageSource, { tag, descriptor }: ListedImage): Promise<SourceImage> {
  const { bytes, what } = await readImageManifest(source, descriptor);
  const manifest = parseManifest(bytes, what);
  for (const { mediaType } of manifest.layers) checkLayerType(mediaType, what);
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

async function readImageManifest(source: ImageSource, top: Descriptor): Promise<{ bytes: Buffer; what: string }> {
  let descriptor = top;
  for (let depth = 0; depth <= INDEX_DEPTH_MAX; depth++) {
    const what = `manifest ${descriptor.digest}`;
    const bytes = await readBlobOf(source, descriptor, MANIFEST_BYTES_MAX);
    const json = parseObject(bytes, what);
    const isIndex = INDEX_TYPES.includes(descriptor.mediaType) || Array.isArray(json['manifests']);
    // One document that reads as both is how two programs are made to see two images.
    if (isIndex && json['layers'] !== undefined) {
      throw new BentoError('FORMAT_INVALID', `${what} is an index and an image at once`);
    }
    if (!isIndex) return { bytes, what };
    descriptor = choosePlatform(entriesOf(json, what), what);
  }
  const limit = `more than ${INDEX_DEPTH_MAX} indexes in one another`;
  throw new BentoError('FORMAT_INVALID', `${top.digest} in ${source.path} is ${limit}`);
}

function entriesOf(json: Record<string, unknown>, what: string, countMax = IMAGE_COUNT_MAX): unknown[] {
  const manifests = json['manifests'];
  if (!Array.isArray(manifests)) throw new BentoError('FORMAT_INVALID', `${what} lists no manifests`);
  if (manifests.length <= countMax) return manifests;
  throw new BentoError('FORMAT_INVALID', `${what} lists ${manifests.length} manifests, limit ${countMax}`);
}

function choosePlatform(entries: readonly unknown[], what: string): Descriptor {
  const wanted = `linux/${ARCHITECTURES[arch] ?? arch}`;
  const platforms = entries.map(platformOf);
  const at = platforms.indexOf(wanted);
  const only = entries.length === 1 && platforms[0] === undefined ? 0 : -1;
  const chosen = entries[at >= 0 ? at : only];
  if (chosen !== undefined) return parseDescriptor(chosen, `${what}, image for ${wanted}`);
  const offered = platforms.filter((platform) => platform !== undefined).slice(0, 10);
  const others = offered.length === 0 ? 'names no platforms' : `has ${offered.join(', ')}`;
  throw new BentoError('FORMAT_UNSUPPORTED', `${what} has no image for ${wanted}: it ${others}`);
}

function platformOf(entry: unknown): string | undefined {
  const platform = isObject(entry) ? entry['platform'] : undefined;
  if (!isObject(platform)) return undefined;
  const { os, architecture } = platform;
  return typeof os === 'string' && typeof architecture === 'string' ? `${os}/${architecture}`.slice(0, 50) : undefined;
}

/** @throws BentoError FORMAT_UNSUPPORTED for a layer that could be stored but never read */
function checkLayerType(mediaType: string, what: string): void {
  if (LAYER_TYPE.test(mediaType)) return;
  throw new BentoError('FORMAT_UNSUPPORTED', `${what} has a layer of type ${mediaType.slice(0, 100)}`, {
    hint: 'convert the image to tar+gzip layers, for example with skopeo copy --dest-compress-format gzip',
  });
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
