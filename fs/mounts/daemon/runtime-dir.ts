import { createHash } from 'node:crypto';
import { existsSync, lstatSync, mkdirSync, realpathSync } from 'node:fs';
import { join } from 'node:path';

import { BentoError, describeSystemError, errnoOf } from '../../../store/errors.ts';
import { outerUid, separateMountNamespace } from '../namespaces.ts';

/** A Unix socket's path must fit `sun_path`: 108 bytes with its NUL. */
const SOCKET_PATH_BYTES_MAX = 107;

/** Where a store's daemon can be reached while it runs. Nothing here survives a reboot or needs to. */
export interface RuntimeDir {
  dir: string;
  socket: string;
  /** Mount point of the tree of all checkpoints: `<tree>/<hex of the manifest digest>/…`. */
  tree: string;
  log: string;
  lock: string;
}

/** What is open in a mounted fork, for the process that serves it next. */
export function sessionLogOf({ dir }: Pick<RuntimeDir, 'dir'>, fork: string): string {
  return join(dir, `session-${fork}`);
}

/**
 * The runtime folder of a store, made if it is not there: below `$XDG_RUNTIME_DIR`, else `/run` for root, else `/tmp`;
 * private to the user, and one for each store and mount namespace: a daemon's mounts are of no use to commands that do not
 * see them.
 */
export function runtimeDir(storeRoot: string): RuntimeDir {
  mkdirSync(storeRoot, { recursive: true });
  for (const { base, dir, mayBeRefused } of candidates(storeRoot)) {
    try {
      makePrivate(base);
      makePrivate(dir);
      return placesIn(dir);
    } catch (error) {
      if (!mayBeRefused || !isRefusal(error)) throw error;
    }
  }
  throw new BentoError('DAEMON_FAILED', 'no folder for the daemon: all candidates have too long a path', {
    hint: 'set XDG_RUNTIME_DIR to a private directory with a short path',
  });
}

/** The same if it is there; makes nothing. */
export function findRuntimeDir(storeRoot: string): RuntimeDir | undefined {
  if (!existsSync(storeRoot)) return undefined;
  const found = candidates(storeRoot).find(({ dir }) => existsSync(dir));
  if (found === undefined) return undefined;
  checkPrivate(found.base);
  checkPrivate(found.dir);
  return placesIn(found.dir);
}

interface Candidate {
  base: string;
  dir: string;
  /** Root of a user namespace may not write to `/run`: then the next place is tried. */
  mayBeRefused: boolean;
}

function candidates(storeRoot: string): Candidate[] {
  const name = [nameOf(storeRoot), separateMountNamespace()].filter((part) => part !== undefined).join('-');
  const given = process.env['XDG_RUNTIME_DIR'];
  const bases = [
    ...(given ? [{ base: join(given, 'bento'), mayBeRefused: false }] : []),
    ...(process.getuid?.() === 0 ? [{ base: '/run/bento', mayBeRefused: true }] : []),
    { base: `/tmp/bento-${outerUid()}`, mayBeRefused: false },
  ];
  return bases
    .map((place) => ({ ...place, dir: join(place.base, name) }))
    .filter(({ dir }) => Buffer.byteLength(placesIn(dir).socket) <= SOCKET_PATH_BYTES_MAX);
}

function placesIn(dir: string): RuntimeDir {
  return {
    dir,
    socket: join(dir, 'control.sock'),
    tree: join(dir, 'tree'),
    log: join(dir, 'daemon.log'),
    lock: join(dir, 'daemon.lock'),
  };
}

function nameOf(storeRoot: string): string {
  return createHash('sha256').update(realpathSync(storeRoot)).digest('hex').slice(0, 16);
}

/** On a read-only file system, Node's recursive mkdir says ENOENT. */
function isRefusal(error: unknown): boolean {
  return errnoOf(error) === 'ENOENT' || (error instanceof BentoError && error.code === 'PERMISSION_DENIED');
}

function makePrivate(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw describeSystemError(error, `making ${dir}`);
  }
  checkPrivate(dir);
}

/** In a folder that others may write to, somebody else's link or directory must not be taken for ours. */
function checkPrivate(dir: string): void {
  const stat = lstatSync(dir);
  if (!stat.isDirectory() || stat.uid !== process.getuid?.() || (stat.mode & 0o022) !== 0) {
    throw new BentoError('PERMISSION_DENIED', `${dir} is not a private directory of this user`, {
      hint: 'remove it, or set XDG_RUNTIME_DIR to a private directory',
    });
  }
}
