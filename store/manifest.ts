import { parseDigest, type Digest } from './digest.ts';
import { BentoError } from './errors.ts';

export const MEDIA_TYPES = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar+gzip',
  /** `{}`, where a manifest has to name a blob and has nothing to say. */
  empty: 'application/vnd.oci.empty.v1+json',
} as const;

export const ARTIFACT_TYPE = 'application/vnd.bento.workspace.v1';
export const FORMAT_VERSION = '0.3.0';

/** Annotation and label keys; where each one stands is in docs/format.md. */
export const KEYS = {
  created: 'org.opencontainers.image.created',
  title: 'org.opencontainers.image.title',
  refName: 'org.opencontainers.image.ref.name',
  formatVersion: 'dev.bento.format.version',
  sequence: 'dev.bento.checkpoint.sequence',
  parent: 'dev.bento.checkpoint.parent',
  message: 'dev.bento.checkpoint.message',
  extensions: 'dev.bento.extensions',
  task: 'dev.bento.task',
  config: 'dev.bento.config',
  fileCount: 'dev.bento.layer.file-count',
  secretsEncrypted: 'dev.bento.secrets.encrypted',
  tocDigest: 'containerd.io/snapshot/stargz/toc.digest',
  uncompressedSize: 'io.containers.estargz.uncompressed-size',
} as const;

/** The most that is read of a manifest or a config, and the most layers one may name. */
export const MANIFEST_BYTES_MAX = 4 << 20;
export const CONFIG_BYTES_MAX = 32 << 20;
export const LAYER_COUNT_MAX = 1000;

/** @see OCI image-spec v1.1, descriptor.md */
export interface Descriptor {
  mediaType: string;
  digest: Digest;
  /** Bytes. */
  size: number;
  /** Of a manifest that is no image: what it is. */
  artifactType?: string;
  annotations?: Record<string, string>;
}

/** @see OCI image-spec v1.1, manifest.md */
export interface Manifest {
  schemaVersion: 2;
  mediaType: string;
  artifactType?: string;
  config: Descriptor;
  layers: Descriptor[];
  /** The manifest that this one is attached to. */
  subject?: Descriptor;
  annotations?: Record<string, string>;
}

/** @see OCI image-spec v1.1, config.md; only what bento reads or writes */
export interface ImageConfig {
  created?: string;
  architecture?: string;
  os?: string;
  config?: { Labels?: Record<string, string> };
  rootfs?: { type: string; diff_ids: string[] };
}

/** @throws BentoError FORMAT_INVALID when the bytes are not an image manifest within the limits */
export function parseManifest(bytes: Buffer, what: string): Manifest {
  const json = parseObject(bytes, what);
  if (json['schemaVersion'] !== 2 || !Array.isArray(json['layers'])) {
    throw new BentoError('FORMAT_INVALID', `${what} is not an OCI image manifest`);
  }
  if (json['layers'].length === 0) throw new BentoError('FORMAT_INVALID', `${what} names no layers`);
  if (json['layers'].length > LAYER_COUNT_MAX) {
    throw new BentoError('FORMAT_INVALID', `${what} names ${json['layers'].length} layers, limit ${LAYER_COUNT_MAX}`);
  }
  const annotations = parseStrings(json['annotations'], `${what} annotations`);
  return {
    schemaVersion: 2,
    mediaType: typeof json['mediaType'] === 'string' ? json['mediaType'] : MEDIA_TYPES.manifest,
    ...(typeof json['artifactType'] === 'string' && { artifactType: json['artifactType'] }),
    config: parseDescriptor(json['config'], `${what} config`),
    layers: json['layers'].map((layer, i) => parseDescriptor(layer, `${what} layer ${i}`)),
    ...(isObject(json['subject']) && { subject: parseDescriptor(json['subject'], `${what} subject`) }),
    ...(annotations && { annotations }),
  };
}

/** An entry of `index.json`; without a tag it goes by its digest alone. */
export function indexEntry({ mediaType, digest, size }: Descriptor, tag: string | undefined): Descriptor {
  return { mediaType, digest, size, ...(tag !== undefined && { annotations: { [KEYS.refName]: tag } }) };
}

export function parseDescriptor(value: unknown, what: string): Descriptor {
  if (!isObject(value)) throw new BentoError('FORMAT_INVALID', `${what} is not a descriptor`);
  const { mediaType, size, artifactType } = value;
  if (typeof mediaType !== 'string' || typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw new BentoError('FORMAT_INVALID', `${what} is not a descriptor`);
  }
  const annotations = parseStrings(value['annotations'], `${what} annotations`);
  return {
    mediaType,
    digest: parseDigest(value['digest'], what),
    size,
    ...(typeof artifactType === 'string' && { artifactType }),
    ...(annotations && { annotations }),
  };
}

/** @throws BentoError FORMAT_INVALID when the bytes are not a JSON object */
export function parseObject(bytes: Buffer, what: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    throw new BentoError('FORMAT_INVALID', `${what} is not JSON`, { cause });
  }
  if (!isObject(value)) throw new BentoError('FORMAT_INVALID', `${what} is not a JSON object`);
  return value;
}

function parseStrings(value: unknown, what: string): Record<string, string> | undefined {
  if (value === undefined || value === null) return undefined;
  if (!isObject(value) || Object.values(value).some((text) => typeof text !== 'string')) {
    throw new BentoError('FORMAT_INVALID', `${what} are not a map of strings`);
  }
  return value as Record<string, string>;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
