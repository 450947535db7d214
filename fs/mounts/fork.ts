import { existsSync, readdirSync, rmSync } from 'node:fs';
import { rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';

import { fromText } from '../../store/byte-string.ts';
import { BentoError } from '../../store/errors.ts';
import type { Lock } from '../../store/lock.ts';
import type { Store } from '../../store/store.ts';
import { giveUpHead } from '../workspace/heads.ts';
import { scanFile } from '../workspace/scan-place.ts';
import { mayMount, unmount } from './dev-fuse.ts';
import { removePlace } from './exec/place.ts';
import { ForkMaking, isOwnForkFile, type ForkRequest, type ForkSteps } from './fork-making.ts';
import { detach, release } from './kernel-mount.ts';
import type { Mounted } from './mount.ts';
import { newRecord, type MountRequest } from './mount-record.ts';
import { MountTable, recordId, type CheckpointRecord, type MountStatus } from './mount-table.ts';
import { mountedAt } from './mountinfo.ts';
import { hasAllUsers, inInitialUserNamespace } from './namespaces.ts';
import { removeNote } from './note-file.ts';
import { removeTree } from './remove-tree.ts';
import {
  checkMountPoint,
  emptyDirectory,
  makeForkTargets,
  refuseIfAnyTaken,
  refuseIfElsewhere,
  refuseIfMountedInside,
  removeMade,
} from './targets.ts';

/**
 * Makes writable workspaces over one checkpoint: for each an upper directory, and a mount of both with the fastest engine
 * that works here. Whatever is not changed is shared with the checkpoint and with everything else made from it. Where nothing
 * can be mounted, they are copies. All are made, or none.
 *
 * @param written - their directories: missing, or empty
 * @throws BentoError TARGET_NOT_EMPTY, MOUNT_POINT_BUSY, MOUNT_POINT_MISSING or what loading throws; what mounting throws
 *   when one engine was asked for
 */
export async function forkCheckpoint(
  store: Store,
  written: readonly string[],
  request: ForkRequest,
  steps: ForkSteps,
): Promise<Mounted[]> {
  const targets = await makeForkTargets(written);
  const table = new MountTable(store);
  let lock: Lock | undefined;
  try {
    lock = await table.lock();
    for (const { target } of targets) checkMountPoint(target);
    await refuseIfAnyTaken(
      table,
      targets.map(({ target }) => target),
    );
    for (const { target } of targets) refuseForgottenWork(table, target);
  } catch (error) {
    await removeMade(targets);
    lock?.release();
    throw error;
  }
  const records = targets.map(({ target, made }) => newForkRecord({ ...request, target }, made));
  const making = new ForkMaking(store, { records, request, steps, lock });
  try {
    return await making.run();
  } catch (error) {
    // One that cannot be taken away stays on record, and does not keep the others.
    for (const record of making.records) await tearDown(store, record).catch(() => undefined);
    throw error;
  } finally {
    lock.release();
  }
}

/**
 * A fork whose record is gone, and whose folder is not, would come back to life in a new one on the same directory. What a
 * killed command left without anybody's work in it goes.
 *
 * @throws BentoError TARGET_INVALID naming the folder
 */
function refuseForgottenWork(table: MountTable, target: string): void {
  const upper = join(table.forkDir({ id: recordId(target) }), 'upper');
  const names = existsSync(upper) ? readdirSync(upper) : [];
  if (!names.every(isOwnForkFile)) {
    throw new BentoError(
      'TARGET_INVALID',
      `${upper} has changes of an earlier fork on ${target} that is not on record`,
      {
        hint: 'move what you need from there, then remove that folder',
      },
    );
  }
  for (const name of names) rmSync(join(upper, name));
}

/** Who may own files keeps the recorded owners, so that what the fork does not change stays as it is. */
export function newForkRecord(request: MountRequest, madeTarget: boolean): CheckpointRecord {
  const isRoot = mayMount();
  const isInitial = inInitialUserNamespace();
  const keepOwners = isRoot && (isInitial || hasAllUsers());
  const userxattr = !isRoot || !isInitial;
  return newRecord({ ...request, keepOwners }, { kind: 'fork', engine: 'overlay', madeTarget, userxattr });
}

/** Ends a fork for good: what was not saved is gone, and the directory too if the fork made it. */
export async function removeFork(store: Store, record: MountStatus, lazy: boolean): Promise<void> {
  refuseIfElsewhere(record);
  if (record.engine === 'copy') refuseIfMountedInside(record.target);
  else if (record.mounted) await release(store, record, lazy);
  await tearDown(store, record);
}

/** Takes away whatever there is of a fork, whole or not. */
export async function tearDown(store: Store, record: CheckpointRecord | MountStatus): Promise<void> {
  const table = new MountTable(store);
  detach(record);
  if (mountedAt(record.target) === undefined) removeNote(record.target);
  if (record.engine === 'copy') await emptyDirectory(record.target);
  detachLower(table.lowerDir(record));
  await removeTree(table.forkDir(record));
  await rm(scanFile(store.cacheDir, join(table.forkDir(record), 'upper')), { force: true });
  await table.remove(record);
  await giveUpHead(store.layout(record.workspaceId), record.target);
  if (record.madeTarget) await rmdir(record.target).catch(() => undefined); // somebody put something there: it stays
  await removePlace(record.target);
}

/** What a namespace's overlay is over is mounted here, too; the folder is never removed through it. */
export function detachLower(lower: string): void {
  if (mountedAt(lower) !== undefined) unmount(fromText(lower), { lazy: true });
}
