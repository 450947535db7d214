import type { Attachment } from '../attachment.ts';
import { shareBlobs } from '../blob-lock.ts';
import type { BlobPool } from '../blobs.ts';
import { loadCheckpoint, type Checkpoint } from '../checkpoint.ts';
import { digestOf, hexOf, isDigest, shortDigest, type Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import type { Layout } from '../layout.ts';
import { CONFIG_BYTES_MAX, KEYS, MANIFEST_BYTES_MAX, type Descriptor, type Manifest } from '../manifest.ts';
import { formatPlatform, thisPlatform, type Platform } from '../platform.ts';
import { isTag } from '../ref.ts';
import { beginLazily, type LazyBeginning } from '../lazy/begin-blob.ts';
import type { RemoteManifest, Repository } from '../registry/repository.ts';
import type { Store } from '../store.ts';
import { fetchBlob } from './fetch-blob.ts';
import { findImage, isIndexType } from './find-image.ts';
import { inParallel } from './in-parallel.ts';
import { Lineage } from './lineage.ts';
import { mergeTags, type PulledTag, type RemoteTag } from './merge-tags.ts';
import { pullAttachments } from './pull-attachments.ts';
import type { SkippedReferrer } from './remote-attachments.ts';

/** A repository with more tags is not one of checkpoints. */
export const TAG_COUNT_MAX = 10_000;
/** A layer that says it is larger is refused before a byte of it is asked for. */
export const LAYER_BYTES_MAX = 2 ** 40;
/** Different blobs of one pull. */
export const BLOB_COUNT_MAX = 100_000;

/** Tags that bento understands as something else, and those that registries without the API keep referrers under. */
const NEVER_PULLED = /^(?:head|undo|sha256-[0-9a-f]{64}.*)$/;

/** How far a pull is. */
export type PullEvent =
  /** So much has to be fetched: told when all manifests are known, and again for each file that is attached to one. */
  | { kind: 'planned'; blobCount: number; sizeBytes: number }
  /** What was asked for is a list of images, and this one of them is taken. */
  | { kind: 'chosen'; index: Digest; digest: Digest; platform: string }
  /** `doneBytes` counts what an earlier, broken pull left; `outcome` comes last. */
  | {
      kind: 'blob';
      digest: Digest;
      title: string;
      sizeBytes: number;
      doneBytes: number;
      outcome: 'fetched' | undefined;
    };

export interface PullOptions {
  /** One tag or digest; default: all tags. */
  reference?: string | undefined;
  /** Which of a list of images; default: the one for this machine. */
  platform?: Platform | undefined;
  /** Which tags are taken when it is all of them; default: all. */
  isWanted?: (tag: string) => boolean;
  signal?: AbortSignal | undefined;
  onEvent?: (event: PullEvent) => void;
  /** Called once for everything that has to be waited for: a garbage collection, a save of this workspace. */
  onWait?: () => void;
}

/** A tag that names no checkpoint of ours, such as an image for several platforms or a signature. */
export interface SkippedTag {
  tag: string;
  reason: string;
}

export interface PullResult {
  tags: PulledTag[];
  skipped: SkippedTag[];
  /** What came that is attached to these checkpoints, and what of it was left where it is. */
  attachments: Attachment[];
  skippedReferrers: SkippedReferrer[];
  fetchedCount: number;
  /** What came over the network. */
  fetchedBytes: number;
}

interface RemoteCheckpoint {
  tag: string;
  digest: Digest;
  bytes: Buffer;
  manifest: Manifest;
}

/** A manifest or index that a registry has; its bytes if they were sent along. */
type NamedManifest = Pick<RemoteManifest, 'descriptor'> & Partial<RemoteManifest>;

interface WantedBlob {
  digest: Digest;
  sizeBytes: number;
  title: string;
  descriptor: Descriptor;
}

/**
 * Pulls tags of a repository into a workspace's layout. Only blobs that the store does not have are fetched, and each is
 * verified; a tag is set when everything that it needs is there. Ours are never lost: see `PulledTag`. What is attached to
 * the checkpoints comes after them, and one attachment that is wrong costs none of them.
 *
 * @throws BentoError REMOTE_NOT_FOUND when the reference is not there; FORMAT_INVALID or FORMAT_UNSUPPORTED when it is no
 *   checkpoint or image, or none for the platform; REMOTE_INVALID for wrong bytes; those of `Repository`
 */
export async function pullTags(
  { store, layout }: { store: Store; layout: Layout },
  repository: Repository,
  options: PullOptions = {},
): Promise<PullResult> {
  using _blobs = await shareBlobs(store.root, options.onWait);
  const work: Work = { ...options, repository };
  const tags = await listTags(work);
  if (tags.length === 0)
    return { tags: [], skipped: [], attachments: [], skippedReferrers: [], fetchedCount: 0, fetchedBytes: 0 };
  await layout.ensure();
  using _stored = await shareBlobs(store.root, options.onWait); // the first took nothing where there was no store yet
  const skipped: SkippedTag[] = [];
  const found = await readManifests(store.blobs, tags, { work, skipped });
  const blobs = await missingBlobs(store.blobs, found);
  const sizeBytes = blobs.reduce((sum, blob) => sum + blob.sizeBytes, 0);
  options.onEvent?.({ kind: 'planned', blobCount: blobs.length, sizeBytes });
  const fetchedBytes = await fetchBlobs(store.blobs, blobs, work);
  const whole = await storeManifests(store.blobs, found, { work, skipped });
  const lineage = new Lineage(store.blobs, repository, { signal: work.signal });
  const merged = await mergeTags(layout, whole, { lineage, onWait: options.onWait });
  const subjects = new Set(whole.map(({ digest }) => digest));
  const { signal, onEvent } = options;
  const attached = await pullAttachments({ store, layout }, repository, {
    subjects,
    signal,
    ...(onEvent && { onEvent }),
  });
  return {
    tags: inOrder(merged, tags),
    skipped,
    attachments: attached.attachments,
    skippedReferrers: attached.skipped,
    fetchedCount: blobs.length + attached.fetchedCount,
    fetchedBytes: fetchedBytes + attached.fetchedBytes,
  };
}

/**
 * Brings one checkpoint into the store without a tag: what is missing of it is fetched and verified. The caller shares the
 * store's blobs until something names it.
 *
 * @param options.lazily - of layers that can be read in parts, fetch the tables of contents alone
 * @throws BentoError as `pullTags`
 */
export async function pullCheckpoint(
  store: Store,
  repository: Repository,
  options: PullOptions & { reference: string; lazily?: LazyBeginning | undefined },
): Promise<Checkpoint> {
  const work: Work = { ...options, repository };
  const to = { work, skipped: [] };
  const found = await readManifests(store.blobs, [options.reference], to);
  const blobs = await missingBlobs(store.blobs, found);
  const sizeBytes = blobs.reduce((sum, blob) => sum + blob.sizeBytes, 0);
  options.onEvent?.({ kind: 'planned', blobCount: blobs.length, sizeBytes });
  await fetchBlobs(store.blobs, blobs, work);
  const [whole] = await storeManifests(store.blobs, found, to);
  if (whole === undefined) throw noSuchTag(options.reference, work);
  return await loadCheckpoint(store.blobs, whole.digest);
}

type Work = PullOptions & { repository: Repository; lazily?: LazyBeginning | undefined };

async function listTags(work: Work): Promise<string[]> {
  if (work.reference !== undefined) return [work.reference];
  const all = await work.repository.tags({ signal: work.signal });
  if (all.length > TAG_COUNT_MAX) {
    throw new BentoError('REMOTE_INVALID', `${nameOf(work)} has ${all.length} tags, limit ${TAG_COUNT_MAX}`, {
      hint: 'pull one of them: `bento pull --tag <tag>`',
    });
  }
  const isWanted = work.isWanted ?? ((): boolean => true);
  return [...new Set(all)].filter((tag) => isTag(tag) && !NEVER_PULLED.test(tag) && isWanted(tag)).sort();
}

interface Gathering {
  work: Work;
  skipped: SkippedTag[];
}

async function readManifests(pool: BlobPool, tags: readonly string[], to: Gathering): Promise<RemoteCheckpoint[]> {
  const found = new Map<string, RemoteCheckpoint>();
  await inParallel(tags, to.work.signal, async (tag, signal) => {
    const there = await askFor(tag, { ...to.work, signal });
    if (there === undefined) {
      if (to.work.reference !== undefined) throw noSuchTag(tag, to.work);
      return; // deleted since the tags were listed
    }
    await orSkip(tag, to, async () => {
      const image = await readImage(pool, there, { ...to.work, signal });
      found.set(tag, { tag: nameFor(tag), ...image });
    });
  });
  return tags.flatMap((tag) => found.get(tag) ?? []);
}

/** The bytes come at once where one is asked for; of all that a repository has, most may be here already. */
async function askFor(tag: string, { repository, reference, signal }: Work): Promise<NamedManifest | undefined> {
  if (reference !== undefined) return await repository.getManifest(tag, { signal });
  const descriptor = await repository.headManifest(tag, { signal });
  return descriptor && { descriptor };
}

/** What was asked for by its digest gets a name, or the next garbage collection would take it. */
function nameFor(reference: string): string {
  return isDigest(reference) ? nameOfDigest(reference) : reference;
}

/** The tag of a checkpoint that has no other: it begins as what somebody asked for, be it an index. */
export function nameOfDigest(digest: Digest): string {
  return `remote-${hexOf(digest).slice(0, 12)}`;
}

/** Of a list of images, the one for the platform, if it was asked for: nobody wants all that a repository of images has. */
async function readImage(pool: BlobPool, there: NamedManifest, work: Work): Promise<Omit<RemoteCheckpoint, 'tag'>> {
  const { reference, platform = thisPlatform(), onEvent } = work;
  const { descriptor, bytes } = there;
  if (reference === undefined && isIndexType(descriptor.mediaType)) {
    const name = shortDigest(descriptor.digest);
    throw new BentoError('FORMAT_UNSUPPORTED', `${name} is a list of images, not a checkpoint`);
  }
  const read = async ({ digest }: Descriptor): Promise<Buffer> => {
    if (bytes !== undefined && digest === descriptor.digest) return bytes;
    return (await readStored(pool, digest)) ?? (await readRemote(digest, work));
  };
  const { index, ...image } = await findImage(descriptor, read, { platform, where: nameOf(work) });
  checkSize(image.manifest.config, CONFIG_BYTES_MAX);
  for (const layer of image.manifest.layers) checkSize(layer, LAYER_BYTES_MAX);
  if (index !== undefined) {
    onEvent?.({ kind: 'chosen', index, digest: image.digest, platform: formatPlatform(platform) });
  }
  return image;
}

async function readStored(pool: BlobPool, digest: Digest): Promise<Buffer | undefined> {
  try {
    return await pool.read({ digest }, MANIFEST_BYTES_MAX);
  } catch (error) {
    if (error instanceof BentoError) return undefined; // missing or damaged: fetched again
    throw error;
  }
}

async function readRemote(digest: Digest, work: Work): Promise<Buffer> {
  const found = await work.repository.getManifest(digest, { signal: work.signal });
  if (found === undefined) throw noSuchTag(digest, work);
  if (digestOf(found.bytes) === digest) return found.bytes;
  throw new BentoError('REMOTE_INVALID', `${nameOf(work)} sent another manifest than ${digest}`);
}

function checkSize({ digest, size }: Descriptor, sizeMax: number): void {
  if (size > sizeMax) throw new BentoError('FORMAT_INVALID', `blob ${digest} is ${size} bytes, limit ${sizeMax}`);
}

async function missingBlobs(pool: BlobPool, found: readonly RemoteCheckpoint[]): Promise<WantedBlob[]> {
  const blobs = new Map<Digest, WantedBlob>();
  for (const { manifest } of found) {
    for (const descriptor of [manifest.config, ...manifest.layers]) addBlob(blobs, descriptor, manifest);
  }
  if (blobs.size > BLOB_COUNT_MAX)
    throw new BentoError('FORMAT_INVALID', `the tags need ${blobs.size} blobs, limit ${BLOB_COUNT_MAX}`);
  const missing: WantedBlob[] = [];
  for (const blob of blobs.values()) if (!(await isStored(pool, blob))) missing.push(blob);
  return missing;
}

function addBlob(blobs: Map<Digest, WantedBlob>, descriptor: Descriptor, { config }: Manifest): void {
  const { digest, size: sizeBytes } = descriptor;
  const known = blobs.get(digest);
  if (known !== undefined && known.sizeBytes !== sizeBytes)
    throw new BentoError(
      'FORMAT_INVALID',
      `manifests say that blob ${digest} is ${known.sizeBytes} bytes and ${sizeBytes}`,
    );
  const title = descriptor === config ? 'config' : (descriptor.annotations?.[KEYS.title] ?? 'layer');
  if (known === undefined) blobs.set(digest, { digest, sizeBytes, title, descriptor });
}

async function isStored(pool: BlobPool, { digest, sizeBytes }: WantedBlob): Promise<boolean> {
  try {
    return (await pool.sizeOf(digest)) === sizeBytes;
  } catch (error) {
    if (error instanceof BentoError) return false; // a damaged recipe
    throw error;
  }
}

async function fetchBlobs(
  pool: BlobPool,
  blobs: readonly WantedBlob[],
  { repository, signal: all, onEvent, lazily }: Work,
): Promise<number> {
  let fetchedBytes = 0;
  await inParallel(blobs, all, async (blob, signal) => {
    const { descriptor, ...told } = blob;
    const tell = (doneBytes: number, outcome?: 'fetched'): void => {
      onEvent?.({ kind: 'blob', ...told, doneBytes, outcome });
    };
    if (lazily !== undefined && (await beginLazily(descriptor, lazily, signal))) return;
    const ownBytes = await fetchBlob(pool, blob, { repository, signal, onProgress: tell });
    fetchedBytes += ownBytes;
    tell(blob.sizeBytes, 'fetched');
  });
  return fetchedBytes;
}

/** Manifests come after what they need, and are looked at as a whole before anything names them. */
async function storeManifests(pool: BlobPool, found: readonly RemoteCheckpoint[], to: Gathering): Promise<RemoteTag[]> {
  const whole: RemoteTag[] = [];
  for (const { tag, digest, bytes } of found) {
    await orSkip(tag, to, async () => {
      await pool.put(bytes);
      const { manifest } = await loadCheckpoint(pool, digest);
      whole.push({ tag, digest, size: bytes.length, mediaType: manifest.mediaType });
    });
  }
  return whole;
}

/** One tag among many that is no checkpoint is skipped; the only one that was asked for is an error. */
async function orSkip(tag: string, { work, skipped }: Gathering, run: () => Promise<void>): Promise<void> {
  try {
    await run();
  } catch (error) {
    const isForeign = error instanceof BentoError && ['FORMAT_INVALID', 'FORMAT_UNSUPPORTED'].includes(error.code);
    if (!isForeign || work.reference !== undefined) throw error;
    skipped.push({ tag, reason: error.message });
  }
}

function inOrder(pulled: readonly PulledTag[], tags: readonly string[]): PulledTag[] {
  return [...pulled].sort((a, b) => tags.indexOf(a.tag) - tags.indexOf(b.tag));
}

function noSuchTag(reference: string, work: Work): BentoError {
  return new BentoError('REMOTE_NOT_FOUND', `${nameOf(work)} has no ${reference}`, {
    hint: '`bento pull` without --tag fetches all there are',
  });
}

function nameOf({ repository: { name } }: Work): string {
  return `${name.registry}/${name.repository}`;
}
