import { copyFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

import test, { type ExecutionContext } from 'ava';

import { BoundedCache } from '../../../fs/contents/bounded-cache.ts';
import { ContentCache } from '../../../fs/contents/content-cache.ts';
import { ContentReader, layerFile, openLayer } from '../../../fs/contents/content-reader.ts';
import { LargeReader } from '../../../fs/contents/large-reader.ts';
import { ResumedLayers } from '../../../fs/contents/resumed-layers.ts';
import { openTree, readLayer, type TreeSource } from '../../../fs/tree/index-checkpoint.ts';
import { indexLayer } from '../../../index/layer-index.ts';
import { numberOf } from '../../../index/rows.ts';
import type { BlobFile } from '../../../store/blob-file.ts';
import type { Checkpoint } from '../../../store/checkpoint.ts';
import { digestOf, type Digest } from '../../../store/digest.ts';
import type { Chunk } from '../../../store/entry.ts';
import { resumePath } from '../../../store/layers/resume-points.ts';
import { encodeTarHeader } from '../../../store/layers/tar-header.ts';
import { Random } from '../../fixtures/random.ts';
import { newFolder, newSource } from '../../fixtures/workspaces.ts';
import { entryOf, noise } from '../../store/layers/layer-fixtures.ts';
import { content } from './large-fixtures.ts';

const MIB = 1 << 20;
/** Two large files, and small ones between them: 8 MiB in two members. */
const CONTENTS = new Map<string, Buffer>([
  ['a-large', content(3 * MIB + 777, 1)],
  ...Array.from({ length: 40 }, (_, i): [string, Buffer] => [`small-${i}`, noise(20_000 + i, i)]),
  ['z-large', Buffer.concat([noise(2 * MIB, 50), content(2 * MIB, 51)])],
]);
const TAR = Buffer.concat([
  ...[...CONTENTS].flatMap(([name, bytes]) => [
    encodeTarHeader(entryOf(name, 'file', { sizeBytes: bytes.length })),
    bytes,
    Buffer.alloc(-bytes.length & 511),
  ]),
  Buffer.alloc(1024),
]);
const BLOB = Buffer.concat([gzipSync(TAR.subarray(0, 5_000_000)), gzipSync(TAR.subarray(5_000_000))]);

interface Foreign {
  source: TreeSource;
  digest: Digest;
  points: string;
  ids: Map<string, number>;
}

async function newForeign(t: ExecutionContext): Promise<Foreign> {
  const source = await newSource(t);
  const { digest, size } = await source.store.blobs.put(BLOB);
  const layer = await readLayer(source.store, layerOf(digest, size));
  indexLayer(source.index, layer);
  const indexed = source.entries.layer(digest);
  if (indexed === undefined) throw new Error('it is not indexed');
  const ids = source.entries.children(source.entries.root(indexed).id).map(({ id }): [string, number] => {
    return [source.entries.path(source.entries.get(id)), id];
  });
  return { source, digest, points: resumePath(source.store.cacheDir, digest), ids: new Map(ids) };
}

function layerOf(digest: Digest, size: number): Checkpoint['layers'][number] {
  const descriptor = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest, size };
  return { title: 'project', descriptor, diffId: digestOf(TAR), fileCount: CONTENTS.size };
}

function contentReader(t: ExecutionContext, { source }: Foreign): ContentReader {
  const reader = new ContentReader(source.store, source.entries);
  t.teardown(() => reader.close());
  return reader;
}

function largeReader(t: ExecutionContext, { source }: Foreign): LargeReader {
  const cache = new ContentCache(join(newFolder(t), 'cache'), { capBytes: 1 << 30 });
  const reader = new LargeReader(source.store, source.entries, cache, { onFilled: () => undefined, onNote: t.log });
  t.teardown(() => reader.close());
  return reader;
}

