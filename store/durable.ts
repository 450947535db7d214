import { constants } from 'node:fs';
import { open, readdir, rename, rm } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';

import { faultPoint } from './fault-point.ts';

/** Makes the names inside a folder durable: a rename is on disk only once its folder is. */
export async function syncDir(dir: string): Promise<void> {
  const handle = await open(dir, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

const TEMPORARY_PREFIX = '.tmp-';

/** Whether a file of this name is being written, or was when somebody was killed. */
export function isTemporary(name: string): boolean {
  return name.startsWith(TEMPORARY_PREFIX);
}

/** Removes what processes that were killed left behind. Only where nobody else can be writing now. */
export async function removeTemporaries(dir: string): Promise<void> {
  const names = await readdir(dir);
  await Promise.all(names.filter(isTemporary).map(async (name) => await rm(join(dir, name), { force: true })));
}

/** A fresh name beside `path`, for the temporary file of an atomic write. */
export function temporaryBeside(path: string): string {
  return join(dirname(path), `${TEMPORARY_PREFIX}${process.pid}-${randomBytes(6).toString('hex')}`);
}

/**
 * Replaces a file as a whole: temporary file in the same folder, fsync, rename, fsync the folder. A reader sees the old
 * content or the new one, and after a crash too.
 */
export async function writeFileDurably(path: string, data: string | Uint8Array, mode = 0o644): Promise<void> {
  const temporary = temporaryBeside(path);
  try {
    await writeSynced(temporary, data, mode);
    faultPoint('durable.written');
    await rename(temporary, path);
    faultPoint('durable.renamed');
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDir(dirname(path));
}

/** A file to be written whole. */
export interface DurableFile {
  path: string;
  data: string;
  mode: number;
}

export interface DurableWrite {
  /** Other folders that have to be durable, too. */
  folders?: readonly string[];
  /** To be done when the files are where they belong, and before their folders are synced. */
  onRenamed?: () => void;
}

/**
 * `writeFileDurably` for many files at once: what has to wait for the disk waits together. All are durable afterwards, in
 * no particular order.
 */
export async function writeFilesDurably(
  files: readonly DurableFile[],
  { folders = [], onRenamed }: DurableWrite = {},
): Promise<void> {
  const temporaries = files.map(({ path }) => temporaryBeside(path));
  try {
    await Promise.all(files.map(async ({ data, mode }, at) => await writeSynced(temporaries[at] ?? '', data, mode)));
    faultPoint('durable.written');
    await Promise.all(files.map(async ({ path }, at) => await rename(temporaries[at] ?? '', path)));
    faultPoint('durable.renamed');
    onRenamed?.();
  } catch (error) {
    await Promise.all(temporaries.map(async (path) => await rm(path, { force: true })));
    throw error;
  }
  await Promise.all([...new Set([...files.map(({ path }) => dirname(path)), ...folders])].map(syncDir));
}

async function writeSynced(path: string, data: string | Uint8Array, mode: number): Promise<void> {
  const handle = await open(path, 'wx', mode);
  try {
    await handle.writeFile(data);
    await handle.sync();
  } finally {
    await handle.close();
  }
}
