import {
  ATTACHMENT_COUNT_MAX,
  EMPTY_CONFIG,
  encodeAttachment,
  entryOf,
  isSameAttachment,
  parseAttachment,
  REFERRER_BYTES_MAX,
  tooMany,
  type Attachment,
  type NewAttachment,
} from '../attachment.ts';
import type { AttachResult } from '../attach-file.ts';
import { digestOf, shortDigest, type Digest } from '../digest.ts';
import { BentoError, type ErrorCode } from '../errors.ts';
import { MEDIA_TYPES, type Descriptor } from '../manifest.ts';
import { addToFallbackTag, removeFromFallbackTag } from '../registry/referrers.ts';
import type { ReadOptions, Repository, UploadSource } from '../registry/repository.ts';
import { inParallel } from './in-parallel.ts';

/** What a registry lists and bento does not take, and why. */
export interface SkippedReferrer {
  subject: Digest;
  /** Undefined when it is all of them. */
  digest: Digest | undefined;
  reason: string;
}

/** An attachment, and the bytes of its manifest. */
export interface AttachmentManifest {
  attachment: Attachment;
  bytes: Buffer;
}

export interface RemoteAttachments {
  found: AttachmentManifest[];
  skipped: SkippedReferrer[];
}

/** What is wrong with one referrer, and not with the way to the registry. */
const OF_ONE_REFERRER: readonly ErrorCode[] = [
  'REMOTE_INVALID',
  'REMOTE_NOT_FOUND',
  'FORMAT_INVALID',
  'FORMAT_UNSUPPORTED',
  'DIGEST_MISMATCH',
];

/**
 * What a registry has attached to a manifest. Each manifest is read and must name that manifest as its subject, whatever the list
 * says; what is wrong, or beyond the limits, is skipped, so that a stranger's attachment takes no checkpoint from anybody.
 *
 * @param options.isKnown - those that are here need not be read
 */
export async function listRemoteAttachments(
  repository: Repository,
  subject: Digest,
  { isKnown = () => false, ...options }: ReadOptions & { isKnown?: (digest: Digest) => boolean } = {},
): Promise<RemoteAttachments> {
  const result: RemoteAttachments = { found: [], skipped: [] };
  const skip = (digest: Digest | undefined, reason: string): void =>
    void result.skipped.push({ subject, digest, reason });
  let listed: Descriptor[] = [];
  await orSkip(
    async () => {
      listed = await repository.referrers(subject, undefined, options);
    },
    (reason) => skip(undefined, reason),
  );
  const wanted = [...new Map(listed.map((one) => [one.digest, one])).values()].filter(({ digest }) => !isKnown(digest));
  if (wanted.length > ATTACHMENT_COUNT_MAX)
    skip(undefined, `${wanted.length} refer to it, and no more than ${ATTACHMENT_COUNT_MAX} are taken`);
  await inParallel(wanted.slice(0, ATTACHMENT_COUNT_MAX), options.signal, async (referrer, signal) => {
    await orSkip(
      async () => {
        result.found.push(await readReferrer(repository, subject, { referrer, options: { ...options, signal } }));
      },
      (reason) => skip(referrer.digest, reason),
    );
  });
  return result;
}

async function readReferrer(
  repository: Repository,
  subject: Digest,
  { referrer, options }: { referrer: Descriptor; options: ReadOptions },
): Promise<AttachmentManifest> {
  const { digest, mediaType, size } = referrer;
  if (mediaType !== MEDIA_TYPES.manifest) throw unfit('FORMAT_UNSUPPORTED', `it is a ${mediaType.slice(0, 100)}`);
  if (size > REFERRER_BYTES_MAX)
    throw unfit('FORMAT_UNSUPPORTED', `its manifest is ${size} bytes, limit ${REFERRER_BYTES_MAX}`);
  const found = await repository.getManifest(digest, options);
  if (found === undefined) throw unfit('REMOTE_NOT_FOUND', 'it is listed, but not there');
  if (digestOf(found.bytes) !== digest) throw unfit('REMOTE_INVALID', 'it has other bytes than its digest says');
  if (found.bytes.length !== size)
    throw unfit('REMOTE_INVALID', `it is ${found.bytes.length} bytes, its descriptor says ${size}`);
  const attachment = parseAttachment(found.bytes, digest);
  if (attachment === undefined) throw unfit('FORMAT_INVALID', 'it is attached to nothing');
  if (attachment.subject === subject) return { attachment, bytes: found.bytes };
  throw unfit('REMOTE_INVALID', `it is attached to ${shortDigest(attachment.subject)}`);
}

