import { link, lstat, open, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';

import { isPlainName, type AttachedFile } from '../store/attachment.ts';
import { temporaryBeside } from '../store/durable.ts';
import { BentoError, describeSystemError, errnoOf } from '../store/errors.ts';
import { faultPoint } from '../store/fault-point.ts';
import { namelessFile, readFrom } from './attached-input.ts';

/**
 * Where a file of an attachment goes. Its title is a stranger's: only one that is a plain name is taken for a name.
 *
 * @param output - a file, or a folder that is there; default: the current one
 * @throws BentoError TARGET_INVALID, TARGET_NOT_EMPTY
 */
export async function outputPath(
  { title }: AttachedFile,
  output: string | undefined,
  { force }: { force: boolean },
): Promise<string> {
  const given = resolve(output ?? '.');
  const isFolder = output === undefined || output.endsWith('/') || (await isDirectory(given));
  const path = isFolder ? join(given, plainTitle(title)) : given;
  if (!(await isDirectory(dirname(path))))
    throw new BentoError('TARGET_INVALID', `there is no folder ${dirname(path)}`, { hint: 'make it first' });
  const found = await lstat(path).catch(() => undefined);
  if (found?.isDirectory() === true)
    throw new BentoError('TARGET_INVALID', `${path} is a folder`, { hint: 'say -o <file>' });
  if (found !== undefined && !force) throw isThere(path);
  return path;
}

function plainTitle(title: string | undefined): string {
  if (title !== undefined && isPlainName(title)) return title;
  const shown =
    title === undefined ? 'it has no title' : `its title "${title.slice(0, 100)}" is no name for a file here`;
  throw new BentoError('TARGET_INVALID', `cannot tell what to call the file: ${shown}`, { hint: 'say -o <file>' });
}

async function isDirectory(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() === true;
}

function isThere(path: string): BentoError {
  return new BentoError('TARGET_NOT_EMPTY', `${path} is there already`, {
    hint: '-o <file> names another; --force replaces it',
  });
}

/**
 * Writes a file that appears whole or not at all, and takes nobody's place unless `force` says so, not even of what came just
 * now.
 *
 * @param bytes - whose last step throws when they are wrong
 */
export async function writeOutput(
  path: string,
  bytes: AsyncIterable<Buffer>,
  { force }: { force: boolean },
): Promise<number> {
  const temporary = temporaryBeside(path);
  try {
    const handle = await open(temporary, 'wx', 0o666);
    let sizeBytes = 0;
    try {
      sizeBytes = await writeAll(handle, bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    faultPoint('attach.written');
    if (force) await rename(temporary, path);
    else await moveToFreeName(temporary, path);
    return sizeBytes;
  } catch (error) {
    throw errnoOf(error) === 'EEXIST' ? isThere(path) : describeSystemError(error, `writing ${path}`);
  } finally {
    await rm(temporary, { force: true });
  }
}

/** @throws Error EEXIST */
async function moveToFreeName(temporary: string, path: string): Promise<void> {
  try {
    await link(temporary, path);
  } catch (error) {
    if (!['EPERM', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'].includes(errnoOf(error) ?? '')) throw error;
    await (await open(path, 'wx')).close(); // a file system without hard links: the name is ours, then the file
    await rename(temporary, path);
  }
}

/** To somebody who reads along, once all bytes are known to be right. */
export async function writeVerified(bytes: AsyncIterable<Buffer>, write: (piece: Buffer) => void): Promise<number> {
  const handle = await namelessFile();
  try {
    const sizeBytes = await writeAll(handle, bytes);
    for await (const piece of readFrom(handle, 0, sizeBytes)) write(piece);
    return sizeBytes;
  } catch (error) {
    throw describeSystemError(error, 'writing to a temporary file');
  } finally {
    await handle.close();
  }
}

async function writeAll(handle: FileHandle, bytes: AsyncIterable<Buffer>): Promise<number> {
  let sizeBytes = 0;
  for await (const piece of bytes) {
    await handle.writeFile(piece);
    sizeBytes += piece.length;
  }
  return sizeBytes;
}
