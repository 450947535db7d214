import type { Entries } from '../../../index/entries.ts';
import { ENTRY_TYPES, numberOf, positionOf } from '../../../index/rows.ts';
import type { Digest } from '../../../store/digest.ts';
import type { Store } from '../../../store/store.ts';
import { FIRST_FILE_BYTES_MAX, loadFirstReads, storeFirstReads } from '../../contents/first-reads.ts';
import { FIRST_READS_MS, type ReadLog } from '../../serving/read-log.ts';

/** Of a layer that is being used. */
interface Reads {
  digest: Digest;
  /** Positions, in the order in which they were first read. */
  now: Set<number>;
  /** What an earlier use has read. */
  before: readonly number[];
  endMs: number;
  isNew: boolean;
}

/** Puts what the server's threads noted where a later save finds it. What is read now comes before what was known. */
export class FirstReadsKeeper {
  readonly #store: Store;
  readonly #entries: Entries;
  readonly #log: ReadLog;
  readonly #nowMs: () => number;
  readonly #layers = new Map<number, Reads>();

  constructor(
    { store, entries }: { store: Store; entries: Entries },
    log: ReadLog,
    nowMs: () => number = () => performance.now(),
  ) {
    this.#store = store;
    this.#entries = entries;
    this.#log = log;
    this.#nowMs = nowMs;
  }

  /**
   * To be called now and then, and when something was unmounted: takes little time, and none when nothing was read.
   *
   * @throws what writing the files throws
   */
  collect(): void {
    for (const id of this.#log.take()) this.#add(id);
    for (const [number, layer] of this.#layers) {
      // Before it is written: what cannot be must not be tried for ever.
      const isNew = layer.isNew;
      layer.isNew = false;
      if (this.#nowMs() > layer.endMs) this.#layers.delete(number);
      if (isNew) storeFirstReads(this.#store.cacheDir, layer.digest, [...layer.now, ...layer.before]);
    }
  }

  #add(id: number): void {
    if (!this.#isWorthFetching(id)) return;
    const number = numberOf(id);
    const layer = this.#layers.get(number) ?? this.#begin(number);
    if (layer === undefined) return;
    layer.now.add(positionOf(id));
    layer.isNew = true;
  }

  #isWorthFetching(id: number): boolean {
    const [, , type = -1, , , , , , sizeBytes = 0] = this.#entries.shown(id) ?? [];
    return ENTRY_TYPES[type] === 'file' && sizeBytes > 0 && sizeBytes <= FIRST_FILE_BYTES_MAX;
  }

  #begin(number: number): Reads | undefined {
    const digest = this.#entries.layerOf(number)?.digest;
    if (digest === undefined) return undefined;
    const before = loadFirstReads(this.#store.cacheDir, digest);
    const layer = { digest, before, now: new Set<number>(), endMs: this.#nowMs() + FIRST_READS_MS, isNew: true };
    this.#layers.set(number, layer);
    return layer;
  }
}
