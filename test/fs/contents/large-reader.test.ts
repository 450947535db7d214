import { existsSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { ContentCache } from '../../../fs/contents/content-cache.ts';
import { LargeReader } from '../../../fs/contents/large-reader.ts';
import { BentoError } from '../../../store/errors.ts';
import { testNeeding } from '../../fixtures/external-tools.ts';
import { Random } from '../../fixtures/random.ts';
import { newFolder } from '../../fixtures/workspaces.ts';
import { noise } from '../../store/layers/layer-fixtures.ts';
import { flipByteAt, keep, namesIn, newTmpfs } from './cache-fixtures.ts';
import { assertPart, damage, saveFiles, type SavedFile, type SavedFiles } from './large-fixtures.ts';

const PIECE = 1 << 20;

/** A reader with a cache of its own, and what it said. */
class Lane {
  readonly cacheDir: string;
  readonly cache: ContentCache;
  readonly reader: LargeReader;
  readonly filled: number[] = [];
  readonly notes: string[] = [];
  #heard: () => void = () => undefined;

  constructor(
    t: ExecutionContext,
    { source }: SavedFiles,
    options: { cacheDir?: string; capBytes?: number; fillIdleMs?: number } = {},
  ) {
    const { cacheDir = join(newFolder(t), 'cache'), capBytes = 1 << 30, fillIdleMs } = options;
    this.cacheDir = cacheDir;
    this.cache = new ContentCache(cacheDir, { capBytes });
    this.reader = new LargeReader(source.store, source.entries, this.cache, {
      onFilled: (id) => this.#note(() => this.filled.push(id)),
      onNote: (line) => this.#note(() => this.notes.push(line)),
      ...(fillIdleMs !== undefined && { fillIdleMs }),
    });
    t.teardown(() => this.reader.close());
  }

  /** Waits until something was said that makes it true. */
  async until(isTrue: () => boolean): Promise<void> {
    while (!isTrue()) await new Promise<void>((resolve) => (this.#heard = resolve));
  }

  /** Reads from the start up to `end` as the kernel does: in order, several pieces at once. */
  async readThrough(t: ExecutionContext, file: SavedFile, end = file.content.length): Promise<void> {
    for (let offset = 0; offset < end; offset += 4 * PIECE) {
      const offsets = [0, 1, 2, 3].map((i) => offset + i * PIECE).filter((at) => at < end);
      await Promise.all(offsets.map(async (at) => await this.check(t, file, at, PIECE)));
    }
  }

  async check(t: ExecutionContext, file: SavedFile, offset: number, length: number): Promise<void> {
    assertPart(t, await this.reader.read(file.id, offset, length), { file, offset, length });
  }

  #note(add: () => void): void {
    add();
    this.#heard();
  }
}

/** Waits until everything that was begun and needs no timer is done. */
async function settle(isDone: () => boolean): Promise<void> {
  for (let i = 0; i < 2000 && !isDone(); i += 1) await new Promise((resolve) => setTimeout(resolve, 5));
}

test('read() gives any range of a file, whatever its size and whoever reads at the same time', async (t) => {
  const files = await saveFiles(t);
  const lane = new Lane(t, files);
  const random = new Random(9);
  for (let round = 0; round < 6; round += 1) {
    const reads = Array.from({ length: 20 }, async () => {
      const file = random.pick([files.large, files.medium, files.small]);
      await lane.check(t, file, random.below(file.content.length + 1000), random.below(2 * PIECE));
    });
    await Promise.all(reads);
  }
  await lane.check(t, files.large, files.large.content.length, 10);
  t.deepEqual(lane.notes, []);
});

test('read() inflates a chunk once for all who ask at the same time, and for the next', async (t) => {
  const files = await saveFiles(t);
  const { reader } = new Lane(t, files);
  const [one, two] = await Promise.all([reader.read(files.medium.id, 0, 10), reader.read(files.medium.id, 5, 10)]);
  const three = await reader.read(files.medium.id, 100, 10);
  t.is(one.buffer, two.buffer);
  t.is(one.buffer, three.buffer);
});

test('read() of an eighth of a large file brings all of it into the cache', async (t) => {
  const files = await saveFiles(t);
  const { large } = files;
  const lane = new Lane(t, files);
  await lane.readThrough(t, large, 6 * PIECE);
  await lane.until(() => lane.filled.length > 0);
  t.deepEqual(lane.filled, [large.id]);
  t.deepEqual(namesIn(lane.cacheDir).length, 2, 'the copy and its mark');
  rmSync(large.blob);
  await lane.readThrough(t, large);
  t.deepEqual([lane.filled, lane.notes], [[large.id], []]);
});

test('read() of less than that leaves it at that, and what was begun is given up when nobody reads on', async (t) => {
  const files = await saveFiles(t);
  const { large } = files;
  const lane = new Lane(t, files, { fillIdleMs: 1000 });
  await lane.readThrough(t, large, 2 * PIECE);
  await settle(() => namesIn(lane.cacheDir).length === 1);
  t.regex(namesIn(lane.cacheDir)[0] ?? '', /^\.tmp-/);
  await settle(() => namesIn(lane.cacheDir).length === 0);
  t.deepEqual([namesIn(lane.cacheDir), lane.filled], [[], []]);
  await lane.readThrough(t, large);
  await lane.until(() => lane.filled.length > 0);
  t.pass();
});

test('read() of a whole file while it is being copied gives its bytes from wherever they are', async (t) => {
  const files = await saveFiles(t);
  const { large } = files;
  const lane = new Lane(t, files);
  const random = new Random(2);
  const readers = Array.from({ length: 4 }, async () => {
    for (let i = 0; i < 60; i += 1) await lane.check(t, large, random.below(large.content.length), PIECE);
  });
  await Promise.all([lane.readThrough(t, large), ...readers]);
  await lane.until(() => lane.filled.length > 0);
  await lane.readThrough(t, large);
});

test('read() copies no file that is smaller than a large one', async (t) => {
  const files = await saveFiles(t);
  const lane = new Lane(t, files);
  await lane.readThrough(t, files.medium);
  t.is(await lane.reader.fill(files.medium.id), undefined);
  t.false(existsSync(lane.cacheDir));
});

test('fill() brings a whole file into the cache, once for all who ask', async (t) => {
  const files = await saveFiles(t);
  const { large } = files;
  const lane = new Lane(t, files);
  const both = await Promise.all([lane.reader.fill(large.id), lane.reader.fill(large.id), lane.check(t, large, 5, 10)]);
  for (const content of both.slice(0, 2)) {
    using held = content ?? undefined;
    assertPart(t, (await held?.read(0, large.content.length)) ?? 'slow', {
      file: large,
      offset: 0,
      length: large.content.length,
    });
  }
  t.deepEqual(lane.filled, [large.id]);
});

test('fill() by several, with readers of every part, comes to an end', async (t) => {
  const files = await saveFiles(t);
  const { large } = files;
  const lane = new Lane(t, files);
  const offsets = Array.from({ length: 100 }, (_, i) => ((i * 37) % 33) * PIECE + i);
  const fills = [1, 2, 3, 4].map(async () => (await lane.reader.fill(large.id))?.close());
  await Promise.all([...fills, ...offsets.map(async (at) => await lane.check(t, large, at, PIECE))]);
  t.deepEqual(lane.filled, [large.id]);
});

test('read() of many large files copies a bounded number of them at once', async (t) => {
  const files = await saveFiles(t);
  const { large, source } = files;
  const { db } = source.index;
  const columns = db.pragma('table_info(entries)') as { name: string }[];
  const values = columns.map(({ name }) => ({ id: 'id + @step', digest: 'randomblob(32)' })[name] ?? name);
  const entry = db.prepare(`INSERT INTO entries SELECT ${values.join(', ')} FROM entries WHERE id = @id`);
  const chunks = db.prepare(
    'INSERT INTO chunks SELECT entry + @step, file_offset, size, digest, blob_offset, blob_bytes, inner_offset ' +
      'FROM chunks WHERE entry = @id',
  );
  const lane = new Lane(t, files);
  for (let step = 1000; step < 1012; step += 1) {
    for (const insert of [entry, chunks]) insert.run({ step, id: large.id });
    await lane.check(t, { ...large, id: large.id + step }, 5 * PIECE, PIECE);
    await settle(() => namesIn(lane.cacheDir).length === Math.min(step - 999, 8));
  }
  t.is(namesIn(lane.cacheDir).length, 8);
});

test('fill() of a file that does not fit gives nothing, and read() gives its bytes', async (t) => {
  const files = await saveFiles(t);
  const lane = new Lane(t, files, { capBytes: 1 << 20 });
  t.is(await lane.reader.fill(files.large.id), undefined);
  await lane.readThrough(t, files.large);
  t.deepEqual([lane.filled, lane.notes], [[], []]);
});

test('a copy from before a restart is verified, and then read', async (t) => {
  const files = await saveFiles(t);
  const { large } = files;
  const lane = new Lane(t, files);
  await keep(new ContentCache(lane.cacheDir, { capBytes: 1 << 30 }), large.content);
  const { ino } = statSync(lane.cache.path(large.digest));
  await lane.check(t, large, 0, PIECE);
  await lane.until(() => lane.filled.length > 0);
  rmSync(large.blob);
  await lane.readThrough(t, large);
  t.is(statSync(lane.cache.path(large.digest)).ino, ino);
  t.deepEqual(lane.notes, []);
});

test('a damaged copy is said, removed and made anew, and no reader gets a byte of it', async (t) => {
  const files = await saveFiles(t);
  const { large } = files;
  const lane = new Lane(t, files);
  await keep(new ContentCache(lane.cacheDir, { capBytes: 1 << 30 }), large.content);
  const path = lane.cache.path(large.digest);
  const at = large.content.length >> 1;
  flipByteAt(path, at, large.content[at] ?? 0);
  await lane.check(t, large, at - 100, 200);
  await lane.until(() => lane.notes.length > 0);
  t.regex(lane.notes[0] ?? '', /content cache: .* removed; large\.bin is read from its layer/);
  t.true(lane.notes[0]?.includes(path));
  await lane.readThrough(t, large);
  await lane.until(() => lane.filled.length > 0);
  await lane.readThrough(t, large);
  t.is(lane.notes.length, 1);
});

test('a copy that is damaged after it was verified is found out at the next read', async (t) => {
  const files = await saveFiles(t);
  const { large } = files;
  const lane = new Lane(t, files);
  (await lane.reader.fill(large.id))?.close();
  flipByteAt(lane.cache.path(large.digest), 0, large.content[0] ?? 0);
  await lane.check(t, large, 0, 100);
  await lane.until(() => lane.notes.length > 0);
  (await lane.reader.fill(large.id))?.close();
  t.deepEqual(lane.filled, [large.id, large.id], 'whoever shows it is told that it is back');
});

test('a damaged layer: read() names it and the file, all else is read well, and nothing is kept', async (t) => {
  const files = await saveFiles(t);
  const { large, medium } = files;
  const chunk = large.chunks[20];
  damage(large, chunk);
  const lane = new Lane(t, files);
  const where = `layer ${large.layer} at byte ${chunk?.blobOffset ?? ''} (large.bin)`;
  t.is(await lane.reader.fill(large.id), undefined);
  t.deepEqual(lane.notes, [`content cache: large.bin cannot be kept: blob integrity check failed: ${where}`]);
  t.deepEqual(namesIn(lane.cacheDir), []);
  const error = await t.throwsAsync(lane.reader.read(large.id, chunk?.fileOffset ?? 0, 10), { instanceOf: BentoError });
  t.is(error.message, `blob integrity check failed: ${where}`);
  t.true(['DIGEST_MISMATCH', 'FORMAT_INVALID'].includes(error.code));
  await lane.check(t, large, 0, PIECE);
  await lane.readThrough(t, medium);
  t.is(await lane.reader.fill(large.id), undefined);
  t.is(lane.notes.length, 1, 'it is not tried over and over');
});

test('a file whose bytes are not what its digest says is not kept', async (t) => {
  const files = await saveFiles(t);
  const { large, medium, source } = files;
  const { db } = source.index;
  const claim = db.prepare('UPDATE entries SET digest = (SELECT digest FROM entries WHERE id = ?) WHERE id = ?');
  claim.run(medium.id, large.id);
  const lane = new Lane(t, files);
  t.is(await lane.reader.fill(large.id), undefined);
  t.is(lane.notes.length, 1);
  t.regex(lane.notes[0] ?? '', /large\.bin cannot be kept: .* is not sha256:/);
  t.deepEqual(namesIn(lane.cacheDir), []);
  await lane.readThrough(t, large);
});

test('a file without a digest is read, and not kept', async (t) => {
  const files = await saveFiles(t);
  const { large, source } = files;
  source.index.db.prepare('UPDATE entries SET digest = NULL WHERE id = ?').run(large.id);
  const lane = new Lane(t, files);
  await lane.readThrough(t, large);
  t.is(await lane.reader.fill(large.id), undefined);
  t.false(existsSync(lane.cacheDir));
});

testNeeding({ root: true })('a disk that fills up while a file is copied: readers notice nothing', async (t) => {
  const files = await saveFiles(t);
  const { large } = files;
  const disk = newTmpfs(t, large.content.length + (1 << 20));
  const lane = new Lane(t, files, { cacheDir: join(disk, 'cache') });
  await lane.check(t, large, 0, PIECE);
  await settle(() => namesIn(lane.cacheDir).length === 1);
  writeFileSync(join(disk, 'other'), noise(large.content.length >> 1));
  await lane.readThrough(t, large);
  await settle(() => namesIn(lane.cacheDir).length === 0);
  t.deepEqual([namesIn(lane.cacheDir), lane.filled, lane.notes], [[], [], []]);
  await lane.readThrough(t, large);
});
