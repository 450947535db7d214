import type { Digest } from '../../store/digest.ts';
import { shortDigest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { readAttachments } from '../../store/find-attachments.ts';
import type { Layout } from '../../store/layout.ts';
import { KEYS, type Descriptor } from '../../store/manifest.ts';
import { blobsOf, markReachable, readManifest, type Reachable } from '../../store/reachable.ts';
import type { Store } from '../../store/store.ts';
import { findHalfWrittenConfigs, findLeftovers, findOrphanForks, type Leftover } from './leftovers.ts';
import { isUndoTag } from '../workspace/heads.ts';
import { newestFirst, selectKept, type Candidate, type RetentionPolicy } from './retention.ts';
import { forgottenTags, readRoots, tagOf, type DirectoryRoots, type LayoutRoots, type StoreRoots } from './roots.ts';

/** A checkpoint that goes, with all its tags. */
export interface DeletedCheckpoint extends Candidate {
  workspaceId: string;
  message: string;
}

export interface PlannedBlob {
  digest: Digest;
  /** What it takes in the store. */
  sizeBytes: number;
  /** `manifest` where an index lists it as one. */
  kind: 'manifest' | 'blob';
}

/** What a collection will do, found out before anything is touched. */
export interface GcPlan {
  now: Date;
  layouts: LayoutRoots[];
  directories: (DirectoryRoots & { layout: Layout })[];
  deleted: DeletedCheckpoint[];
  /** Whether an entry of a workspace's index goes. */
  isRemoved: (workspaceId: string, entry: Descriptor) => boolean;
  alive: ReadonlySet<Digest>;
  blobs: PlannedBlob[];
  leftovers: Leftover[];
  orphanForks: string[];
}

export interface GcPlanOptions {
  workspaceId: string;
  /** Where the directory is that asks, which may not be noted yet. */
  heads: readonly Digest[];
  policy: RetentionPolicy;
  dropDamaged: boolean;
  now: Date;
}

interface Judged {
  roots: StoreRoots;
  used: ReadonlySet<Digest>;
  /** Checkpoints of the workspace that the policy gives up. */
  dropped: DeletedCheckpoint[];
}

/** @throws BentoError when something cannot be read that may keep blobs */
export async function planGc(store: Store, options: GcPlanOptions): Promise<GcPlan> {
  const roots = await readRoots(store, options.now).catch((error: unknown) => {
    throw refusal(error);
  });
  const own = roots.layouts.find(({ layout }) => layout.id === options.workspaceId);
  const used = inUse(roots, options.heads);
  const dropped = own === undefined ? [] : await judge(store, own, used, options);
  const judged = { roots, used, dropped };
  const manifests = rootManifests(judged);
  const reachable = await markReachable(store.blobs, manifests);
  const damaged = refuseDamaged(reachable, judged, options.dropDamaged);
  const subjects = [...manifests].filter((digest) => reachable.blobs.has(digest));
  await addAttachments(store, { roots, subjects, alive: reachable.blobs, isGivenUp: options.dropDamaged });
  await addBases(store, reachable.blobs, options.dropDamaged);
  const isRemoved = removalOf(judged, reachable, damaged);
  const layouts = roots.layouts;
  const forks = findOrphanForks(store, new Set(roots.mounts.map(({ id }) => id)));
  return {
    now: options.now,
    layouts,
    directories: layouts.flatMap(({ layout, directories }) => directories.map((dir) => ({ ...dir, layout }))),
    deleted: [...judged.dropped, ...describeDamaged(roots, damaged)],
    isRemoved,
    alive: reachable.blobs,
    blobs: await findDeadBlobs(store, reachable.blobs, layouts),
    leftovers: [
      ...findLeftovers(
        store,
        layouts.map(({ layout }) => layout),
        reachable.blobs,
        options.now,
      ),
      ...findHalfWrittenConfigs(layouts.flatMap(({ directories }) => directories.map(({ dir }) => dir))),
      ...forks.filter(({ isEmpty }) => isEmpty).map(({ path }) => ({ path, sizeBytes: 0 })),
    ],
    orphanForks: forks.filter(({ isEmpty }) => !isEmpty).map(({ path }) => path),
  };
}

/** The policy's word on one workspace; what is in use by anybody stays whatever it says. */
async function judge(
  store: Store,
  own: LayoutRoots,
  used: ReadonlySet<Digest>,
  { policy, now }: GcPlanOptions,
): Promise<DeletedCheckpoint[]> {
  const forgotten = forgottenTags(own);
  const tags = new Map<Digest, string[]>();
  for (const entry of own.entries) {
    const tag = tagOf(entry);
    if (tag === undefined || forgotten.has(tag)) continue;
    tags.set(entry.digest, [...(tags.get(entry.digest) ?? []), tag]);
  }
  const candidates: DeletedCheckpoint[] = [];
  for (const [digest, names] of tags) {
    const candidate = await describe(store, own.layout.id, digest, names.sort());
    if (candidate !== undefined) candidates.push(candidate);
  }
  const kept = selectKept(candidates, policy, now);
  const isPinned = (tag: string): boolean => tag === 'latest' || isUndoTag(tag);
  return candidates
    .filter(({ digest, tags: names }) => !kept.has(digest) && !used.has(digest) && !names.some(isPinned))
    .sort(newestFirst);
}

/** @returns undefined when the manifest cannot be read: such a one is not judged, and the mark will meet it again */
async function describe(
  store: Store,
  workspaceId: string,
  digest: Digest,
  tags: string[],
): Promise<DeletedCheckpoint | undefined> {
  try {
    const { annotations = {} } = await readManifest(store.blobs, digest);
    const { [KEYS.created]: created, [KEYS.sequence]: sequence, [KEYS.message]: message = '' } = annotations;
    if (created !== undefined && sequence !== undefined) {
      return { workspaceId, digest, sequence: Number(sequence) || 0, created, message, tags };
    }
    const checkpoint = await store.loadCheckpoint(digest);
    return { ...{ sequence: checkpoint.sequence, created: checkpoint.created }, workspaceId, digest, message, tags };
  } catch (error) {
    if (error instanceof BentoError) return undefined;
    throw error;
  }
}

/** Heads of directories and forks, and what is mounted, of all workspaces. */
function inUse({ layouts, mounts, forkHeads }: StoreRoots, ownHeads: readonly Digest[]): Set<Digest> {
  const heads = layouts.flatMap(({ directories }) =>
    directories.filter(({ isForgotten }) => !isForgotten).flatMap((directory) => directory.heads),
  );
  return new Set([
    ...ownHeads,
    ...heads,
    ...mounts.flatMap(({ manifest, switching }) => [manifest, switching].flatMap((digest) => digest ?? [])),
    ...forkHeads,
  ]);
}

function rootManifests({ roots, used, dropped }: Judged): Set<Digest> {
  const manifests = new Set(used);
  for (const own of roots.layouts) {
    const forgotten = forgottenTags(own);
    for (const entry of own.entries) {
      const tag = tagOf(entry);
      const isDropped = dropped.some(
        ({ digest, workspaceId }) => digest === entry.digest && workspaceId === own.layout.id,
      );
      if (tag !== undefined && !forgotten.has(tag) && !isDropped) manifests.add(entry.digest);
    }
  }
  return manifests;
}

/**
 * A manifest that cannot be read may need any blob. One that is missing and only a head's is a head that dangles already.
 *
 * @returns those to give up
 */
function refuseDamaged(reachable: Reachable, { roots }: Judged, isGivenUp: boolean): Set<Digest> {
  const tagged = new Map(
    roots.layouts.flatMap(({ layout, entries }) =>
      entries.flatMap((entry): [Digest, string][] => {
        const tag = tagOf(entry);
        return tag === undefined ? [] : [[entry.digest, `${layout.id}:${tag}`]];
      }),
    ),
  );
  const damaged = new Set<Digest>();
  for (const [digest, error] of reachable.unreadable) {
    reachable.blobs.delete(digest);
    if (error.code === 'BLOB_MISSING' && !tagged.has(digest)) continue;
    if (!isGivenUp) throw unknownNeeds(tagged.get(digest) ?? shortDigest(digest), error);
    damaged.add(digest);
  }
  return damaged;
}

function removalOf(
  { roots, dropped }: Judged,
  reachable: Reachable,
  damaged: ReadonlySet<Digest>,
): GcPlan['isRemoved'] {
  const given = new Set(dropped.map(({ workspaceId, digest }) => `${workspaceId} ${digest}`));
  const forgotten = new Map(roots.layouts.map((own) => [own.layout.id, forgottenTags(own)]));
  return (workspaceId, entry) => {
    const tag = tagOf(entry);
    if (tag === undefined) return !reachable.blobs.has(entry.digest);
    if (damaged.has(entry.digest) || given.has(`${workspaceId} ${entry.digest}`)) return true;
    return forgotten.get(workspaceId)?.has(tag) === true;
  };
}

function describeDamaged(roots: StoreRoots, damaged: ReadonlySet<Digest>): DeletedCheckpoint[] {
  return roots.layouts.flatMap(({ layout, entries }) =>
    [...damaged].flatMap((digest) => {
      const tags = entries.filter((entry) => entry.digest === digest).flatMap((entry) => tagOf(entry) ?? []);
      const unknown = { sequence: 0, created: '', message: '' };
      return tags.length === 0 ? [] : [{ workspaceId: layout.id, digest, tags, ...unknown }];
    }),
  );
}

/**
 * What is attached to a manifest that stays, stays, and what is attached to that; with its subject it goes. It keeps nothing itself.
 * One that cannot be read may be attached to anything, and hold any blob.
 */
async function addAttachments(
  store: Store,
  {
    roots: { layouts },
    subjects,
    alive,
    isGivenUp,
  }: { roots: StoreRoots; subjects: readonly Digest[]; alive: Set<Digest>; isGivenUp: boolean },
): Promise<void> {
  const entries = layouts.flatMap((own) => own.entries).filter(({ digest }) => !alive.has(digest));
  const { attachments, unreadable } = await readAttachments(store.blobs, entries);
  for (const { digest = '', error } of unreadable)
    if (!isGivenUp) throw unknownNeeds(`attachment ${shortDigest(digest)}`, error);
  const kept = new Set(subjects);
  for (let before = -1; kept.size > before;) {
    before = kept.size;
    for (const { digest, subject } of attachments) if (kept.has(subject)) kept.add(digest);
  }
  for (const { digest, manifest } of attachments) {
    if (!kept.has(digest)) continue;
    for (const blob of [digest, ...blobsOf(manifest)]) alive.add(blob);
  }
}

/**
 * What thin blobs take bytes from stays with them, whether a manifest names it or not. Usually one does: the bases of a layer
 * are layers below it. So there is next to nothing to be gained by making such blobs whole here, and nothing can go wrong.
 */
async function addBases(store: Store, alive: Set<Digest>, isGivenUp: boolean): Promise<void> {
  for (const digest of alive) {
    try {
      for (const base of await store.blobs.basesOf(digest)) alive.add(base); // looked at in its turn
    } catch (error) {
      if (!(error instanceof BentoError)) throw error;
      if (!isGivenUp) throw unknownNeeds(`layer ${shortDigest(digest)}`, error);
    }
  }
}

/** Files of other names are nobody's blobs; `bento verify` tells of them. */
async function findDeadBlobs(
  store: Store,
  alive: ReadonlySet<Digest>,
  layouts: readonly LayoutRoots[],
): Promise<PlannedBlob[]> {
  const listed = new Set(layouts.flatMap(({ entries }) => entries.map(({ digest }) => digest)));
  const blobs: PlannedBlob[] = [];
  for (const digest of await store.blobs.list()) {
    if (alive.has(digest)) continue;
    const sizeBytes = (await store.blobs.storedSizeOf(digest)) ?? 0;
    blobs.push({ digest, sizeBytes, kind: listed.has(digest) ? 'manifest' : 'blob' });
  }
  return blobs;
}

function refusal(error: unknown): unknown {
  if (!(error instanceof BentoError)) return error;
  return new BentoError(error.code, `nothing was deleted: ${error.message}`, {
    hint: 'restore this file from a backup; without it nobody knows which checkpoints are in use',
    cause: error,
  });
}

function unknownNeeds(label: string, error: BentoError): BentoError {
  return new BentoError(error.code, `nothing was deleted: what ${label} needs is not known: ${error.message}`, {
    hint: '`bento verify --repair` looks for another copy; `bento gc --drop-damaged` gives it up',
    cause: error,
  });
}
