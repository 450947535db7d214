import { mkdtemp, realpath, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';

const PREFIX = 'bento-exec-';

/** A place for a throw-away fork, which nobody else may look into; its last part is not there yet. */
export async function newPlace(): Promise<string> {
  return join(await mkdtemp(join(await realpath(tmpdir()), PREFIX)), 'work');
}

/** What is left of such a place when the fork is gone; of any other directory nothing is touched. */
export async function removePlace(target: string): Promise<void> {
  const place = dirname(target);
  if (basename(place).startsWith(PREFIX)) await rmdir(place).catch(() => undefined); // gone, or not only ours
}
