import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { lockBlobs, shareBlobs } from '../../store/blob-lock.ts';
import { newFolder } from '../fixtures/workspaces.ts';

const CHILD = fileURLToPath(new URL('blob-lock-child.js', import.meta.url));

function start(t: ExecutionContext, kind: 'shared' | 'alone', root: string): ChildProcessWithoutNullStreams {
  const child = spawn(process.execPath, [CHILD, kind, root]);
  t.teardown(() => child.kill('SIGKILL'));
  return child;
}

async function hold(
  t: ExecutionContext,
  kind: 'shared' | 'alone',
  root: string,
): Promise<ChildProcessWithoutNullStreams> {
  const child = start(t, kind, root);
  await once(child.stdout, 'data');
  return child;
}

/** Whether a promise is settled once `other` is. */
async function isSettledAfter(promise: Promise<unknown>, other: Promise<unknown>): Promise<boolean> {
  let isSettled = false;
  void promise.then(() => (isSettled = true));
  await other;
  await new Promise((resolve) => setImmediate(resolve));
  return isSettled;
}

test('shareBlobs() is shared by processes, and holds up lockBlobs() until the last has let go', async (t) => {
  const root = newFolder(t);
  const child = await hold(t, 'shared', root);
  using mine = await shareBlobs(root);
  let waits = 0;
  let heard = (): void => undefined;
  const waiting = new Promise<void>((resolve) => (heard = resolve));
  const alone = lockBlobs(root, () => {
    waits += 1;
    heard();
  });
  t.false(await isSettledAfter(alone, waiting));
  mine.release();
  const ended = once(child, 'exit');
  child.stdin.end();
  await ended;
  (await alone).release();
  t.is(waits, 1, 'told once');
});

test('shareBlobs() waits for lockBlobs() of another process, which ends with the process', async (t) => {
  const root = newFolder(t);
  const child = await hold(t, 'alone', root);
  let heard = (): void => undefined;
  const waiting = new Promise<void>((resolve) => (heard = resolve));
  const shared = shareBlobs(root, () => heard());
  t.false(await isSettledAfter(shared, waiting));
  child.kill('SIGKILL');
  (await shared).release();
  t.pass();
});

test('shareBlobs() within a process that shares already passes the gate that a waiting lockBlobs() keeps closed', async (t) => {
  const root = newFolder(t);
  const first = await shareBlobs(root);
  let heard = (): void => undefined;
  const waiting = new Promise<void>((resolve) => (heard = resolve));
  const alone = lockBlobs(root, () => heard());
  await waiting;
  const second = await shareBlobs(root);
  first.release();
  first.release();
  t.false(await isSettledAfter(alone, Promise.resolve()));
  second.release();
  const lock = await alone;
  const third = shareBlobs(root);
  t.false(await isSettledAfter(third, Promise.resolve()), 'the same process has to wait too');
  lock.release();
  (await third).release();
});

test('lockBlobs() comes to its turn while others share one after the other', async (t) => {
  const root = newFolder(t);
  const first = await hold(t, 'shared', root);
  let heard = (): void => undefined;
  const waiting = new Promise<void>((resolve) => (heard = resolve));
  const alone = lockBlobs(root, () => heard());
  await waiting;
  const second = start(t, 'shared', root); // stands before the closed gate
  const isSecondIn = once(second.stdout, 'data');
  first.stdin.end();
  const lock = await alone;
  t.false(await isSettledAfter(isSecondIn, Promise.resolve()));
  lock.release();
  await isSecondIn;
  t.pass();
});

test('shareBlobs() of a store that is not there makes none', async (t) => {
  const root = join(newFolder(t), 'store');
  (await shareBlobs(root)).release();
  t.false(existsSync(root));
  mkdirSync(root);
  (await shareBlobs(root)).release();
  t.true(existsSync(join(root, '.blob-lock')));
});
