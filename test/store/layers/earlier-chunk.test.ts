import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';

import test, { type ExecutionContext } from 'ava';

import { openBlobFile, type BlobFile } from '../../../store/blob-file.ts';
import { BlobIngest } from '../../../store/blob-ingest.ts';
import { BlobPool } from '../../../store/blobs.ts';
import type { Chunk, PackedEntry } from '../../../store/entry.ts';
import { reusableMember, sameBytes, type EarlierContent } from '../../../store/layers/earlier-chunk.ts';
import { gunzipMemberSync, gzipChunkSync, gzipMemberSync, SEGMENT_BYTES } from '../../../store/layers/gzip-member.ts';
import { readChunk } from '../../../store/layers/layer-reader.ts';
import { LayerWriter, type PackedLayer } from '../../../store/layers/layer-writer.ts';
import type { PackPool } from '../../../store/layers/pack-pool.ts';
import { CHUNK_BYTES } from '../../../store/layers/toc.ts';
import { newFolder } from '../../fixtures/workspaces.ts';
import { entryOf, INLINE, threads } from './layer-fixtures.ts';

interface Stored {
  layer: PackedLayer;
  chunks: Chunk[];
  storedBytes: number;
}

/** Packs one file into a layer of a pool, with what it was before if that is given. */
async function store(
  pool: BlobPool,
  content: Buffer,
  { before, workers = INLINE }: { before?: Stored; workers?: PackPool } = {},
): Promise<Stored> {
  await using ingest = await BlobIngest.create(pool, pool.dir, { mayBeThin: true });
  const chunks: Chunk[] = [];
  const onEntry = (entry: PackedEntry): void => void chunks.push(...entry.chunks);
  await using writer = await LayerWriter.create(ingest, { pool: workers, onEntry });
  const blob = before && openBlobFile(pool.storeRoot, before.layer.digest);
  try {
    const earlier = before && blob && earlierOf(blob, before.chunks);
    await writer.add(entryOf('file', 'file', { sizeBytes: content.length }), { read: () => [content], earlier });
    const layer = await writer.finish();
    return { layer, chunks, storedBytes: await ingest.commit(layer.digest) };
  } finally {
    blob?.close();
  }
}

function earlierOf(blob: BlobFile, chunks: readonly Chunk[]): EarlierContent {
  return {
    chunkAt: (fileOffset) => {
      const chunk = chunks.find((one) => one.fileOffset === fileOffset);
      return chunk && { ...chunk, ranges: blob.ranges(chunk.blobOffset, chunk.blobBytes) };
    },
  };
}

async function assertHolds(
  t: ExecutionContext,
  pool: BlobPool,
  { layer, chunks }: Stored,
  content: Buffer,
): Promise<void> {
  for await (const _piece of pool.stream({ digest: layer.digest })); // verified
  const blob = pool.open(layer.digest);
  for (const chunk of chunks) {
    const expected = content.subarray(chunk.fileOffset, chunk.fileOffset + chunk.sizeBytes);
    t.is(Buffer.compare(await readChunk(blob, chunk), expected), 0);
  }
  blob.close();
}

function edited(content: Buffer, at: number, bytes = randomBytes(4096)): Buffer {
  const copy = Buffer.from(content);
  bytes.copy(copy, at);
  return copy;
}

/** Compresses to about two thirds. */
function text(length: number): Buffer {
  return Buffer.from(randomBytes(length).toString('base64').slice(0, length));
}

const MIB = 1 << 20;

for (const [kind, make] of [
  ['random bytes', randomBytes],
  ['text', text],
] as const) {
  test(`a changed file of ${kind} gives the same layer as if it were new, and keeps only what changed`, async (t) => {
    const [pool, apart] = [new BlobPool(newFolder(t)), new BlobPool(newFolder(t))];
    const content = make(6 * MIB + 12_345);
    const before = await store(pool, content);
    const cases: [string, Buffer, number][] = [
      ['4 KiB in the middle', edited(content, 2.5 * MIB), 2 * SEGMENT_BYTES],
      ['4 KiB over the end of a chunk', edited(content, 3 * MIB - 2048), 3 * SEGMENT_BYTES],
      ['the first byte', edited(content, 0, Buffer.from('?')), 2 * SEGMENT_BYTES],
      ['the last byte', edited(content, content.length - 1, Buffer.from('?')), 2 * SEGMENT_BYTES],
      ['more at the end', Buffer.concat([content, make(200_000)]), 3.5 * SEGMENT_BYTES],
      ['less at the end', content.subarray(0, 5 * MIB), 10_000],
    ];
    for (const [title, now, storedMax] of cases) {
      const fresh = await store(apart, now);
      for (const workers of [INLINE, threads(t)]) {
        const stored = await store(pool, now, { before, workers });
        t.deepEqual(stored.layer, fresh.layer, title);
        t.deepEqual(stored.chunks, fresh.chunks, title);
        t.true(stored.storedBytes < storedMax, `${title}: ${stored.storedBytes} bytes`);
        await assertHolds(t, pool, stored, now);
      }
    }
  });
}

