import { digestOf, type Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { KEYS, MEDIA_TYPES, type Descriptor } from '../manifest.ts';
import { listDockerImages, readDockerImage } from './docker-archive.ts';
import type { ImageSource } from './image-source.ts';
import { blobFile, isOciLayout, listOciImages, type ListedImage } from './source-image.ts';

/** What a folder or archive holds, by digests: whichever format it is in. */
export interface ImageList {
  /** Whether it is an OCI layout, to which others may add. */
  isLayout: boolean;
  images: readonly ListedImage[];
  /** The name of the file that a blob lies in, whether it is there or not. */
  fileOf: (digest: Digest) => string;
  /** Manifests that are not there as files, because the format has none. */
  manifests: ReadonlyMap<Digest, Buffer>;
}

/**
 * Lists an OCI layout, or what `docker save` or `podman save` wrote, for which OCI manifests are made.
 *
 * @returns undefined when it is neither
 * @throws BentoError FORMAT_INVALID, FORMAT_UNSUPPORTED, BLOB_MISSING
 */
export async function listSource(source: ImageSource): Promise<ImageList | undefined> {
  if (await isOciLayout(source))
    return { isLayout: true, images: await listLayout(source), fileOf: blobFile, manifests: new Map() };
  const listed = await listDockerImages(source);
  if (listed === undefined) return undefined;
  const images: ListedImage[] = [];
  const files = new Map<Digest, string>();
  const manifests = new Map<Digest, Buffer>();
  for (const one of listed) {
    const { manifestBytes, manifest, layers } = await readDockerImage(source, one);
    const size = manifestBytes.length;
    const descriptor = { mediaType: manifest.mediaType, digest: digestOf(manifestBytes), size };
    manifests.set(descriptor.digest, manifestBytes);
    files.set(manifest.config.digest, one.config);
    for (const layer of layers) files.set(layer.descriptor.digest, layer.file);
    for (const tag of one.tags.length === 0 ? [undefined] : one.tags) images.push({ tag, descriptor });
  }
  return { isLayout: false, images, fileOf: (digest) => files.get(digest) ?? blobFile(digest), manifests };
}

/** A layout of which the list was not written yet is empty. */
async function listLayout(source: ImageSource): Promise<ListedImage[]> {
  const index = await source.open('index.json');
  await index?.close();
  return index === undefined ? [] : await listOciImages(source);
}

/**
 * What a tag names: the image that is called exactly so, else the one whose longer name ends with it.
 *
 * @throws BentoError FORMAT_INVALID when it names two
 */
export function findTagged({ images }: ImageList, tag: string, where: string): Descriptor | undefined {
  const named = images.filter((one) => one.tag === tag).map(({ descriptor }) => descriptor);
  const exact = named.filter(({ annotations }) => annotations?.[KEYS.refName] === tag);
  const [found, ...others] = exact.length > 0 ? exact : named;
  const other = others.find(({ digest }) => digest !== found?.digest);
  if (found === undefined || other === undefined) return found;
  throw new BentoError('FORMAT_INVALID', `${where} has the tag "${tag}" twice: ${found.digest} and ${other.digest}`, {
    hint: 'name the one that you mean by its digest',
  });
}

/** Of a manifest that says nothing about its type. */
export function typeOfManifest(json: Record<string, unknown>): string {
  if (typeof json['mediaType'] === 'string') return json['mediaType'];
  return Array.isArray(json['manifests']) ? MEDIA_TYPES.index : MEDIA_TYPES.manifest;
}
