import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';

import test, { type ExecutionContext } from 'ava';

import { openBlobFile } from '../../store/blob-file.ts';
import { BlobIngest } from '../../store/blob-ingest.ts';
import { BlobPool } from '../../store/blobs.ts';
import { digestOf, type Digest } from '../../store/digest.ts';
import { readBlob, readBlobSync } from '../../store/read-blob.ts';
import { Random } from '../fixtures/random.ts';
import { newFolder } from '../fixtures/workspaces.ts';
import { ingestParts, readAll, thinFileOf, type Part } from './thin-fixtures.ts';

const MIB = 1 << 20;

interface Thin {
  pool: BlobPool;
  base: Digest;
  /** From the base but for the middle, and a few bytes around. */
  thin: Digest;
  bytes: Buffer;
}

async function newThin(t: ExecutionContext): Promise<Thin> {
  const pool = new BlobPool(newFolder(t));
  const { digest: base } = await pool.put(randomBytes(4 * MIB));
  const parts: Part[] = [
    Buffer.from('before'),
    { digest: base, offset: 100, lengthBytes: 2 * MIB },
    randomBytes(1000),
    { digest: base, offset: 3 * MIB, lengthBytes: MIB },
    Buffer.from('after'),
  ];
  const { digest: thin, bytes } = await ingestParts(pool, parts);
  t.true(await pool.isThin(thin));
  return { pool, base, thin, bytes };
}

test('a thin blob reads at any offset as the blob that it is, at once and on a thread', async (t) => {
  const { pool, thin, bytes } = await newThin(t);
  const file = openBlobFile(pool.storeRoot, thin);
  const random = new Random(1);
  t.is(file.sizeBytes, bytes.length);
  for (let i = 0; i < 200; i += 1) {
    const offset = i % 2 === 0 ? random.below(bytes.length) : Math.max(2 * MIB - 500 + random.below(2000), 0);
    const into = Buffer.alloc(Math.min(random.below(i % 5 === 0 ? 3 * MIB : 2000), bytes.length - offset));
    t.is(readBlobSync(file, offset, into), into.length);
    t.is(Buffer.compare(into, bytes.subarray(offset, offset + into.length)), 0, `${into.length} at ${offset}`);
    into.fill(0);
    t.is(await readBlob(file, offset, into), into.length);
    t.is(Buffer.compare(into, bytes.subarray(offset, offset + into.length)), 0, `${into.length} at ${offset}`);
  }
  t.throws(() => readBlobSync(file, bytes.length - 1, Buffer.alloc(2)), { code: 'FORMAT_INVALID', message: /ends/ });
  file.close();
});

test('a thin blob is there as any other: size, stream, parts, and a second time it is not written', async (t) => {
  const { pool, base, thin, bytes } = await newThin(t);
  t.true(await pool.has(thin));
  t.is(await pool.sizeOf(thin), bytes.length);
  t.is(Buffer.compare(await readAll(pool, thin), bytes), 0);
  const blob = pool.open(thin);
  t.deepEqual(await blob.readAt(2 * MIB, 2000), bytes.subarray(2 * MIB, 2 * MIB + 2000));
  blob.close();
  const { path, sizeBytes } = thinFileOf(pool, thin);
  t.true(sizeBytes < 2000, `${sizeBytes} bytes`);
  t.is(statSync(path).mode & 0o777, 0o444);
  t.is(await pool.storedSizeOf(thin), sizeBytes);
  t.deepEqual(await pool.basesOf(thin), [base]);
  t.deepEqual(await pool.list(), [base, thin].sort());
  const { ino } = statSync(path);
  const again = await ingestParts(pool, [
    bytes.subarray(0, 6),
    { digest: base, offset: 100, lengthBytes: MIB },
    bytes.subarray(6 + MIB),
  ]);
  t.is(again.digest, thin);
  t.is(again.storedBytes, sizeBytes);
  t.is(statSync(path).ino, ino);
  t.deepEqual(readdirSync(pool.thinDir), [thin.slice(7)], 'nothing else is left');
});

