import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { openInPlace, openInto } from '../../../fs/workspace/open.ts';
import { journalPath, readJournal, writeJournal, type Journal } from '../../../fs/workspace/restore/journal.ts';
import { settleInterrupted } from '../../../fs/workspace/restore/recover.ts';
import { saveWorkspace } from '../../../fs/workspace/save.ts';
import { openCheckpoint, readWorkTree, type Workspace } from '../../../fs/workspace/workspace.ts';
import { PathFinder } from '../../../fs/tree/tree.ts';
import { stampOf } from '../../../fs/tree/disk-node.ts';
import { digestOf, type Digest } from '../../../store/digest.ts';
import { utimensat } from '../../../store/syscalls.ts';
import { makeManyFiles } from '../../fixtures/many-files.ts';
import { compareFacts, factsOnDisk } from '../../fixtures/tree-facts.ts';
import { newFolder, newWorkspace, reopenWorkspace } from '../../fixtures/workspaces.ts';

const JOURNAL: Journal = { steps: [], dirs: [], owner: { uid: 0, gid: 0 } };

async function save(workspace: Workspace): Promise<Digest> {
  const { digest } = await saveWorkspace(workspace);
  if (digest === undefined) throw new Error('nothing was saved');
  return digest;
}

function write(workspace: Workspace, path: string, content = path): string {
  const absolute = join(workspace.dir, path);
  mkdirSync(join(absolute, '..'), { recursive: true });
  writeFileSync(absolute, content);
  return absolute;
}

test('openInto() writes thousands of files on several threads, equal to the last nanosecond', async (t) => {
  const workspace = await newWorkspace(t);
  makeManyFiles(join(workspace.dir, 'many'), { fileCount: 2500 });
  write(workspace, 'large', 'x'.repeat(9 << 20));
  utimensat(join(workspace.dir, 'many/main.js'), { mtime: { sec: -5, nsec: 123_456_789 } });
  const opened = await openCheckpoint(workspace.source, await save(workspace));
  const target = join(newFolder(t), 'new');
  const { refused } = await openInto(workspace.source, opened, target);
  t.deepEqual(refused, []);
  t.deepEqual(compareFacts(factsOnDisk(workspace.dir), factsOnDisk(target)), []);
});

test('openInPlace() leaves identical files as they are: same inode, same times (weakness P8)', async (t) => {
  const workspace = await newWorkspace(t);
  const same = ['a', 'dir/b', 'node_modules/c/index.js'].map((path) => write(workspace, path));
  write(workspace, 'other', 'one');
  const first = await save(workspace);
  write(workspace, 'other', 'two');
  await save(workspace);
  const stamps = (): unknown[] => same.map((path) => stampOf(lstatSync(path, { bigint: true })));
  const before = stamps();
  const opened = await openCheckpoint(workspace.source, first);
  await openInPlace(workspace, opened, { includes: undefined, label: 'cp-1', backup: true, isUndo: false });
  t.deepEqual(stamps(), before);
  t.is(readFileSync(join(workspace.dir, 'other'), 'utf8'), 'one');
});

test('openInPlace() tells the next command what it wrote, which reads none of it', async (t) => {
  const workspace = await newWorkspace(t);
  const file = write(workspace, 'file', 'one');
  utimensat(file, { mtime: { sec: 1_700_000_000, nsec: 1 } });
  const first = await save(workspace);
  write(workspace, 'file', 'two');
  await save(workspace);
  const opened = await openCheckpoint(workspace.source, first);
  await openInPlace(workspace, opened, { includes: undefined, label: 'cp-1', backup: true, isUndo: false });
  const node = new PathFinder(await readWorkTree(workspace)).find('file');
  t.is(node?.digest, digestOf('one'));
});

test('openInPlace() without a backup refuses to overwrite an untracked file, names it, and changes nothing; --force does', async (t) => {
  const workspace = await newWorkspace(t);
  for (const path of ['a', 'b', 'c', 'd', 'tracked']) write(workspace, path, 'saved');
  const first = await save(workspace);
  for (const path of ['a', 'b', 'c', 'd']) rmSync(join(workspace.dir, path));
  write(workspace, 'tracked', 'changed');
  await save(workspace);
  for (const path of ['a', 'b', 'c', 'd']) write(workspace, path, 'in no checkpoint');
  const before = factsOnDisk(workspace.dir);
  const opened = await openCheckpoint(workspace.source, first);
  const options = { includes: undefined, label: 'cp-1', backup: false, isUndo: false };
  await t.throwsAsync(openInPlace(workspace, opened, options), {
    code: 'UNSAVED_CHANGES',
    message: /^a, b, c and 1 more would be overwritten/,
  });
  t.deepEqual(compareFacts(before, factsOnDisk(workspace.dir)), []);
  await openInPlace(workspace, opened, { ...options, force: true });
  t.is(readFileSync(join(workspace.dir, 'a'), 'utf8'), 'saved');
});

