import type { BlobPool } from '../blobs.ts';
import { loadCheckpoint } from '../checkpoint.ts';
import { digestOf, isDigest, type Digest } from '../digest.ts';
import { BentoError } from '../errors.ts';
import { KEYS, parseManifest } from '../manifest.ts';
import type { ReadOptions, Repository } from '../registry/repository.ts';

/** A line of parents longer than this, or one that comes back to itself, ends there. */
export const ANCESTOR_COUNT_MAX = 100_000;

/** Who came from whom: of checkpoints in the pool, and of those that only the registry has. */
export class Lineage {
  readonly #pool: BlobPool;
  readonly #repository: Repository;
  readonly #options: ReadOptions;
  readonly #parents = new Map<Digest, Digest | undefined>();

  constructor(pool: BlobPool, repository: Repository, options: ReadOptions = {}) {
    this.#pool = pool;
    this.#repository = repository;
    this.#options = options;
  }

  /**
   * How many steps lie between a checkpoint and one it came from.
   *
   * @returns 0 when they are the same; undefined when it did not come from there, or nobody can tell any more
   */
  async stepsBack(from: Digest, ancestor: Digest): Promise<number | undefined> {
    const seen = new Set<Digest>();
    let at: Digest | undefined = from;
    while (at !== undefined && !seen.has(at) && seen.size < ANCESTOR_COUNT_MAX) {
      if (at === ancestor) return seen.size;
      seen.add(at);
      at = await this.parentOf(at);
    }
    return undefined;
  }

  /** @returns undefined when it has none, or is nowhere any more */
  async parentOf(digest: Digest): Promise<Digest | undefined> {
    if (!this.#parents.has(digest)) this.#parents.set(digest, await this.#readParent(digest));
    return this.#parents.get(digest);
  }

  async #readParent(digest: Digest): Promise<Digest | undefined> {
    try {
      return (await loadCheckpoint(this.#pool, digest)).parent;
    } catch (error) {
      if (!(error instanceof BentoError)) throw error; // missing, damaged or no checkpoint: the registry may have it whole
    }
    const found = await this.#repository.getManifest(digest, this.#options);
    return found === undefined ? undefined : parentIn(found.bytes, digest);
  }
}

function parentIn(bytes: Buffer, digest: Digest): Digest | undefined {
  if (digestOf(bytes) !== digest) return undefined;
  try {
    const parent = parseManifest(bytes, `manifest ${digest}`).annotations?.[KEYS.parent];
    return parent !== undefined && isDigest(parent) ? parent : undefined;
  } catch (error) {
    if (error instanceof BentoError) return undefined; // an index or something else: a line of checkpoints ends there
    throw error;
  }
}

/**
 * Whether a tag is the name that a save gave a checkpoint. Somebody who went back and saved again has two lines of these;
 * `latest` then moves from the one to the other, and nothing is lost.
 */
export function isSequenceTag(tag: string): boolean {
  return /^cp-[1-9][0-9]{0,14}$/.test(tag);
}

/** Whether one of the tags that saves gave names this checkpoint. */
export function isSaved(tags: ReadonlyMap<string, { digest: Digest }>, digest: Digest): boolean {
  return [...tags].some(([tag, named]) => named.digest === digest && isSequenceTag(tag));
}
