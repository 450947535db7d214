import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { flock } from '../../store/syscalls.ts';

const CONTENT = /^[0-9a-f]{64}$/;
const MARK = /^([0-9a-f]{64})\.used$/;
const TEMPORARY = /^\.tmp-/;

/** The file whose time says when a copy was last used. */
export function usedMarkOf(path: string): string {
  return `${path}.used`;
}

export interface CacheFolder {
  /** Least recently used first. */
  copies: CopyInCache[];
  /** Of whole copies, and of those being made as if they were whole. */
  usedBytes: number;
}

interface CopyInCache {
  path: string;
  sizeBytes: number;
  lastUsedMs: number;
}

/** What is in the cache. Clears away on the way what killed processes left. Only while the cache's names are locked. */
export async function listCache(dir: string): Promise<CacheFolder> {
  const names = new Set(await readdir(dir));
  const copies: CopyInCache[] = [];
  let usedBytes = 0;
  for (const name of names) {
    const path = join(dir, name);
    const content = MARK.exec(name)?.[1];
    if ((content !== undefined && !names.has(content)) || (TEMPORARY.test(name) && isAbandoned(path))) {
      await rm(path, { force: true });
    } else if (CONTENT.test(name) || TEMPORARY.test(name)) {
      const stat = statSync(path, { throwIfNoEntry: false });
      const lastUsedMs = statSync(usedMarkOf(path), { throwIfNoEntry: false })?.mtimeMs ?? stat?.mtimeMs ?? 0;
      usedBytes += stat?.size ?? 0;
      if (stat !== undefined && CONTENT.test(name)) copies.push({ path, sizeBytes: stat.size, lastUsedMs });
    }
  }
  return { copies: copies.sort((a, b) => a.lastUsedMs - b.lastUsedMs), usedBytes };
}

/**
 * Removes copies that nobody holds until so many bytes are free, least recently used first. Only while the cache's names
 * are locked, so that what is removed is what was looked at.
 *
 * @param evenIfShort - remove what can be removed also when that is not enough
 * @returns whether it was enough
 */
export async function evictUntil(
  { copies }: CacheFolder,
  wantedBytes: number,
  { evenIfShort }: { evenIfShort: boolean },
): Promise<boolean> {
  const victims: { path: string; fd: number }[] = [];
  let freedBytes = 0;
  try {
    for (const { path, sizeBytes } of copies) {
      if (freedBytes >= wantedBytes) break;
      const fd = lockAlone(path);
      if (fd === undefined) continue;
      victims.push({ path, fd });
      freedBytes += sizeBytes;
    }
    const isEnough = freedBytes >= wantedBytes;
    if (isEnough || evenIfShort) for (const { path } of victims) await removeCopy(path);
    return isEnough;
  } finally {
    for (const { fd } of victims) closeSync(fd);
  }
}

export async function removeCopy(path: string): Promise<void> {
  await rm(path, { force: true });
  await rm(usedMarkOf(path), { force: true });
}

/** Whether a temporary file of the cache has lost the process that wrote it: the lock it held ended with it. */
export function isAbandoned(path: string): boolean {
  const fd = lockAlone(path);
  if (fd !== undefined) closeSync(fd);
  return fd !== undefined;
}

/** @returns the open file, locked until it is closed; undefined when somebody holds it, or it cannot be opened */
function lockAlone(path: string): number | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(path, 'r');
    if (flock(fd, 'exclusive', { wait: false }) && fstatSync(fd).nlink > 0) return fd;
  } catch {
    // Gone, or another user's.
  }
  if (fd !== undefined) closeSync(fd);
  return undefined;
}
