import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

import { describeSystemError } from './errors.ts';
import { lockFile, tryLockFile, type Lock } from './lock.ts';

/**
 * Who may rely on blobs that no tag, head or mount names yet, and who may delete them.
 *
 * `<store>/.blob-lock` is shared by everything that adds blobs or is about to refer to some, and held alone by garbage
 * collection. `<store>/.blob-gate` lets the collector come to its turn: it closes the gate, nobody new gets in, and those
 * inside finish. Both are locks of the kernel, so a process that dies lets go of them.
 *
 * Order: this lock, then a workspace's save lock, then the mount table's and the index's.
 */

/** How long the collector keeps the gate closed before it lets others by, at first and at most. */
const PATIENCE_MIN_MS = 2_000;
const PATIENCE_MAX_MS = 60_000;
/** How long the gate then stays open. */
const GATE_OPEN_MS = 200;
/** How often the collector looks whether those inside are done. */
const POLL_MS = 10;

interface Hold {
  count: number;
  lock: Promise<Lock>;
}

/** What this process holds: whoever is inside may enter again without passing the gate, or it would wait for itself. */
const holds = new Map<string, Hold>();

/**
 * Keeps every blob of a store from being collected until it is released. Any number of holders, in any process.
 *
 * @param onWait - called once when a garbage collection has to be waited for
 */
export async function shareBlobs(storeRoot: string, onWait?: () => void): Promise<Lock> {
  if (!existsSync(storeRoot)) return { release: () => undefined, [Symbol.dispose]: () => undefined }; // nothing to keep
  const hold = holds.get(storeRoot) ?? { count: 0, lock: enter(storeRoot, onWait) };
  holds.set(storeRoot, hold);
  hold.count += 1;
  let isHeld = true;
  const release = (): void => {
    if (isHeld) leave(storeRoot, hold);
    isHeld = false;
  };
  try {
    await hold.lock;
  } catch (error) {
    release();
    throw describeSystemError(error, `locking ${storeRoot}`);
  }
  return { release, [Symbol.dispose]: release };
}

async function enter(storeRoot: string, onWait: (() => void) | undefined): Promise<Lock> {
  const once = onlyOnce(onWait);
  using _gate = await lockFile(gatePath(storeRoot), once, 'shared');
  return await lockFile(lockPath(storeRoot), once, 'shared');
}

function leave(storeRoot: string, hold: Hold): void {
  hold.count -= 1;
  if (hold.count > 0) return;
  if (holds.get(storeRoot) === hold) holds.delete(storeRoot);
  hold.lock.then(
    (lock) => lock.release(),
    () => undefined, // told to those who waited for it
  );
}

/**
 * Waits until nobody shares the blobs of a store, and keeps everybody out until released.
 *
 * A command that shares the blobs may itself start another one that wants to, and wait for it: then the closed gate would
 * hold up both for ever. So the collector opens it from time to time, and is more patient each time.
 *
 * @param onWait - called once when somebody has to be waited for
 */
export async function lockBlobs(storeRoot: string, onWait?: () => void): Promise<Lock> {
  const once = onlyOnce(onWait);
  for (let patienceMs = PATIENCE_MIN_MS; ; patienceMs = Math.min(patienceMs * 2, PATIENCE_MAX_MS)) {
    const lock = await lockBehindGate(storeRoot, patienceMs, once);
    if (lock !== undefined) return lock;
    await setTimeout(GATE_OPEN_MS);
  }
}

async function lockBehindGate(storeRoot: string, patienceMs: number, onWait: () => void): Promise<Lock | undefined> {
  using _gate = await lockFile(gatePath(storeRoot), onWait);
  for (let waitedMs = 0; waitedMs < patienceMs; waitedMs += POLL_MS) {
    const lock = await tryLockFile(lockPath(storeRoot));
    if (lock !== undefined) return lock;
    onWait();
    await setTimeout(POLL_MS);
  }
  return undefined;
}

function onlyOnce(run: (() => void) | undefined): () => void {
  let isDone = false;
  return () => {
    if (!isDone) run?.();
    isDone = true;
  };
}

function lockPath(storeRoot: string): string {
  return join(storeRoot, '.blob-lock');
}

function gatePath(storeRoot: string): string {
  return join(storeRoot, '.blob-gate');
}
