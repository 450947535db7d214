import { realpathSync, statfsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

import { inspectIndex } from '../../index/inspect.ts';
import { SCHEMA_VERSION } from '../../index/schema.ts';
import { BentoError, describeSystemError, errnoOf } from '../../store/errors.ts';
import type { Store } from '../../store/store.ts';
import { isNewer, programVersion } from '../../store/version.ts';
import { checkLater, checkThat, firstLine, type Check } from './check.ts';
import type { DaemonHealth } from '../mounts/daemon/control.ts';
import { findRuntimeDir } from '../mounts/daemon/runtime-dir.ts';
import { daemonHealth, statesOf, type MountState } from '../mounts/mount-states.ts';
import { MountTable } from '../mounts/mount-table.ts';
import { FUSE_TYPE, mountedFileSystems } from '../mounts/mountinfo.ts';
import { thinCheck } from './thin-blobs.ts';
import { canReflink, locksExclude, ScratchFile } from './scratch-file.ts';

/** Less room than this is worth a word; with less than the second, nothing can be saved. */
const FREE_BYTES_MIN = 1 << 30;
const FREE_BYTES_NEEDED = 16 << 20;
const FREE_INODES_MIN = 10_000;
/** Of the index's log, a part is memory that processes share and machines cannot. */
const NETWORK_FILE_SYSTEM = /^(nfs\d?|cifs|smb\d?|9p|ceph|afs|glusterfs|lustre|fuse(\..+)?)$/;
const MIB = 1024 ** 2;

export interface StoreHealth {
  checks: Check[];
  /** A writable folder on the store's file system: the store, or where it will be made. */
  place: string | undefined;
}

/** Looks at a store, its index, its daemon and its mounts. It need not be there, and nothing is made or changed. */
export async function examineStore(store: Store): Promise<StoreHealth> {
  const folder = nearestFolder(store.root);
  const writing = folderCheck(store.root, folder);
  const place = typeof folder === 'string' && writing.state !== 'broken' ? folder : undefined;
  const daemon = await findHealth(store);
  return {
    checks: [
      writing,
      spaceCheck(place),
      locksCheck(place),
      reflinkCheck(place),
      indexCheck(store.cacheDir),
      await thinCheck(store),
      daemonCheck(daemon),
      await mountsCheck(store, daemon),
    ],
    place,
  };
}

// The folder

/** The folder itself, or the nearest above it that is there; or why it cannot be told. */
function nearestFolder(path: string): string | BentoError {
  try {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat === undefined) return path === dirname(path) ? path : nearestFolder(dirname(path));
    return stat.isDirectory() ? path : new BentoError('TARGET_INVALID', `${path} is not a directory`);
  } catch (error) {
    if (errnoOf(error) === 'ENOTDIR') return nearestFolder(dirname(path));
    return asBentoError(error, `looking at ${path}`);
  }
}

function asBentoError(error: unknown, what: string): BentoError {
  const described = describeSystemError(error, what);
  return described instanceof BentoError ? described : new BentoError('FAILED', `${what}: ${firstLine(error)}`);
}

function folderCheck(root: string, folder: string | BentoError): Check {
  return checkThat('store', 'Store', (check) => {
    const advice = 'give this user the folder, or set another one as `store:` in bento.yaml';
    const obstacle = typeof folder === 'string' ? obstacleToWriting(folder) : folder;
    if (obstacle !== undefined) return check.broken(obstacle.code, obstacle.message, { advice, facts: { path: root } });
    const fileSystem = typeof folder === 'string' ? fileSystemOf(folder) : undefined;
    const facts = { path: root, exists: folder === root, fileSystem: fileSystem ?? null };
    const finding = `${root}, ${facts.exists ? 'writable' : 'not made yet'}, on ${fileSystem ?? 'an unknown file system'}`;
    if (fileSystem === undefined || !NETWORK_FILE_SYSTEM.test(fileSystem)) return check.ok(finding, { facts });
    return check.limited(finding, { facts, advice: 'use it on one machine at a time: SQLite cannot share its log' });
  });
}

