import { mkdir } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';

import { fromText } from '../../store/byte-string.ts';
import { hexOf, type Digest } from '../../store/digest.ts';
import { BentoError, describeSystemError } from '../../store/errors.ts';
import type { Store } from '../../store/store.ts';
import { mount, MS_BIND, MS_NODEV, MS_NOSUID } from '../../store/syscalls.ts';
import { connectDaemon, findDaemon } from './daemon-client.ts';
import { fuseAvailability, unmount } from './dev-fuse.ts';
import { isServed } from './mountinfo.ts';
import { MountTable, recordId, type Engine, type MountRecord, type MountStatus } from './mount-table.ts';
import { checkMountPoint, refuseIfTaken } from './targets.ts';

/** What is mounted where, before anything has been done about it. */
export interface MountRequest {
  manifest: Digest;
  /** As the user wrote it. */
  ref: string;
  workspaceId: string;
  /** Where; relative paths are resolved. */
  target: string;
  message?: string;
}

/**
 * Mounts a checkpoint read-only. Takes milliseconds, whatever the checkpoint holds.
 *
 * @throws BentoError MOUNT_POINT_MISSING, MOUNT_POINT_BUSY, TARGET_NOT_EMPTY, FUSE_UNAVAILABLE or what loading throws
 */
export async function mountCheckpoint(store: Store, request: MountRequest): Promise<MountRecord> {
  const target = checkMountPoint(request.target);
  const { usable, reason } = fuseAvailability();
  if (usable === undefined) throw fuseMissing(reason);
  const table = new MountTable(store);
  using _lock = await table.lock();
  checkMountPoint(target);
  await refuseIfTaken(table, target);
  const record = newRecord({ ...request, target }, 'mount', usable === 'root' ? 'bind' : 'fuse', false);
  await table.add(record);
  try {
    await bring(store, record);
  } catch (error) {
    await table.remove(record);
    throw error;
  }
  return record;
}

/** Mounts again what the table says should be there: after a reboot, after `unmount`, or when its daemon was killed. */
export async function restoreMount(store: Store, record: MountStatus): Promise<void> {
  if (record.mounted) {
    if (record.engine === 'copy' || isServed(record.target)) return;
    await release(store, record, true);
  }
  await mkdir(record.target, { recursive: true });
  checkMountPoint(record.target);
  await bring(store, record);
}

/**
 * Ends a mount. A fork's changes stay, and `restoreMount` brings it back.
 *
 * @throws BentoError NOT_MOUNTED or MOUNT_POINT_BUSY
 */
export async function unmountRecord(store: Store, record: MountStatus, lazy: boolean): Promise<void> {
  if (record.mounted) await release(store, record, lazy);
  if (record.kind === 'mount') await new MountTable(store).remove(record);
}

/** Makes the kernel mount that a record describes, through the daemon; one whose index broke is replaced by a new one. */
export async function bring(store: Store, record: MountRecord): Promise<void> {
  try {
    await bringOnce(store, record);
  } catch (error) {
    if (!(error instanceof BentoError && error.code === 'INDEX_BROKEN')) throw error;
    await bringOnce(store, record);
  }
}

async function bringOnce(store: Store, record: MountRecord): Promise<void> {
  using daemon = await connectDaemon(store);
  if (record.engine === 'fuse') {
    await daemon.ask({ op: 'serve', manifest: record.manifest, target: record.target });
    return;
  }
  const { tree } = await daemon.ask({ op: 'prepare', manifest: record.manifest });
  if (tree === undefined) throw fuseMissing('the daemon has no tree to mount from');
  const lower = join(tree, hexOf(record.manifest));
  if (!isServed(lower)) {
    await daemon.ask({ op: 'stop' }); // what it still can serve it goes on serving
    throw new BentoError('INDEX_BROKEN', `the mount daemon of ${store.root} cannot serve ${record.ref}`, {
      hint: 'its log says why; `bento unmount --all` ends it',
    });
  }
  if (record.engine === 'bind') bindMount(lower, record.target);
  else overlayMount(lower, new MountTable(store).forkDir(record), record.target);
}

/** The daemon's tree is read-only, nosuid and nodev, and a bind mount of it too. */
function bindMount(source: string, target: string): void {
  attempt(target, () => mount(fromText(source), fromText(target), undefined, MS_BIND));
}

/**
 * Redirects, metacopy and the inode index are off whatever the kernel's default: then an upper directory holds whole files
 * and plain whiteouts, and a save can read it without the lower.
 */
function overlayMount(lower: string, forkDir: string, target: string): void {
  const options = ['redirect_dir=off', 'metacopy=off', 'index=off', 'xino=auto'];
  const dirs = [
    `lowerdir=${escapePath(lower)}`,
    `upperdir=${escapePath(join(forkDir, 'upper'))}`,
    `workdir=${escapePath(join(forkDir, 'work'))}`,
  ];
  const data = fromText([...dirs, ...options].join(','));
  attempt(target, () => mount('bento', fromText(target), 'overlay', MS_NOSUID | MS_NODEV, data));
}

/** @see overlayfs.rst: colons separate lower layers, commas options, and a backslash quotes either */
function escapePath(path: string): string {
  return path.replace(/[\\:,]/g, '\\$&');
}

function attempt(target: string, run: () => void): void {
  try {
    run();
  } catch (error) {
    const described = describeSystemError(error, `mounting on ${target}`);
    if (described instanceof BentoError) throw described;
    throw new BentoError('MOUNT_FAILED', `mounting on ${target} failed: ${(error as Error).message}`, {
      hint: '`bento open <ref> <dir>` makes a plain copy instead',
      cause: error,
    });
  }
}

/** Takes a mount away, and nothing else. */
export async function release(store: Store, record: MountStatus, lazy: boolean): Promise<void> {
  if (record.engine === 'copy') return;
  if (record.engine === 'fuse') {
    const daemon = await findDaemon(store);
    if (daemon !== undefined) {
      using client = daemon;
      await client.ask({ op: 'release', target: record.target, lazy });
      return;
    }
  }
  unmount(fromText(record.target), { lazy });
}

export function newRecord(
  request: MountRequest,
  kind: MountRecord['kind'],
  engine: Engine,
  madeTarget: boolean,
): MountRecord {
  const { target, manifest, ref, workspaceId, message } = request;
  return {
    id: recordId(target),
    kind,
    engine,
    target,
    manifest,
    ref,
    workspaceId,
    created: new Date().toISOString(),
    user: userInfo().username,
    ...(message && { message }),
    madeTarget,
  };
}

function fuseMissing(reason: string | undefined): BentoError {
  return new BentoError('FUSE_UNAVAILABLE', `cannot mount here: ${reason ?? 'no FUSE'}`, {
    hint: '`bento open <ref> <dir>` makes a plain copy instead',
  });
}
