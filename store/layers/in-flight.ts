/** How much may be under way at once, in bytes and in items. */
export interface InFlightLimits {
  bytesMax: number;
  countMax: number;
}

/** Lets work in while there is room, in the order it came. */
export class InFlight {
  readonly #limits: InFlightLimits;
  readonly #waiting: { bytes: number; enter: () => void }[] = [];
  #bytes = 0;
  #count = 0;

  constructor(limits: InFlightLimits) {
    this.#limits = limits;
  }

  /** Waits for room for `bytes`; something larger than all the room there is goes in alone. */
  async enter(bytes: number): Promise<void> {
    await new Promise<void>((enter) => {
      this.#waiting.push({ bytes, enter });
      this.#admit();
    });
  }

  /** Gives back what `enter` took. */
  leave(bytes: number): void {
    this.#bytes -= bytes;
    this.#count--;
    this.#admit();
  }

  #admit(): void {
    for (let next = this.#waiting[0]; next && this.#hasRoom(next.bytes); next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#bytes += next.bytes;
      this.#count++;
      next.enter();
    }
  }

  #hasRoom(bytes: number): boolean {
    if (this.#count === 0) return true;
    return this.#count < this.#limits.countMax && this.#bytes + bytes <= this.#limits.bytesMax;
  }
}

/** One after the other. */
export class Lane {
  #last: Promise<unknown> = Promise.resolve();

  async run<Result>(task: () => Promise<Result>): Promise<Result> {
    const mine = this.#last.then(task);
    this.#last = mine.catch(() => undefined);
    return mine;
  }
}
