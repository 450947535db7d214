import { setTimeout as sleep } from 'node:timers/promises';

import { parseDigest, shortDigest, type Digest } from '../../../store/digest.ts';
import { BentoError } from '../../../store/errors.ts';
import { readToc } from '../../../store/layers/layer-reader.ts';
import { prefetchLength } from '../../../store/layers/prefetch.ts';
import { notePrefetchEnd } from '../../../store/lazy/lazy-blobs.ts';
import { isPartlyHere } from '../../../store/lazy-file.ts';
import type { LazyFetcher } from '../../../store/lazy/lazy-fetcher.ts';
import { lazyDigests, readRecord } from '../../../store/lazy/lazy-record.ts';
import { KEYS, type Descriptor } from '../../../store/manifest.ts';
import type { Store } from '../../../store/store.ts';
import { MountTable } from '../mount-table.ts';

/** Requests at once: few, so that readers are answered soon. */
const LANE_COUNT = 2;
/** How often it is looked whether anybody still has the checkpoint mounted. */
const LOOK_MS = 5_000;
/** A checkpoint that is about to be mounted is not mounted yet. */
const GRACE_MS = 30_000;
/** Before a registry is asked again that could not be reached. */
const PAUSE_MS = 5_000;

/** Fetches the rest of checkpoints that are mounted from a registry, in the background and one blob after the other. */
export class RestFetcher {
  readonly #store: Store;
  readonly #fetcher: LazyFetcher;
  readonly #note: (line: string) => void;
  readonly #mounts: MountTable;
  readonly #wanted = new Set<Digest>();
  #running: Promise<void> = Promise.resolve();

  constructor(store: Store, fetcher: LazyFetcher, note: (line: string) => void) {
    this.#store = store;
    this.#fetcher = fetcher;
    this.#note = note;
    this.#mounts = new MountTable(store);
  }

  /** Begins with a checkpoint that somebody mounts, or goes on with it. */
  want(manifest: Digest): void {
    if (this.#wanted.has(manifest) || lazyDigests(this.#store.root).length === 0) return;
    this.#wanted.add(manifest);
    this.#running = this.#running
      .then(async () => await this.#fetch(manifest))
      .catch((error: unknown) => this.#note(`the rest of ${shortDigest(manifest)} is not fetched: ${String(error)}`))
      .finally(() => this.#wanted.delete(manifest));
  }

  /** Goes on with everything that is mounted: after a server died. */
  async wantMounted(): Promise<void> {
    try {
      for (const { mounted, manifest } of await this.#mounts.list())
        if (mounted && manifest !== undefined) this.want(manifest);
    } catch (error) {
      this.#note(`what was being fetched is not gone on with: ${String(error)}`); // mounts go on all the same
    }
  }

  async #fetch(manifest: Digest): Promise<void> {
    const isWanted = this.#whileMounted(manifest);
    for (const { digest, annotations } of await this.#partsOf(manifest)) {
      await this.#notePrefetch(digest, annotations?.[KEYS.tocDigest]);
      while ((await this.#fetchBlob(digest, isWanted)) === 'unreachable') {
        await sleep(PAUSE_MS);
        if (!(await isWanted())) return;
      }
    }
  }

  async #fetchBlob(digest: Digest, isWanted: () => Promise<boolean>): Promise<'unreachable' | 'over'> {
    try {
      const outcome = await this.#fetcher.fetchRest(digest, { laneCount: LANE_COUNT, yields: true, isWanted });
      if (outcome === 'whole') this.#note(`blob ${shortDigest(digest)} is here as a whole`);
      return 'over';
    } catch (error) {
      if (error instanceof BentoError && error.code === 'REMOTE_UNREACHABLE') return 'unreachable';
      throw error;
    }
  }

  /** The blobs of which a part is missing that is to be fetched, the smallest first. */
  async #partsOf(manifest: Digest): Promise<Descriptor[]> {
    const { layers } = await this.#store.loadCheckpoint(manifest);
    const { root } = this.#store;
    const parts = new Map(layers.map(({ descriptor }) => [descriptor.digest, descriptor]));
    return [...parts.values()]
      .filter(({ digest }) => isPartlyHere(root, digest) && readRecord(root, digest)?.fetchesRest === true)
      .sort((a, b) => a.size - b.size);
  }

  /** Finds out which part of a layer holds the files that are read first. What goes wrong there will be told by whoever reads. */
  async #notePrefetch(digest: Digest, tocDigest: string | undefined): Promise<void> {
    const { root } = this.#store;
    if (tocDigest === undefined || readRecord(root, digest)?.prefetchEnd !== undefined) return;
    try {
      const toc = await readToc(await this.#fetcher.reader(digest), parseDigest(tocDigest, KEYS.tocDigest));
      await notePrefetchEnd(root, digest, (toc && prefetchLength(toc)) ?? 0);
    } catch (error) {
      if (!(error instanceof BentoError)) throw error;
    }
  }

  #whileMounted(manifest: Digest): () => Promise<boolean> {
    const startMs = performance.now();
    let lookedMs = startMs;
    let isMounted = true;
    return async () => {
      const nowMs = performance.now();
      if (nowMs - startMs < GRACE_MS || nowMs - lookedMs < LOOK_MS) return isMounted;
      lookedMs = nowMs;
      const records = await this.#mounts.list();
      return (isMounted = records.some((record) => record.mounted && record.manifest === manifest));
    };
  }
}
