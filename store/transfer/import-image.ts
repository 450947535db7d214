import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { basename } from 'node:path';

import { ATTACHMENT_COUNT_MAX } from '../attachment.ts';
import { shareBlobs } from '../blob-lock.ts';
import { BlobIngest } from '../blob-ingest.ts';
import { loadCheckpoint, type Checkpoint } from '../checkpoint.ts';
import { hexOf, isDigest, type Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { listAttachments } from '../find-attachments.ts';
import { TAR_BYTES_MAX } from '../layers/tar-input.ts';
import type { Layout } from '../layout.ts';
import type { Platform } from '../platform.ts';
import type { Repository } from '../registry/repository.ts';
import { isStoreName, type Store } from '../store.ts';
import { listDockerImages, readDockerImage } from './docker-archive.ts';
import { parseImagePlace, type ImagePlace } from './image-place.ts';
import { openImageSource, type ImageSource } from './image-source.ts';
import { pullAttachments } from './pull-attachments.ts';
import { nameOfDigest, pullCheckpoint, type PullEvent } from './pull.ts';
import type { SkippedReferrer } from './remote-attachments.ts';
import {
  blobFile,
  damagedIn,
  isOciLayout,
  listOciImages,
  missingIn,
  readOciAttachment,
  readOciImage,
  wrongSize,
  type ListedImage,
  type SourceAttachment,
  type SourceImage,
} from './source-image.ts';

export interface ImportOptions {
  /** Store name to import into, instead of the one that the image or the file suggests. */
  name?: string | undefined;
  /** Tag of the only image imported, instead of its own. */
  tag?: string | undefined;
  /** Which image of an index; default: the one for this machine. */
  platform?: Platform | undefined;
  /** Move tags that name something else now. */
  force?: boolean | undefined;
  /** Tags that mean something on one machine only; what has no other is left out. */
  isLocalTag?: (tag: string) => boolean;
  onEvent?: (event: { bytesDone: number }) => void;
  onWait?: () => void;
}

export interface ImportedImage {
  /** Store name, as references have it before the colon. */
  store: string;
  tag: string;
  digest: Digest;
  layerCount: number;
  /** Bytes of blobs that the store did not have. */
  addedBytes: number;
  /** What came along that is attached to it. */
  attachmentCount: number;
  /** What the tag named before, if something else. */
  moved: Digest | null;
}

/** A layer, and the file of the source that it lies in. */
interface LayerToTake {
  digest: Digest;
  size: number;
  file: string;
}

/** An image whose manifest and config are stored and understood; of a thousand of them, no more is kept in memory. */
interface Accepted {
  manifest: { digest: Digest; size: number; mediaType: string };
  layers: LayerToTake[];
  layout: Layout;
  tag: string;
  addedBytes: number;
  attachments: SourceAttachment[];
}

/**
 * Takes images over from a layout folder or an archive: all that have tags, the only one there is, or the one of the tag in
 * `written`. Every blob is checked on its way in; tags are set when all images are there as a whole, so that nothing is
 * visible of a source in which something is wrong.
 *
 * @param written - as `parseImagePlace` reads it
 * @throws BentoError REF_NOT_FOUND, REF_INVALID, BLOB_MISSING, DIGEST_MISMATCH, FORMAT_INVALID, FORMAT_UNSUPPORTED; DIVERGED
 *   when a tag names another checkpoint here
 */
export async function importImages(
  store: Store,
  written: string,
  options: ImportOptions = {},
): Promise<ImportedImage[]> {
  const place = parseImagePlace(written);
  const source = await openImageSource(place.path);
  try {
    await mkdir(store.root, { recursive: true });
    using _blobs = await shareBlobs(store.root, options.onWait);
    return await importFrom(source, { store, place, options });
  } finally {
    await source.close();
  }
}

/**
 * Takes one image over from a registry, by the same rules, and then what is attached to it, as `pullTags` does.
 *
 * @param from.reference - tag or digest
 * @throws BentoError as `importImages` and `pullCheckpoint`
 */
export async function importRemote(
  store: Store,
  from: { repository: Repository; reference: string },
  options: ImportOptions & {
    signal?: AbortSignal;
    onPull?: (event: PullEvent) => void;
    /** Told of what is attached to it and does not come. */
    onSkipped?: (skipped: SkippedReferrer) => void;
  } = {},
): Promise<ImportedImage[]> {
  const { repository, reference } = from;
  await mkdir(store.root, { recursive: true });
  using _blobs = await shareBlobs(store.root, options.onWait);
  let addedBytes = 0;
  const checkpoint = await pullCheckpoint(store, repository, {
    reference,
    platform: options.platform,
    signal: options.signal,
    onEvent: (event) => {
      if (event.kind === 'planned') addedBytes = event.sizeBytes;
      options.onPull?.(event);
    },
  });
  const layout = store.layout(storeNameFor(checkpoint, repository.name.repository, options.name));
  await layout.ensure();
  const { digest, size, manifest, layers } = checkpoint;
  const described = { digest, size, mediaType: manifest.mediaType };
  const tag = options.tag ?? (isDigest(reference) ? nameOfDigest(reference) : reference);
  const image = { manifest: described, layerCount: layers.length, layout, tag, addedBytes, attachments: [] };
  const imported = await tagImage(image, options);
  const attached = await pullAttachments({ store, layout }, repository, {
    subjects: new Set([digest]),
    signal: options.signal,
    ...(options.onPull && { onEvent: options.onPull }),
  });
  for (const skipped of attached.skipped) options.onSkipped?.(skipped);
  const attachmentCount = attached.attachments.length;
  return [{ ...imported, attachmentCount, addedBytes: addedBytes + attached.fetchedBytes }];
}

interface ImportContext {
  store: Store;
  place: ImagePlace;
  options: ImportOptions;
}

async function importFrom(source: ImageSource, context: ImportContext): Promise<ImportedImage[]> {
  const { place, options } = context;
  const { images: listed, attachments } = await listImages(source, options.platform);
  const chosen = chooseImages(listed, place, options);
  const accepted: Accepted[] = [];
  for (const { tag, read } of chosen) accepted.push(await acceptImage(tag, await read(), context));
  for (const item of accepted) item.attachments = await attachedTo(item.manifest.digest, attachments, source);
  assertDistinctTags(accepted, source);
  const progress = { bytesDone: 0 };
  for (const item of accepted) {
    for (const layer of [...item.layers, ...item.attachments.flatMap(blobsOf)]) {
      item.addedBytes += await ingestLayer(source, layer, { store: context.store, options, progress });
    }
  }
  for (const { layout, attachments: own } of accepted) {
    await layout.ensure();
    for (const { bytes } of own) await context.store.blobs.put(bytes);
  }
  const imported: ImportedImage[] = [];
  for (const item of accepted) imported.push(await tagImage({ ...item, layerCount: item.layers.length }, options));
  return imported;
}

/** Read again: of a thousand manifests, no more is kept in memory than what they are attached to. */
async function attachedTo(
  subject: Digest,
  listed: readonly ListedAttachment[],
  source: ImageSource,
): Promise<SourceAttachment[]> {
  const own = listed.filter((one) => one.subject === subject);
  if (own.length > ATTACHMENT_COUNT_MAX) {
    const what = `${source.path} has ${own.length} manifests attached to ${subject}, limit ${ATTACHMENT_COUNT_MAX}`;
    throw new BentoError('FORMAT_INVALID', what);
  }
  const attachments: SourceAttachment[] = [];
  for (const { entry } of own) attachments.push(...[(await readOciAttachment(source, entry)) ?? []].flat());
  return attachments;
}

function blobsOf({ attachment: { manifest } }: SourceAttachment): LayerToTake[] {
  return [manifest.config, ...manifest.layers].map(({ digest, size }) => ({ digest, size, file: blobFile(digest) }));
}

/** An image of a source that nobody has read yet. */
interface Candidate {
  tag: string | undefined;
  read: () => Promise<SourceImage>;
}

/** An image of which everything is in the store. */
type Whole = Omit<Accepted, 'layers'> & { layerCount: number };

/** What a source lists that is attached to something. */
interface ListedAttachment {
  entry: ListedImage;
  subject: Digest;
}

async function listImages(
  source: ImageSource,
  platform: Platform | undefined,
): Promise<{ images: Candidate[]; attachments: ListedAttachment[] }> {
  if (!(await isOciLayout(source))) return { images: await listDocker(source), attachments: [] };
  const attachments: ListedAttachment[] = [];
  const images: Candidate[] = [];
  for (const entry of await listOciImages(source)) {
    const attached = await readOciAttachment(source, entry);
    if (attached !== undefined) attachments.push({ entry, subject: attached.attachment.subject });
    else images.push({ tag: entry.tag, read: async () => await readOciImage(source, entry, platform) });
  }
  return { images, attachments };
}

async function listDocker(source: ImageSource): Promise<Candidate[]> {
  const images = await listDockerImages(source);
  if (images === undefined) {
    throw new BentoError('FORMAT_INVALID', `${source.path} holds no image: neither oci-layout nor manifest.json`, {
      hint: 'an OCI image layout, its tar archive, or what `docker save` writes',
    });
  }
  return images.flatMap((image) => {
    const read = async (): Promise<SourceImage> => ({ tag: undefined, ...(await readDockerImage(source, image)) });
    return (image.tags.length === 0 ? [undefined] : image.tags).map((tag) => ({ tag, read }));
  });
}

function chooseImages(
  listed: readonly Candidate[],
  place: ImagePlace,
  options: ImportOptions,
): { tag: string; read: Candidate['read'] }[] {
  const { path } = place;
  const isLocal = options.isLocalTag ?? ((): boolean => false);
  const tagged = listed.filter(({ tag }) => tag !== undefined && !isLocal(tag));
  const wanted = place.tag === undefined ? tagged : tagged.filter(({ tag }) => tag === place.tag);
  if (wanted.length === 0 && place.tag !== undefined) {
    const tags = tagged.slice(0, 10).map(({ tag }) => tag);
    throw new BentoError('REF_NOT_FOUND', `${path} has no image with the tag "${place.tag}"`, {
      hint: tags.length === 0 ? 'its images have no tags' : `it has ${tags.join(', ')}`,
    });
  }
  const untagged = listed.filter(({ tag }) => tag === undefined);
  const images = wanted.length > 0 ? wanted : untagged;
  if (images.length === 0) throw new BentoError('REF_NOT_FOUND', `${path} lists no images`);
  if (wanted.length === 0 && images.length > 1) {
    throw new BentoError('REF_INVALID', `${path} has ${images.length} images and none of them has a tag`, {
      hint: 'give them tags, for example with skopeo copy',
    });
  }
  if (options.tag !== undefined && images.length > 1) {
    throw new BentoError('REF_INVALID', `${path} has ${images.length} images: --tag "${options.tag}" fits only one`, {
      hint: 'choose one: oci:<folder>:<tag> or oci-archive:<file>:<tag>',
    });
  }
  return images.map(({ tag, read }) => ({ tag: options.tag ?? tag ?? 'latest', read }));
}

/** Stores manifest and config, which nothing refers to yet, and finds out where the image belongs. */
async function acceptImage(tag: string, image: SourceImage, context: ImportContext): Promise<Accepted> {
  const { store, place, options } = context;
  await store.blobs.put(image.configBytes);
  const { digest } = await store.blobs.put(image.manifestBytes);
  const checkpoint = await loadCheckpoint(store.blobs, digest);
  const layout = store.layout(storeNameFor(checkpoint, place.path, options.name));
  const manifest = { digest, size: checkpoint.size, mediaType: checkpoint.manifest.mediaType };
  const layers = image.layers.map(({ descriptor, file }) => ({
    digest: descriptor.digest,
    size: descriptor.size,
    file,
  }));
  const accepted = { manifest, layers, layout, tag, addedBytes: 0, attachments: [] };
  await findDisplaced(accepted, options); // before anything large is read
  return accepted;
}

function storeNameFor({ meta }: Checkpoint, path: string, given: string | undefined): string {
  if (given !== undefined) {
    if (isStoreName(given)) return given;
    throw new BentoError('REF_INVALID', `"${given}" cannot be the name of a store`, {
      hint: 'letters, digits, ".", "_" and "-", beginning with a letter or digit, at most 128',
    });
  }
  if (meta.workspaceId !== undefined && isStoreName(meta.workspaceId)) return meta.workspaceId;
  const derived = basename(path)
    .replace(/\.tar$/, '')
    .replace(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, 128);
  if (isStoreName(derived)) return derived;
  throw new BentoError('REF_INVALID', `the name of ${path} makes no name for a store`, { hint: 'say --name <store>' });
}

/** One tag for two images: whichever came last would win, and nobody would know. */
function assertDistinctTags(accepted: readonly Accepted[], { path }: ImageSource): void {
  const seen = new Map<string, Digest>();
  for (const { layout, tag, manifest } of accepted) {
    const other = seen.get(`${layout.id}:${tag}`) ?? manifest.digest;
    if (other !== manifest.digest) {
      throw new BentoError('FORMAT_INVALID', `${path} has the tag "${tag}" twice: ${other} and ${manifest.digest}`);
    }
    seen.set(`${layout.id}:${tag}`, other);
  }
}

/** @returns what the tag names now, if that is another checkpoint */
async function findDisplaced(
  { layout, tag, manifest }: Pick<Accepted, 'layout' | 'tag' | 'manifest'>,
  options: ImportOptions,
): Promise<Digest | null> {
  const before = (await layout.tags()).get(tag)?.digest;
  if (before === undefined || before === manifest.digest) return null;
  if (options.force === true) return before;
  throw new BentoError('DIVERGED', `${layout.id}:${tag} is ${before} here, and ${manifest.digest} there`, {
    hint: '--tag <other> keeps both, --force moves the tag',
  });
}

async function tagImage(item: Whole, options: ImportOptions): Promise<ImportedImage> {
  const { layout, tag, manifest, layerCount, addedBytes, attachments } = item;
  using _saves = await layout.lockSaves(options.onWait); // no save may move the tag between the look and the step
  const moved = await findDisplaced(item, options);
  await layout.setTags([tag], manifest);
  await listAttachments(
    layout,
    attachments.map(({ attachment }) => attachment),
  );
  const counts = { layerCount, attachmentCount: attachments.length };
  return { store: layout.id, tag, digest: manifest.digest, ...counts, addedBytes, moved };
}

interface IngestContext {
  store: Store;
  options: ImportOptions;
  progress: { bytesDone: number };
}

/** @returns how many bytes the store did not have */
async function ingestLayer(
  source: ImageSource,
  { digest, size, file }: LayerToTake,
  { store, options, progress }: IngestContext,
): Promise<number> {
  const stored = await store.blobs.sizeOf(digest);
  if (stored === size) return 0;
  if (stored !== undefined) throw wrongSize(source, { digest, size }, stored);
  if (size > TAR_BYTES_MAX) {
    throw new BentoError('FORMAT_INVALID', `a layer in ${source.path} is ${size} bytes, limit ${TAR_BYTES_MAX}`);
  }
  const opened = await source.open(file, { mayBeLink: true });
  if (opened === undefined) throw missingIn(source, digest);
  try {
    if (opened.sizeBytes !== size) throw wrongSize(source, { digest, size }, opened.sizeBytes);
    await using ingest = await BlobIngest.create(store.blobs, store.blobs.dir);
    const hash = createHash('sha256');
    for await (const piece of opened.stream()) {
      hash.update(piece);
      await ingest.write(piece);
      progress.bytesDone += piece.length;
      options.onEvent?.(progress);
    }
    if (hash.digest('hex') !== hexOf(digest)) throw damagedIn(source, digest);
    await ingest.commit(digest);
    return size;
  } finally {
    await opened.close();
  }
}
