import { createHash } from 'node:crypto';
import { chmodSync, closeSync, fstatSync, ftruncateSync, openSync, renameSync, rmSync } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';

import { shareBlobs } from '../blob-lock.ts';
import { lazyDir, lazyPath, wholeDir, wholePath } from '../blob-paths.ts';
import { hexOf, type Digest } from '../digest.ts';
import { syncDir } from '../durable.ts';
import { faultPoint } from '../fault-point.ts';
import { blockCountOf, LazyFile } from '../lazy-file.ts';
import { lockFile } from '../lock.ts';
import { streamBlob } from '../read-blob.ts';
import { flockAsync } from '../syscalls.ts';
import { readRecord, recordPath, withSource, writeRecord, type LazyRecord, type LazySource } from './lazy-record.ts';

export interface NewLazyBlob {
  digest: Digest;
  sizeBytes: number;
  source: LazySource;
  fetchesRest: boolean;
}

/**
 * Begins a blob of which nothing is here yet, or notes that one can be had from here, too. The caller shares the store's
 * blobs until a checkpoint that has it is named.
 *
 * @returns whether there was none
 */
export async function createLazyBlob(storeRoot: string, blob: NewLazyBlob): Promise<boolean> {
  const { digest, sizeBytes, source, fetchesRest } = blob;
  await mkdir(lazyDir(storeRoot), { recursive: true });
  using _lock = await lockFile(join(lazyDir(storeRoot), '.lock'));
  const known = readRecord(storeRoot, digest);
  const isKnown = known !== undefined && known.sizeBytes === sizeBytes;
  const record: LazyRecord = withSource(isKnown ? known : { sizeBytes, sources: [], fetchesRest: false }, source);
  const next = { ...record, fetchesRest: record.fetchesRest || fetchesRest };
  if (!isKnown || !hasFiles(storeRoot, digest, sizeBytes)) makeFiles(storeRoot, digest, sizeBytes);
  if (JSON.stringify(next) !== JSON.stringify(known)) await writeRecord(storeRoot, digest, next);
  return !isKnown;
}

/** Opens it for whoever fetches; what a crash left of its files is made anew. @returns undefined when there is no record */
export async function openLazyBlob(storeRoot: string, digest: Digest): Promise<LazyFile | undefined> {
  const file = LazyFile.open(storeRoot, digest, 'r+');
  if (file !== undefined) return file;
  if (readRecord(storeRoot, digest) === undefined) return undefined;
  using _lock = await lockFile(join(lazyDir(storeRoot), '.lock'));
  const record = readRecord(storeRoot, digest);
  if (record === undefined) return undefined;
  if (!hasFiles(storeRoot, digest, record.sizeBytes)) makeFiles(storeRoot, digest, record.sizeBytes);
  return LazyFile.open(storeRoot, digest, 'r+');
}

/** Notes how much of the blob is worth fetching before the rest. */
export async function notePrefetchEnd(storeRoot: string, digest: Digest, prefetchEnd: number): Promise<void> {
  using _lock = await lockFile(join(lazyDir(storeRoot), '.lock'));
  const record = readRecord(storeRoot, digest);
  if (record !== undefined && record.prefetchEnd !== prefetchEnd)
    await writeRecord(storeRoot, digest, { ...record, prefetchEnd });
}

/** Throws away what is here of a blob, and that it could be had. */
export function removeLazyBlob(storeRoot: string, digest: Digest): void {
  for (const suffix of ['.map', '.json', '']) rmSync(`${lazyPath(storeRoot, digest)}${suffix}`, { force: true });
}

/** What came of making a blob whole: `gone` when somebody else did, or nobody wants it any more. */
export type Promoted = 'whole' | 'incomplete' | 'damaged' | 'gone';

/**
 * Makes a whole blob of one that is here to the last byte, once its digest was checked over all of it. When it is another,
 * nothing of it is kept, and all is fetched again by whoever reads.
 */
export async function promoteLazyBlob(storeRoot: string, digest: Digest): Promise<Promoted> {
  using _blobs = await shareBlobs(storeRoot);
  const file = LazyFile.open(storeRoot, digest, 'r+');
  if (file === undefined) return 'gone';
  try {
    await flockAsync(file.mapFd, 'exclusive');
    if (fstatSync(file.mapFd).nlink === 0) return 'gone';
    if (file.missing(0).length > 0) return 'incomplete';
    if (!(await hasItsDigest(file))) {
      ftruncateSync(file.mapFd, 0);
      ftruncateSync(file.mapFd, blockCountOf(file.sizeBytes));
      return 'damaged';
    }
    await putInPlace(storeRoot, file);
    return 'whole';
  } finally {
    file.close();
  }
}

async function hasItsDigest(file: LazyFile): Promise<boolean> {
  const hash = createHash('sha256');
  for await (const piece of streamBlob(file)) hash.update(piece);
  return hash.digest('hex') === hexOf(file.digest);
}

/** Nobody writes any more: see `LazyFile`. */
async function putInPlace(storeRoot: string, { digest }: LazyFile): Promise<void> {
  const path = lazyPath(storeRoot, digest);
  await mkdir(wholeDir(storeRoot), { recursive: true });
  const handle = await open(path, 'r+');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
  faultPoint('lazy.whole');
  renameSync(path, wholePath(storeRoot, digest));
  faultPoint('lazy.renamed');
  chmodSync(wholePath(storeRoot, digest), 0o444); // not before: a crash between would leave what only root can go on with
  await syncDir(wholeDir(storeRoot));
  rmSync(`${path}.map`, { force: true });
  rmSync(recordPath(storeRoot, digest), { force: true });
}

function hasFiles(storeRoot: string, digest: Digest, sizeBytes: number): boolean {
  const file = LazyFile.open(storeRoot, digest);
  file?.close();
  return file?.sizeBytes === sizeBytes;
}

/** The map is the last: a file without one is nothing yet. */
function makeFiles(storeRoot: string, digest: Digest, sizeBytes: number): void {
  const path = lazyPath(storeRoot, digest);
  rmSync(`${path}.map`, { force: true });
  rmSync(path, { force: true });
  makeSparse(path, sizeBytes);
  makeSparse(`${path}.map`, blockCountOf(sizeBytes));
}

function makeSparse(path: string, sizeBytes: number): void {
  const fd = openSync(path, 'wx', 0o600);
  try {
    ftruncateSync(fd, sizeBytes);
  } finally {
    closeSync(fd);
  }
}
