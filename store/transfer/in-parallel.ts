/** How many blobs, manifests or tags are asked for at once. */
export const TRANSFERS_AT_ONCE = 4;

/**
 * Does the work for every item, a few at a time. The first failure ends the others; it is thrown when all have ended.
 *
 * @param signal - of whoever wants all of it to end
 */
export async function inParallel<Item>(
  items: Iterable<Item>,
  signal: AbortSignal | undefined,
  work: (item: Item, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const failed = new AbortController();
  const either = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
  const queue = items[Symbol.iterator]();
  const runner = async (): Promise<void> => {
    for (let next = queue.next(); next.done !== true; next = queue.next()) {
      either.throwIfAborted();
      await work(next.value, either);
    }
  };
  const failures: unknown[] = [];
  const runUnlessFailed = async (): Promise<void> => {
    try {
      await runner();
    } catch (error) {
      failures.push(error);
      failed.abort(error);
    }
  };
  await Promise.all(Array.from({ length: TRANSFERS_AT_ONCE }, runUnlessFailed));
  if (failures.length > 0) throw failures[0];
}
