import { createHash } from 'node:crypto';
import type { BigIntStats } from 'node:fs';

import type { Digest } from '../../store/digest.ts';

const SLOT_BYTES = 8;
const SLOT_COUNT = 4096;
/** Places that one fingerprint may have; when all are taken, one is given up and its file verified anew. */
const WAY_COUNT = 8;
const EMPTY = 0n;

/** Memory for `VerifiedStamps` that all threads of a process can share: post it to them. */
export function newVerifiedMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(SLOT_COUNT * SLOT_BYTES);
}

/**
 * Which files were found to hold the content they are named by, for the lifetime of a process. A file is known by its
 * device, inode, size and times: any change makes it unknown again. Never more than a bounded number is remembered.
 */
export class VerifiedStamps {
  /** 64-bit fingerprints; threads put them in and read them without a lock. */
  readonly #slots: BigInt64Array;

  constructor(memory: SharedArrayBuffer) {
    this.#slots = new BigInt64Array(memory);
  }

  has(digest: Digest, stat: BigIntStats): boolean {
    const print = fingerprint(digest, stat);
    return this.#placesOf(print).some((place) => Atomics.load(this.#slots, place) === print);
  }

  add(digest: Digest, stat: BigIntStats): void {
    const print = fingerprint(digest, stat);
    const places = this.#placesOf(print);
    for (const place of places) {
      const found = Atomics.compareExchange(this.#slots, place, EMPTY, print);
      if (found === EMPTY || found === print) return;
    }
    Atomics.store(this.#slots, places[Number(BigInt.asUintN(8, print >> 32n)) % WAY_COUNT] ?? 0, print);
  }

  #placesOf(print: bigint): number[] {
    const bucket = Number(BigInt.asUintN(20, print)) % (this.#slots.length / WAY_COUNT);
    return Array.from({ length: WAY_COUNT }, (_, way) => bucket * WAY_COUNT + way);
  }
}

function fingerprint(digest: Digest, { dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): bigint {
  const hash = createHash('sha256').update([digest, dev, ino, size, mtimeNs, ctimeNs].join(' ')).digest();
  return hash.readBigInt64LE(0) || 1n;
}
