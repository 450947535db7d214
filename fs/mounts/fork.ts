import { lstatSync } from 'node:fs';
import { chmod, chown, readdir, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';

import { fromText, toFsPath } from '../../store/byte-string.ts';
import { hexOf } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { faultPoint } from '../../store/fault-point.ts';
import type { Lock } from '../../store/lock.ts';
import type { Store } from '../../store/store.ts';
import { lsetxattr, readXattrs, utimensat } from '../../store/syscalls.ts';
import { giveUpHead } from '../workspace/heads.ts';
import { fuseAvailability, unmount } from './dev-fuse.ts';
import { bring, newRecord, release, type MountRequest } from './mount.ts';
import { MountTable, type MountRecord, type MountStatus } from './mount-table.ts';
import { mountedAt, mountedFileSystems } from './mountinfo.ts';
import { runtimeDir } from './runtime-dir.ts';
import { checkMountPoint, makeForkTarget, refuseIfTaken } from './targets.ts';

export interface ForkSteps {
  /** Fills the new workspace (its `bento.yaml`) before the command returns. */
  prepare: (record: MountRecord) => Promise<void>;
  /** Writes the whole checkpoint into the target, where nothing can be mounted. */
  copy: (record: MountRecord) => Promise<void>;
}

export interface Forked {
  record: MountRecord;
  /** Why it is a copy and no mount. */
  copiedBecause: string | undefined;
}

/**
 * Makes a writable workspace over a checkpoint: an upper directory and an overlay mount of it. Whatever is not changed is
 * shared with the checkpoint and with everything else made from it. Where the kernel does not let us, it is a copy.
 *
 * @throws BentoError TARGET_NOT_EMPTY, MOUNT_POINT_BUSY, MOUNT_POINT_MISSING or what loading throws
 */
export async function forkCheckpoint(store: Store, request: MountRequest, steps: ForkSteps): Promise<Forked> {
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
  let record = newRecord({ ...request, target }, 'fork', 'overlay', made);
  try {
    const copiedBecause = await mountOverlay(store, record);
    if (copiedBecause !== undefined) {
      record = { ...record, engine: 'copy' };
      await table.add(record);
      lock.release();
      await steps.copy(record);
    }
    await steps.prepare(record);
    faultPoint('fork.described');
    if (copiedBecause === undefined) await keepRootAttributes(store, record);
    return { record, copiedBecause };
  } catch (error) {
    await tearDown(store, record);
    throw error;
  } finally {
    lock.release();
  }
}

/** Ends a fork for good: what was not saved is gone, and the directory too if the fork made it. */
export async function removeFork(store: Store, record: MountStatus, lazy: boolean): Promise<void> {
  if (record.engine === 'copy') refuseIfMountedInside(record.target);
  else if (record.mounted) await release(store, record, lazy);
  await tearDown(store, record);
}

/** @returns why it did not work, where a copy can take its place */
async function mountOverlay(store: Store, record: MountRecord): Promise<string | undefined> {
  const { usable, reason } = fuseAvailability();
  if (usable !== 'root') return reason ?? 'an ordinary user may not mount overlays';
  const table = new MountTable(store);
  await table.makeForkDirs(record);
  faultPoint('fork.dirs-made');
  await table.add(record);
  faultPoint('fork.recorded');
  try {
    await bring(store, record);
    faultPoint('fork.mounted');
    return undefined;
  } catch (error) {
    if (error instanceof BentoError && error.code === 'MOUNT_FAILED') return error.message;
    throw error;
  }
}

/** An overlay's root shows the attributes of its upper directory: these are made the checkpoint's. */
async function keepRootAttributes(store: Store, { manifest, target }: MountRecord): Promise<void> {
  const lower = fromText(join(runtimeDir(store.root).tree, hexOf(manifest)));
  const upper = fromText(target);
  const stat = lstatSync(toFsPath(lower), { bigint: true });
  const NSEC = 1_000_000_000n;
  const nsec = ((stat.mtimeNs % NSEC) + NSEC) % NSEC;
  await chown(target, Number(stat.uid), Number(stat.gid));
  await chmod(target, Number(stat.mode & 0o7777n));
  for (const [name, value] of readXattrs(lower) ?? []) lsetxattr(upper, name, value);
  utimensat(upper, { mtime: { sec: Number((stat.mtimeNs - nsec) / NSEC), nsec: Number(nsec) } });
}

/** Deleting a directory goes through the mounts inside it, into what somebody else keeps there. */
function refuseIfMountedInside(dir: string): void {
  const inside = mountedFileSystems().find(({ target }) => target.startsWith(`${dir}/`));
  if (inside === undefined) return;
  throw new BentoError('MOUNT_POINT_BUSY', `${inside.target} is mounted inside ${dir}`, { hint: 'unmount it first' });
}

/** A copied fork's directory was empty before, so all that is in it is the fork's. */
async function emptyDirectory(dir: string): Promise<void> {
  const names = await readdir(dir).catch(() => []);
  for (const name of names) await rm(join(dir, name), { recursive: true, force: true });
}

async function tearDown(store: Store, record: MountRecord): Promise<void> {
  const table = new MountTable(store);
  if (record.engine === 'overlay' && mountedAt(record.target) !== undefined)
    unmount(fromText(record.target), { lazy: true });
  if (record.engine === 'copy') await emptyDirectory(record.target);
  await rm(table.forkDir(record), { recursive: true, force: true });
  await table.remove(record);
  await giveUpHead(store.layout(record.workspaceId), record.target);
  if (record.madeTarget) await rmdir(record.target).catch(() => undefined); // somebody put something there: it stays
}
