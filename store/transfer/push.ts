import type { Attachment } from '../attachment.ts';
import { shareBlobs } from '../blob-lock.ts';
import type { BlobPool } from '../blobs.ts';
import { missingBlob } from '../blob-file.ts';
import { shortDigest, type Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { readRecord } from '../lazy/lazy-record.ts';
import type { Layout } from '../layout.ts';
import { KEYS, MANIFEST_BYTES_MAX, parseManifest, type Descriptor, type Manifest } from '../manifest.ts';
import type { Repository, Uploaded } from '../registry/repository.ts';
import type { Store } from '../store.ts';
import { inParallel } from './in-parallel.ts';
import { isSaved, Lineage } from './lineage.ts';
import { missingAttachments, pushAttachments } from './push-attachments.ts';

/** How far a push is. */
export type PushEvent =
  /** All tags were checked: so much may have to be sent. */
  | { kind: 'planned'; blobCount: number; sizeBytes: number }
  /** `outcome` comes last. After a broken connection `sentBytes` may go back. */
  | {
      kind: 'blob';
      digest: Digest;
      title: string;
      sizeBytes: number;
      sentBytes: number;
      outcome: Uploaded | undefined;
    }
  | ({ kind: 'tag' } & PushedTag);

/** What became of a tag: `same` was there, `moved` pointed at another checkpoint. */
export interface PushedTag {
  tag: string;
  digest: Digest;
  outcome: 'same' | 'new' | 'moved';
}

export interface PushOptions {
  /** In the order in which they are set. */
  tags: readonly string[];
  /** Moves tags that point at checkpoints which ours did not come from. */
  force?: boolean;
  /** Other repositories of the same registry, by their paths, that may have blobs: these are mounted from there. */
  mountFrom?: readonly string[];
  signal?: AbortSignal | undefined;
  onEvent?: (event: PushEvent) => void;
  /** Called once when a garbage collection has to be waited for. */
  onWait?: () => void;
}

export interface PushResult {
  tags: PushedTag[];
  /** Attachments of these checkpoints that the registry did not list. */
  attachments: Attachment[];
  /** Blobs that cost bytes, and those bytes. */
  sentCount: number;
  sentBytes: number;
  /** Blobs the registry had, in this repository or another. */
  thereCount: number;
}

interface LocalManifest {
  bytes: Buffer;
  manifest: Manifest;
}

/** A tag to be set, with what it names. */
interface Plan extends PushedTag, LocalManifest {}

interface PlannedBlob {
  digest: Digest;
  sizeBytes: number;
  title: string;
}

/**
 * Pushes tags of a workspace, and what is attached to what they name. Nothing is sent before all of them were checked, and a
 * tag is set only when everything that it needs is there: whatever breaks leaves the repository as whole as it was, and the
 * next push goes on.
 *
 * @throws BentoError DIVERGED naming the tag; REF_NOT_FOUND, BLOB_MISSING, DIGEST_MISMATCH, FORMAT_INVALID of what is here;
 *   those of `Repository`
 */
export async function pushTags(
  { store, layout }: { store: Store; layout: Layout },
  repository: Repository,
  options: PushOptions,
): Promise<PushResult> {
  using _blobs = await shareBlobs(store.root, options.onWait);
  const plans = await planTags(store.blobs, layout, { repository, ...options });
  const subjects = new Set(plans.map(({ digest }) => digest));
  const attached = await missingAttachments(store, repository, { subjects, signal: options.signal });
  const attachments = attached.map(({ attachment }) => attachment);
  const blobs = await planBlobs(store.blobs, [...plans.filter(({ outcome }) => outcome !== 'same'), ...attachments]);
  const sizeBytes = blobs.reduce((sum, blob) => sum + blob.sizeBytes, 0);
  options.onEvent?.({ kind: 'planned', blobCount: blobs.length, sizeBytes });
  const sent = await sendBlobs(store.blobs, blobs, { repository, ...options });
  for (const { tag, digest, outcome, manifest, bytes } of plans) {
    if (outcome !== 'same')
      await repository.putManifest(tag, { mediaType: manifest.mediaType, bytes }, { signal: options.signal });
    options.onEvent?.({ kind: 'tag', tag, digest, outcome });
  }
  await pushAttachments(repository, attached, { signal: options.signal });
  return { tags: plans.map(({ tag, digest, outcome }) => ({ tag, digest, outcome })), attachments, ...sent };
}

type Work = Omit<PushOptions, 'onWait'> & { repository: Repository };

async function planTags(pool: BlobPool, layout: Layout, work: Work): Promise<Plan[]> {
  const known = await layout.tags();
  const lineage = new Lineage(pool, work.repository, { signal: work.signal });
  const wanted = [...new Set(work.tags)].map((tag) => ({ tag, digest: known.get(tag)?.digest ?? notFound(tag) }));
  const manifests = new Map<Digest, LocalManifest>();
  const plans = new Map<string, Plan>();
  for (const { digest } of wanted) if (!manifests.has(digest)) manifests.set(digest, await readLocal(pool, digest));
  await inParallel(wanted, work.signal, async ({ tag, digest }, signal) => {
    const there = await work.repository.headManifest(tag, { signal });
    const local = manifests.get(digest);
    if (local === undefined) throw new RangeError(`${digest} was not read`);
    if (there !== undefined && there.digest !== digest && work.force !== true) {
      const isOurs = tag === 'latest' && isSaved(known, there.digest);
      const isOlder = isOurs || (await lineage.stepsBack(digest, there.digest)) !== undefined;
      if (!isOlder) throw diverged(tag, digest, there.digest);
    }
    const outcome = there === undefined ? 'new' : there.digest === digest ? 'same' : 'moved';
    plans.set(tag, { tag, digest, outcome, ...local });
  });
  return wanted.flatMap(({ tag }) => plans.get(tag) ?? []);
}

async function readLocal(pool: BlobPool, digest: Digest): Promise<LocalManifest> {
  const bytes = await pool.read({ digest }, MANIFEST_BYTES_MAX);
  return { bytes, manifest: parseManifest(bytes, `manifest ${digest}`) };
}

/** What the manifests need, each blob once. All of it is here: nothing is sent of a checkpoint that is not whole. */
async function planBlobs(pool: BlobPool, plans: readonly { manifest: Manifest }[]): Promise<PlannedBlob[]> {
  const blobs = new Map<Digest, PlannedBlob>();
  for (const { manifest } of plans) {
    for (const descriptor of [manifest.config, ...manifest.layers]) {
      if (!blobs.has(descriptor.digest)) blobs.set(descriptor.digest, await planBlob(pool, manifest, descriptor));
    }
  }
  return [...blobs.values()];
}

async function planBlob(pool: BlobPool, manifest: Manifest, descriptor: Descriptor): Promise<PlannedBlob> {
  const { digest, size } = descriptor;
  // Of one that is partly here the registry may well have all.
  const sizeBytes = (await pool.sizeOf(digest)) ?? readRecord(pool.storeRoot, digest)?.sizeBytes;
  if (sizeBytes === undefined) throw missingBlob(digest);
  if (sizeBytes !== size) {
    throw new BentoError('DIGEST_MISMATCH', `blob ${digest} is ${sizeBytes} bytes, its manifest says ${size}`, {
      hint: '`bento verify` says which checkpoints are whole',
    });
  }
  const title = descriptor === manifest.config ? 'config' : (descriptor.annotations?.[KEYS.title] ?? 'layer');
  return { digest, sizeBytes, title };
}

async function sendBlobs(
  pool: BlobPool,
  blobs: readonly PlannedBlob[],
  { repository, signal: all, onEvent, mountFrom = [] }: Work,
): Promise<Omit<PushResult, 'tags' | 'attachments'>> {
  const result = { sentCount: 0, sentBytes: 0, thereCount: 0 };
  await inParallel(blobs, all, async (blob, signal) => {
    const tell = (sentBytes: number, outcome?: Uploaded): void => {
      onEvent?.({ kind: 'blob', ...blob, sentBytes, outcome });
    };
    const outcome = await repository.uploadBlob(blob, (offset) => pool.readFrom(blob, offset), {
      signal,
      mountFrom: [...knownSources(pool, blob.digest, repository), ...mountFrom],
      onProgress: tell,
    });
    if (outcome === 'sent') {
      result.sentCount += 1;
      result.sentBytes += blob.sizeBytes;
    } else result.thereCount += 1;
    tell(outcome === 'sent' ? blob.sizeBytes : 0, outcome);
  });
  return result;
}

/** Repositories of the registry that a blob partly came from. */
function knownSources({ storeRoot }: BlobPool, digest: Digest, { name }: Repository): string[] {
  const sources = readRecord(storeRoot, digest)?.sources ?? [];
  return sources.filter(({ registry }) => registry === name.registry).map(({ repository }) => repository);
}

function notFound(tag: string): never {
  throw new BentoError('REF_NOT_FOUND', `loading checkpoint ${tag}: tag "${tag}" not found`, {
    hint: '`bento list` shows the checkpoints there are',
  });
}

function diverged(tag: string, here: Digest, there: Digest): BentoError {
  const what = `${tag} is ${shortDigest(here)} here and ${shortDigest(there)} on the remote, which ours did not come from`;
  return new BentoError('DIVERGED', what, {
    hint: '`bento pull` fetches the other; `bento push --force` replaces it on the remote',
  });
}