test('openWorkspace() leaves the staging folder of an open that is running alone', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, '.bento-restore/0', 'half');
  const lock = await workspace.layout.lockSaves();
  await reopenWorkspace(t, workspace.source, { dir: workspace.dir });
  t.true(existsSync(join(workspace.dir, '.bento-restore/0')));
  lock.release();
  await reopenWorkspace(t, workspace.source, { dir: workspace.dir });
  t.false(existsSync(join(workspace.dir, '.bento-restore')));
});

test('readJournal() gives back what writeJournal() wrote, bytes that are no UTF-8 included', (t) => {
  const staging = newFolder(t);
  const expected = { type: 'file' as const, sizeBytes: 3, mtimeSec: -1, mtimeNsec: 999_999_999 };
  const attributes = {
    mode: 0o1755,
    uid: 0,
    gid: 7,
    mtimeSec: 5,
    mtimeNsec: 6,
    xattrs: new Map([['user.\xff', Buffer.from([0, 255])]]),
  };
  const journal: Journal = {
    steps: [
      { op: 'remove', path: 'odd \xff/\xe9', expected },
      { op: 'dir', path: 'd', expected: undefined },
      { op: 'put', path: 'd/f', from: 4, expected },
    ],
    dirs: [
      { path: 'd', attributes },
      { path: '', attributes: { mode: 0o755, uid: 1, gid: 2, mtimeSec: 3, mtimeNsec: 4 } },
    ],
    owner: { uid: 1, gid: 2 },
    head: null,
  };
  writeJournal(staging, journal);
  t.deepEqual(readJournal(staging), journal);
  t.deepEqual(readdirSync(staging), ['journal']);
});

for (const [what, text] of [
  [
    'leads out of the workspace',
    JSON.stringify({
      version: 1,
      ...JOURNAL,
      steps: [{ op: 'remove', path: '../victim', expected: { type: 'file', sizeBytes: 6, mtimeSec: 1, mtimeNsec: 0 } }],
    }),
  ],
  ['is absolute', JSON.stringify({ version: 1, ...JOURNAL, dirs: [{ path: '/etc', attributes: {} }] })],
  ['is cut off', '{"version":1,"steps":['],
  ['is of another version', JSON.stringify({ version: 2, ...JOURNAL })],
  ['has an unknown step', JSON.stringify({ version: 1, ...JOURNAL, steps: [{ op: 'run', path: 'a' }] })],
] as const) {
  test(`settleInterrupted() obeys no journal that ${what}, and clears it away`, async (t) => {
    const workspace = await newWorkspace(t);
    const victim = join(workspace.dir, '../victim');
    writeFileSync(victim, 'victim');
    utimensat(victim, { mtime: { sec: 1, nsec: 0 } });
    write(workspace, '.bento-restore/journal', text);
    t.regex((await settleInterrupted(workspace.dir, workspace.layout)) ?? '', /had changed nothing/);
    t.true(existsSync(victim));
    t.false(existsSync(join(workspace.dir, '.bento-restore')));
  });
}

test('settleInterrupted() writes through no symlink that took the place of a directory', async (t) => {
  const workspace = await newWorkspace(t);
  const elsewhere = newFolder(t);
  symlinkSync(elsewhere, join(workspace.dir, 'dir'));
  write(workspace, '.bento-restore/0', 'new');
  const staging = join(workspace.dir, '.bento-restore');
  writeJournal(staging, { ...JOURNAL, steps: [{ op: 'put', path: 'dir/file', from: 0, expected: undefined }] });
  t.true(existsSync(journalPath(staging)));
  t.regex((await settleInterrupted(workspace.dir, workspace.layout)) ?? '', /1 changed meanwhile .* first dir\/file/);
  t.deepEqual(readdirSync(elsewhere), []);
});
