import { closeSync, existsSync, openSync, readdirSync, utimesSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import type { ContentCache } from '../../../fs/contents/content-cache.ts';
import { digestOf, type Digest } from '../../../store/digest.ts';
import { MNT_DETACH, mount, umount2 } from '../../../store/syscalls.ts';
import { newFolder } from '../../fixtures/workspaces.ts';

interface Teardown {
  teardown: (fn: () => void) => void;
}

/** Puts a content into a cache, its second half first. */
export async function keep(cache: ContentCache, content: Buffer): Promise<Digest> {
  const digest = digestOf(content);
  const partial = await cache.begin(digest, content.length);
  if (partial === undefined) throw new Error('no room for it');
  const middle = content.length >> 1;
  await partial.write(middle, content.subarray(middle));
  await partial.write(0, content.subarray(0, middle));
  (await partial.commit())?.close();
  return digest;
}

/** The names in the folder of a cache, without the lock that is always there. */
export function namesIn(cacheDir: string): string[] {
  const dir = join(cacheDir, 'sha256');
  if (!existsSync(dir)) return [];
  return readdirSync(dir)
    .filter((name) => name !== '.lock')
    .sort();
}

/** Changes one byte in place. */
export function flipByteAt(path: string, at: number, byte: number): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, Buffer.from([byte ^ 0xff]), 0, 1, at);
  closeSync(fd);
}

/** Another time than it has, whatever the clock does. */
export function touch(path: string): void {
  utimesSync(path, new Date(1000), new Date(1000));
}

/** A small disk of the test's own, for root. */
export function newTmpfs(t: Teardown, sizeBytes: number): string {
  const folder = newFolder(t);
  mount('tmpfs', folder, 'tmpfs', 0, `size=${sizeBytes}`);
  t.teardown(() => umount2(folder, MNT_DETACH));
  return folder;
}
