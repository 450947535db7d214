import { dirname, join } from 'node:path';

import { fromText } from '../../store/byte-string.ts';
import { BentoError, describeSystemError } from '../../store/errors.ts';
import type { Store } from '../../store/store.ts';
import { mount, MS_BIND, MS_PRIVATE } from '../../store/syscalls.ts';
import type { ControlRequest, ServeWish } from './daemon/control.ts';
import { askDaemon, connectDaemon, findDaemon } from './daemon/daemon-client.ts';
import { unmount } from './dev-fuse.ts';
import { fileMountsBelow, isServed, mountedAt, mountedFileSystems } from './mountinfo.ts';
import { fstypeOf, MountTable, type CheckpointRecord, type MountRecord } from './mount-table.ts';
import { mountOverlay } from './overlay-mount.ts';
import { answers } from './probe.ts';
import { runtimeDir } from './daemon/runtime-dir.ts';

/** How long the daemon may take to give up a mount before it is taken from it, in milliseconds. */
const RELEASE_TIMEOUT_MS = 5_000;
/** How often file mounts are taken away before a mount counts as in use: the daemon may be adding some just then. */
const RELEASE_TRIES = 3;

/**
 * Makes the kernel mount that a record describes, through the daemon; one whose index broke is replaced by a new one.
 *
 * @param options.isCareful - ask first, without waiting for long, whether the daemon's server answers at all
 */
export async function bring(store: Store, record: MountRecord, options: { isCareful?: boolean } = {}): Promise<void> {
  if (isConnection(record) || record.manifest === undefined) {
    await againIfBroken(async () => await connectMount(store, record));
    return;
  }
  const folder = await findLower(store, record, options);
  if (record.engine === 'overlay') {
    mountKernelOverlay(folder, record, new MountTable(store).forkDir(record));
  } else {
    bindMount(folder, record.target);
    await askDaemon(store, { op: 'mounted', target: record.target }).catch(() => undefined); // only about speed
  }
}

/** The folder of the daemon's that shows a checkpoint, for mounts made from it. Throws as `bring`. */
export async function findLower(
  store: Store,
  record: CheckpointRecord,
  options: { isCareful?: boolean } = {},
): Promise<string> {
  return await againIfBroken(async () => await findLowerOnce(store, record, options));
}

async function againIfBroken<Result>(attempt: () => Promise<Result>): Promise<Result> {
  try {
    return await attempt();
  } catch (error) {
    if (!(error instanceof BentoError && error.code === 'INDEX_BROKEN')) throw error;
    return await attempt();
  }
}

async function connectMount(store: Store, record: MountRecord): Promise<void> {
  const { target, allowOther = false } = record;
  using daemon = await connectDaemon(store);
  await daemon.ask({ op: 'serve', target, allowOther, wish: wishOf(record) });
}

async function findLowerOnce(
  store: Store,
  { manifest, keepOwners = false, ref }: CheckpointRecord,
  { isCareful = false }: { isCareful?: boolean },
): Promise<string> {
  const { folder } = await askDaemon(store, { op: 'prepare', manifest, keepOwners });
  if (folder === undefined) throw fuseMissing('the daemon has no tree to mount from');
  if (mountedAt(dirname(folder)) === undefined) throw daemonElsewhere(store);
  if (isCareful ? !(await answers(folder)) : !isServed(folder)) {
    await askDaemon(store, { op: 'stop' }); // what it still can serve it goes on serving
    throw new BentoError('INDEX_BROKEN', `the mount daemon of ${store.root} cannot serve ${ref}`, {
      hint: 'its log says why; `bento unmount --all` ends it',
    });
  }
  return folder;
}

function daemonElsewhere({ root }: Store): BentoError {
  return new BentoError('MOUNT_FAILED', `the mount daemon of ${root} runs in another mount namespace`, {
    hint: 'set XDG_RUNTIME_DIR to a private directory of this one, so that it gets a daemon of its own',
  });
}

function wishOf({ id, engine, manifest, keepOwners = false, userxattr = false }: MountRecord): ServeWish {
  if (manifest === undefined) return { kind: 'all' };
  if (engine === 'cow') return { kind: 'workspace', manifest, keepOwners, fork: id, userxattr };
  return { kind: 'checkpoint', manifest, keepOwners };
}

/**
 * The daemon's tree is read-only, nosuid and nodev, and a bind mount of it too. It is private: the daemon's file mounts in
 * one view must not appear in all others of the same tree.
 */
