import type { Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { MEDIA_TYPES, parseManifest, parseObject, type Descriptor, type Manifest } from '../manifest.ts';
import { chooseImage, thisPlatform, type Platform } from '../platform.ts';

/** How many images one source may list, and how many manifests one index. */
export const IMAGE_COUNT_MAX = 10_000;
/** How many manifests one source may list, what is attached to its images included. */
export const LISTED_COUNT_MAX = 20_000;
/** An index may name an index; nobody goes deeper than two. */
export const INDEX_DEPTH_MAX = 4;

const INDEX_TYPES: readonly string[] = [MEDIA_TYPES.index, 'application/vnd.docker.distribution.manifest.list.v2+json'];
const LAYER_TYPE = /[.+]gzip$|[.]tar$/;

/** The manifest of an image, and by which index it was found. */
export interface FoundImage {
  digest: Digest;
  bytes: Buffer;
  manifest: Manifest;
  /** The outermost index, if it was an index that was named. */
  index: Digest | undefined;
}

/**
 * Reads the manifest that a descriptor names; of an index, that of the image for a platform.
 *
 * @param read - gives the bytes of a manifest or index, which have the digest that the descriptor says
 * @param options.platform - default: this machine's
 * @param options.where - names the registry or file in errors
 * @throws BentoError FORMAT_INVALID; FORMAT_UNSUPPORTED for an index without such an image, and for layers that could be
 *   stored but never read
 */
export async function findImage(
  top: Descriptor,
  read: (descriptor: Descriptor) => Promise<Buffer>,
  { platform = thisPlatform(), where }: { platform?: Platform | undefined; where: string },
): Promise<FoundImage> {
  let descriptor = top;
  for (let depth = 0; depth <= INDEX_DEPTH_MAX; depth++) {
    const what = `manifest ${descriptor.digest}`;
    const bytes = await read(descriptor);
    const json = parseObject(bytes, what);
    const isIndex = isIndexType(descriptor.mediaType) || Array.isArray(json['manifests']);
    // One document that reads as both is how two programs are made to see two images.
    if (isIndex && json['layers'] !== undefined) {
      throw new BentoError('FORMAT_INVALID', `${what} is an index and an image at once`);
    }
    if (!isIndex) {
      const manifest = parseManifest(bytes, what);
      for (const { mediaType } of manifest.layers) checkLayerType(mediaType, what);
      return { digest: descriptor.digest, bytes, manifest, index: depth === 0 ? undefined : top.digest };
    }
    descriptor = chooseImage(entriesOf(json, what), platform, `${what} in ${where}`);
  }
  const limit = `more than ${INDEX_DEPTH_MAX} indexes in one another`;
  throw new BentoError('FORMAT_INVALID', `${top.digest} in ${where} is ${limit}`);
}

/** Whether it is a list of images, of OCI or Docker. */
export function isIndexType(mediaType: string): boolean {
  return INDEX_TYPES.includes(mediaType);
}

/** What an index lists. @throws BentoError FORMAT_INVALID */
export function entriesOf(json: Record<string, unknown>, what: string, countMax = IMAGE_COUNT_MAX): unknown[] {
  const manifests = json['manifests'];
  if (!Array.isArray(manifests)) throw new BentoError('FORMAT_INVALID', `${what} lists no manifests`);
  if (manifests.length <= countMax) return manifests;
  throw new BentoError('FORMAT_INVALID', `${what} lists ${manifests.length} manifests, limit ${countMax}`);
}

function checkLayerType(mediaType: string, what: string): void {
  if (LAYER_TYPE.test(mediaType)) return;
  throw new BentoError('FORMAT_UNSUPPORTED', `${what} has a layer of type ${mediaType.slice(0, 100)}`, {
    hint: 'convert the image to tar+gzip layers, for example with skopeo copy --dest-compress-format gzip',
  });
}
