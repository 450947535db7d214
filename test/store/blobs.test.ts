import { existsSync, readdirSync, statSync } from 'node:fs';
import { chmod, readFile, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { BlobIngest } from '../../store/blob-ingest.ts';
import { BlobPool } from '../../store/blobs.ts';
import { digestOf, hexOf, type Digest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { newFolder } from '../fixtures/workspaces.ts';

const HELLO = Buffer.from('hello\n');
/** As sha256sum(1) prints it. */
const HELLO_HEX = '5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03';

function newPool(t: ExecutionContext): BlobPool {
  return new BlobPool(newFolder(t));
}

/** Flips one bit where the blob lies. */
async function damage(pool: BlobPool, digest: Digest, at = 0): Promise<void> {
  const path = pool.path(digest);
  const bytes = await readFile(path);
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
  await chmod(path, 0o644);
  await writeFile(path, bytes);
}

async function drain(pieces: AsyncIterable<Buffer>): Promise<Buffer> {
  const all: Buffer[] = [];
  for await (const piece of pieces) all.push(piece);
  return Buffer.concat(all);
}

test('put() stores bytes under the digest that sha256sum gives them, read-only', async (t) => {
  const pool = newPool(t);
  const { digest, size } = await pool.put(HELLO);
  t.is(digest, `sha256:${HELLO_HEX}`);
  t.is(size, 6);
  t.deepEqual(readdirSync(pool.dir), [HELLO_HEX]);
  t.is(statSync(pool.path(digest)).mode & 0o777, 0o444);
  t.deepEqual(await pool.read({ digest }, 100), HELLO);
  t.deepEqual(await drain(pool.stream({ digest })), HELLO);
});

test('put() stores a view of a larger buffer, not the buffer', async (t) => {
  const pool = newPool(t);
  const { digest } = await pool.put(new Uint8Array(Buffer.from('xxhello\nxx')).subarray(2, 8));
  t.is(hexOf(digest), HELLO_HEX);
  t.deepEqual(await pool.read({ digest }, 100), HELLO);
});

test('put() of the same content leaves the file alone that is there', async (t) => {
  const pool = newPool(t);
  const { digest } = await pool.put(HELLO);
  const before = statSync(pool.path(digest));
  t.deepEqual(await pool.put(HELLO), { digest, size: 6 });
  t.is(statSync(pool.path(digest)).ino, before.ino);
  t.is(readdirSync(pool.dir).length, 1);
});

test('put() replaces a blob that was cut off', async (t) => {
  const pool = newPool(t);
  const { digest } = await pool.put(HELLO);
  await chmod(pool.path(digest), 0o644);
  await writeFile(pool.path(digest), 'hel');
  await pool.put(HELLO);
  t.deepEqual(await pool.read({ digest }, 100), HELLO);
});

test('put() keeps the empty blob too', async (t) => {
  const pool = newPool(t);
  const { digest } = await pool.put(Buffer.alloc(0));
  t.is(hexOf(digest), 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
  t.true(await pool.has(digest));
  t.is((await pool.read({ digest }, 0)).length, 0);
});

test('read() and stream() refuse a blob with a flipped bit', async (t) => {
  const pool = newPool(t);
  const { digest } = await pool.put(HELLO);
  await damage(pool, digest, 3);
  const expected = { instanceOf: BentoError, code: 'DIGEST_MISMATCH', message: new RegExp(HELLO_HEX) };
  await t.throwsAsync(pool.read({ digest }, 100), expected);
  await t.throwsAsync(drain(pool.stream({ digest })), expected);
});

test('stream() refuses a blob that was cut off, after the last piece', async (t) => {
  const pool = newPool(t);
  const bytes = Buffer.alloc(3 << 20, 'abc');
  const { digest } = await pool.put(bytes);
  await chmod(pool.path(digest), 0o644);
  await writeFile(pool.path(digest), bytes.subarray(0, -1));
  let readBytes = 0;
  const readAll = async (): Promise<void> => {
    for await (const piece of pool.stream({ digest })) readBytes += piece.length;
  };
  await t.throwsAsync(readAll(), { code: 'DIGEST_MISMATCH' });
  t.is(readBytes, bytes.length - 1);
});

test('a missing blob is BLOB_MISSING by every way to read it', async (t) => {
  const pool = newPool(t);
  const digest = digestOf('nobody stored this');
  t.false(await pool.has(digest));
  t.is(await pool.sizeOf(digest), undefined);
  const expected = { instanceOf: BentoError, code: 'BLOB_MISSING', message: new RegExp(digest) };
  await t.throwsAsync(pool.read({ digest }, 100), expected);
  await t.throwsAsync(drain(pool.stream({ digest })), expected);
  t.throws(() => pool.open(digest), expected);
});

test('read() takes a blob of exactly the limit and refuses one byte more', async (t) => {
  const pool = newPool(t);
  const { digest } = await pool.put(HELLO);
  t.deepEqual(await pool.read({ digest }, 6), HELLO);
  await t.throwsAsync(pool.read({ digest }, 5), { code: 'FORMAT_INVALID', message: /6 bytes, limit 5/ });
});

test('open() reads any part, and says so when the blob ends before', async (t) => {
  const pool = newPool(t);
  const { digest } = await pool.put(HELLO);
  const blob = pool.open(digest);
  t.teardown(() => blob.close());
  t.is(blob.sizeBytes, 6);
  t.is((await blob.readAt(1, 3)).toString(), 'ell');
  t.is((await blob.readAt(6, 0)).length, 0);
  await t.throwsAsync(blob.readAt(4, 3), { code: 'FORMAT_INVALID', message: /ends before byte 7/ });
});

test('a blob being ingested is invisible before commit() and whole after it', async (t) => {
  const root = newFolder(t);
  const pool = new BlobPool(root);
  const ingestDir = join(root, 'ws', 'ingest');
  const digest = digestOf(HELLO);
  const ingest = await BlobIngest.create(pool, ingestDir);
  await ingest.write(HELLO.subarray(0, 2));
  await ingest.write(HELLO.subarray(2));
  t.false(await pool.has(digest));
  t.is(readdirSync(ingestDir).length, 1);
  await ingest.commit(digest);
  t.deepEqual(await pool.read({ digest }, 100), HELLO);
  await ingest.close();
  t.deepEqual(readdirSync(ingestDir), []);
  t.deepEqual(readdirSync(pool.dir), [HELLO_HEX]);
});

test('close() of an ingest leaves no litter, may come twice, and ends it', async (t) => {
  const root = newFolder(t);
  const pool = new BlobPool(root);
  const ingestDir = join(root, 'ws', 'ingest');
  const ingest = await BlobIngest.create(pool, ingestDir);
  await ingest.write(HELLO);
  await ingest.close();
  await ingest.close();
  t.deepEqual(readdirSync(ingestDir), []);
  t.deepEqual(readdirSync(pool.dir), []);
  await t.throwsAsync(ingest.write(HELLO), { instanceOf: TypeError });
  await t.throwsAsync(ingest.commit(digestOf(HELLO)), { instanceOf: TypeError });
});

test('an ingest that goes out of scope by an error leaves no litter', async (t) => {
  const root = newFolder(t);
  const pool = new BlobPool(root);
  const fail = async (): Promise<void> => {
    await using ingest = await BlobIngest.create(pool, join(root, 'ingest'));
    await ingest.write(HELLO);
    throw new Error('packing failed');
  };
  await t.throwsAsync(fail(), { message: 'packing failed' });
  t.deepEqual(readdirSync(join(root, 'ingest')), []);
});

test('several ingests of the same content at once leave one blob', async (t) => {
  const root = newFolder(t);
  const pool = new BlobPool(root);
  const bytes = Buffer.alloc(100_000, 'x');
  const digest = digestOf(bytes);
  const one = async (): Promise<void> => {
    await using ingest = await BlobIngest.create(pool, join(root, 'ingest'));
    await ingest.write(bytes);
    await ingest.commit(digest);
  };
  await Promise.all(Array.from({ length: 8 }, one));
  t.deepEqual(readdirSync(pool.dir), [hexOf(digest)]);
  t.deepEqual(readdirSync(join(root, 'ingest')), []);
  t.deepEqual(await pool.read({ digest }, bytes.length), bytes);
});

test('commit() brings back a blob that was deleted meanwhile', async (t) => {
  const pool = newPool(t);
  const { digest } = await pool.put(HELLO);
  await unlink(pool.path(digest));
  await pool.put(HELLO);
  t.true(existsSync(pool.path(digest)));
});
