import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import test from 'ava';

import { writeFileDurably } from '../../store/durable.ts';
import { lockFile, tryLockFile } from '../../store/lock.ts';
import { newFolder } from '../fixtures/workspaces.ts';

const LOCK_CHILD = fileURLToPath(new URL('./lock-child.js', import.meta.url));

test('writeFileDurably() replaces a file as a whole and leaves nothing else', async (t) => {
  const path = join(newFolder(t), 'file');
  writeFileSync(path, 'a longer content than the next');
  const before = statSync(path).ino;
  await writeFileDurably(path, 'new', 0o600);
  t.is(readFileSync(path, 'utf8'), 'new');
  t.is(statSync(path).mode & 0o777, 0o600);
  t.not(statSync(path).ino, before);
  t.deepEqual(readdirSync(join(path, '..')), ['file']);
});

test('writeFileDurably() that cannot rename leaves the old state and no temporary file', async (t) => {
  const folder = newFolder(t);
  mkdirSync(join(folder, 'taken', 'inner'), { recursive: true });
  await t.throwsAsync(writeFileDurably(join(folder, 'taken'), 'x'));
  t.deepEqual(readdirSync(folder), ['taken']);
  t.deepEqual(readdirSync(join(folder, 'taken')), ['inner']);
});

test('lockFile() waits for another process, says so once, and has the lock when that is killed', async (t) => {
  const path = join(newFolder(t), 'deep', 'lock');
  const child = spawn(process.execPath, [LOCK_CHILD, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  t.is(await tryLockFile(path), undefined);
  let waits = 0;
  const waiting = lockFile(path, () => void (waits += 1));
  const early = await Promise.race([waiting, new Promise((resolve) => setTimeout(resolve, 150, 'waiting'))]);
  t.is(early, 'waiting');
  child.kill('SIGKILL');
  const lock = await waiting;
  t.is(waits, 1);
  t.is(await tryLockFile(path), undefined, 'held within this process too');
  lock.release();
  lock.release();
  const again = await tryLockFile(path);
  t.truthy(again);
  again?.release();
});
