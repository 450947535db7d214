import { hexOf, type Digest } from '../digest.ts';
import type { Layout } from '../layout.ts';
import { isSaved, type Lineage } from './lineage.ts';

/** A tag of the remote whose checkpoint is here. */
export interface RemoteTag {
  tag: string;
  digest: Digest;
  /** Bytes of the manifest. */
  size: number;
  mediaType: string;
}

/**
 * What a pull did with a tag: `forward` moved ours to the remote's, which came from it; `ahead` kept ours, which came from the
 * remote's; `diverged` kept ours and named the remote's `keptAs`.
 */
export interface PulledTag {
  tag: string;
  digest: Digest;
  /** What the tag named here before. */
  before: Digest | undefined;
  outcome: 'new' | 'same' | 'forward' | 'ahead' | 'diverged';
  keptAs: string | undefined;
}

const TAG_LENGTH_MAX = 128;
const CONFLICT = /-remote-(?:[0-9a-f]{12}|[0-9a-f]{64})$/;

/** Whether a pull gave a checkpoint this name, because its own was taken by another. */
export function isConflictTag(tag: string): boolean {
  return CONFLICT.test(tag);
}

type Tags = ReadonlyMap<string, { digest: Digest }>;

/**
 * Takes over the tags of a remote without losing any of ours. The caller has stored all they need, and shares the store's
 * blobs. Saves of this workspace wait meanwhile.
 */
export async function mergeTags(
  layout: Layout,
  remote: readonly RemoteTag[],
  { lineage, onWait }: { lineage: Lineage; onWait?: (() => void) | undefined },
): Promise<PulledTag[]> {
  using _save = await layout.lockSaves(onWait);
  const here = new Map<string, { digest: Digest }>(await layout.tags());
  const there = new Map(remote.map((one) => [one.tag, one]));
  const before = new Map(here);
  // `latest` comes last: then its checkpoint usually has a name already.
  const ordered = [...remote].sort((a, b) => Number(a.tag === 'latest') - Number(b.tag === 'latest'));
  const pulled: PulledTag[] = [];
  const changes = new Map<Digest, { size: number; mediaType: string; tags: string[] }>();
  for (const { tag, digest, size, mediaType } of ordered) {
    const outcome = await relate({ tag, digest }, { here: before, there, lineage });
    const keptAs = outcome === 'diverged' ? nameFor(digest, tag, here) : undefined;
    const set = outcome === 'new' || outcome === 'forward' ? tag : keptAs;
    if (set !== undefined && here.get(set)?.digest !== digest) {
      here.set(set, { digest });
      const change = changes.get(digest) ?? { size, mediaType, tags: [] };
      change.tags.push(set);
      changes.set(digest, change);
    }
    pulled.push({ tag, digest, before: before.get(tag)?.digest, outcome, keptAs });
  }
  for (const [digest, { tags, ...manifest }] of changes) await layout.setTags(tags, { digest, ...manifest });
  return pulled;
}

async function relate(
  { tag, digest }: { tag: string; digest: Digest },
  { here, there, lineage }: { here: Tags; there: Tags; lineage: Lineage },
): Promise<PulledTag['outcome']> {
  const ours = here.get(tag)?.digest;
  if (ours === undefined) return 'new';
  if (ours === digest) return 'same';
  if ((await lineage.stepsBack(digest, ours)) !== undefined) return 'forward';
  if ((await lineage.stepsBack(ours, digest)) !== undefined) return 'ahead';
  if (tag !== 'latest') return 'diverged';
  if (isSaved(here, digest)) return 'ahead';
  return isSaved(there, ours) ? 'forward' : 'diverged';
}

/** A tag for the remote's checkpoint: one it has, or `<tag>-remote-<digits>`. */
function nameFor(digest: Digest, tag: string, here: Tags): string {
  const [named] = [...here].find(([, one]) => one.digest === digest) ?? [];
  if (named !== undefined) return named;
  const short = conflictTag(tag, hexOf(digest).slice(0, 12));
  return here.has(short) ? conflictTag(tag, hexOf(digest)) : short;
}

function conflictTag(tag: string, digits: string): string {
  const end = `-remote-${digits}`;
  return tag.slice(0, TAG_LENGTH_MAX - end.length) + end;
}