test('bytes that moved within a file are stored whole', async (t) => {
  const pool = new BlobPool(newFolder(t));
  const content = randomBytes(3 * MIB);
  const before = await store(pool, content);
  const now = Buffer.concat([Buffer.from('inserted'), content]);
  const stored = await store(pool, now, { before });
  t.false(await pool.isThin(stored.layer.digest));
  await assertHolds(t, pool, stored, now);
});

test('one edit after the other costs what each of them changed: recipes name what recipes hold', async (t) => {
  const pool = new BlobPool(newFolder(t));
  let content: Buffer = randomBytes(5 * MIB);
  let before = await store(pool, content);
  const contents: [Stored, Buffer][] = [];
  for (let i = 0; i < 8; i += 1) {
    content = edited(content, i * 600_000);
    before = await store(pool, content, { before });
    t.true(before.storedBytes < 3 * SEGMENT_BYTES + 10_000, `edit ${i}: ${before.storedBytes} bytes`);
    contents.push([before, content]);
  }
  for (const [stored, bytes] of contents) await assertHolds(t, pool, stored, bytes);
});

test('a damaged earlier layer does no harm: its bytes are compared, never believed', async (t) => {
  const pool = new BlobPool(newFolder(t));
  const content = randomBytes(4 * MIB);
  const before = await store(pool, content);
  const path = pool.path(before.layer.digest);
  const bytes = readFileSync(path);
  const [first, second] = before.chunks;
  for (const at of [(first?.blobOffset ?? 0) + 700_000, (second?.blobOffset ?? 0) + 3])
    bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
  chmodSync(path, 0o644);
  writeFileSync(path, bytes);
  const now = edited(content, 3.5 * MIB);
  const stored = await store(pool, now, { before });
  await assertHolds(t, pool, stored, now);
  t.deepEqual(stored.layer, (await store(new BlobPool(newFolder(t)), now)).layer);
});

test('gzipChunkSync() makes members whose segments do not know of one another', (t) => {
  const content = text(MIB);
  const [a, b] = [gzipChunkSync(content), gzipChunkSync(edited(content, 300_000, Buffer.from('changed')))];
  t.deepEqual(gunzipMemberSync(a, { sizeMax: MIB }), content);
  const same = sameBytes(b, a);
  const sameTotal = same.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  t.true(sameTotal > a.length * 0.86, `${sameTotal} of ${a.length}`);
  for (const { at, from, lengthBytes } of same)
    t.deepEqual(b.subarray(at, at + lengthBytes), a.subarray(from, from + lengthBytes));
  t.deepEqual(gzipChunkSync(content.subarray(0, SEGMENT_BYTES)), gzipMemberSync(content.subarray(0, SEGMENT_BYTES)));
});

test('reusableMember() takes only what compressing would give now, whatever follows it', (t) => {
  const content = text(CHUNK_BYTES);
  const member = gzipChunkSync(content);
  t.deepEqual(reusableMember(Buffer.concat([member, gzipMemberSync(Buffer.from('next'))]), content), member);
  t.is(reusableMember(gzipMemberSync(content), content), undefined, 'compressed in one go');
  t.is(reusableMember(member, edited(content, 5)), undefined, 'of other bytes');
  t.is(reusableMember(member.subarray(0, -3), content), undefined, 'cut off');
  t.is(reusableMember(Buffer.from('no member'), content), undefined);
  const hinted = Buffer.from(member);
  hinted.writeUInt8(2, 8);
  t.is(reusableMember(hinted, content), undefined, 'with another header');
});
