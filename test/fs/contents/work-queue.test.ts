import test from 'ava';

import { WorkQueue, type Priority } from '../../../fs/contents/work-queue.ts';

/** A queue whose work ends when the test says so. */
class Work {
  readonly running: string[] = [];
  readonly #queue: WorkQueue;
  readonly #leave = new Map<string, () => void>();

  constructor(weightMax: number) {
    this.#queue = new WorkQueue(weightMax);
  }

  async begin(name: string, weight: number, priority: Priority = 'reader'): Promise<void> {
    void this.#queue.enter(weight, priority).then((leave) => {
      this.running.push(name);
      this.#leave.set(name, leave);
    });
    await settle();
  }

  async end(name: string): Promise<void> {
    this.running.splice(this.running.indexOf(name), 1);
    this.#leave.get(name)?.();
    await settle();
  }
}

async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

test('WorkQueue lets readers begin in their order, as many as weigh no more than the limit', async (t) => {
  const work = new Work(10);
  for (const [name, weight] of Object.entries({ a: 4, b: 6, c: 1, d: 9 })) await work.begin(name, weight);
  t.deepEqual(work.running, ['a', 'b']);
  await work.end('a');
  t.deepEqual(work.running, ['b', 'c'], 'd would be too much');
  await work.end('b');
  t.deepEqual(work.running, ['c', 'd']);
});

test('WorkQueue lets a piece that is heavier than the limit begin when it is alone', async (t) => {
  const work = new Work(10);
  await work.begin('a', 1);
  await work.begin('heavy', 50);
  await work.begin('b', 1);
  t.deepEqual(work.running, ['a']);
  await work.end('a');
  t.deepEqual(work.running, ['heavy']);
  await work.end('heavy');
  t.deepEqual(work.running, ['b']);
});

test('WorkQueue lets two pieces of background work go on, one while there are readers, and readers always', async (t) => {
  const work = new Work(10);
  for (const name of ['1', '2', '3', '4', '5']) await work.begin(name, 100, 'background');
  t.deepEqual(work.running, ['1', '2']);
  await work.begin('reader', 10);
  t.deepEqual(work.running, ['1', '2', 'reader'], 'background work is nothing to a reader');
  await work.end('1');
  t.deepEqual(work.running, ['2', 'reader']);
  await work.end('2');
  t.deepEqual(work.running, ['reader', '3'], 'it never comes to a standstill');
  await work.end('reader');
  t.deepEqual(work.running, ['3', '4']);
});
