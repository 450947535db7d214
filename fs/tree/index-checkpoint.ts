import type { IndexDatabase } from '../../index/database.ts';
import { Entries } from '../../index/entries.ts';
import { confirmToc, indexLayer, type LayerKind, type LayerToIndex } from '../../index/layer-index.ts';
import { Trees } from '../../index/trees.ts';
import type { Checkpoint, CheckpointLayer } from '../../store/checkpoint.ts';
import { parseDigest, type Digest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { collectLayer } from '../../store/layers/layer-contents.ts';
import { readToc, readTocJson, streamForeignLayer } from '../../store/layers/layer-reader.ts';
import { ResumePoints, resumePath } from '../../store/layers/resume-points.ts';
import { ResumeRecorder } from '../../store/layers/resume-recorder.ts';
import type { ArrivedToc } from '../../store/lazy/begin-blob.ts';
import { isPartlyHere } from '../../store/lazy-file.ts';
import { KEYS } from '../../store/manifest.ts';
import type { Store } from '../../store/store.ts';
import { remakeResumePoints } from '../contents/resumed-layers.ts';
import { CheckpointTree } from './checkpoint-tree.ts';

/** What is needed to look into checkpoints: the store, and what its index says. */
export interface TreeSource {
  store: Store;
  index: IndexDatabase;
  readonly entries: Entries;
  readonly trees: Trees;
}

/** Nothing is asked of the index before somebody asks: a workspace in which nothing changed does without. */
export function treeSource(store: Store, index: IndexDatabase): TreeSource {
  let entries: Entries | undefined;
  let trees: Trees | undefined;
  return {
    store,
    index,
    get entries() {
      return (entries ??= new Entries(index));
    },
    get trees() {
      return (trees ??= new Trees(index, this.entries));
    },
  };
}

/**
 * The merged tree of a checkpoint. Layers the index does not know are read into it first: from their table of contents
 * where they have one, else from the whole archive.
 *
 * @throws BentoError BLOB_MISSING, DIGEST_MISMATCH, FORMAT_INVALID or FORMAT_UNSUPPORTED naming the layer
 */
export async function openTree(source: TreeSource, checkpoint: Checkpoint): Promise<CheckpointTree> {
  for (const layer of checkpoint.layers) {
    const { digest } = layer.descriptor;
    const indexed = source.entries.layer(digest);
    if (indexed === undefined) indexLayer(source.index, await readLayer(source.store, layer));
    else if (indexed.claimedToc !== undefined) await checkClaim(source, layer, indexed.claimedToc);
    else if (indexed.kind === 'tar+gzip' && !hasResumePoints(source.store, indexed.digest)) {
      await remakeResumePoints(source.store, indexed.digest);
    }
  }
  const digests = checkpoint.layers.map((layer) => layer.descriptor.digest);
  source.trees.register(checkpoint.digest, digests);
  return new CheckpointTree(
    source.entries,
    digests.flatMap((digest) => source.entries.layer(digest) ?? []),
  );
}

/** Whether `openTree` has nothing to read but the index. */
export function isIndexed({ store, entries }: TreeSource, { layers }: Checkpoint): boolean {
  return layers.every((layer) => {
    const { digest } = layer.descriptor;
    const indexed = entries.layer(digest);
    if (indexed?.claimedToc !== undefined) return isClaimOf(store, layer, indexed.claimedToc);
    return indexed !== undefined && (indexed.kind !== 'tar+gzip' || hasResumePoints(store, digest));
  });
}

function hasResumePoints(store: Store, digest: Digest): boolean {
  return ResumePoints.load(resumePath(store.cacheDir, digest), digest) !== undefined;
}

/** What a layer holds, read from its blob: for a compressed foreign one, its resume points are made anew. */
export async function readLayer(store: Store, { descriptor, title }: CheckpointLayer): Promise<LayerToIndex> {
  const kind = layerKind(descriptor.mediaType, title);
  if (kind === 'tar+gzip') {
    const seekable = await readSeekable(store, descriptor.digest, descriptor.annotations?.[KEYS.tocDigest]);
    if (seekable !== undefined) return seekable;
  }
  return await readForeign(store, descriptor.digest, kind);
}

/** What layers are read by may be claimed of them by a stranger's manifest. It holds for that one until the layer is here. */
async function checkClaim(source: TreeSource, layer: CheckpointLayer, claimedToc: Digest): Promise<void> {
  if (isClaimOf(source.store, layer, claimedToc)) return;
  const { store, index } = source;
  const { digest } = layer.descriptor;
  if (!isPartlyHere(store.root, digest) && (await ownTocDigest(store, digest)) === claimedToc)
    confirmToc(index, digest);
  else indexLayer(index, await readLayer(store, layer));
}

function isClaimOf(
  store: Store,
  { descriptor: { digest, annotations } }: CheckpointLayer,
  claimedToc: Digest,
): boolean {
  return annotations?.[KEYS.tocDigest] === claimedToc && isPartlyHere(store.root, digest);
}

async function ownTocDigest(store: Store, digest: Digest): Promise<Digest | undefined> {
  const blob = store.blobs.open(digest);
  try {
    return (await readTocJson(blob))?.tocDigest;
  } finally {
    blob.close();
  }
}

/**
 * Indexes a layer of which only the table of contents is here.
 *
 * @returns false when it has to be here as a whole: the table cannot be used, or another one is claimed of the same layer
 * @throws BentoError FORMAT_INVALID
 */
export function indexToc(
  { index, entries }: TreeSource,
  digest: Digest,
  { tocDigest, isNew, read }: ArrivedToc,
): boolean {
  const known = entries.layer(digest);
  const isKnown = known !== undefined && (known.claimedToc === undefined || known.claimedToc === tocDigest);
  if (isKnown) return true;
  if (known !== undefined && !isNew) return false; // somebody may be reading it by the other
  const toc = read();
  if (toc === undefined) return false;
  const { entries: list, opaqueDirs } = toc;
  indexLayer(index, { digest, kind: 'estargz', entries: list, opaqueDirs, claimedToc: tocDigest });
  return true;
}

/** @returns undefined for a layer without a table of contents that can be used */
export async function readSeekable(
  store: Store,
  digest: Digest,
  tocDigest: string | undefined,
): Promise<LayerToIndex | undefined> {
  const blob = store.blobs.open(digest);
  try {
    if (tocDigest === undefined) await verifyWhole(store, digest); // nothing else ties the table of contents to the manifest
    const toc = await readToc(blob, tocDigest === undefined ? undefined : parseDigest(tocDigest, KEYS.tocDigest));
    if (toc === undefined) return undefined;
    const { entries, opaqueDirs, tocDigest: claimedToc } = toc;
    return { digest, kind: 'estargz', entries, opaqueDirs, ...(isPartlyHere(store.root, digest) && { claimedToc }) };
  } finally {
    blob.close();
  }
}

async function verifyWhole(store: Store, digest: Digest): Promise<void> {
  for await (const _piece of store.blobs.stream({ digest }));
}

/** Reads an archive from end to end; of a compressed one it is noted where its files can be inflated from. */
async function readForeign(store: Store, digest: Digest, kind: LayerKind): Promise<LayerToIndex> {
  if (kind === 'estargz') throw new RangeError('a seekable layer is no foreign one');
  const input = store.blobs.stream({ digest });
  if (kind === 'tar') return { digest, kind, ...(await collectLayer(streamForeignLayer(input, kind))) };
  using recorder = ResumeRecorder.create(resumePath(store.cacheDir, digest), digest);
  const through = recorder.through(input);
  const layer = await collectLayer(streamForeignLayer(through, kind, (bytes) => recorder.take(bytes)));
  recorder.finish();
  return { digest, kind, ...layer };
}

/** @throws BentoError FORMAT_UNSUPPORTED */
export function layerKind(mediaType: string, title: string): 'tar' | 'tar+gzip' {
  if (/[.+]gzip$/.test(mediaType)) return 'tar+gzip';
  if (/[.]tar$/.test(mediaType)) return 'tar';
  throw new BentoError('FORMAT_UNSUPPORTED', `layer "${title}" is ${mediaType}, which bento cannot read`, {
    hint: 'convert the image to tar+gzip layers, for example with skopeo',
  });
}