/** Does the work; what is wrong with one referrer becomes a reason to leave it out. */
export async function orSkip(work: () => Promise<void>, skip: (reason: string) => void): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof BentoError) || !OF_ONE_REFERRER.includes(error.code)) throw error;
    skip(error.message);
  }
}

function unfit(code: ErrorCode, message: string): BentoError {
  return new BentoError(code, message);
}

/** A file that can be read from any offset on, as often as need be. */
export interface FileToSend {
  digest: Digest;
  sizeBytes: number;
  source: UploadSource;
}

/**
 * Attaches a file to a manifest in a registry.
 *
 * @param made.file - its digest is known before it is sent
 */
export async function attachToRemote(
  repository: Repository,
  made: Omit<NewAttachment, 'file'> & { file: FileToSend },
  { onProgress, ...options }: ReadOptions & { onProgress?: (sentBytes: number) => void } = {},
): Promise<AttachResult> {
  const subject = made.subject.digest;
  const { found } = await listRemoteAttachments(repository, subject, options);
  const same = found.find(({ attachment }) => isSameAttachment(attachment, made));
  if (same !== undefined) return { attachment: same.attachment, isNew: false };
  if (found.length >= ATTACHMENT_COUNT_MAX) throw tooMany(subject);
  const empty = { digest: digestOf(EMPTY_CONFIG), sizeBytes: EMPTY_CONFIG.length };
  await repository.uploadBlob(empty, (offset) => wholeFrom(EMPTY_CONFIG, offset), options);
  await repository.uploadBlob(made.file, made.file.source, { ...options, ...(onProgress && { onProgress }) });
  const bytes = encodeAttachment(made);
  const attachment = parseAttachment(bytes, digestOf(bytes));
  if (attachment === undefined) throw new TypeError('an attachment without a subject');
  await putAttachments(repository, subject, { manifests: [{ attachment, bytes }], options });
  return { attachment, isNew: true };
}

async function* wholeFrom(bytes: Buffer, offset: number): AsyncGenerator<Buffer> {
  yield await Promise.resolve(bytes.subarray(offset));
}

/** Puts manifests of attachments, whose blobs the registry has, and lists them under the fallback tag where the registry does not list them itself. */
export async function putAttachments(
  repository: Repository,
  subject: Digest,
  { manifests, options }: { manifests: readonly AttachmentManifest[]; options: ReadOptions },
): Promise<void> {
  const unlisted: Descriptor[] = [];
  for (const { attachment, bytes } of manifests) {
    const { mediaType } = attachment.manifest;
    const { keepsReferrers } = await repository.putManifest(attachment.digest, { mediaType, bytes }, options);
    if (!keepsReferrers) unlisted.push(entryOf(attachment));
  }
  if (unlisted.length > 0) await addToFallbackTag(repository, subject, { ...options, referrers: unlisted });
}

/**
 * Takes attachments away from a registry: from the list under the fallback tag, and their manifests, where the registry deletes.
 *
 * @throws BentoError REMOTE_REFUSED when it does not, and lists them itself
 */
export async function detachFromRemote(
  repository: Repository,
  subject: Digest,
  { digests, ...options }: ReadOptions & { digests: ReadonlySet<Digest> },
): Promise<void> {
  await removeFromFallbackTag(repository, subject, { ...options, digests });
  for (const digest of digests) {
    try {
      await repository.deleteManifest(digest, options);
    } catch (error) {
      if (!(error instanceof BentoError) || error.code !== 'REMOTE_REFUSED') throw error;
      const left = await repository.referrers(subject, undefined, options);
      if (left.some((one) => one.digest === digest)) throw error;
    }
  }
}