function* randomReads({ ids }: Foreign, count: number): Generator<{ id: number; offset: number; bytes: Buffer }> {
  const random = new Random(count);
  for (let i = 0; i < count; i += 1) {
    const [name, whole] = random.pick([...CONTENTS]);
    const offset = random.below(whole.length);
    yield { id: ids.get(name) ?? 0, offset, bytes: whole.subarray(offset, offset + random.below(2 * MIB)) };
  }
}

test('a foreign compressed layer is read at random, by either reader, and nothing of it is unpacked', async (t) => {
  const foreign = await newForeign(t);
  const [reader, large] = [contentReader(t, foreign), largeReader(t, foreign)];
  for (const { id, offset, bytes } of randomReads(foreign, 60)) {
    const out = Buffer.alloc(bytes.length);
    t.is(reader.read(id, offset, out), bytes.length);
    t.true(out.equals(bytes));
    t.true((await large.read(id, offset, bytes.length)).equals(bytes));
  }
  const reads = [...randomReads(foreign, 41)];
  const found = await Promise.all(
    reads.map(async ({ id, offset, bytes }) => await large.read(id, offset, bytes.length)),
  );
  t.true(
    found.every((bytes, at) => bytes.equals(reads[at]?.bytes ?? bytes)),
    'many at once',
  );
  for (const [name, id] of foreign.ids) t.true(Buffer.concat([...reader.pieces(id)]).equals(CONTENTS.get(name) ?? TAR));
  t.deepEqual(
    readdirSync(foreign.source.store.cacheDir).filter((name) => !name.startsWith('index.')),
    ['resume'],
  );
  t.true(readFileSync(foreign.points).length < TAR.length / 25);
});

test('readNow() of a foreign compressed layer is slow until its span is at hand, for neighbours too', async (t) => {
  const foreign = await newForeign(t);
  const reader = contentReader(t, foreign);
  const [first, second] = [foreign.ids.get('small-1') ?? 0, foreign.ids.get('small-2') ?? 0];
  const out = Buffer.alloc(100);
  t.is(reader.readNow(first, 0, out), 'slow');
  reader.read(first, 0, out);
  t.is(reader.readNow(first, 0, out), 100);
  t.is(reader.readNow(second, 0, out), 100, 'it lies in the same span');
  t.true(out.equals(CONTENTS.get('small-2')?.subarray(0, 100) ?? TAR));
});

/** Counts what is read of a blob. */
class CountingFile implements BlobFile {
  readBytes = 0;
  readonly #file: BlobFile;

  constructor(file: BlobFile) {
    this.#file = file;
  }

  get digest(): Digest {
    return this.#file.digest;
  }

  get sizeBytes(): number {
    return this.#file.sizeBytes;
  }

  get fileCount(): number {
    return this.#file.fileCount;
  }

  isHere(offset: number, lengthBytes: number): boolean {
    return this.#file.isHere(offset, lengthBytes);
  }

  ranges(offset: number, lengthBytes: number): ReturnType<BlobFile['ranges']> {
    this.readBytes += lengthBytes;
    return this.#file.ranges(offset, lengthBytes);
  }

  ownRange(offset: number, lengthBytes: number): ReturnType<BlobFile['ownRange']> {
    return this.#file.ownRange(offset, lengthBytes);
  }

  close(): void {
    this.#file.close();
  }
}

test('reading a foreign compressed layer in order reads and inflates each of its bytes once', async (t) => {
  const { source, ids } = await newForeign(t);
  for (const isAsync of [false, true]) {
    const inflated = new BoundedCache<string, Buffer>({ weightMax: 4 * MIB, weigh: (bytes) => bytes.length });
    const layers = new ResumedLayers(inflated);
    const open = openLayer(layerFile(source.store, source.entries, numberOf([...ids.values()][0] ?? 0)));
    const blob = new CountingFile(open.blob);
    t.teardown(() => blob.close());
    const chunks = [...ids.values()].flatMap((id) => source.entries.chunks(id)).sort(byOffset);
    for (const chunk of chunks) {
      const bytes = isAsync
        ? await layers.readAsync(source.store, { ...open, blob }, chunk)
        : layers.read({ ...open, blob }, chunk);
      t.is(digestOf(bytes), chunk.digest);
    }
    // The byte in which two spans meet is read for both.
    t.true(blob.readBytes <= BLOB.length + chunks.length, `${blob.readBytes} bytes of ${BLOB.length}`);
  }
});

