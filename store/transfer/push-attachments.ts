import type { Attachment } from '../attachment.ts';
import type { BlobPool } from '../blobs.ts';
import type { Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { findAttachments } from '../find-attachments.ts';
import { MANIFEST_BYTES_MAX } from '../manifest.ts';
import type { ReadOptions, Repository } from '../registry/repository.ts';
import type { Store } from '../store.ts';
import { inParallel } from './in-parallel.ts';
import { putAttachments, type AttachmentManifest } from './remote-attachments.ts';

/** The attachments of checkpoints that a registry does not list. Only checkpoints that have any here cost a request. */
export async function missingAttachments(
  store: Store,
  repository: Repository,
  { subjects, signal: all }: { subjects: ReadonlySet<Digest>; signal?: AbortSignal | undefined },
): Promise<AttachmentManifest[]> {
  const { attachments } = await findAttachments(store);
  const bySubject = groupBySubject(attachments.filter(({ subject }) => subjects.has(subject)));
  const missing: AttachmentManifest[] = [];
  await inParallel(bySubject, all, async ([subject, own], signal) => {
    const there = new Set((await repository.referrers(subject, undefined, { signal })).map(({ digest }) => digest));
    for (const attachment of own) {
      if (there.has(attachment.digest)) continue;
      await checkIsWhole(store.blobs, attachment);
      missing.push({ attachment, bytes: await store.blobs.read({ digest: attachment.digest }, MANIFEST_BYTES_MAX) });
    }
  });
  return missing;
}

/** Puts the manifests; their blobs are there. */
export async function pushAttachments(
  repository: Repository,
  manifests: readonly AttachmentManifest[],
  options: ReadOptions,
): Promise<void> {
  const bySubject = new Map<Digest, AttachmentManifest[]>();
  for (const one of manifests) {
    const { subject } = one.attachment;
    bySubject.set(subject, [...(bySubject.get(subject) ?? []), one]);
  }
  await inParallel(bySubject, options.signal, async ([subject, own], signal) => {
    await putAttachments(repository, subject, { manifests: own, options: { ...options, signal } });
  });
}

function groupBySubject(attachments: readonly Attachment[]): Map<Digest, Attachment[]> {
  const groups = new Map<Digest, Attachment[]>();
  for (const one of attachments) groups.set(one.subject, [...(groups.get(one.subject) ?? []), one]);
  return groups;
}

/** A damaged attachment would hold up its checkpoint for ever, if nobody said how to be rid of it. */
async function checkIsWhole(pool: BlobPool, { digest, subject, manifest }: Attachment): Promise<void> {
  for (const blob of [manifest.config, ...manifest.layers]) {
    if ((await pool.sizeOf(blob.digest)) === blob.size) continue;
    throw new BentoError('BLOB_MISSING', `attachment ${digest} is not whole: it lacks ${blob.digest}`, {
      hint: `\`bento attach rm ${subject} ${digest}\` takes it away`,
    });
  }
}
