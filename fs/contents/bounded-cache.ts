export interface BoundedCacheOptions<Value> {
  /** The most that everything kept may weigh together. */
  weightMax: number;
  weigh: (value: Value) => number;
  /** Told of each value that goes, to close what it holds. */
  onEvict?: (value: Value) => void;
}

/** Keeps what was used last, up to a total weight; what nobody asked for longest goes first, the newest never. */
export class BoundedCache<Key, Value> {
  readonly #options: BoundedCacheOptions<Value>;
  /** Least recently used first. */
  readonly #values = new Map<Key, Value>();
  #weight = 0;

  constructor(options: BoundedCacheOptions<Value>) {
    this.#options = options;
  }

  get(key: Key): Value | undefined {
    const value = this.#values.get(key);
    if (value === undefined) return undefined;
    this.#values.delete(key);
    this.#values.set(key, value);
    return value;
  }

  /** Asking does not count as use. */
  has(key: Key): boolean {
    return this.#values.has(key);
  }

  /** @param key - one that is not in the cache */
  add(key: Key, value: Value): void {
    const { weightMax, weigh } = this.#options;
    this.#weight += weigh(value);
    for (const [oldest, old] of this.#values) {
      if (this.#weight <= weightMax) break;
      this.#remove(oldest, old);
    }
    this.#values.set(key, value);
  }

  delete(key: Key): void {
    const value = this.#values.get(key);
    if (value !== undefined) this.#remove(key, value);
  }

  clear(): void {
    for (const [key, value] of this.#values) this.#remove(key, value);
  }

  #remove(key: Key, value: Value): void {
    this.#values.delete(key);
    this.#weight -= this.#options.weigh(value);
    this.#options.onEvict?.(value);
  }
}