test('without its base a thin blob keeps what it holds itself, and names what is missing', async (t) => {
  const { pool, base, thin, bytes } = await newThin(t);
  rmSync(pool.path(base));
  const file = openBlobFile(pool.storeRoot, thin);
  const own = Buffer.alloc(1000);
  readBlobSync(file, 6 + 2 * MIB, own);
  t.deepEqual(own, bytes.subarray(6 + 2 * MIB, 6 + 2 * MIB + 1000));
  t.throws(() => readBlobSync(file, 0, Buffer.alloc(7)), { code: 'BLOB_MISSING', message: new RegExp(base) });
  file.close();
  await t.throwsAsync(readAll(pool, thin), { code: 'BLOB_MISSING', message: new RegExp(base) });
});

test('a flipped byte in a base, or among the literals, is noticed by whoever reads it all', async (t) => {
  for (const kind of ['base', 'literal'] as const) {
    const { pool, base, thin } = await newThin(t);
    const path = kind === 'base' ? pool.path(base) : thinFileOf(pool, thin).path;
    const bytes = kind === 'base' ? await readAll(pool, base) : thinFileOf(pool, thin).bytes;
    const at = kind === 'base' ? MIB : 3;
    bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
    chmodSync(path, 0o644);
    writeFileSync(path, bytes);
    await t.throwsAsync(readAll(pool, thin), { code: 'DIGEST_MISMATCH', message: new RegExp(thin) }, kind);
    await t.throwsAsync(pool.makeWhole(thin), { code: 'DIGEST_MISMATCH' });
    t.true(await pool.isThin(thin), 'the recipe stays');
  }
});

test('a base that is cut off is an error, not other bytes', async (t) => {
  const { pool, base, thin } = await newThin(t);
  chmodSync(pool.path(base), 0o644);
  writeFileSync(pool.path(base), (await readAll(pool, base)).subarray(0, 3 * MIB + 5));
  await t.throwsAsync(readAll(pool, thin), { code: 'FORMAT_INVALID', message: /ends before/ });
});

test('a recipe may take what another holds itself, and nothing that lies elsewhere again', async (t) => {
  const { pool, base, thin } = await newThin(t);
  const own = 6 + 2 * MIB;
  const fine = await ingestParts(pool, [
    { digest: base, offset: 0, lengthBytes: MIB },
    { digest: thin, offset: own + 10, lengthBytes: 900 },
    Buffer.from('and this'),
  ]);
  t.is(Buffer.compare(await readAll(pool, fine.digest), fine.bytes), 0);
  const chained = await ingestParts(pool, [{ digest: thin, offset: 6, lengthBytes: 2 * MIB }, Buffer.from('x')]);
  await t.throwsAsync(readAll(pool, chained.digest), { code: 'FORMAT_INVALID', message: /does not hold bytes/ });
  t.true(await pool.makeWhole(thin));
  t.is(Buffer.compare(await readAll(pool, fine.digest), fine.bytes), 0, 'the same bytes under the same name');
  t.is(Buffer.compare(await readAll(pool, chained.digest), chained.bytes), 0);
});

test('makeWhole() gives a thin blob a file of its own and takes the recipe away', async (t) => {
  const { pool, base, thin, bytes } = await newThin(t);
  const before = openBlobFile(pool.storeRoot, thin);
  t.true(await pool.makeWhole(thin));
  t.false(await pool.isThin(thin));
  t.deepEqual(readdirSync(pool.thinDir), []);
  t.deepEqual(readdirSync(pool.dir).sort(), [base.slice(7), thin.slice(7)].sort());
  rmSync(pool.path(base));
  t.is(Buffer.compare(await readAll(pool, thin), bytes), 0);
  const into = Buffer.alloc(3);
  readBlobSync(before, 6 + 2 * MIB, into);
  t.deepEqual(into, bytes.subarray(6 + 2 * MIB, 9 + 2 * MIB), 'whoever had it open reads on');
  before.close();
  t.false(await pool.makeWhole(thin), 'a second time there is nothing to do');
});

