import { lstatSync, type BigIntStats } from 'node:fs';
import { chmod, chown, rm, rmdir } from 'node:fs/promises';

import { fromText, toFsPath, type ByteString } from '../../store/byte-string.ts';
import { BentoError } from '../../store/errors.ts';
import { faultPoint } from '../../store/fault-point.ts';
import type { Lock } from '../../store/lock.ts';
import type { Store } from '../../store/store.ts';
import { lsetxattr, readXattrs, utimensat, type Timestamp } from '../../store/syscalls.ts';
import { giveUpHead } from '../workspace/heads.ts';
import { fuseAvailability, mayMount, unmount } from './dev-fuse.ts';
import { bring, fuseMissing, release } from './kernel-mount.ts';
import type { CopyCheckpoint, Mounted } from './mount.ts';
import { newRecord, type MountRequest } from './mount-record.ts';
import {
  FORK_ENGINES,
  fstypeOf,
  MountTable,
  type CheckpointRecord,
  type ForkEngine,
  type MountStatus,
} from './mount-table.ts';
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
 * Makes a writable workspace over a checkpoint: an upper directory, and a mount of both with the fastest engine that works
 * here. Whatever is not changed is shared with the checkpoint and with everything else made from it. Where nothing can be
 * mounted, it is a copy.
 *
 * @throws BentoError TARGET_NOT_EMPTY, MOUNT_POINT_BUSY, MOUNT_POINT_MISSING or what loading throws; what mounting throws
 *   when one engine was asked for
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
    const { engine, rootDir, copiedBecause } = await mountFork(store, record, enginesToTry(request.engine));
    record = { ...record, engine };
    const root = rootDir === undefined ? undefined : lstatSync(toFsPath(fromText(rootDir)), { bigint: true });
    if (engine === 'copy') {
      lock.release();
      await steps.copy(record);
    }
    await steps.prepare(record);
    faultPoint('fork.described');
    if (root !== undefined && rootDir !== target) await keepRootAttributes(root, fromText(rootDir ?? ''), target);
    if (root !== undefined) utimensat(fromText(target), { mtime: mtimeOf(root) });
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
  const isRoot = mayMount();
  const isInitial = inInitialUserNamespace();
  const keepOwners = isRoot && (isInitial || hasAllUsers());
  const userxattr = !isRoot || !isInitial;
  return newRecord({ ...request, keepOwners }, { kind: 'fork', engine: 'overlay', madeTarget, userxattr });
}

function enginesToTry(wanted: ForkEngine | undefined): readonly ForkEngine[] {
  if (wanted !== undefined) return [wanted];
  const { usable } = fuseAvailability();
  if (usable === undefined) return ['copy'];
  return usable === 'root' ? FORK_ENGINES : ['cow', 'copy'];
}

/** Ends a fork for good: what was not saved is gone, and the directory too if the fork made it. */
export async function removeFork(store: Store, record: MountStatus, lazy: boolean): Promise<void> {
  refuseIfElsewhere(record);
  if (record.engine === 'copy') refuseIfMountedInside(record.target);
  else if (record.mounted) await release(store, record, lazy);
  await tearDown(store, record);
}

interface MountedFork {
  engine: ForkEngine;
  /** Where the attributes of the checkpoint's root can be seen; undefined for a copy. */
  rootDir: string | undefined;
  copiedBecause: string | undefined;
}

/** Mounts with the first engine that works. @throws what the last one throws, unless that is a copy */
async function mountFork(store: Store, record: CheckpointRecord, engines: readonly ForkEngine[]): Promise<MountedFork> {
  const table = new MountTable(store);
  const { usable, reason } = fuseAvailability();
  let obstacle = usable === undefined ? fuseMissing(reason) : undefined;
  for (const engine of engines) {
    if (engine === 'copy') {
      removeNote(record.target);
      await rm(table.forkDir(record), { recursive: true, force: true });
      await table.add({ ...record, engine });
      return { engine, rootDir: undefined, copiedBecause: obstacle?.message ?? 'it was asked for' };
    }
    if (usable === undefined) continue;
    try {
      return { engine, rootDir: await mountWith(store, { ...record, engine }), copiedBecause: undefined };
    } catch (error) {
      if (!(error instanceof BentoError && IS_ABOUT_THE_ENGINE.has(error.code))) throw error;
      obstacle = error;
    }
  }
  throw obstacle ?? fuseMissing(reason);
}

const IS_ABOUT_THE_ENGINE = new Set(['MOUNT_FAILED', 'FUSE_UNAVAILABLE']);

/** @returns the directory that shows the checkpoint's root as it is */
async function mountWith(store: Store, record: CheckpointRecord): Promise<string> {
  const table = new MountTable(store);
  await table.makeForkDirs(record);
  faultPoint('fork.dirs-made');
  await table.add(record);
  faultPoint('fork.recorded');
  writeNote(record, store.root);
  const lower = await bring(store, record);
  faultPoint('fork.mounted');
  return lower ?? record.target;
}

/** An overlay's root shows the attributes of its upper directory: these are made the checkpoint's. */
async function keepRootAttributes(stat: BigIntStats, lower: ByteString, target: string): Promise<void> {
  await chown(target, Number(stat.uid), Number(stat.gid));
  await chmod(target, Number(stat.mode & 0o7777n));
  for (const [name, value] of readXattrs(lower) ?? []) lsetxattr(fromText(target), name, value);
}

function mtimeOf({ mtimeNs }: BigIntStats): Timestamp {
  const NSEC = 1_000_000_000n;
  const nsec = ((mtimeNs % NSEC) + NSEC) % NSEC;
  return { sec: Number((mtimeNs - nsec) / NSEC), nsec: Number(nsec) };
}

async function tearDown(store: Store, record: CheckpointRecord | MountStatus): Promise<void> {
  const table = new MountTable(store);
  if (record.engine !== 'copy' && mountedAt(record.target)?.fstype === fstypeOf(record))
    unmount(fromText(record.target), { lazy: true });
  if (mountedAt(record.target) === undefined) removeNote(record.target);
  if (record.engine === 'copy') await emptyDirectory(record.target);
  await rm(table.forkDir(record), { recursive: true, force: true });
  await table.remove(record);
  await giveUpHead(store.layout(record.workspaceId), record.target);
  if (record.madeTarget) await rmdir(record.target).catch(() => undefined); // somebody put something there: it stays
}