function byOffset(a: Chunk, b: Chunk): number {
  return a.blobOffset - b.blobOffset;
}

test('missing or damaged resume points are made anew by whoever needs them', async (t) => {
  const foreign = await newForeign(t);
  const { source, points, digest } = foreign;
  const whole = readFileSync(points);
  const id = foreign.ids.get('small-7') ?? 0;
  const expected = CONTENTS.get('small-7') ?? TAR;
  const damaged = Buffer.from(whole);
  damaged.fill(0x77, 0, whole.length - 1000); // records, not the table
  for (const spoil of [() => rmSync(points), () => writeFileSync(points, damaged), () => writeFileSync(points, '')]) {
    const [before, large] = [contentReader(t, foreign), largeReader(t, foreign)];
    spoil();
    const reader = contentReader(t, foreign);
    t.is(reader.readNow(id, 0, Buffer.alloc(10)), 'slow');
    const out = Buffer.alloc(1000);
    t.is(reader.read(id, 3, out), 1000);
    t.true(out.equals(expected.subarray(3, 1003)));
    t.true(readFileSync(points).equals(whole));
    spoil();
    const reads = await Promise.all([0, 5].map(async (offset) => await large.read(id, offset, 1000)));
    t.deepEqual(reads, [expected.subarray(0, 1000), expected.subarray(5, 1005)]);
    t.true(readFileSync(points).equals(whole));
    for (const one of [before, reader]) t.is(one.read(id, 0, Buffer.alloc(10)), 10);
  }
  rmSync(points);
  const { size } = await source.store.blobs.put(BLOB);
  await openTree(source, { digest: digestOf('a manifest'), layers: [layerOf(digest, size)] } as unknown as Checkpoint);
  t.true(readFileSync(points).equals(whole), 'openTree() does, too');
});

test('points that vanish while a mount is served, and are needed, make a read slow and not fail', async (t) => {
  const foreign = await newForeign(t);
  const reader = contentReader(t, foreign);
  const [here, there] = [foreign.ids.get('a-large') ?? 0, foreign.ids.get('z-large') ?? 0];
  reader.read(here, 0, Buffer.alloc(10));
  const kept = `${foreign.points}.kept`;
  copyFileSync(foreign.points, kept);
  rmSync(foreign.points);
  t.is(reader.readNow(here, 0, Buffer.alloc(10)), 10);
  t.is(reader.readNow(there, 0, Buffer.alloc(10)), 'slow');
  copyFileSync(kept, foreign.points);
  t.is(reader.read(there, 0, Buffer.alloc(10)), 10);
});

test('a damaged foreign layer is said to be, by layer and path', async (t) => {
  const foreign = await newForeign(t);
  const blob = foreign.source.store.blobs.path(foreign.digest);
  const damaged = Buffer.from(BLOB);
  damaged.fill(0x99, BLOB.length >> 1, (BLOB.length >> 1) + 300_000);
  rmSync(blob);
  writeFileSync(blob, damaged);
  const [reader, large] = [contentReader(t, foreign), largeReader(t, foreign)];
  const id = foreign.ids.get('z-large') ?? 0;
  const expected = { message: new RegExp(`${foreign.digest}.*z-large`) };
  t.throws(() => [...reader.pieces(id)], expected);
  await t.throwsAsync(large.read(id, 0, 4 * MIB), expected);
  rmSync(blob);
  t.throws(() => contentReader(t, foreign).read(id, 0, Buffer.alloc(10)), { code: 'BLOB_MISSING' });
});
