import { writeSync } from 'node:fs';

import { errnoOf } from '../../../store/errors.ts';
import type { Switched } from '../../overlay/switch-tree.ts';
import { ROOT_NODE_ID } from '../../protocol/constants.ts';
import { encodeIncEpoch, encodeInvalEntry, encodeInvalInode } from '../../protocol/notify.ts';

/**
 * Tells the kernel what it must not believe any more. Waits for whoever is in one of the directories: not for the thread that
 * answers these.
 *
 * @param fd - of the FUSE device
 */
export function tellStale(fd: number, stale: Switched['stale']): void {
  if (stale === 'all') {
    notify(fd, encodeIncEpoch());
    notify(fd, encodeInvalInode(ROOT_NODE_ID));
    return;
  }
  const { names, dirs } = stale;
  for (const { parent, name } of names) notify(fd, encodeInvalEntry(parent, name));
  for (const dir of dirs) notify(fd, encodeInvalInode(dir));
}

/** What the kernel does not know needs not be told; an older one does not know all of this. */
function notify(fd: number, message: Buffer): void {
  try {
    writeSync(fd, message);
  } catch (error) {
    if (!['ENOENT', 'ENOTEMPTY', 'ENODEV', 'ENOTCONN', 'ENOTDIR', 'EINVAL'].includes(errnoOf(error) ?? '')) throw error;
  }
}
