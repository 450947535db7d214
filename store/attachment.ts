import type { BlobPool } from './blobs.ts';
import { digestOf, shortDigest, type Digest } from './digest.ts';
import { BentoError } from './errors.ts';
import {
  ARTIFACT_TYPE,
  KEYS,
  MANIFEST_BYTES_MAX,
  MEDIA_TYPES,
  parseManifest,
  type Descriptor,
  type Manifest,
} from './manifest.ts';

/** A larger file is refused when it is attached, and left where it is when a registry offers it. */
export const ATTACHMENT_BYTES_MAX = 2 ** 30;
/** What is attached to one checkpoint, and how many files one attachment of somebody else's tool may have. */
export const ATTACHMENT_COUNT_MAX = 1000;
export const ATTACHMENT_FILE_COUNT_MAX = 100;
export const TITLE_BYTES_MAX = 255;
/** Manifests of attachments are small; a larger one of a registry or an archive is no attachment to bento. */
export const REFERRER_BYTES_MAX = 128 << 10;

/** The kinds that have a name of their own on the command line. */
export const ATTACHMENT_KINDS = {
  diff: { artifactType: 'application/vnd.bento.attachment.diff.v1+patch', mediaType: 'text/x-diff' },
  'test-results': {
    artifactType: 'application/vnd.bento.attachment.test-results.v1+json',
    mediaType: 'application/json',
  },
  usage: { artifactType: 'application/vnd.bento.attachment.usage.v1+json', mediaType: 'application/json' },
  log: { artifactType: 'application/vnd.bento.attachment.log.v1+jsonl', mediaType: 'application/jsonl' },
} as const;

/** What an attachment is, and what its file is. */
export interface AttachmentType {
  artifactType: string;
  mediaType: string;
}

/** @see RFC 6838, section 4.2 */
const MEDIA_TYPE = /^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$/;

/** `{}`, which every attachment has for its config. */
export const EMPTY_CONFIG = Buffer.from('{}');
const EMPTY_DESCRIPTOR: Descriptor = {
  mediaType: MEDIA_TYPES.empty,
  digest: digestOf(EMPTY_CONFIG),
  size: EMPTY_CONFIG.length,
};

/** A file of an attachment. */
export interface AttachedFile {
  /** Whatever its maker wrote: no name of a file here before `isPlainName` says so. */
  title: string | undefined;
  mediaType: string;
  digest: Digest;
  sizeBytes: number;
}

/** A manifest with a `subject`. bento's have one file; those of other tools may have any number. */
export interface Attachment {
  digest: Digest;
  /** Bytes of the manifest. */
  size: number;
  artifactType: string;
  subject: Digest;
  /** As its maker wrote it; empty when nobody said. */
  created: string;
  files: AttachedFile[];
  manifest: Manifest;
}

/**
 * What `--type` means: a kind, or a media type.
 *
 * @throws BentoError USAGE
 */
export function parseAttachmentType(written: string): AttachmentType {
  if (Object.hasOwn(ATTACHMENT_KINDS, written)) return ATTACHMENT_KINDS[written as keyof typeof ATTACHMENT_KINDS];
  const isImage = written === ARTIFACT_TYPE || (Object.values(MEDIA_TYPES) as string[]).includes(written);
  if (MEDIA_TYPE.test(written) && !isImage) return { artifactType: written, mediaType: written };
  const why = isImage ? 'is what images are made of' : 'is neither a kind nor a media type';
  throw new BentoError('USAGE', `--type "${written}" ${why}`, {
    hint: `${Object.keys(ATTACHMENT_KINDS).join(', ')}, or a media type such as text/plain`,
  });
}

/** The kind, where it has a name, else the artifact type. */
export function kindOf(artifactType: string): string {
  const known = Object.entries(ATTACHMENT_KINDS).find(([, type]) => type.artifactType === artifactType);
  return known?.[0] ?? artifactType;
}

