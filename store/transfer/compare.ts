import type { BlobPool } from '../blobs.ts';
import type { Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import type { Layout } from '../layout.ts';
import type { ReadOptions, Repository } from '../registry/repository.ts';
import { isSaved, isSequenceTag, Lineage } from './lineage.ts';

/** Where a directory stands against its remote: by digests, and what came from what. */
export type SyncState =
  | { kind: 'both-empty' }
  | { kind: 'up-to-date'; sequence: number }
  /** The remote has nothing that is not here. `remote`: its highest N; undefined when it has none. */
  | { kind: 'ahead'; count: number; head: number; remote: number | undefined }
  /** `isFetched`: the newer ones are here, though this directory is not at them. */
  | { kind: 'behind'; count: number; head: number; remote: number; isFetched: boolean }
  /** Each side has checkpoints that the other did not come from. */
  | { kind: 'diverged'; head: number; remote: number; here: Digest; there: Digest }
  | { kind: 'unreachable'; message: string };

export interface Head {
  digest: Digest;
  sequence: number;
}

interface Newest {
  digest: Digest;
  sequence: number;
}

/**
 * Compares a head with the highest `cp-N` of a repository. What cannot be told in time is `unreachable`: this is a remark, not
 * a failure.
 *
 * @param options.timeoutMs - for all of it
 */
export async function compareWithRemote(
  { pool, layout }: { pool: BlobPool; layout: Layout },
  repository: Repository,
  { head, timeoutMs }: { head: Head | undefined; timeoutMs: number },
): Promise<SyncState> {
  const options = { signal: AbortSignal.timeout(timeoutMs), deadlineMs: performance.now() + timeoutMs };
  try {
    const newest = await newestOf(repository, options);
    if (newest === undefined) return withEmpty(head);
    if (head === undefined) return { kind: 'behind', count: 1, head: 0, remote: newest.sequence, isFetched: false };
    return await relate({ pool, layout }, { head, newest, repository, options });
  } catch (error) {
    if (error instanceof BentoError) return { kind: 'unreachable', message: error.message };
    if (options.signal.aborted) return { kind: 'unreachable', message: `no answer within ${timeoutMs / 1000} s` };
    throw error;
  }
}

function withEmpty(head: Head | undefined): SyncState {
  if (head === undefined) return { kind: 'both-empty' };
  return { kind: 'ahead', count: head.sequence, head: head.sequence, remote: undefined };
}

async function newestOf(repository: Repository, options: ReadOptions): Promise<Newest | undefined> {
  const sequences = (await repository.tags(options))
    .filter(isSequenceTag)
    .map((tag) => Number(tag.slice('cp-'.length)));
  if (sequences.length === 0) return undefined;
  const sequence = sequences.reduce((a, b) => Math.max(a, b));
  const found = await repository.headManifest(`cp-${sequence}`, options);
  return found === undefined ? undefined : { digest: found.digest, sequence };
}

interface Question {
  head: Head;
  newest: Newest;
  repository: Repository;
  options: ReadOptions;
}

async function relate(
  { pool, layout }: { pool: BlobPool; layout: Layout },
  { head, newest, repository, options }: Question,
): Promise<SyncState> {
  if (head.digest === newest.digest) return { kind: 'up-to-date', sequence: newest.sequence };
  const both = { head: head.sequence, remote: newest.sequence };
  const lineage = new Lineage(pool, repository, options);
  const above = await lineage.stepsBack(head.digest, newest.digest);
  if (above !== undefined) return { kind: 'ahead', count: above, ...both };
  const tags = await layout.tags();
  const isFetched = [...tags.values()].some(({ digest }) => digest === newest.digest);
  const below = await lineage.stepsBack(newest.digest, head.digest);
  if (below !== undefined) return { kind: 'behind', count: below, ...both, isFetched };
  // Two lines in one workspace: somebody went back and saved again.
  const difference = Math.max(1, Math.abs(head.sequence - newest.sequence));
  const there = await repository.headManifest(`cp-${head.sequence}`, options);
  if (there?.digest === head.digest) return { kind: 'behind', count: difference, ...both, isFetched };
  if (isSaved(tags, newest.digest)) return { kind: 'ahead', count: difference, ...both };
  const hasNumber = there !== undefined; // then the two that share one name say more
  return {
    kind: 'diverged',
    head: head.sequence,
    remote: hasNumber ? head.sequence : newest.sequence,
    here: head.digest,
    there: hasNumber ? there.digest : newest.digest,
  };
}