function bindMount(source: string, target: string): void {
  try {
    mount(fromText(source), fromText(target), undefined, MS_BIND);
    mount('none', fromText(target), undefined, MS_PRIVATE);
  } catch (error) {
    const described = describeSystemError(error, `mounting on ${target}`);
    throw described instanceof BentoError ? described : mountFailed(target, error);
  }
}

/** @throws BentoError MOUNT_FAILED whatever the reason, but for a full disk: a copy can take its place */
export function mountKernelOverlay(lower: string, { target, userxattr }: MountRecord, forkDir: string): void {
  try {
    mountOverlay(target, { lower, upper: join(forkDir, 'upper'), work: join(forkDir, 'work') }, userxattr === true);
  } catch (error) {
    const described = describeSystemError(error, `mounting on ${target}`);
    const isFull = described instanceof BentoError && described.code === 'NO_SPACE';
    throw isFull ? described : mountFailed(target, error);
  }
}

function mountFailed(target: string, cause: unknown): BentoError {
  return new BentoError('MOUNT_FAILED', `mounting on ${target} failed: ${(cause as Error).message}`, {
    hint: '`bento open --copy <ref> <dir>` makes a plain copy instead',
    cause,
  });
}

/** @param reason - as `fuseAvailability` has it */
export function fuseMissing(reason: string | undefined): BentoError {
  return new BentoError('FUSE_UNAVAILABLE', `cannot mount here: ${reason ?? 'no FUSE'}`, {
    hint: '`bento open --copy <ref> <dir>` makes a plain copy instead',
  });
}

/** Takes a mount away, and nothing else. */
export async function release(store: Store, record: MountRecord, lazy: boolean): Promise<void> {
  if (record.engine === 'copy') return;
  refuseIfCovered(record);
  if (isConnection(record) && (await isReleasedByDaemon(store, record, lazy))) return;
  if (lazy) {
    unmount(fromText(record.target), { lazy });
    return;
  }
  if (record.engine === 'bind') await tellDaemon(store, { op: 'unmounting', target: record.target });
  try {
    unmountWithFiles(record.target);
  } catch (error) {
    await giveFilesBack(store, record);
    throw error;
  }
}

/** Takes what a record describes away at once, if it is mounted; who uses it keeps it until they leave. */
export function detach(record: MountRecord): void {
  if (record.engine === 'copy' || mountedAt(record.target)?.fstype !== fstypeOf(record)) return;
  unmount(fromText(record.target), { lazy: true });
}

/** What somebody else mounted on top of ours must not be taken away in its place. */
function refuseIfCovered(record: MountRecord): void {
  if (mountedAt(record.target)?.fstype === fstypeOf(record)) return;
  throw new BentoError('MOUNT_POINT_BUSY', `something else is mounted over the ${record.kind} on ${record.target}`, {
    hint: `take that away first: umount ${record.target}`,
  });
}

/** It has a FUSE connection of its own, which the daemon made. */
function isConnection({ engine }: MountRecord): boolean {
  return engine === 'fuse' || engine === 'cow';
}

/** @returns false when nobody is there to do it, or does not answer */
async function isReleasedByDaemon(store: Store, { target }: MountRecord, lazy: boolean): Promise<boolean> {
  return await tellDaemon(store, { op: 'release', target, lazy });
}

/** @returns whether a daemon runs and did it in time */
async function tellDaemon(store: Store, request: ControlRequest): Promise<boolean> {
  const daemon = await findDaemon(store).catch(() => undefined);
  if (daemon === undefined) return false;
  using client = daemon;
  const timer = setTimeout(() => client.close(), RELEASE_TIMEOUT_MS);
  try {
    await client.ask(request);
    return true;
  } catch (error) {
    if (error instanceof BentoError && error.code === 'DAEMON_FAILED') return false;
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** The daemon's own mounts inside keep a mount busy, so they go first. */
function unmountWithFiles(target: string): void {
  for (let left = RELEASE_TRIES; ; left -= 1) {
    for (const file of fileMountsBelow(target)) unmount(fromText(file.target));
    try {
      unmount(fromText(target));
      return;
    } catch (error) {
      if (left <= 1 || fileMountsBelow(target).length === 0) throw error;
    }
  }
}

/** What stays mounted keeps its speed. */
async function giveFilesBack(store: Store, { engine, target }: MountRecord): Promise<void> {
  if (engine === 'bind') await tellDaemon(store, { op: 'mounted', target });
}

/** Takes away what a daemon that was killed left mounted in its runtime folder. To be called when none runs. */
export function clearRuntime(store: Store): void {
  const { dir } = runtimeDir(store.root);
  const left = mountedFileSystems().filter(({ target }) => target.startsWith(`${dir}/`));
  for (const { target } of left.reverse()) unmount(fromText(target), { lazy: true });
}
