import {
  ATTACHMENT_BYTES_MAX,
  ATTACHMENT_COUNT_MAX,
  ATTACHMENT_FILE_COUNT_MAX,
  EMPTY_CONFIG,
  type Attachment,
} from '../attachment.ts';
import { digestOf, type Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { listAttachments, readAttachments } from '../find-attachments.ts';
import type { Layout } from '../layout.ts';
import { CONFIG_BYTES_MAX, KEYS, type Descriptor } from '../manifest.ts';
import type { Repository } from '../registry/repository.ts';
import type { Store } from '../store.ts';
import { fetchBlob } from './fetch-blob.ts';
import { inParallel } from './in-parallel.ts';
import type { PullEvent } from './pull.ts';
import { listRemoteAttachments, orSkip, type SkippedReferrer } from './remote-attachments.ts';

/** All that is fetched at once for one checkpoint; what is beyond is left where it is. */
export const ATTACHED_BYTES_MAX = 8 * ATTACHMENT_BYTES_MAX;

export interface PulledAttachments {
  attachments: Attachment[];
  skipped: SkippedReferrer[];
  fetchedCount: number;
  fetchedBytes: number;
}

/**
 * Fetches what a registry has attached to checkpoints that are here, of whatever type, up to the limits: 1,000 for a checkpoint,
 * 1 GiB for a file, 8 GiB for all of a checkpoint's. What refers to an attachment is not followed. The caller shares the
 * store's blobs.
 */
export async function pullAttachments(
  { store, layout }: { store: Store; layout: Layout },
  repository: Repository,
  options: { subjects: ReadonlySet<Digest>; signal?: AbortSignal | undefined; onEvent?: (event: PullEvent) => void },
): Promise<PulledAttachments> {
  const result: PulledAttachments = { attachments: [], skipped: [], fetchedCount: 0, fetchedBytes: 0 };
  const { attachments: own } = await readAttachments(store.blobs, await layout.manifests());
  await inParallel(options.subjects, options.signal, async (subject, signal) => {
    const here = own.filter((one) => one.subject === subject);
    const work: Work = { store, layout, repository, signal, onEvent: options.onEvent, result };
    await pullOf(subject, here, work);
  });
  return result;
}

interface Work {
  store: Store;
  layout: Layout;
  repository: Repository;
  signal: AbortSignal;
  onEvent: ((event: PullEvent) => void) | undefined;
  result: PulledAttachments;
}

async function pullOf(subject: Digest, here: readonly Attachment[], work: Work): Promise<void> {
  const known = new Set(here.map(({ digest }) => digest));
  const isKnown = (digest: Digest): boolean => known.has(digest);
  const listed = await listRemoteAttachments(work.repository, subject, { signal: work.signal, isKnown });
  const { skipped } = work.result;
  skipped.push(...listed.skipped);
  const pulled: Attachment[] = [];
  let sizeBytes = 0;
  for (const { attachment, bytes } of listed.found) {
    const skip = (reason: string): void => void skipped.push({ subject, digest: attachment.digest, reason });
    await orSkip(async () => {
      checkLimits(attachment);
      if (here.length + pulled.length >= ATTACHMENT_COUNT_MAX) throw beyond(`${ATTACHMENT_COUNT_MAX} are here`);
      sizeBytes += sizeOf(attachment);
      if (sizeBytes > ATTACHED_BYTES_MAX) throw beyond(`with it there were more than ${ATTACHED_BYTES_MAX} bytes`);
      await fetchAttachment(attachment, bytes, work);
      pulled.push(attachment);
    }, skip);
  }
  await listAttachments(work.layout, pulled);
  work.result.attachments.push(...pulled);
}

function checkLimits({ files, manifest }: Attachment): void {
  if (files.length > ATTACHMENT_FILE_COUNT_MAX)
    throw beyond(`it has ${files.length} files, limit ${ATTACHMENT_FILE_COUNT_MAX}`);
  if (manifest.config.size > CONFIG_BYTES_MAX) throw beyond(`its config is ${manifest.config.size} bytes`);
  const large = files.find((file) => file.sizeBytes > ATTACHMENT_BYTES_MAX);
  if (large !== undefined) throw beyond(`a file of it is ${large.sizeBytes} bytes, limit ${ATTACHMENT_BYTES_MAX}`);
}

function beyond(why: string): BentoError {
  return new BentoError('FORMAT_UNSUPPORTED', why);
}

function sizeOf({ files }: Attachment): number {
  return files.reduce((sum, file) => sum + file.sizeBytes, 0);
}

/** Blobs, then the manifest. */
async function fetchAttachment({ manifest }: Attachment, bytes: Buffer, work: Work): Promise<void> {
  const { store } = work;
  if (manifest.config.digest === digestOf(EMPTY_CONFIG)) await store.blobs.put(EMPTY_CONFIG);
  const blobs = [...new Map([manifest.config, ...manifest.layers].map((blob) => [blob.digest, blob])).values()];
  for (const blob of blobs) await fetchOne(blob, work);
  await store.blobs.put(bytes);
}

async function fetchOne({ digest, size: sizeBytes, annotations }: Descriptor, work: Work): Promise<void> {
  const { store, repository, signal, onEvent, result } = work;
  const stored = await store.blobs.sizeOf(digest);
  if (stored === sizeBytes) return;
  if (stored !== undefined)
    throw new BentoError('FORMAT_INVALID', `it says that blob ${digest} is ${sizeBytes} bytes, and not ${stored}`);
  onEvent?.({ kind: 'planned', blobCount: 1, sizeBytes });
  const blob = { digest, sizeBytes, title: annotations?.[KEYS.title] ?? 'attachment' };
  const tell = (doneBytes: number, outcome?: 'fetched'): void =>
    onEvent?.({ kind: 'blob', ...blob, doneBytes, outcome });
  result.fetchedBytes += await fetchBlob(store.blobs, blob, { repository, signal, onProgress: tell });
  result.fetchedCount += 1;
  tell(sizeBytes, 'fetched');
}