function obstacleToWriting(folder: string): BentoError | undefined {
  try {
    using _file = new ScratchFile(folder);
    return undefined;
  } catch (error) {
    return asBentoError(error, `writing to ${folder}`);
  }
}

/** By the longest mount point above it; of several on one, the last is on top. */
function fileSystemOf(folder: string): string | undefined {
  const path = realpathSync(folder);
  const above = mountedFileSystems().filter(({ target }) => `${path}/`.startsWith(target === '/' ? '/' : `${target}/`));
  const longest = Math.max(...above.map(({ target }) => target.length));
  return above.findLast(({ target }) => target.length === longest)?.fstype;
}

function spaceCheck(place: string | undefined): Check {
  return checkThat('space', 'Free space', (check) => {
    if (place === undefined) return check.unknown('nowhere to look');
    const { bavail, bsize, files, ffree } = statfsSync(place);
    return judgeSpace(bavail * bsize, files === 0 ? null : ffree); // some file systems do not count files
  });
}

export function judgeSpace(freeBytes: number, freeInodes: number | null): Check {
  return checkThat('space', 'Free space', (check) => {
    const finding = `${Math.floor(freeBytes / MIB)} MiB${freeInodes === null ? '' : ` and ${freeInodes} files`}`;
    const facts = { freeBytes, freeInodes };
    const advice = '`bento gc` deletes what nobody needs';
    if (freeBytes < FREE_BYTES_NEEDED || freeInodes === 0)
      return check.broken('NO_SPACE', `only ${finding}`, { facts, advice });
    const isTight = freeBytes < FREE_BYTES_MIN || (freeInodes ?? FREE_INODES_MIN) < FREE_INODES_MIN;
    return isTight ? check.limited(`only ${finding}`, { facts, advice }) : check.ok(finding, { facts });
  });
}

function locksCheck(place: string | undefined): Check {
  return checkThat('locks', 'File locks', (check) => {
    if (place === undefined) return check.unknown('nowhere to try them');
    const advice = 'put the store on a local file system';
    try {
      return locksExclude(place) ? check.ok('work') : check.broken('FAILED', 'two at once are granted', { advice });
    } catch (error) {
      return check.broken('FAILED', `cannot be taken: ${firstLine(error)}`, { advice });
    }
  });
}

function reflinkCheck(place: string | undefined): Check {
  return checkThat('reflink', 'Reflinks', (check) => {
    if (place === undefined) return check.unknown('nowhere to try them');
    const facts = { possible: canReflink(place) };
    return facts.possible
      ? check.ok('files can share blocks', { facts })
      : check.missing('files cannot share blocks; bento does without', { facts });
  });
}

function indexCheck(cacheDir: string): Check {
  return checkThat('index', 'Index', (check) => {
    try {
      const { state, version = null, sizeBytes } = inspectIndex(cacheDir);
      const facts = { version, wanted: SCHEMA_VERSION, sizeBytes };
      if (state === 'none') return check.ok('not made yet', { facts });
      const finding = `version ${version ?? 'unknown'}, ${Math.ceil(sizeBytes / MIB)} MiB`;
      if (state === 'usable') return check.ok(finding, { facts });
      const advice = 'nothing to do: it is a cache, and the next command makes it anew';
      return check.limited(state === 'damaged' ? 'damaged' : `${finding}, not version ${SCHEMA_VERSION}`, {
        facts,
        advice,
      });
    } catch (error) {
      const advice = `give this user the folder ${cacheDir}, or delete it: it is a cache`;
      return check.broken('INDEX_BROKEN', `cannot be read: ${firstLine(error)}`, { advice });
    }
  });
}

// The daemon

type FoundHealth = DaemonHealth | 'none' | 'silent' | BentoError;

/** Asked only where the daemon's folder is there already: who asks makes it. */
async function findHealth(store: Store): Promise<FoundHealth> {
  try {
    return findRuntimeDir(store.root) === undefined ? 'none' : await daemonHealth(store);
  } catch (error) {
    return asBentoError(error, 'asking the mount daemon');
  }
}