/** Whether a file can be attached under this title. */
export function isTitle(title: string): boolean {
  const isName = title !== '' && title !== '.' && title !== '..' && !/[/\p{Cc}\p{Cs}]/u.test(title);
  return isName && Buffer.byteLength(title) <= TITLE_BYTES_MAX;
}

/**
 * Whether a title is a name for a file in some folder: no way out of it, no hidden file, nothing that a command would take for
 * a flag, a terminal for an order or a person for something else.
 */
export function isPlainName(title: string): boolean {
  return isTitle(title) && !/^[.-]|[\\\p{Cf}]/u.test(title);
}

/**
 * Reads the manifest of an attachment.
 *
 * @returns undefined for one that is attached to nothing, and for a checkpoint
 * @throws BentoError FORMAT_INVALID
 */
export function parseAttachment(bytes: Buffer, digest: Digest): Attachment | undefined {
  const manifest = parseManifest(bytes, `manifest ${digest}`);
  const artifactType = manifest.artifactType ?? manifest.config.mediaType;
  if (manifest.subject === undefined || artifactType === ARTIFACT_TYPE) return undefined;
  return {
    digest,
    size: bytes.length,
    artifactType,
    subject: manifest.subject.digest,
    created: manifest.annotations?.[KEYS.created] ?? '',
    files: manifest.layers.map((layer) => ({
      title: layer.annotations?.[KEYS.title],
      mediaType: layer.mediaType,
      digest: layer.digest,
      sizeBytes: layer.size,
    })),
    manifest,
  };
}

/** `parseAttachment` of a blob. @throws BentoError BLOB_MISSING, DIGEST_MISMATCH, FORMAT_INVALID */
export async function readAttachment(pool: BlobPool, digest: Digest): Promise<Attachment | undefined> {
  return parseAttachment(await pool.read({ digest }, MANIFEST_BYTES_MAX), digest);
}

export interface NewAttachment {
  subject: Descriptor;
  type: AttachmentType;
  title: string;
  file: { digest: Digest; sizeBytes: number };
  now: Date;
}

/** The manifest of a new attachment, as it is stored and sent. */
export function encodeAttachment({ subject, type, title, file, now }: NewAttachment): Buffer {
  const manifest: Manifest = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.manifest,
    artifactType: type.artifactType,
    config: EMPTY_DESCRIPTOR,
    layers: [
      {
        mediaType: type.mediaType,
        digest: file.digest,
        size: file.sizeBytes,
        annotations: { [KEYS.title]: title },
      },
    ],
    subject: { mediaType: subject.mediaType, digest: subject.digest, size: subject.size },
    annotations: { [KEYS.created]: now.toISOString().replace(/\.\d+Z$/, 'Z') },
  };
  return Buffer.from(JSON.stringify(manifest));
}

/**
 * How an attachment is listed, in a layout and among the referrers of a registry. Of its own annotations only the time: one that
 * called itself `org.opencontainers.image.ref.name` would be a tag.
 */
export function entryOf({ digest, size, artifactType, created, manifest }: Attachment): Descriptor {
  return {
    mediaType: manifest.mediaType,
    digest,
    size,
    artifactType,
    ...(created !== '' && { annotations: { [KEYS.created]: created } }),
  };
}

/** The same file under the same title and type at the same checkpoint, whenever it was attached. */
export function isSameAttachment(
  { artifactType, files }: Attachment,
  { type, title, file }: Pick<NewAttachment, 'type' | 'title' | 'file'>,
): boolean {
  const [only] = files;
  return (
    artifactType === type.artifactType && files.length === 1 && only?.title === title && only.digest === file.digest
  );
}

export function tooLarge(what: string): BentoError {
  return new BentoError('TARGET_INVALID', `${what} is larger than ${ATTACHMENT_BYTES_MAX / 2 ** 20} MiB`, {
    hint: 'compress it, or attach a part of it',
  });
}

export function tooMany(subject: Digest): BentoError {
  return new BentoError(
    'TARGET_INVALID',
    `${shortDigest(subject)} has ${ATTACHMENT_COUNT_MAX} attachments, and there may be no more`,
    { hint: '`bento attach rm` takes one away' },
  );
}
