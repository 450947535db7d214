import type { Trees } from '../../index/trees.ts';

/** When the checkpoints of a store became others, as far as somebody looked: the time of the folder that holds them all. */
export class StoreTime {
  readonly #trees: Trees;
  #version: string | undefined;
  #changeCount = 0;
  #time = { mtimeSec: 0, mtimeNsec: 0 };

  constructor(trees: Trees) {
    this.#trees = trees;
  }

  now(): { mtimeSec: number; mtimeNsec: number } {
    const version = this.#trees.version();
    if (version !== this.#version) {
      this.#version = version;
      this.#changeCount += 1;
      const ms = Date.now();
      const nsec = (ms % 1000) * 1_000_000 + (this.#changeCount % 1_000_000); // two changes in a millisecond differ
      this.#time = { mtimeSec: Math.floor(ms / 1000), mtimeNsec: nsec };
    }
    return this.#time;
  }
}