export function daemonCheck(health: FoundHealth, ownVersion = programVersion()): Check {
  return checkThat('daemon', 'Mount daemon', (check) => {
    if (health === 'none') return check.ok('not running; the first mount starts it', { facts: { running: false } });
    if (health === 'silent') {
      const advice = 'end its process, then `bento mounts --restore`';
      return check.broken('DAEMON_FAILED', 'runs, but does not answer', { advice, facts: { running: true } });
    }
    if (health instanceof BentoError) {
      const { code, message, hint } = health;
      return check.broken(code, message, hint === undefined ? {} : { advice: hint });
    }
    const { pid, version, serverPid = null, state, restartCount, lastDeath = null } = health;
    const facts = { running: true, pid, version, serverPid, state, restartCount, lastDeath };
    const died = restartCount === 0 ? '' : `; its server died ${restartCount} time(s)`;
    const finding = `${state}, version ${version}, process ${pid}${died}${lastDeath === null ? '' : `, last: ${lastDeath}`}`;
    if (state === 'failing') {
      const advice = 'daemon.log in its runtime folder says why; `bento unmount --all` ends it';
      return check.broken('DAEMON_FAILED', finding, { facts, advice });
    }
    if (state === 'restarting') return check.limited(finding, { facts, advice: 'look again in a moment' });
    if (!isNewer(ownVersion, version)) return check.ok(finding, { facts });
    return check.limited(finding, { facts, advice: `the next mount puts version ${ownVersion} in its place` });
  });
}

// Mounts

/** From harmless to bad: the last that applies is the advice. */
const STATES: readonly { state: MountState; advice?: string }[] = [
  { state: 'mounted' },
  { state: 'copy' },
  { state: 'elsewhere' },
  { state: 'running' },
  { state: 'left over', advice: '`bento mounts --prune` clears away what a killed `bento exec` left' },
  { state: 'unfinished', advice: '`bento unmount --force <dir>` removes a copy that was interrupted' },
  { state: 'not mounted', advice: '`bento mounts --restore` brings them back, `bento mounts --prune` forgets them' },
  { state: 'not answering', advice: '`bento unmount --force <dir>` lets go of them' },
  { state: 'broken', advice: '`bento mounts --restore` brings them back' },
];

/** What is on record and how that is, and what a daemon that was killed left in its folder. */
async function mountsCheck(store: Store, health: FoundHealth): Promise<Check> {
  return await checkLater('mounts', 'Mounts', async () => {
    const views = await statesOf(await new MountTable(store).list());
    const folder = health === 'none' ? findRuntimeDir(store.root)?.dir : undefined;
    const left = mountedFileSystems().filter(
      ({ fstype, target }) => fstype === FUSE_TYPE && folder !== undefined && target.startsWith(`${folder}/`),
    );
    return judgeMounts(
      views.map(({ state }) => state),
      left.length,
    );
  });
}

export function judgeMounts(states: readonly MountState[], leftBehind: number): Check {
  return checkThat('mounts', 'Mounts', (check) => {
    const counts = STATES.map((known) => ({ ...known, count: states.filter((state) => state === known.state).length }));
    const there = counts.filter(({ count }) => count > 0);
    const left = leftBehind === 0 ? [] : [`${leftBehind} left by a daemon that was killed`];
    const finding = [...there.map(({ state, count }) => `${count} ${state}`), ...left].join(', ');
    const facts = { ...Object.fromEntries(counts.map(({ state, count }) => [camelCase(state), count])), leftBehind };
    const worst = there.findLast(({ advice }) => advice !== undefined);
    const advice = worst?.advice ?? '`bento unmount --all` clears them away';
    if (worst?.state === 'broken' || worst?.state === 'not answering') {
      return check.broken('DAEMON_FAILED', finding, { facts, advice });
    }
    if (worst !== undefined || leftBehind > 0) return check.limited(finding, { facts, advice });
    return check.ok(finding === '' ? 'none' : finding, { facts });
  });
}

function camelCase(words: string): string {
  return words.replace(/ (.)/g, (_, letter: string) => letter.toUpperCase());
}
