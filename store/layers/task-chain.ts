/** Thrown by what was under way when a chain was closed. */
const CLOSED = 'the layer writer was closed';

/**
 * Work that is prepared side by side and finished one after the other, in the order it was added, with a bound on how
 * much is under way. The first failure is everybody's.
 */
export class TaskChain {
  readonly #widthMax: number;
  #width = 0;
  #last: Promise<void> = Promise.resolve();
  #room: (() => void) | undefined;
  #failure: { error: unknown } | undefined;
  #isClosed = false;

  constructor(widthMax: number) {
    this.#widthMax = widthMax;
  }

  /**
   * Starts `prepare` and returns as soon as there is room for another; one call at a time.
   *
   * @param finish - run with what `prepare` gave, after everything that was added before
   */
  async add<Prepared>(prepare: () => Promise<Prepared>, finish: (prepared: Prepared) => Promise<void>): Promise<void> {
    this.assertOpen();
    const prepared = prepare();
    prepared.catch(() => undefined); // looked at when its turn comes
    this.#width += 1;
    this.#last = this.#last.then(async () => {
      try {
        const ready = await prepared;
        if (this.#failure === undefined) await finish(ready);
      } catch (error) {
        this.fail(error);
      } finally {
        this.#width -= 1;
        this.#room?.();
      }
    });
    while (this.#width >= this.#widthMax) await new Promise<void>((resolve) => (this.#room = resolve));
    this.assertNotFailed();
  }

  /** Waits for everything that was added. */
  async finish(): Promise<void> {
    this.#isClosed = true;
    await this.#last;
    this.assertNotFailed();
  }

  /** Gives up: what has not begun to be finished never will. */
  async close(): Promise<void> {
    if (!this.#isClosed) this.fail(new Error(CLOSED));
    this.#isClosed = true;
    await this.#last;
  }

  /** Makes a failure elsewhere everybody's. */
  fail(error: unknown): void {
    this.#failure ??= { error };
  }

  assertOpen(): void {
    this.assertNotFailed();
    if (this.#isClosed) throw new TypeError('the layer is already finished');
  }

  assertNotFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
