import { createHash } from 'node:crypto';
import { lstatSync, mkdirSync, realpathSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';

import { BentoError, describeSystemError } from '../../store/errors.ts';

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

/**
 * The runtime folder of a store: below `$XDG_RUNTIME_DIR`, else `/run` for root, else `/tmp`; private to the user, and
 * one for each store.
 */
export function runtimeDir(storeRoot: string): RuntimeDir {
  mkdirSync(storeRoot, { recursive: true });
  const name = createHash('sha256').update(realpathSync(storeRoot)).digest('hex').slice(0, 16);
  const bases = [process.env['XDG_RUNTIME_DIR'], process.getuid?.() === 0 ? '/run' : undefined].filter(Boolean);
  for (const base of [...bases.map((parent) => join(String(parent), 'bento')), `/tmp/bento-${userInfo().uid}`]) {
    const dir = join(base, name);
    const socket = join(dir, 'control.sock');
    if (Buffer.byteLength(socket) > SOCKET_PATH_BYTES_MAX) continue;
    makePrivate(base);
    makePrivate(dir);
    return { dir, socket, tree: join(dir, 'tree'), log: join(dir, 'daemon.log'), lock: join(dir, 'daemon.lock') };
  }
  throw new BentoError('DAEMON_FAILED', 'no folder for the daemon: all candidates have too long a path');
}

/** In a folder that others may write to, somebody else's link or directory must not be taken for ours. */
function makePrivate(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw describeSystemError(error, `making ${dir}`);
  }
  const stat = lstatSync(dir);
  if (!stat.isDirectory() || stat.uid !== process.getuid?.() || (stat.mode & 0o022) !== 0) {
    throw new BentoError('PERMISSION_DENIED', `${dir} is not a private directory of this user`, {
      hint: 'remove it, or set XDG_RUNTIME_DIR to a private directory',
    });
  }
}
