import type { BlobPool } from './blobs.ts';
import { parseMeta, type CheckpointMeta } from './checkpoint-meta.ts';
import { parseDigest, shortDigest, type Digest } from './digest.ts';
import { BentoError } from './errors.ts';
import {
  ARTIFACT_TYPE,
  CONFIG_BYTES_MAX,
  FORMAT_VERSION,
  isObject,
  KEYS,
  MANIFEST_BYTES_MAX,
  MEDIA_TYPES,
  parseManifest,
  parseObject,
  type Descriptor,
  type ImageConfig,
  type Manifest,
} from './manifest.ts';

/** A layer of a checkpoint. Several with one title are a stack: a base and its deltas, lowest first. */
export interface CheckpointLayer {
  title: string;
  descriptor: Descriptor;
  /** Digest of the uncompressed layer. */
  diffId: Digest;
  /** Files the layer holds, as its annotation says. */
  fileCount: number;
}

/** A checkpoint, parsed and checked. */
export interface Checkpoint {
  digest: Digest;
  /** Bytes of the manifest. */
  size: number;
  manifest: Manifest;
  layers: CheckpointLayer[];
  sequence: number;
  created: string;
  parent: Digest | undefined;
  message: string;
  extensions: string[];
  meta: CheckpointMeta;
}

/**
 * Loads a checkpoint by the digest of its manifest.
 *
 * @throws BentoError BLOB_MISSING, DIGEST_MISMATCH or FORMAT_INVALID naming the manifest or config
 */
export async function loadCheckpoint(pool: BlobPool, digest: Digest): Promise<Checkpoint> {
  const bytes = await pool.read({ digest }, MANIFEST_BYTES_MAX);
  const manifest = parseManifest(bytes, `manifest ${digest}`);
  if (manifest.subject !== undefined && manifest.config.mediaType === MEDIA_TYPES.empty)
    throw isAttached(manifest, digest);
  const config = parseConfig(await pool.read(manifest.config, CONFIG_BYTES_MAX), digest);
  const annotations = manifest.annotations ?? {};
  const meta = metaOf(config);
  const parent = annotations[KEYS.parent] ?? meta.parentCheckpoint;
  return {
    digest,
    size: bytes.length,
    manifest,
    layers: layersOf(manifest, config, digest),
    sequence: annotations[KEYS.sequence] === undefined ? meta.checkpoint : countOf(annotations[KEYS.sequence]),
    created: annotations[KEYS.created] ?? meta.created,
    parent: parent === undefined ? undefined : parseDigest(parent, `parent of ${digest}`),
    message: annotations[KEYS.message] ?? meta.message ?? '',
    extensions: (annotations[KEYS.extensions] ?? '').split(',').filter((name) => name !== ''),
    meta,
  };
}

function isAttached({ subject }: Manifest, digest: Digest): BentoError {
  const to = subject?.digest ?? '';
  return new BentoError('FORMAT_UNSUPPORTED', `${shortDigest(digest)} is attached to a checkpoint, and none itself`, {
    hint: `\`bento attach get ${to} ${digest}\` reads it`,
  });
}

function layersOf(manifest: Manifest, config: ImageConfig, digest: Digest): CheckpointLayer[] {
  const diffIds = config.rootfs?.diff_ids ?? [];
  if (diffIds.length !== manifest.layers.length) {
    throw new BentoError(
      'FORMAT_INVALID',
      `manifest ${digest} has ${manifest.layers.length} layers, its config ${diffIds.length}`,
    );
  }
  return manifest.layers.map((descriptor, i) => ({
    title: descriptor.annotations?.[KEYS.title] ?? `layer-${i + 1}`,
    descriptor,
    diffId: parseDigest(diffIds[i], `diff id ${i} of ${digest}`),
    fileCount: countOf(descriptor.annotations?.[KEYS.fileCount]),
  }));
}

function parseConfig(bytes: Buffer, digest: Digest): ImageConfig {
  const json = parseObject(bytes, `config of ${digest}`);
  const { rootfs } = json;
  if (rootfs !== undefined && !(isObject(rootfs) && Array.isArray(rootfs['diff_ids']))) {
    throw new BentoError('FORMAT_INVALID', `config of ${digest} has no list of diff ids`);
  }
  return json;
}

/** The label's object, or for the oldest checkpoints the whole config blob, which then is that object itself. */
function metaOf(config: ImageConfig): CheckpointMeta {
  const label = config.config?.Labels?.[KEYS.config];
  return parseMeta(typeof label === 'string' ? parseObject(Buffer.from(label), KEYS.config) : { ...config });
}

/** A count that somebody else wrote: 0 where it is none. */
export function countOf(text: string | undefined): number {
  const count = Number(text ?? 0);
  return Number.isSafeInteger(count) && count >= 0 ? count : 0;
}

export interface NewCheckpoint {
  layers: readonly CheckpointLayer[];
  meta: CheckpointMeta;
  parent: Digest | undefined;
}

/** Stores config and manifest of a checkpoint whose layers are in the pool already: blob before ref. */
export async function storeCheckpoint(
  pool: BlobPool,
  checkpoint: NewCheckpoint,
): Promise<{ digest: Digest; size: number }> {
  const annotations = annotationsOf(checkpoint);
  const config = await pool.put(encodeConfig(checkpoint, annotations));
  const manifest: Manifest = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.manifest,
    artifactType: ARTIFACT_TYPE,
    config: { mediaType: MEDIA_TYPES.config, ...config },
    layers: checkpoint.layers.map((layer) => layer.descriptor),
    annotations,
  };
  return await pool.put(Buffer.from(JSON.stringify(manifest)));
}

function annotationsOf({ meta, parent }: NewCheckpoint): Record<string, string> {
  return {
    [KEYS.created]: meta.created,
    [KEYS.formatVersion]: FORMAT_VERSION,
    [KEYS.sequence]: String(meta.checkpoint),
    ...(parent && { [KEYS.parent]: parent }),
    ...(meta.message && { [KEYS.message]: meta.message }),
    ...(meta.extensions?.length && { [KEYS.extensions]: meta.extensions.join(',') }),
    ...(meta.task && { [KEYS.task]: meta.task }),
  };
}

/** `amd64` and `linux` are fixed: they make container engines accept the image for `COPY --from` anywhere. */
function encodeConfig({ layers, meta }: NewCheckpoint, annotations: Record<string, string>): Buffer {
  const { [KEYS.created]: _created, ...shared } = annotations;
  const labels: Record<string, string> = { ...shared, [KEYS.config]: JSON.stringify(meta) };
  const config: ImageConfig = {
    created: meta.created,
    architecture: 'amd64',
    os: 'linux',
    config: { Labels: labels },
    rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffId) },
  };
  return Buffer.from(JSON.stringify(config));
}

/** The descriptor of a layer as bento writes it. */
export function layerDescriptor(
  title: string,
  layer: { digest: Digest; sizeBytes: number; tocDigest: Digest; uncompressedBytes: number; fileCount: number },
): Descriptor {
  return {
    mediaType: MEDIA_TYPES.layer,
    digest: layer.digest,
    size: layer.sizeBytes,
    annotations: {
      [KEYS.title]: title,
      ...(layer.fileCount > 0 && { [KEYS.fileCount]: String(layer.fileCount) }),
      [KEYS.tocDigest]: layer.tocDigest,
      [KEYS.uncompressedSize]: String(layer.uncompressedBytes),
    },
  };
}
