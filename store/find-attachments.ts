import { entryOf, readAttachment, type Attachment } from './attachment.ts';
import type { BlobPool } from './blobs.ts';
import type { Digest } from './digest.ts';
import { BentoError } from './errors.ts';
import type { Layout } from './layout.ts';
import { ARTIFACT_TYPE, KEYS, MEDIA_TYPES, type Descriptor } from './manifest.ts';
import type { Store } from './store.ts';

/** What lists of manifests hold besides checkpoints. */
export interface FoundAttachments {
  /** In the order of their lists, each once. */
  attachments: Attachment[];
  /** Entries that say they are attachments, and whose manifest cannot be read: what they are attached to is not known. */
  unreadable: UnreadableAttachment[];
}

export interface UnreadableAttachment {
  /** Undefined when it is the list of a whole workspace. */
  digest: Digest | undefined;
  error: BentoError;
}

/**
 * Whether an entry of `index.json` may be an attachment: listed without a tag, and not as a checkpoint. Its manifest says the
 * rest, and what it is attached to: other tools list attachments without a type, and bento checkpoints that lost their tags.
 */
export function mayBeAttachment({ mediaType, artifactType, annotations }: Descriptor): boolean {
  const isTagged = annotations?.[KEYS.refName] !== undefined;
  return !isTagged && mediaType === MEDIA_TYPES.manifest && artifactType !== ARTIFACT_TYPE;
}

/** Reads the manifests behind entries, each at most 4 MiB, one after the other. */
export async function readAttachments(pool: BlobPool, entries: Iterable<Descriptor>): Promise<FoundAttachments> {
  const found: FoundAttachments = { attachments: [], unreadable: [] };
  const seen = new Set<Digest>();
  for (const entry of entries) {
    if (seen.has(entry.digest) || !mayBeAttachment(entry)) continue;
    seen.add(entry.digest);
    try {
      const attachment = await readAttachment(pool, entry.digest);
      if (attachment !== undefined) found.attachments.push(attachment);
    } catch (error) {
      if (!(error instanceof BentoError)) throw error;
      if (entry.artifactType !== undefined) found.unreadable.push({ digest: entry.digest, error });
    }
  }
  return found;
}

/**
 * All attachments of a store. A checkpoint may be tagged in several workspaces, and has the same attachments in each: those that
 * any of their lists has.
 */
export async function findAttachments(store: Store): Promise<FoundAttachments> {
  const entries: Descriptor[] = [];
  const unreadable: UnreadableAttachment[] = [];
  for (const id of await store.workspaceIds()) {
    try {
      entries.push(...(await store.layout(id).manifests()));
    } catch (error) {
      if (!(error instanceof BentoError)) throw error;
      unreadable.push({ digest: undefined, error }); // somebody else's, most likely: no reason to stop here
    }
  }
  const found = await readAttachments(store.blobs, entries);
  return { attachments: found.attachments, unreadable: [...unreadable, ...found.unreadable] };
}

/** Those of one checkpoint, oldest first. */
export async function attachmentsOf(store: Store, subject: Digest): Promise<FoundAttachments> {
  const { attachments, unreadable } = await findAttachments(store);
  return { attachments: attachments.filter((one) => one.subject === subject).sort(oldestFirst), unreadable };
}

/** Lists attachments in a workspace, each once. They and their blobs are in the pool, which the caller shares. */
export async function listAttachments(layout: Layout, attachments: readonly Attachment[]): Promise<void> {
  if (attachments.length === 0) return;
  await layout.changeEntries((before) => {
    const listed = new Set(before.filter(mayBeAttachment).map(({ digest }) => digest));
    const added = attachments.filter(({ digest }) => !listed.has(digest));
    return added.length === 0 ? undefined : [...before, ...added.map(entryOf)];
  });
}

export function oldestFirst(a: Attachment, b: Attachment): number {
  if (a.created !== b.created) return a.created < b.created ? -1 : 1;
  return a.digest < b.digest ? -1 : 1;
}
