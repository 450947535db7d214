import { fromText, toText } from '../byte-string.ts';
import { digestOf, parseDigest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import {
  CONFIG_BYTES_MAX,
  isObject,
  LAYER_COUNT_MAX,
  MANIFEST_BYTES_MAX,
  MEDIA_TYPES,
  parseManifest,
  parseObject,
} from '../manifest.ts';
import { normalizePath } from '../layers/tar-name.ts';
import { IMAGE_COUNT_MAX } from './find-image.ts';
import { tagOfRefName } from '../registry/local-ref.ts';
import { readSourceFile, type ImageSource } from './image-source.ts';
import type { SourceImage } from './source-image.ts';

const PLAIN_TAR = 'application/vnd.oci.image.layer.v1.tar';

/** An image as `manifest.json` names it: files of the archive. */
export interface DockerImage {
  tags: string[];
  config: string;
  layers: string[];
}

/**
 * What `manifest.json` of an archive of `docker save` or `podman save` lists.
 *
 * @returns undefined when there is none
 * @throws BentoError FORMAT_INVALID
 * @see https://github.com/moby/docker-image-spec/blob/main/v1.2.md, "Combined Image JSON + Filesystem Changeset Format"
 */
export async function listDockerImages(source: ImageSource): Promise<DockerImage[] | undefined> {
  const bytes = await readSourceFile(source, 'manifest.json', MANIFEST_BYTES_MAX);
  if (bytes === undefined) return undefined;
  const what = `manifest.json in ${source.path}`;
  // a list at the top, where everything else that is read here is an object
  const list = parseObject(Buffer.concat([Buffer.from('{"images":'), bytes, Buffer.from('}')]), what)['images'];
  if (!Array.isArray(list)) throw new BentoError('FORMAT_INVALID', `${what} is no list of images`);
  if (list.length > IMAGE_COUNT_MAX) {
    throw new BentoError('FORMAT_INVALID', `${what} lists ${list.length} images, limit ${IMAGE_COUNT_MAX}`);
  }
  return list.map((value) => parseImage(value, what));
}

function parseImage(value: unknown, what: string): DockerImage {
  const { Config: config, Layers: layers, RepoTags: names } = isObject(value) ? value : {};
  if (typeof config !== 'string' || !isTexts(layers)) {
    throw new BentoError('FORMAT_INVALID', `${what} names an image without config or layers`);
  }
  if (layers.length > LAYER_COUNT_MAX) {
    throw new BentoError('FORMAT_INVALID', `${what} names ${layers.length} layers, limit ${LAYER_COUNT_MAX}`);
  }
  const tags = isTexts(names) ? names.slice(0, IMAGE_COUNT_MAX).map(tagOfRefName) : [];
  return {
    tags: tags.filter((tag) => tag !== undefined),
    config: normalizePath(fromText(config)),
    layers: layers.map((layer) => normalizePath(fromText(layer))),
  };
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((text) => typeof text === 'string');
}

/**
 * Makes an OCI image of it: the same config, the plain layers under their diff ids, and a manifest that follows from both.
 *
 * @throws BentoError BLOB_MISSING or FORMAT_INVALID
 */
export async function readDockerImage(source: ImageSource, image: DockerImage): Promise<Omit<SourceImage, 'tag'>> {
  const configBytes = await readSourceFile(source, image.config, CONFIG_BYTES_MAX);
  if (configBytes === undefined) throw missingFile(source, image.config);
  const diffIds = diffIdsOf(configBytes, `${toText(image.config)} in ${source.path}`);
  if (diffIds.length !== image.layers.length) {
    const counts = `${image.layers.length} layers, its config ${diffIds.length}`;
    throw new BentoError('FORMAT_INVALID', `an image in ${source.path} has ${counts}`);
  }
  const layers: SourceImage['layers'] = [];
  for (const [at, file] of image.layers.entries()) {
    const digest = parseDigest(diffIds[at], `diff id ${at} in ${source.path}`);
    const size = await sizeOfFile(source, file);
    layers.push({ descriptor: { mediaType: PLAIN_TAR, digest, size }, file });
  }
  const config = { mediaType: MEDIA_TYPES.config, digest: digestOf(configBytes), size: configBytes.length };
  const described = layers.map(({ descriptor }) => descriptor);
  const manifestBytes = Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.manifest, config, layers: described }),
  );
  return { manifest: parseManifest(manifestBytes, `an image in ${source.path}`), manifestBytes, configBytes, layers };
}

function diffIdsOf(config: Buffer, what: string): unknown[] {
  const { rootfs } = parseObject(config, what);
  const ids = isObject(rootfs) ? rootfs['diff_ids'] : undefined;
  if (Array.isArray(ids)) return ids;
  throw new BentoError('FORMAT_INVALID', `${what} has no list of diff ids`);
}

async function sizeOfFile(source: ImageSource, name: string): Promise<number> {
  const file = await source.open(name, { mayBeLink: true });
  if (file === undefined) throw missingFile(source, name);
  await file.close();
  return file.sizeBytes;
}

function missingFile(source: ImageSource, name: string): BentoError {
  return new BentoError('BLOB_MISSING', `${source.path} does not hold ${toText(name)} that its manifest.json names`);
}
