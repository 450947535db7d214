import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { ContentCache } from '../../../fs/contents/content-cache.ts';
import { LargeFill, type FillOutcome } from '../../../fs/contents/large-fill.ts';
import type { Priority } from '../../../fs/contents/work-queue.ts';
import { digestOf } from '../../../store/digest.ts';
import type { Chunk } from '../../../store/entry.ts';
import { newFolder } from '../../fixtures/workspaces.ts';
import { noise } from '../../store/layers/layer-fixtures.ts';
import { flipByteAt, namesIn } from './cache-fixtures.ts';

const CONTENT = noise(160_000);
const CHUNKS: readonly Chunk[] = Array.from({ length: 16 }, (_, i) => {
  const place = { blobOffset: 0, blobBytes: 1, innerOffset: 0 };
  return { fileOffset: i * 10_000, sizeBytes: 10_000, digest: digestOf(bytesAt(i)), ...place };
});

function bytesAt(i: number): Buffer {
  return CONTENT.subarray(i * 10_000, (i + 1) * 10_000);
}

/** A fill whose chunks come from memory. */
class Filling {
  readonly cacheDir: string;
  readonly cache: ContentCache;
  readonly fill: LargeFill;
  readonly brought: { at: number; priority: Priority }[] = [];
  readonly outcome: Promise<FillOutcome>;
  broken: Error | undefined;
  #ended: (outcome: FillOutcome) => void = () => undefined;

  constructor(t: ExecutionContext, capBytes = 1 << 20) {
    this.cacheDir = join(newFolder(t), 'cache');
    this.cache = new ContentCache(this.cacheDir, { capBytes });
    this.outcome = new Promise((resolve) => (this.#ended = resolve));
    const file = { id: 1, digest: digestOf(CONTENT), sizeBytes: CONTENT.length, chunks: CHUNKS };
    this.fill = new LargeFill(file, {
      cache: this.cache,
      bring: async (fill, chunk, priority) => await this.#bring(fill, chunk, priority),
      onEnd: (_, outcome) => this.#ended(outcome),
    });
  }

  /** As a reader that inflated them does. */
  async take(...numbers: number[]): Promise<void> {
    for (const i of numbers) {
      const chunk = CHUNKS[i];
      if (chunk !== undefined) await this.fill.take(chunk, bytesAt(i));
    }
  }

  ask(...numbers: number[]): void {
    this.fill.ask(numbers.flatMap((i) => CHUNKS[i] ?? []));
  }

  async copied(i: number): Promise<Buffer | undefined> {
    const chunk = CHUNKS[i];
    return chunk && (await this.fill.copied(chunk));
  }

  /** Waits until there is a file to copy to. */
  async begun(): Promise<string> {
    await this.fill.begun;
    return join(this.cacheDir, 'sha256', namesIn(this.cacheDir)[0] ?? '');
  }

  async #bring(fill: LargeFill, chunk: Chunk, priority: Priority): Promise<void> {
    this.brought.push({ at: chunk.fileOffset, priority });
    if (this.broken !== undefined) throw this.broken;
    await fill.take(chunk, bytesAt(chunk.fileOffset / 10_000));
  }
}

test('LargeFill brings the rest once an eighth was asked for, whether or not it was taken', async (t) => {
  const filling = new Filling(t);
  filling.ask(3);
  filling.ask(3);
  await filling.begun();
  await filling.take(3);
  t.deepEqual(filling.brought, [], 'the same sixteenth twice is no eighth');
  t.false(filling.fill.isCompleting);
  filling.ask(4);
  t.true(filling.fill.isCompleting);
  t.deepEqual(await filling.outcome, { kind: 'kept' });
  const rest = CHUNKS.map(({ fileOffset }) => fileOffset).filter((at) => at !== 30_000);
  t.deepEqual(
    filling.brought,
    rest.map((at) => ({ at, priority: 'background' })),
  );
  using content = filling.cache.open(digestOf(CONTENT), CONTENT.length);
  t.deepEqual(await content?.read(0, CONTENT.length), CONTENT);
});

test('LargeFill is whole when readers brought all of it', async (t) => {
  const filling = new Filling(t);
  await filling.begun();
  await filling.take(...CHUNKS.keys());
  t.deepEqual(await filling.outcome, { kind: 'kept' });
  t.deepEqual(filling.brought, []);
});

test('LargeFill gives back what it has, and nothing that was changed on the disk', async (t) => {
  const filling = new Filling(t);
  const temporary = await filling.begun();
  t.is(await filling.copied(5), undefined);
  await filling.take(5, 6);
  t.deepEqual(await filling.copied(5), bytesAt(5));
  flipByteAt(temporary, 55_555, CONTENT[55_555] ?? 0);
  t.is(await filling.copied(5), undefined);
  t.deepEqual(await filling.copied(6), bytesAt(6));
  filling.fill.stop();
  t.is(await filling.copied(6), undefined);
  t.deepEqual(await filling.outcome, { kind: 'stopped' });
  t.false(existsSync(temporary));
});

test('LargeFill that is stopped before it has begun leaves nothing', async (t) => {
  const filling = new Filling(t);
  filling.fill.stop();
  t.deepEqual(await filling.outcome, { kind: 'stopped' });
  await filling.fill.complete();
  await filling.begun();
  await filling.take(1);
  t.deepEqual([namesIn(filling.cacheDir), filling.brought], [[], []]);
});

test('complete() waits for the end, and says how it came to it', async (t) => {
  const failing = new Filling(t);
  failing.broken = new Error('the layer is damaged');
  await failing.fill.complete();
  t.deepEqual(await failing.outcome, { kind: 'failed', error: failing.broken });
  t.deepEqual(namesIn(failing.cacheDir), []);

  const tooLarge = new Filling(t, 100_000);
  await tooLarge.fill.complete();
  t.deepEqual(await tooLarge.outcome, { kind: 'no room' });

  const robbed = new Filling(t);
  rmSync(await robbed.begun());
  await robbed.fill.complete();
  t.deepEqual(await robbed.outcome, { kind: 'no room' });
});
