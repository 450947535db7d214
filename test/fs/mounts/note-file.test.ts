import { appendFileSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { recordId, type MountRecord } from '../../../fs/mounts/mount-table.ts';
import { isVacant, NOTE_NAME, removeNote, writeNote } from '../../../fs/mounts/note-file.ts';
import { checkMountPoint } from '../../../fs/mounts/targets.ts';
import { digestOf } from '../../../store/digest.ts';
import { newFolder } from '../../fixtures/workspaces.ts';

function recordOf(target: string, more: Partial<MountRecord> = {}): MountRecord {
  return {
    id: recordId(target),
    kind: 'mount',
    engine: 'bind',
    target,
    manifest: digestOf('manifest'),
    ref: 'cp-1',
    workspaceId: 'ws-1',
    created: '2026-01-02T03:04:05.678Z',
    user: 'somebody',
    madeTarget: false,
    ...more,
  };
}

test('writeNote() says what belongs there and how to bring it back or forget it; removeNote() takes it away', (t) => {
  const dir = newFolder(t);
  t.true(isVacant(dir));
  writeNote(recordOf(dir), '/the/store');
  const text = readFileSync(join(dir, NOTE_NAME), 'utf8');
  for (const part of ['a mount of cp-1', 'ws-1', '2026-01-02 03:04:05', 'somebody', '/the/store']) {
    t.true(text.includes(part), part);
  }
  t.true(text.includes('bento mounts --restore'));
  t.true(text.includes(`bento unmount ${dir}\n`));
  t.true(isVacant(dir), 'a directory with nothing but the note is empty');
  t.is(checkMountPoint(dir), dir);
  writeNote(recordOf(dir, { ref: 'cp-2' }), '/the/store');
  t.true(readFileSync(join(dir, NOTE_NAME), 'utf8').includes('a mount of cp-2'), 'an older note is replaced');
  removeNote(dir);
  t.deepEqual(readdirSync(dir), []);
  t.notThrows(() => removeNote(dir));
  t.notThrows(() => removeNote(join(dir, 'gone')));
});

test('writeNote() of a fork names `bento close`, of a view of everything no checkpoint', (t) => {
  const dir = newFolder(t);
  writeNote(recordOf(dir, { kind: 'fork', engine: 'overlay' }), '/the/store');
  const fork = readFileSync(join(dir, NOTE_NAME), 'utf8');
  t.true(fork.includes('a fork of cp-1') && fork.includes(`bento close ${dir}\n`), fork);
  const { manifest: _, ...all } = recordOf(dir, { ref: 'all' });
  writeNote(all as MountRecord, '/the/store');
  t.true(readFileSync(join(dir, NOTE_NAME), 'utf8').includes('all workspaces and tags'));
});

test('writeNote() quotes a directory for the shell', (t) => {
  const dir = join(newFolder(t), "it's here");
  mkdirSync(dir);
  writeNote(recordOf(dir), '/the/store');
  t.true(readFileSync(join(dir, NOTE_NAME), 'utf8').includes(`it'\\''s here'\n`));
  t.true(isVacant(dir));
});

test("a file of the user's with the note's name is neither overwritten nor removed, and counts", (t) => {
  const dir = newFolder(t);
  const path = join(dir, NOTE_NAME);
  const isLeftAlone = (what: string): void => {
    const before = readFileSync(path, 'utf8');
    removeNote(dir);
    writeNote(recordOf(dir), '/the/store');
    t.is(readFileSync(path, 'utf8'), before, what);
    t.false(isVacant(dir), what);
    t.throws(() => checkMountPoint(dir), { code: 'TARGET_NOT_EMPTY' }, what);
  };
  writeFileSync(path, 'mine\n');
  isLeftAlone('another text');
  writeFileSync(path, '');
  isLeftAlone('an empty file');
  rmSync(path);
  writeNote(recordOf(dir), '/the/store');
  appendFileSync(path, 'and a line of mine\n');
  isLeftAlone('our note, written into');
  const ours = readFileSync(path, 'utf8').replace('and a line of mine\n', '');
  writeFileSync(path, ours.replace('cp-1', 'cp-9'));
  isLeftAlone('our note, changed');
});

test("a symlink, a folder and a large file of the note's name are not taken for one", (t) => {
  const dir = newFolder(t);
  const path = join(dir, NOTE_NAME);
  writeNote(recordOf(dir), '/the/store');
  const note = readFileSync(path, 'utf8');
  rmSync(path);

  const elsewhere = join(newFolder(t), 'a real note');
  writeFileSync(elsewhere, note);
  symlinkSync(elsewhere, path);
  t.false(isVacant(dir));
  removeNote(dir);
  t.is(readFileSync(path, 'utf8'), note, 'the link and what it leads to');
  rmSync(path);

  mkdirSync(path);
  t.false(isVacant(dir));
  writeNote(recordOf(dir), '/the/store');
  rmSync(path, { recursive: true });

  writeFileSync(path, 'x'.repeat(1 << 20));
  t.false(isVacant(dir));
});

test('a directory with our note and something else is not empty', (t) => {
  const dir = newFolder(t);
  writeNote(recordOf(dir), '/the/store');
  writeFileSync(join(dir, 'work'), '');
  t.false(isVacant(dir));
  t.throws(() => checkMountPoint(dir), { code: 'TARGET_NOT_EMPTY' });
});
