import { numberOf } from '../../index/rows.ts';
import { FIRST_FILES_MAX } from '../contents/first-reads.ts';

/** How long after the first read of a layer more of them count as first. */
export const FIRST_READS_MS = 5 * 60_000;

/** More than threads note between two looks of whoever takes it; what is overwritten is lost. */
const SLOT_COUNT = 16_384;
const SLOT_BYTES = 8;
/** Before the slots: how many were ever taken. */
const COUNTER_BYTES = 8;
const EMPTY = 0;

/** Memory for a `ReadLog` that all threads of a process can share: post it to them. */
export function newReadLogMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(COUNTER_BYTES + SLOT_COUNT * SLOT_BYTES);
}

/**
 * Entries that were read, in order, from any thread to one that takes them: a thread that answers for a mount sleeps in the
 * kernel, not in its event loop, so it neither has timers nor is asked for anything.
 */
export class ReadLog {
  readonly #counter: Int32Array;
  /** Ids of entries, which fit into a float and are never 0. */
  readonly #slots: Float64Array;
  #taken = 0;

  constructor(memory: SharedArrayBuffer) {
    this.#counter = new Int32Array(memory, 0, 1);
    this.#slots = new Float64Array(memory, COUNTER_BYTES);
  }

  add(id: number): void {
    this.#slots[Atomics.add(this.#counter, 0, 1) % SLOT_COUNT] = id;
  }

  /** What came since the last time. Only for one thread. */
  take(): number[] {
    const count = Atomics.load(this.#counter, 0);
    const ids: number[] = [];
    for (this.#taken = Math.max(this.#taken, count - SLOT_COUNT); this.#taken < count; this.#taken += 1) {
      const slot = this.#taken % SLOT_COUNT;
      const id = this.#slots[slot] ?? EMPTY;
      if (id === EMPTY) break; // being written just now
      this.#slots[slot] = EMPTY;
      ids.push(id);
    }
    return ids;
  }
}

/** What is known of a layer: the entries that were read and until when more count, or that no more do. */
type Layer = { read: Set<number>; endMs: number } | 'over';

/**
 * Notes which entries of each layer are read first, each once: for a few minutes after a layer was first used, and so many.
 * After that a read costs a look into a map.
 */
export class FirstReads {
  readonly #log: ReadLog;
  readonly #nowMs: () => number;
  readonly #layers = new Map<number, Layer>();

  constructor(log: ReadLog, nowMs: () => number = () => performance.now()) {
    this.#log = log;
    this.#nowMs = nowMs;
  }

  /** @param id - the entry's in the index */
  note(id: number): void {
    const number = numberOf(id);
    const layer = this.#layers.get(number) ?? this.#begin(number);
    if (layer === 'over' || layer.read.has(id)) return;
    if (layer.read.size >= FIRST_FILES_MAX || this.#nowMs() > layer.endMs) {
      this.#layers.set(number, 'over');
      return;
    }
    layer.read.add(id);
    this.#log.add(id);
  }

  #begin(number: number): Layer {
    const layer = { read: new Set<number>(), endMs: this.#nowMs() + FIRST_READS_MS };
    this.#layers.set(number, layer);
    return layer;
  }
}
