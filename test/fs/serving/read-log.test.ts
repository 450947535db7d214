import { Worker } from 'node:worker_threads';

import test from 'ava';

import { FIRST_FILES_MAX } from '../../../fs/contents/first-reads.ts';
import { FIRST_READS_MS, FirstReads, newReadLogMemory, ReadLog } from '../../../fs/serving/read-log.ts';
import { entryId } from '../../../index/rows.ts';

const LAYER = 7;

function reads(nowMs?: () => number): { log: ReadLog; first: FirstReads } {
  const memory = newReadLogMemory();
  return { log: new ReadLog(memory), first: new FirstReads(new ReadLog(memory), nowMs) };
}

test('FirstReads notes each entry once, in the order in which they are read', (t) => {
  const { log, first } = reads();
  const [a, b, other] = [entryId(LAYER, 9), entryId(LAYER, 2), entryId(LAYER + 1, 2)];
  for (const id of [a, b, a, other, b]) first.note(id);
  t.deepEqual(log.take(), [a, b, other]);
  first.note(a);
  t.deepEqual(log.take(), []);
});

test('FirstReads ends with the first so many of a layer, or some minutes after its first', (t) => {
  let nowMs = 1000;
  const { log, first } = reads(() => nowMs);
  for (let i = 0; i < FIRST_FILES_MAX + 100; i += 1) first.note(entryId(LAYER, 2 + i));
  t.is(log.take().length, FIRST_FILES_MAX);
  nowMs += FIRST_READS_MS / 2;
  const later = [entryId(LAYER + 1, 2), entryId(LAYER + 1, 3), entryId(LAYER + 1, 4)] as const;
  first.note(later[0]);
  nowMs += FIRST_READS_MS;
  first.note(later[1]);
  nowMs += 1;
  first.note(later[2]);
  t.deepEqual(log.take(), [later[0], later[1]]);
});

test('ReadLog loses what nobody took in time, the oldest first', (t) => {
  const memory = newReadLogMemory();
  const [writer, reader] = [new ReadLog(memory), new ReadLog(memory)];
  const capacity = memory.byteLength / 8 - 1;
  for (let id = 1; id <= capacity + 5; id += 1) writer.add(id);
  const taken = reader.take();
  t.is(taken.length, capacity);
  t.is(taken[0], 6);
  t.is(taken.at(-1), capacity + 5);
  writer.add(1);
  t.deepEqual(reader.take(), [1]);
});

const NOTER = `
  const { workerData } = require('node:worker_threads');
  import(workerData.module).then(({ ReadLog }) => {
    const log = new ReadLog(workerData.memory);
    for (let i = 1; i <= workerData.count; i += 1) log.add(workerData.from + i);
  });`;

test('ReadLog takes from several threads at a time, from each in its order', async (t) => {
  const memory = newReadLogMemory();
  const log = new ReadLog(memory);
  const module = new URL('../../../fs/serving/read-log.js', import.meta.url).href;
  const count = 3000;
  const threads = [0, 1, 2].map(
    (n) => new Worker(NOTER, { eval: true, workerData: { memory, module, count, from: n * count } }),
  );
  let ended = 0;
  for (const thread of threads) thread.once('exit', () => (ended += 1));
  const taken: number[] = [];
  while (ended < threads.length) {
    taken.push(...log.take());
    await new Promise(setImmediate);
  }
  taken.push(...log.take());
  t.is(taken.length, 3 * count);
  for (const n of [0, 1, 2]) {
    const own = taken.filter((id) => id > n * count && id <= (n + 1) * count);
    t.deepEqual(
      own,
      [...own].sort((a, b) => a - b),
    );
    t.is(own.length, count);
  }
});
