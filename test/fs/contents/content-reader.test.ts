import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { ContentCache } from '../../../fs/contents/content-cache.ts';
import { ContentReader, SLOW_CHUNK_BYTES_MIN } from '../../../fs/contents/content-reader.ts';
import { BentoError } from '../../../store/errors.ts';
import { Random } from '../../fixtures/random.ts';
import { newFolder } from '../../fixtures/workspaces.ts';
import { flipByteAt, keep, touch } from './cache-fixtures.ts';
import { assertPart, damage, partOf, saveFiles, type SavedFiles } from './large-fixtures.ts';

function readerOf(t: ExecutionContext, { source }: SavedFiles, cache?: ContentCache): ContentReader {
  const reader = new ContentReader(source.store, source.entries, cache);
  t.teardown(() => reader.close());
  return reader;
}

function newCache(t: ExecutionContext): ContentCache {
  return new ContentCache(join(newFolder(t), 'cache'), { capBytes: 1 << 30 });
}

function bytesOf(read: (out: Buffer) => number | 'slow', length: number): Buffer | 'slow' {
  const out = Buffer.alloc(length);
  const sizeBytes = read(out);
  return sizeBytes === 'slow' ? 'slow' : out.subarray(0, sizeBytes);
}

test('read() gives any range of a file, across chunks and past the end', async (t) => {
  const files = await saveFiles(t);
  const reader = readerOf(t, files);
  const random = new Random(4);
  for (const file of [files.large, files.medium, files.small]) {
    for (let i = 0; i < 40; i += 1) {
      const [offset, length] = [random.below(file.content.length + 1000), random.below(3 << 20)];
      const bytes = bytesOf((out) => reader.read(file.id, offset, out), length);
      assertPart(t, bytes, { file, offset, length });
    }
    const whole = { file, offset: 0, length: file.content.length };
    assertPart(t, Buffer.concat([...reader.pieces(file.id)]), whole);
  }
});

test('readNow() says slow of what would have to be inflated for long, and gives what is at hand', async (t) => {
  const files = await saveFiles(t);
  const { medium, small } = files;
  const reader = readerOf(t, files);
  const [first, second] = medium.chunks;
  t.true((first?.sizeBytes ?? 0) > SLOW_CHUNK_BYTES_MIN);
  t.deepEqual(
    bytesOf((out) => reader.readNow(small.id, 0, out), 9000),
    small.content,
  );
  t.is(
    bytesOf((out) => reader.readNow(medium.id, 0, out), 100),
    'slow',
  );
  reader.read(medium.id, 0, Buffer.alloc(1));
  t.deepEqual(
    bytesOf((out) => reader.readNow(medium.id, 7, out), 100),
    partOf(medium, 7, 100),
  );
  const end = second?.fileOffset ?? 0;
  t.is(
    bytesOf((out) => reader.readNow(medium.id, end - 10, out), 20),
    'slow',
    'half of it is not at hand',
  );
  t.deepEqual(
    bytesOf((out) => reader.readNow(medium.id, medium.content.length, out), 20),
    Buffer.alloc(0),
  );
});

test('read() and readNow() take a large file from its verified copy, and do without any other', async (t) => {
  const files = await saveFiles(t);
  const { large } = files;
  const cache = newCache(t);
  const reader = readerOf(t, files, cache);
  t.is(
    bytesOf((out) => reader.readNow(large.id, 0, out), 100),
    'slow',
  );
  await keep(cache, large.content);
  damage(large, large.chunks[3]);
  const offset = (large.chunks[3]?.fileOffset ?? 0) - 50;
  t.deepEqual(
    bytesOf((out) => reader.readNow(large.id, offset, out), 100),
    partOf(large, offset, 100),
  );
  t.deepEqual(
    bytesOf((out) => reader.read(large.id, offset, out), 100),
    partOf(large, offset, 100),
  );
  const end = large.content.length - 10;
  t.deepEqual(
    bytesOf((out) => reader.readNow(large.id, end, out), 100),
    partOf(large, end, 100),
  );
  touch(cache.path(large.digest));
  t.is(
    bytesOf((out) => reader.readNow(large.id, offset, out), 100),
    'slow',
    'nobody has verified it since',
  );
  t.throws(() => reader.read(large.id, offset, Buffer.alloc(100)), { code: 'DIGEST_MISMATCH' });
});

test('read() of a large file whose copy was changed gives the bytes of the layer', async (t) => {
  const files = await saveFiles(t);
  const { large } = files;
  const cache = newCache(t);
  const reader = readerOf(t, files, cache);
  await keep(cache, large.content);
  flipByteAt(cache.path(large.digest), 500, large.content[500] ?? 0);
  t.deepEqual(
    bytesOf((out) => reader.read(large.id, 450, out), 100),
    partOf(large, 450, 100),
  );
});

test('read() of a damaged chunk names the layer, the place and the file; everything else is read well', async (t) => {
  const files = await saveFiles(t);
  const { large, medium, small } = files;
  const chunk = medium.chunks[1];
  damage(medium, chunk);
  const reader = readerOf(t, files);
  for (const read of [() => reader.read(medium.id, 1 << 20, Buffer.alloc(10)), () => [...reader.pieces(medium.id)]]) {
    const error = t.throws(read, { instanceOf: BentoError });
    t.true(['DIGEST_MISMATCH', 'FORMAT_INVALID'].includes(error.code));
    const at = `layer ${medium.layer} at byte ${chunk?.blobOffset ?? ''} (medium.bin)`;
    t.is(error.message, `blob integrity check failed: ${at}`);
  }
  const before = { file: medium, offset: 0, length: 1 << 20 };
  const whole = [large, small].map((file) => ({ file, offset: 0, length: file.content.length }));
  for (const part of [before, ...whole]) {
    const bytes = bytesOf((out) => reader.read(part.file.id, 0, out), part.length);
    assertPart(t, bytes, part);
  }
});