test('commit() writes a file of its own when a recipe saves too little, or none is wanted', async (t) => {
  const pool = new BlobPool(newFolder(t));
  const { digest } = await pool.put(randomBytes(3 * MIB));
  const lengthBytes = MIB - 1;
  const little = await ingestParts(pool, [{ digest, offset: 7, lengthBytes }, Buffer.from('little')]);
  const part = await ingestParts(pool, [{ digest, offset: 7, lengthBytes: MIB }, randomBytes(MIB + 1)]);
  const whole: Part[] = [Buffer.from('x'), { digest, offset: 0, lengthBytes: 2 * MIB }, Buffer.from('y')];
  const unwanted = await ingestParts(pool, whole, { mayBeThin: false });
  for (const blob of [little, part, unwanted]) {
    t.false(await pool.isThin(blob.digest));
    t.is(blob.storedBytes, blob.bytes.length);
    t.is(Buffer.compare(await readAll(pool, blob.digest), blob.bytes), 0);
  }
  t.false(existsSync(pool.thinDir));
});

test('commit() in whole takes the place of a recipe', async (t) => {
  const { pool, thin, bytes } = await newThin(t);
  await ingestParts(pool, [bytes], { mayBeThin: false });
  t.false(await pool.isThin(thin));
  t.deepEqual(readdirSync(pool.thinDir), []);
});

test('rewind() takes back references, too', async (t) => {
  const pool = new BlobPool(newFolder(t));
  const base = randomBytes(4 * MIB);
  const { digest } = await pool.put(base);
  await using ingest = await BlobIngest.create(pool, pool.dir, { mayBeThin: true });
  await ingest.write(Buffer.from('head'));
  await ingest.refer(base.subarray(0, MIB), { digest, offset: 0 });
  await ingest.refer(base.subarray(2 * MIB, 3 * MIB), { digest, offset: 2 * MIB });
  await ingest.rewind(4 + MIB);
  await ingest.write(Buffer.from('tail'));
  const bytes = Buffer.concat([Buffer.from('head'), base.subarray(0, MIB), Buffer.from('tail')]);
  await ingest.commit(digestOf(bytes));
  t.is(Buffer.compare(await readAll(pool, digestOf(bytes)), bytes), 0);
  t.true(await pool.isThin(digestOf(bytes)));
});

test('commit() notices that a base is not any more what was seen of it', async (t) => {
  const pool = new BlobPool(newFolder(t));
  const base = randomBytes(MIB);
  const { digest } = await pool.put(base);
  await using ingest = await BlobIngest.create(pool, pool.dir, { mayBeThin: true });
  await ingest.refer(base.subarray(0, 5000), { digest, offset: 0 });
  chmodSync(pool.path(digest), 0o644);
  writeFileSync(pool.path(digest), randomBytes(MIB));
  await t.throwsAsync(ingest.commit(digestOf(base.subarray(0, 5000))), { code: 'DIGEST_MISMATCH' });
});

test('a damaged recipe is replaced when its blob is stored again', async (t) => {
  const { pool, base, thin, bytes } = await newThin(t);
  const { path } = thinFileOf(pool, thin);
  chmodSync(path, 0o644);
  writeFileSync(path, 'no recipe');
  await t.throwsAsync(readAll(pool, thin), { code: 'FORMAT_INVALID', message: /recipe of thin blob/ });
  const parts: Part[] = [
    bytes.subarray(0, 6),
    { digest: base, offset: 100, lengthBytes: 2 * MIB },
    bytes.subarray(6 + 2 * MIB),
  ];
  t.is((await ingestParts(pool, parts)).digest, thin);
  t.is(Buffer.compare(await readAll(pool, thin), bytes), 0);
});
