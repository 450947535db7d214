import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { CowNode } from '../../../fs/overlay/cow-node.ts';
import { ScratchFolder } from '../../../fs/overlay/scratch-folder.ts';
import { statOf } from '../../../store/file-calls.ts';
import { testIf } from '../../fixtures/external-tools.ts';
import { newFolder } from '../../fixtures/workspaces.ts';

test('ScratchFolder makes what it needs, for its owner alone, and leaves nothing of its trials', (t) => {
  const dir = join(newFolder(t), 'a', 'cow');
  const scratch = new ScratchFolder(dir);
  t.deepEqual(readdirSync(dir).sort(), ['orphans', 'tmp']);
  for (const name of ['', 'tmp', 'orphans']) t.is(statSync(join(dir, name)).mode & 0o777, 0o700);
  t.deepEqual(readdirSync(join(dir, 'tmp')), []);
  t.deepEqual(scratch.orphans(), []);
});

test('ScratchFolder clears away what was not to be seen yet, and keeps what is in use', (t) => {
  const dir = newFolder(t);
  const before = new ScratchFolder(dir);
  writeFileSync(before.newPath(), 'half');
  mkdirSync(join(before.newPath(), 'deep'), { recursive: true });
  writeFileSync(before.orphanPath(7), 'open');
  const scratch = new ScratchFolder(dir);
  t.deepEqual(readdirSync(join(dir, 'tmp')), []);
  t.deepEqual(scratch.orphans(), ['7']);
  scratch.clearOrphans();
  t.deepEqual(scratch.orphans(), []);
});

test('newPath() gives every path once', (t) => {
  const scratch = new ScratchFolder(newFolder(t));
  const paths = Array.from({ length: 100 }, () => scratch.newPath());
  t.is(new Set(paths).size, 100);
  t.false(paths.some((path) => existsSync(path)));
});

test('newWhiteout() makes a whiteout; release() lets go of what lies aside', (t) => {
  const scratch = new ScratchFolder(newFolder(t));
  t.like(statOf(scratch.newWhiteout()), { rdevMajor: 0, rdevMinor: 0 });
  const node = new CowNode(9, { isDir: false });
  scratch.release(node);
  node.orphan = scratch.orphanPath(node.id);
  writeFileSync(node.orphan, '');
  scratch.release(node);
  t.falsy(node.orphan);
  t.deepEqual(scratch.orphans(), []);
});

test('ScratchFolder finds out what an ordinary disk can do', (t) => {
  const { canLeaveWhiteouts, keepsHoles } = new ScratchFolder(newFolder(t));
  t.true(canLeaveWhiteouts);
  t.true(keepsHoles);
});

testIf(existsSync('/dev/shm'), 'there is no /dev/shm')('ScratchFolder works in memory, too', (t) => {
  const dir = `/dev/shm/bento-test-${process.pid}`;
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  t.true(new ScratchFolder(dir).keepsHoles);
});
