import { chmodSync, existsSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';

import { fromText } from '../../store/byte-string.ts';
import { BentoError } from '../../store/errors.ts';
import type { Lock } from '../../store/lock.ts';
import type { Store } from '../../store/store.ts';
import { fuseAvailability, unmount } from './dev-fuse.ts';
import { bring, fuseMissing, release } from './kernel-mount.ts';
import { mountedAt } from './mountinfo.ts';
import { newRecord, type MountRequest } from './mount-record.ts';
import { MountTable, WHOLE_STORE, type CheckpointRecord, type MountRecord, type MountStatus } from './mount-table.ts';
import { removeNote, writeNote } from './note-file.ts';
import { checkMountPoint, emptyDirectory, refuseIfElsewhere, refuseIfMountedInside, refuseIfTaken } from './targets.ts';

/** Writes the whole checkpoint into the target, where nothing can be mounted. */
export type CopyCheckpoint = (record: CheckpointRecord) => Promise<void>;

export interface Mounted {
  record: CheckpointRecord;
  /** Why it is a copy and no mount. */
  copiedBecause: string | undefined;
}

// Making mounts

/**
 * Mounts a checkpoint read-only. Takes milliseconds, whatever the checkpoint holds. Where FUSE is missing, it is a copy.
 *
 * @param copy - absent: it has to be a mount
 * @throws BentoError MOUNT_POINT_MISSING, MOUNT_POINT_BUSY, TARGET_NOT_EMPTY, FUSE_UNAVAILABLE or what loading throws
 */
export async function mountCheckpoint(store: Store, request: MountRequest, copy?: CopyCheckpoint): Promise<Mounted> {
  const target = checkMountPoint(request.target);
  const { usable, reason } = fuseAvailability();
  if (usable === 'user' && request.allowOther === true) await requireAllowOther();
  const table = new MountTable(store);
  using lock = await table.lock();
  checkMountPoint(target);
  await refuseIfTaken(table, target);
  const record = newRecord({ ...request, target }, { kind: 'mount', engine: usable === 'root' ? 'bind' : 'fuse' });
  const obstacle = usable === undefined ? fuseMissing(reason) : await tryToEstablish(store, record);
  if (obstacle === undefined) return { record, copiedBecause: undefined };
  if (copy === undefined) throw obstacle;
  return { record: await establishCopy(table, record, { copy, lock }), copiedBecause: obstacle.message };
}

/**
 * Mounts a view of every workspace and tag of the store, one folder each; it follows the store as checkpoints come and go.
 *
 * @throws BentoError as `mountCheckpoint`
 */
export async function mountWholeStore(
  store: Store,
  request: { target: string; allowOther?: boolean },
): Promise<MountRecord> {
  const target = checkMountPoint(request.target);
  const { usable, reason } = fuseAvailability();
  if (usable === undefined) throw wholeStoreNeedsFuse(fuseMissing(reason));
  if (usable === 'user' && request.allowOther === true) await requireAllowOther();
  const table = new MountTable(store);
  using _lock = await table.lock();
  checkMountPoint(target);
  await refuseIfTaken(table, target);
  const allowOther = usable === 'root' || request.allowOther === true;
  const record = newRecord(
    { target, ref: WHOLE_STORE, workspaceId: '', allowOther },
    { kind: 'mount', engine: 'fuse' },
  );
  const obstacle = await tryToEstablish(store, record);
  if (obstacle !== undefined) throw wholeStoreNeedsFuse(obstacle);
  return record;
}

/** @returns why there is no FUSE here, and then nothing is left of the attempt; anything else that goes wrong is thrown */
async function tryToEstablish(store: Store, record: MountRecord): Promise<BentoError | undefined> {
  const table = new MountTable(store);
  await table.add(record);
  try {
    writeNote(record, store.root);
    await bring(store, record);
    return undefined;
  } catch (error) {
    discard(record);
    await table.remove(record);
    if (error instanceof BentoError && error.code === 'FUSE_UNAVAILABLE') return error;
    throw error;
  }
}

/** Nothing was mounted there before, so whatever is there now is half of this mount. */
function discard({ target }: MountRecord): void {
  if (mountedAt(target) !== undefined) unmount(fromText(target), { lazy: true });
  removeNote(target);
}

/** The table is free for others meanwhile: a copy may take long, and the record keeps the directory. */
async function establishCopy(
  table: MountTable,
  mounted: CheckpointRecord,
  { copy, lock }: { copy: CopyCheckpoint; lock: Lock },
): Promise<CheckpointRecord> {
  const { target } = mounted;
  const record: CheckpointRecord = { ...mounted, engine: 'copy', targetMode: statSync(target).mode & 0o7777 };
  await table.add(record);
  lock.release();
  removeNote(target);
  try {
    await copy(record);
  } catch (error) {
    await endCopy(table, record);
    throw error;
  }
  const done = { ...record, copied: new Date().toISOString() };
  await table.add(done);
  return done;
}

async function endCopy(table: MountTable, record: MountRecord): Promise<void> {
  const { target, targetMode } = record;
  if (existsSync(target)) {
    await emptyDirectory(target);
    if (targetMode !== undefined) chmodSync(target, targetMode);
  }
  await table.remove(record);
}

/** @see fusermount3(1), "user_allow_other"; it reads the file too, but says less */
async function requireAllowOther(config = '/etc/fuse.conf'): Promise<void> {
  const text = await readFile(config, 'utf8').catch(() => '');
  if (text.split('\n').some((line) => line.trim() === 'user_allow_other')) return;
  throw new BentoError('PERMISSION_DENIED', '--allow-other is not allowed to ordinary users on this machine', {
    hint: `let root add the line user_allow_other to ${config}, or mount without it`,
  });
}

function wholeStoreNeedsFuse(obstacle: BentoError): BentoError {
  return new BentoError('FUSE_UNAVAILABLE', obstacle.message, {
    hint: 'a whole store is not copied; `bento list` shows the checkpoints, `bento mount <ref> <dir>` copies one',
    cause: obstacle,
  });
}

// Ending

/**
 * Ends a mount. A fork's changes stay, and `restoreMount` brings it back.
 *
 * @param force - even while somebody uses it: gone at once, ended when the last user leaves; of a copy, even with changes
 * @throws BentoError NOT_MOUNTED, MOUNT_POINT_BUSY, or UNSAVED_CHANGES for a copy somebody wrote into
 */
export async function unmountRecord(store: Store, record: MountStatus, force: boolean): Promise<void> {
  refuseIfElsewhere(record);
  if (record.engine === 'copy') {
    await unmountCopy(store, record, force);
    return;
  }
  if (record.mounted) await release(store, record, force);
  await forget(store, record);
}

async function unmountCopy(store: Store, record: MountStatus, force: boolean): Promise<void> {
  if (record.kind === 'fork') {
    throw new BentoError('NOT_MOUNTED', `${record.target} is a plain copy, so there is nothing to unmount`, {
      hint: `bento close ${record.target}`,
    });
  }
  refuseIfMountedInside(record.target);
  if (!force && record.mounted) await refuseIfChanged(store, record);
  await endCopy(new MountTable(store), record);
}

/** @throws BentoError UNSAVED_CHANGES naming a file that somebody put there or wrote into */
async function refuseIfChanged(store: Store, record: MountStatus): Promise<void> {
  const { changesInCopy } = await import('./copy-changes.ts'); // a whole workspace's worth of modules, seldom needed
  const { target, copied } = record;
  const changes = copied === undefined ? [] : await changesInCopy(store, record);
  if (copied !== undefined && changes.length === 0) return;
  const what =
    copied === undefined
      ? `${target} is being copied, or its copying was interrupted`
      : `${target} is a plain copy, and somebody changed it: ${named(changes)}`;
  throw new BentoError('UNSAVED_CHANGES', what, {
    hint: `keep elsewhere what you need, then remove it all: bento unmount --force ${target}`,
  });
}

function named(paths: readonly string[]): string {
  const [first = '', ...more] = paths;
  return more.length === 0 ? first : `${first} and ${more.length} more`;
}

/** A mount that is gone leaves nothing but its note; a fork keeps its record. */
async function forget(store: Store, { target }: MountRecord): Promise<void> {
  const table = new MountTable(store);
  using _lock = await table.lock();
  const record = await table.at(target);
  if (record === undefined || record.mounted) return; // somebody else was faster, or mounted it again
  removeNoteBelow(record);
  if (record.kind === 'mount') await table.remove(record);
  else await table.add(mountedNowhere(record));
}

/** The record as it is kept, without when and where it was mounted last. */
export function mountedNowhere(status: MountStatus): MountRecord {
  const { mounted: _mounted, elsewhere: _elsewhere, bootId: _bootId, namespace: _namespace, ...record } = status;
  return record;
}

/** Takes our note out of the directory that a mount was on. */
export function removeNoteBelow({ target }: MountRecord): void {
  if (mountedAt(target) === undefined) removeNote(target);
}

/**
 * Forgets what cannot be brought back or holds nothing: read-only mounts that are not mounted, and copies whose directory is
 * gone. A fork that is an overlay stays: its changes are in the store.
 *
 * @returns what was forgotten
 */
export async function pruneMounts(store: Store): Promise<MountRecord[]> {
  const table = new MountTable(store);
  using _lock = await table.lock();
  const stale = (await table.list()).filter(
    ({ kind, engine, mounted, elsewhere }) => !mounted && !elsewhere && (kind === 'mount' || engine === 'copy'),
  );
  for (const record of stale) {
    removeNoteBelow(record);
    await table.remove(record);
  }
  return stale;
}
