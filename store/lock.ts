import { closeSync, openSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';

import { flock, flockAsync, type LockMode } from './syscalls.ts';

/** A held advisory lock. The kernel lets go of it when the process ends, however it ends. */
export interface Lock {
  release(): void;
  [Symbol.dispose](): void;
}

/** A lock that can be handed to another process along with its descriptor. */
export interface FileLock extends Lock {
  readonly fd: number;
}

/**
 * Waits for the lock on a file, which is made if missing and never removed.
 *
 * @param onWait - called once if somebody else holds it, so that the user can be told why nothing happens
 */
export async function lockFile(path: string, onWait?: () => void, mode: LockMode = 'exclusive'): Promise<Lock> {
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  const fd = openSync(path, 'a', 0o600);
  try {
    if (!flock(fd, mode, { wait: false })) {
      onWait?.();
      await flockAsync(fd, mode);
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return held(fd);
}

/** Like `lockFile`, for code that cannot wait otherwise: blocks the thread. */
export function lockFileNow(path: string): Lock {
  const fd = openSync(path, 'a', 0o600);
  flock(fd, 'exclusive', { wait: true });
  return held(fd);
}

/** Like `lockFile`, but gives up at once: undefined when somebody else holds it. */
export async function tryLockFile(path: string): Promise<FileLock | undefined> {
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  const fd = openSync(path, 'a', 0o600);
  if (flock(fd, 'exclusive', { wait: false })) return held(fd);
  closeSync(fd);
  return undefined;
}

/** A lock that another process took and handed over with its descriptor. */
export function adoptLock(fd: number): FileLock {
  return held(fd);
}

function held(fd: number): FileLock {
  let open = true;
  const release = (): void => {
    if (open) closeSync(fd);
    open = false;
  };
  return { fd, release, [Symbol.dispose]: release };
}
