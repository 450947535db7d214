import { createHash } from 'node:crypto';

import {
  ATTACHMENT_BYTES_MAX,
  ATTACHMENT_COUNT_MAX,
  EMPTY_CONFIG,
  encodeAttachment,
  entryOf,
  isSameAttachment,
  parseAttachment,
  tooLarge,
  tooMany,
  type Attachment,
  type AttachmentType,
  type NewAttachment,
} from './attachment.ts';
import { BlobIngest } from './blob-ingest.ts';
import { shareBlobs } from './blob-lock.ts';
import type { Digest } from './digest.ts';
import { faultPoint } from './fault-point.ts';
import { attachmentsOf, mayBeAttachment } from './find-attachments.ts';
import type { Layout } from './layout.ts';
import type { Descriptor } from './manifest.ts';
import type { Store } from './store.ts';

export interface AttachOptions {
  subject: Descriptor;
  type: AttachmentType;
  title: string;
  /** For errors, as in `the file report.json`. */
  shown: string;
  now?: Date;
  onEvent?: (event: { bytesDone: number }) => void;
}

export interface AttachResult {
  attachment: Attachment;
  /** The very file is attached already under this title and type: `attachment` is that one. */
  isNew: boolean;
}

/**
 * Attaches a file to a checkpoint of the store: the file, then the manifest, then its place in the list of the workspace, each
 * durable before the next. The caller shares the store's blobs since it looked for the checkpoint.
 *
 * @param bytes - taken as they come, never as a whole
 * @throws BentoError TARGET_INVALID for a file or a number of attachments beyond the limits
 */
export async function attachFile(
  { store, layout }: { store: Store; layout: Layout },
  bytes: AsyncIterable<Uint8Array>,
  options: AttachOptions,
): Promise<AttachResult> {
  await layout.ensure();
  const { subject, type, title, now = new Date() } = options;
  const made: NewAttachment = { subject, type, title, file: await storeFile(store, bytes, options), now };
  let result: AttachResult | undefined;
  await layout.changeEntries(async (before) => {
    const { attachments } = await attachmentsOf(store, subject.digest);
    const same = attachments.find((one) => isSameAttachment(one, made));
    if (same !== undefined) {
      result = { attachment: same, isNew: false };
      return undefined;
    }
    if (attachments.length >= ATTACHMENT_COUNT_MAX) throw tooMany(subject.digest);
    await store.blobs.put(EMPTY_CONFIG);
    const encoded = encodeAttachment(made);
    const { digest } = await store.blobs.put(encoded);
    const attachment = parseAttachment(encoded, digest);
    if (attachment === undefined) throw new TypeError('an attachment without a subject');
    result = { attachment, isNew: true };
    return [...before, entryOf(attachment)];
  });
  if (result === undefined) throw new TypeError('nothing was attached');
  if (result.isNew) faultPoint('attach.listed');
  return result;
}

async function storeFile(
  store: Store,
  bytes: AsyncIterable<Uint8Array>,
  { shown, onEvent }: AttachOptions,
): Promise<NewAttachment['file']> {
  await using ingest = await BlobIngest.create(store.blobs, store.blobs.dir);
  const hash = createHash('sha256');
  for await (const piece of bytes) {
    if (ingest.sizeBytes + piece.length > ATTACHMENT_BYTES_MAX) throw tooLarge(shown);
    hash.update(piece);
    await ingest.write(piece);
    onEvent?.({ bytesDone: ingest.sizeBytes });
  }
  const digest: Digest = `sha256:${hash.digest('hex')}`;
  const sizeBytes = ingest.sizeBytes;
  await ingest.commit(digest);
  return { digest, sizeBytes };
}

/**
 * Lists attachments of a store no more, in every workspace; what they consist of goes with the next garbage collection.
 *
 * @returns whether there was something to take away
 */
export async function detach(store: Store, attachments: ReadonlySet<Digest>): Promise<boolean> {
  using _blobs = await shareBlobs(store.root);
  let removedCount = 0;
  for (const id of await store.workspaceIds()) {
    const layout = store.layout(id);
    const isOne = (entry: Descriptor): boolean => attachments.has(entry.digest) && mayBeAttachment(entry);
    if ((await layout.manifests()).some(isOne)) removedCount += await layout.removeEntries(isOne);
  }
  if (removedCount > 0) faultPoint('attach.removed');
  return removedCount > 0;
}
