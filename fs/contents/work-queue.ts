/** A reader waits for the result; `background` is work that nobody waits for yet. */
export type Priority = 'reader' | 'background';

interface Waiting {
  weight: number;
  start: () => void;
}

/** With readers about, one; two make use of an idle machine. */
const BACKGROUND_COUNT_MAX = 2;

/**
 * Lets work begin in its turn. Of readers' work, as much is under way as weighs no more than a limit together, or one piece
 * that weighs more; of background work two pieces, and no more than one while there are readers.
 */
export class WorkQueue {
  readonly #weightMax: number;
  #readersWeight = 0;
  readonly #running: Record<Priority, number> = { reader: 0, background: 0 };
  readonly #waiting: Record<Priority, Waiting[]> = { reader: [], background: [] };

  /** @param weightMax - in whatever unit `enter` is told */
  constructor(weightMax: number) {
    this.#weightMax = weightMax;
  }

  /** Waits for its turn. @returns what to call, once, when the work is done */
  async enter(weight: number, priority: Priority): Promise<() => void> {
    await new Promise<void>((start) => {
      this.#waiting[priority].push({ weight, start });
      this.#startNext();
    });
    return () => {
      this.#count(priority, -1, -weight);
      this.#startNext();
    };
  }

  #startNext(): void {
    while (this.#startOne('reader') || this.#startOne('background'));
  }

  #startOne(priority: Priority): boolean {
    const [next] = this.#waiting[priority];
    if (next === undefined || !this.#mayStart(next.weight, priority)) return false;
    this.#waiting[priority].shift();
    this.#count(priority, 1, next.weight);
    next.start();
    return true;
  }

  #mayStart(weight: number, priority: Priority): boolean {
    const { reader, background } = this.#running;
    if (priority === 'reader') return reader === 0 || this.#readersWeight + weight <= this.#weightMax;
    return background < (reader === 0 ? BACKGROUND_COUNT_MAX : 1);
  }

  #count(priority: Priority, count: number, weight: number): void {
    this.#running[priority] += count;
    if (priority === 'reader') this.#readersWeight += weight;
  }
}
