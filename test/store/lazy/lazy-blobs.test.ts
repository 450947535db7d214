import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { openBlobFile } from '../../../store/blob-file.ts';
import { lazyPath, wholePath } from '../../../store/blob-paths.ts';
import type { Digest } from '../../../store/digest.ts';
import { BlobNotHere, LAZY_BLOCK_BYTES, LazyFile } from '../../../store/lazy-file.ts';
import { createLazyBlob, openLazyBlob, promoteLazyBlob, removeLazyBlob } from '../../../store/lazy/lazy-blobs.ts';
import { lazyDigests, readRecord } from '../../../store/lazy/lazy-record.ts';
import { readBlobSync } from '../../../store/read-blob.ts';
import { flock } from '../../../store/syscalls.ts';

const CONTENT = randomBytes(5 * LAZY_BLOCK_BYTES + 77);
const DIGEST: Digest = `sha256:${createHash('sha256').update(CONTENT).digest('hex')}`;
const SOURCE = { registry: 'ghcr.io', repository: 'me/ws', plainHttp: false };

async function begun(t: ExecutionContext): Promise<{ root: string; file: LazyFile }> {
  const root = mkdtempSync(path.join(tmpdir(), 'bento-lazy-'));
  t.teardown(() => rmSync(root, { recursive: true }));
  const blob = { digest: DIGEST, sizeBytes: CONTENT.length, source: SOURCE, fetchesRest: false };
  t.true(await createLazyBlob(root, blob));
  const file = await openLazyBlob(root, DIGEST);
  if (file === undefined) throw new Error('it was begun');
  return { root, file };
}

function writeBlocks(file: LazyFile, first: number, end: number): boolean {
  return file.write(first * LAZY_BLOCK_BYTES, CONTENT.subarray(first * LAZY_BLOCK_BYTES, end * LAZY_BLOCK_BYTES));
}

test('a blob is read where it is here, and what is missing is named', async (t) => {
  const { root, file } = await begun(t);
  t.true(writeBlocks(file, 1, 3));
  const read = openBlobFile(root, DIGEST);
  t.true(read.isHere(LAZY_BLOCK_BYTES, 2 * LAZY_BLOCK_BYTES));
  t.false(read.isHere(0, LAZY_BLOCK_BYTES + 1));
  const bytes = Buffer.alloc(100);
  t.is(readBlobSync(read, LAZY_BLOCK_BYTES + 5, bytes), 100);
  t.deepEqual(bytes, CONTENT.subarray(LAZY_BLOCK_BYTES + 5, LAZY_BLOCK_BYTES + 105));
  t.throws(() => readBlobSync(read, 0, bytes), { instanceOf: BlobNotHere });
  t.deepEqual(file.missing(0), [
    { offset: 0, end: LAZY_BLOCK_BYTES },
    { offset: 3 * LAZY_BLOCK_BYTES, end: CONTENT.length },
  ]);
  t.is(file.presentBytes, 2 * LAZY_BLOCK_BYTES);
  file.forget(LAZY_BLOCK_BYTES, LAZY_BLOCK_BYTES + 1);
  t.false(read.isHere(LAZY_BLOCK_BYTES, 1));
});

test('write() takes whole blocks only, and the last one as short as it is', async (t) => {
  const { file } = await begun(t);
  t.throws(() => file.write(1, Buffer.alloc(LAZY_BLOCK_BYTES)), { instanceOf: RangeError });
  t.throws(() => file.write(0, Buffer.alloc(100)), { instanceOf: RangeError });
  t.true(file.write(5 * LAZY_BLOCK_BYTES, CONTENT.subarray(5 * LAZY_BLOCK_BYTES)));
});

test('a blob that is here to the last byte becomes a whole one, and nobody writes into it any more', async (t) => {
  const { root, file } = await begun(t);
  const late = LazyFile.open(root, DIGEST, 'r+');
  t.is(await promoteLazyBlob(root, DIGEST), 'incomplete');
  t.true(file.write(0, CONTENT));
  t.is(await promoteLazyBlob(root, DIGEST), 'whole');
  t.false(late?.write(0, Buffer.alloc(LAZY_BLOCK_BYTES)));
  t.deepEqual(readFileSync(wholePath(root, DIGEST)), CONTENT);
  t.is(statSync(wholePath(root, DIGEST)).mode & 0o777, 0o444);
  t.deepEqual(lazyDigests(root), []);
  t.is(await promoteLazyBlob(root, DIGEST), 'gone');
});

test('while a blob is made whole nobody writes, and a blob that is removed takes nothing any more', async (t) => {
  const { root, file } = await begun(t);
  const other = LazyFile.open(root, DIGEST, 'r+');
  flock(other?.mapFd ?? -1, 'exclusive', { wait: false });
  t.false(file.write(0, CONTENT));
  flock(other?.mapFd ?? -1, 'unlock', { wait: false });
  removeLazyBlob(root, DIGEST);
  t.false(file.write(0, CONTENT));
  t.is(await openLazyBlob(root, DIGEST), undefined);
});

test('a blob with other bytes than its digest says is not kept', async (t) => {
  const { root, file } = await begun(t);
  t.true(file.write(0, Buffer.alloc(CONTENT.length)));
  t.is(await promoteLazyBlob(root, DIGEST), 'damaged');
  t.false(existsSync(wholePath(root, DIGEST)));
  t.is(file.presentBytes, 0);
});

test('createLazyBlob() notes another place, and wishes only grow', async (t) => {
  const { root, file } = await begun(t);
  t.true(writeBlocks(file, 0, 1));
  const other = { ...SOURCE, registry: 'quay.io' };
  const blob = { digest: DIGEST, sizeBytes: CONTENT.length };
  t.false(await createLazyBlob(root, { ...blob, source: other, fetchesRest: true }));
  t.false(await createLazyBlob(root, { ...blob, source: SOURCE, fetchesRest: false }));
  const record = readRecord(root, DIGEST);
  t.deepEqual([record?.sources, record?.fetchesRest], [[SOURCE, other], true]);
  t.is(file.presentBytes, LAZY_BLOCK_BYTES, 'what is here stays');
});

const RUINS: readonly [what: string, ruin: (file: string) => void][] = [
  ['without its map', (file) => rmSync(`${file}.map`)],
  ['with half a map', (file) => truncateSync(`${file}.map`, 2)],
  ['without its bytes', (file) => rmSync(file)],
  ['with a shorter file', (file) => truncateSync(file, 100)],
];
for (const [what, ruin] of RUINS) {
  test(`a blob that a crash left ${what} begins anew`, async (t) => {
    const { root, file } = await begun(t);
    t.true(writeBlocks(file, 0, 2));
    ruin(lazyPath(root, DIGEST));
    t.throws(() => openBlobFile(root, DIGEST), { code: 'BLOB_MISSING' });
    const again = await openLazyBlob(root, DIGEST);
    t.deepEqual([again?.sizeBytes, again?.presentBytes], [CONTENT.length, 0]);
  });
}

for (const text of ['', 'null', '{}', '{"sizeBytes":"1","sources":[]}', '{"sizeBytes":1,"sources":{}}', '[1']) {
  test(`readRecord() takes ${JSON.stringify(text)} for no record`, async (t) => {
    const { root } = await begun(t);
    writeFileSync(`${lazyPath(root, DIGEST)}.json`, text);
    t.is(readRecord(root, DIGEST), undefined);
  });
}
