import { execFileSync } from 'node:child_process';
import { chmodSync, lstatSync, readdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';

import { errnoOf } from '../../store/errors.ts';

/**
 * Removes a directory with all that is in it, directories that their owner may not list included: overlayfs makes such a one
 * in its work folder, and programs leave some.
 */
export async function removeTree(dir: string): Promise<void> {
  try {
    await rm(dir, { recursive: true, force: true });
  } catch (error) {
    if (errnoOf(error) === 'ENAMETOOLONG') {
      removeDeepTree(dir);
      return;
    }
    if (!['EACCES', 'EPERM'].includes(errnoOf(error) ?? '')) throw error;
    unlock(dir);
    await rm(dir, { recursive: true, force: true });
  }
}

/** Directories lie in one another deeper than a path can say; rm(1) goes into each. */
function removeDeepTree(dir: string): void {
  execFileSync('rm', ['-rf', '--', dir], { stdio: ['ignore', 'ignore', 'pipe'] });
}

function unlock(dir: string): void {
  if (lstatSync(dir).uid === process.getuid?.()) chmodSync(dir, 0o700);
  for (const entry of readdirSync(dir, { withFileTypes: true })) if (entry.isDirectory()) unlock(join(dir, entry.name));
}
