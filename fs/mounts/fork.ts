import { lstatSync } from 'node:fs';
import { chmod, chown, rm, rmdir } from 'node:fs/promises';

import { fromText, toFsPath } from '../../store/byte-string.ts';
import { BentoError } from '../../store/errors.ts';
import { faultPoint } from '../../store/fault-point.ts';
import type { Lock } from '../../store/lock.ts';
import type { Store } from '../../store/store.ts';
import { lsetxattr, readXattrs, utimensat } from '../../store/syscalls.ts';
import { giveUpHead } from '../workspace/heads.ts';
import { fuseAvailability, unmount } from './dev-fuse.ts';
import { bring, release } from './kernel-mount.ts';
import type { CopyCheckpoint, Mounted } from './mount.ts';
import { newRecord, type MountRequest } from './mount-record.ts';
import { MountTable, type CheckpointRecord, type MountStatus } from './mount-table.ts';
import { mountedAt } from './mountinfo.ts';
import { hasAllUsers, inInitialUserNamespace } from './namespaces.ts';
import { removeNote, writeNote } from './note-file.ts';
import {
  checkMountPoint,
  emptyDirectory,
  makeForkTarget,
  refuseIfElsewhere,
  refuseIfMountedInside,
  refuseIfTaken,
} from './targets.ts';

export interface ForkSteps {
  /** Fills the new workspace (its `bento.yaml`) before the command returns. */
  prepare: (record: CheckpointRecord) => Promise<void>;
  copy: CopyCheckpoint;
}

/**
 * Makes a writable workspace over a checkpoint: an upper directory and an overlay mount of it. Whatever is not changed is
 * shared with the checkpoint and with everything else made from it. Where the kernel does not let us, it is a copy.
 *
 * @throws BentoError TARGET_NOT_EMPTY, MOUNT_POINT_BUSY, MOUNT_POINT_MISSING or what loading throws
 */
export async function forkCheckpoint(store: Store, request: MountRequest, steps: ForkSteps): Promise<Mounted> {
  const { target, made } = await makeForkTarget(request.target);
  const table = new MountTable(store);
  let lock: Lock | undefined;
  try {
    lock = await table.lock();
    checkMountPoint(target);
    await refuseIfTaken(table, target);
  } catch (error) {
    if (made) await rmdir(target).catch(() => undefined); // somebody else's meanwhile
    lock?.release();
    throw error;
  }
  let record = newForkRecord({ ...request, target }, made);
  try {
    const { lower, copiedBecause } = await mountOverlay(store, record);
    if (copiedBecause !== undefined) {
      record = { ...record, engine: 'copy' };
      removeNote(target);
      await table.add(record);
      lock.release();
      await steps.copy(record);
    }
    await steps.prepare(record);
    faultPoint('fork.described');
    if (lower !== undefined) await keepRootAttributes(lower, target);
    return { record, copiedBecause };
  } catch (error) {
    await tearDown(store, record);
    throw error;
  } finally {
    lock.release();
  }
}

/** Who may own files keeps the recorded owners, so that what the fork does not change stays as it is. */
function newForkRecord(request: MountRequest, madeTarget: boolean): CheckpointRecord {
  const isInitial = inInitialUserNamespace();
  const keepOwners = isInitial || hasAllUsers();
  return newRecord({ ...request, keepOwners }, { kind: 'fork', engine: 'overlay', madeTarget, userxattr: !isInitial });
}

/** Ends a fork for good: what was not saved is gone, and the directory too if the fork made it. */
export async function removeFork(store: Store, record: MountStatus, lazy: boolean): Promise<void> {
  refuseIfElsewhere(record);
  if (record.engine === 'copy') refuseIfMountedInside(record.target);
  else if (record.mounted) await release(store, record, lazy);
  await tearDown(store, record);
}

/** @returns the checkpoint's folder below it, or why it did not work where a copy can take its place */
async function mountOverlay(
  store: Store,
  record: CheckpointRecord,
): Promise<{ lower?: string | undefined; copiedBecause: string | undefined }> {
  const { usable, reason } = fuseAvailability();
  if (usable !== 'root') return { copiedBecause: reason ?? 'an ordinary user may not mount overlays' };
  const table = new MountTable(store);
  await table.makeForkDirs(record);
  faultPoint('fork.dirs-made');
  await table.add(record);
  faultPoint('fork.recorded');
  try {
    writeNote(record, store.root);
    const lower = await bring(store, record);
    faultPoint('fork.mounted');
    return { lower, copiedBecause: undefined };
  } catch (error) {
    if (error instanceof BentoError && REPLACED_BY_COPY.has(error.code)) return { copiedBecause: error.message };
    throw error;
  }
}

const REPLACED_BY_COPY = new Set(['MOUNT_FAILED', 'FUSE_UNAVAILABLE']);

/** An overlay's root shows the attributes of its upper directory: these are made the checkpoint's. */
async function keepRootAttributes(checkpointDir: string, target: string): Promise<void> {
  const lower = fromText(checkpointDir);
  const upper = fromText(target);
  const stat = lstatSync(toFsPath(lower), { bigint: true });
  const NSEC = 1_000_000_000n;
  const nsec = ((stat.mtimeNs % NSEC) + NSEC) % NSEC;
  await chown(target, Number(stat.uid), Number(stat.gid));
  await chmod(target, Number(stat.mode & 0o7777n));
  for (const [name, value] of readXattrs(lower) ?? []) lsetxattr(upper, name, value);
  utimensat(upper, { mtime: { sec: Number((stat.mtimeNs - nsec) / NSEC), nsec: Number(nsec) } });
}

async function tearDown(store: Store, record: CheckpointRecord | MountStatus): Promise<void> {
  const table = new MountTable(store);
  if (record.engine === 'overlay' && mountedAt(record.target)?.fstype === 'overlay')
    unmount(fromText(record.target), { lazy: true });
  if (mountedAt(record.target) === undefined) removeNote(record.target);
  if (record.engine === 'copy') await emptyDirectory(record.target);
  await rm(table.forkDir(record), { recursive: true, force: true });
  await table.remove(record);
  await giveUpHead(store.layout(record.workspaceId), record.target);
  if (record.madeTarget) await rmdir(record.target).catch(() => undefined); // somebody put something there: it stays
}
