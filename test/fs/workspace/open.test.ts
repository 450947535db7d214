import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { undoTag } from '../../../fs/workspace/heads.ts';
import { openInPlace, openInto } from '../../../fs/workspace/open.ts';
import { saveWorkspace } from '../../../fs/workspace/save.ts';
import { openCheckpoint, type Workspace } from '../../../fs/workspace/workspace.ts';
import type { Digest } from '../../../store/digest.ts';
import { BentoError } from '../../../store/errors.ts';
import { lsetxattr, utimensat } from '../../../store/syscalls.ts';
import { changeDirectory, listPaths } from '../../fixtures/random-directory.ts';
import { Random } from '../../fixtures/random.ts';
import { compareFacts, factsOnDisk, withoutDirTimes, type TreeFacts } from '../../fixtures/tree-facts.ts';
import { headOf, newFolder, newSource, newWorkspace, reopenWorkspace } from '../../fixtures/workspaces.ts';

const STEPS = Number(process.env['BENTO_RANDOM_STEPS'] ?? 40);
const SEEDS = (process.env['BENTO_RANDOM_SEEDS'] ?? '11,12,13').split(',').map(Number);
const IGNORE = ['*.log'];
const KEPT_OUT = 'kept/notes.log';

type OpenOptions = Partial<Parameters<typeof openInPlace>[2]>;

async function open(workspace: Workspace, digest: Digest, options: OpenOptions = {}): ReturnType<typeof openInPlace> {
  const opened = await openCheckpoint(workspace.source, digest);
  const defaults = { includes: undefined, label: 'cp-x', backup: true, isUndo: false };
  return await openInPlace(workspace, opened, { ...defaults, ...options });
}

async function undo(workspace: Workspace): Promise<void> {
  const backup = (await workspace.layout.tags()).get(undoTag(workspace.dir));
  if (backup === undefined) throw new Error('there is no backup');
  await open(workspace, backup.digest, { isUndo: true });
}

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

function read(workspace: Workspace, path: string): string | undefined {
  const absolute = join(workspace.dir, path);
  return existsSync(absolute) ? readFileSync(absolute, 'utf8') : undefined;
}

for (const seed of SEEDS) {
  test(`openInPlace() between random checkpoints gives exactly the one wanted, and undo what was there (seed ${seed})`, async (t) => {
    const random = new Random(seed);
    const workspace = await newWorkspace(t, { ignore: IGNORE });
    write(workspace, 'kept/saved');
    const ignored = write(workspace, KEPT_OUT, 'precious');
    const inode = lstatSync(ignored).ino;
    const saved = new Map<Digest, TreeFacts>();
    for (let step = 1; step <= STEPS; step += 1) {
      changeDirectory(workspace.dir, random, 1 + random.below(8));
      const before = facts(workspace);
      const differences: string[] = [];
      if (saved.size < 2 || random.chance(0.4)) {
        const result = await saveWorkspace(workspace);
        if (result.saved && result.digest !== undefined) saved.set(result.digest, before);
      } else {
        await save(workspace).then((digest) => saved.has(digest) || saved.set(digest, before));
        const digest = random.pick([...saved.keys()]);
        await open(workspace, digest);
        differences.push(
          ...compareFacts(saved.get(digest) ?? new Map(), facts(workspace)).map((line) => `open ${line}`),
        );
        if (random.chance(0.5)) {
          changeDirectory(workspace.dir, random, 3);
          const unsaved = facts(workspace);
          await open(workspace, random.pick([...saved.keys()]));
          await undo(workspace);
          differences.push(...compareUnsaved(unsaved, facts(workspace)).map((line) => `undo ${line}`));
        }
      }
      if (differences.length > 0) return t.fail(`step ${step}:\n${differences.join('\n')}`);
      if (readdirSync(workspace.dir).includes('.bento-restore'))
        return t.fail(`step ${step}: the staging folder is left`);
      if (lstatSync(ignored).ino !== inode) return t.fail(`step ${step}: an ignored file was touched`);
    }
    t.is(readFileSync(ignored, 'utf8'), 'precious');
  });
}

/** The ignored file keeps its folder there, so neither counts; the times of the root belong to bento.yaml, too. */
function facts(workspace: Workspace): TreeFacts {
  return factsOnDisk(workspace.dir, ['bento.yaml', 'kept', '.']);
}

/** A change of nothing but a directory's time is no reason for a backup, so it is not taken back. */
function compareUnsaved(expected: TreeFacts, actual: TreeFacts): string[] {
  return compareFacts(withoutDirTimes(expected), withoutDirTimes(actual));
}

test('openInPlace() makes a name that was removed a link to the others of its file again', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'a/one', 'shared');
  mkdirSync(join(workspace.dir, 'b'));
  linkSync(join(workspace.dir, 'a/one'), join(workspace.dir, 'b/two'));
  await saveWorkspace(workspace);
  const head = await headOf(workspace);
  rmSync(join(workspace.dir, 'b/two'));
  await openInPlace(workspace, head, { includes: undefined, label: 'cp-1', backup: true, isUndo: false });
  const [one, two] = ['a/one', 'b/two'].map((path) => lstatSync(join(workspace.dir, path)));
  t.is(one?.ino, two?.ino);
});

test('openInPlace() keeps symlinks, and undo brings them back (weakness D1)', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'node_modules/tool/cli.js');
  mkdirSync(join(workspace.dir, 'node_modules/.bin'));
  symlinkSync('../tool/cli.js', join(workspace.dir, 'node_modules/.bin/tool'));
  const withLink = await save(workspace);
  rmSync(join(workspace.dir, 'node_modules/.bin'), { recursive: true });
  symlinkSync('main.js', join(workspace.dir, 'later-link'));
  await save(workspace);

  await open(workspace, withLink);
  t.is(readlinkSync(join(workspace.dir, 'node_modules/.bin/tool')), '../tool/cli.js');
  t.false(lstatSync(join(workspace.dir, 'later-link'), { throwIfNoEntry: false })?.isSymbolicLink() ?? false);
  await undo(workspace);
  t.is(readlinkSync(join(workspace.dir, 'later-link')), 'main.js');
  t.false(existsSync(join(workspace.dir, 'node_modules/.bin')));
});

test('openInPlace() leaves ignored and untracked files and their directories alone (weakness D2)', async (t) => {
  const workspace = await newWorkspace(t, { ignore: ['bin/**', '*.log', '__pycache__'] });
  write(workspace, 'main.py', 'one');
  const first = await save(workspace);
  write(workspace, 'main.py', 'two');
  write(workspace, 'late/inside.py');
  await save(workspace);
  for (const path of ['bin/built', 'late/run.log', '__pycache__/main.pyc', 'untracked.txt']) write(workspace, path);

  await open(workspace, first);
  t.is(read(workspace, 'main.py'), 'one');
  t.is(read(workspace, 'late/inside.py'), undefined, 'a checkpoint holds it, so it goes');
  for (const path of ['bin/built', 'late/run.log', '__pycache__/main.pyc', 'untracked.txt'])
    t.is(read(workspace, path), path);
});

test('openInPlace() of one layer leaves the files of all others alone, .git too (weakness D3)', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'node_modules/a/index.js', 'old');
  write(workspace, 'node_modules/gone/index.js');
  const old = await save(workspace);
  write(workspace, 'node_modules/a/index.js', 'new');
  rmSync(join(workspace.dir, 'node_modules/gone'), { recursive: true });
  for (const path of ['.git/HEAD', 'src/main.ts', 'CLAUDE.md', 'node_modules/extra/index.js']) write(workspace, path);
  const head = await save(workspace);
  write(workspace, 'src/unsaved.ts');

  await open(workspace, old, { includes: (title) => title === 'deps' });
  t.is(read(workspace, 'node_modules/a/index.js'), 'old');
  t.is(read(workspace, 'node_modules/gone/index.js'), 'node_modules/gone/index.js');
  t.is(read(workspace, 'node_modules/extra/index.js'), undefined);
  for (const path of ['.git/HEAD', 'src/main.ts', 'CLAUDE.md', 'src/unsaved.ts']) t.is(read(workspace, path), path);
  t.is(workspace.config.head, head, 'this is not the old checkpoint');
});

test('openInPlace() of one layer writes into no symlink that stands where the layer has a directory', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'lib/node_modules/a.js', 'inside');
  const old = await save(workspace);
  const elsewhere = newFolder(t);
  rmSync(join(workspace.dir, 'lib'), { recursive: true });
  symlinkSync(elsewhere, join(workspace.dir, 'lib'));
  await save(workspace);

  await open(workspace, old, { includes: (title) => title === 'deps' });
  t.deepEqual(readdirSync(elsewhere), []);
  t.is(read(workspace, 'lib/node_modules/a.js'), 'inside');
});

test('openInto() refuses a directory that is not empty, and touches nothing in it (weakness D4)', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'main.ts');
  const opened = await openCheckpoint(workspace.source, await save(workspace));
  const target = newFolder(t);
  writeFileSync(join(target, 'letter.txt'), 'dear');
  await t.throwsAsync(openInto(workspace.source, opened, target), { code: 'TARGET_NOT_EMPTY' });
  t.deepEqual(readdirSync(target), ['letter.txt']);
  await t.throwsAsync(openInto(workspace.source, opened, join(target, 'letter.txt')), {
    code: 'TARGET_INVALID',
  });
  await t.throwsAsync(openInto(workspace.source, opened, join(target, 'no/such')), {
    code: 'TARGET_INVALID',
  });
  t.deepEqual(readdirSync(target), ['letter.txt']);
});

test('openInto() leaves nothing behind when a layer is damaged', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'big', randomBytes(100_000).toString('hex'));
  const opened = await openCheckpoint(workspace.source, await save(workspace));
  const layer = opened.checkpoint.layers.at(-1)?.descriptor.digest as Digest;
  const blob = workspace.source.store.blobs.path(layer);
  const bytes = readFileSync(blob);
  bytes[5000] = (bytes[5000] ?? 0) ^ 1;
  chmodSync(blob, 0o644);
  writeFileSync(blob, bytes);
  const folder = newFolder(t);
  await t.throwsAsync(openInto(workspace.source, opened, join(folder, 'new')), { instanceOf: BentoError });
  await t.throwsAsync(openInto(workspace.source, opened, folder));
  t.deepEqual(readdirSync(folder), []);
});

test('openInPlace() touches nothing when a layer is damaged', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'big', randomBytes(100_000).toString('hex'));
  write(workspace, 'small', 'one');
  const first = await save(workspace);
  rmSync(join(workspace.dir, 'big'));
  write(workspace, 'small', 'two');
  await save(workspace);
  const { checkpoint } = await openCheckpoint(workspace.source, first);
  const blob = workspace.source.store.blobs.path(checkpoint.layers.at(-1)?.descriptor.digest as Digest);
  const bytes = readFileSync(blob);
  bytes.fill(0, 2000, 4000);
  chmodSync(blob, 0o644);
  writeFileSync(blob, bytes);
  const before = factsOnDisk(workspace.dir);
  await t.throwsAsync(open(workspace, first));
  t.deepEqual(compareFacts(before, factsOnDisk(workspace.dir), ['.']), []);
});

test('openInPlace() gives every directory an undo slot of its own (weakness D10)', async (t) => {
  const source = await newSource(t);
  const [a, b] = [await newWorkspace(t, { source }), await newWorkspace(t, { source })];
  write(a, 'file', 'first');
  const first = await save(a);
  write(a, 'file', 'in a');
  write(b, 'file', 'in b');
  await open(a, first);
  await open(b, first);
  t.is(read(a, 'file'), 'first');
  await undo(a);
  t.is(read(a, 'file'), 'in a');
  await undo(b);
  t.is(read(b, 'file'), 'in b');
});

test('openInPlace() moves no tag but its undo slot: latest stays the newest work (weakness D11)', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'file', 'one');
  const first = await save(workspace);
  write(workspace, 'file', 'two');
  const second = await save(workspace);
  write(workspace, 'file', 'not saved');
  await open(workspace, first);
  const tags = await workspace.layout.tags();
  t.deepEqual([...tags.keys()], ['cp-1', 'cp-2', 'latest', undoTag(workspace.dir)]);
  t.is(tags.get('latest')?.digest, second);
  t.is(workspace.config.head, first);
  await undo(workspace);
  t.is(read(workspace, 'file'), 'not saved');
  t.is(workspace.config.head, second, 'a backup is no place to go on from');
});

test('openInPlace() twice and undo twice: undo is a toggle', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'file', 'one');
  const first = await save(workspace);
  write(workspace, 'file', 'two');
  await open(workspace, first);
  await undo(workspace);
  t.is(read(workspace, 'file'), 'two');
  await undo(workspace);
  t.is(read(workspace, 'file'), 'one');
  await undo(workspace);
  t.is(read(workspace, 'file'), 'two');
});

test('openInto() brings back modes, times, empty directories, hard links and xattrs (weakness D14)', async (t) => {
  const workspace = await newWorkspace(t);
  chmodSync(write(workspace, 'secret'), 0o600);
  chmodSync(write(workspace, 'script'), 0o755);
  const original = write(workspace, 'links/b-original');
  linkSync(original, join(workspace.dir, 'links/a-first'));
  mkdirSync(join(workspace.dir, 'node_modules'));
  linkSync(original, join(workspace.dir, 'node_modules/in-another-layer'));
  symlinkSync('anywhere', join(workspace.dir, 'links/symlink'));
  linkSync(join(workspace.dir, 'links/symlink'), join(workspace.dir, 'links/same-symlink'));
  mkdirSync(join(workspace.dir, 'empty/inside'), { recursive: true });
  chmodSync(join(workspace.dir, 'empty/inside'), 0o1750);
  lsetxattr(original, 'user.note', Buffer.from([0, 255]));
  utimensat(join(workspace.dir, 'script'), { mtime: { sec: -1, nsec: 999_999_999 } });
  utimensat(join(workspace.dir, 'links/symlink'), { mtime: { sec: 1_000_000_000, nsec: 1 } });
  utimensat(join(workspace.dir, 'empty'), { mtime: { sec: 5_000_000_000, nsec: 123_456_789 } });
  const wanted = factsOnDisk(workspace.dir);
  const opened = await openCheckpoint(workspace.source, await save(workspace));

  const target = join(newFolder(t), 'new');
  const { refused } = await openInto(workspace.source, opened, target);
  t.deepEqual(compareFacts(wanted, factsOnDisk(target)), []);
  t.deepEqual(refused, []);
  const { config } = await reopenWorkspace(t, workspace.source, { dir: target });
  t.is(config.head, opened.checkpoint.digest);
  t.is(config.id, workspace.id);
});

test('openInto() of one layer brings its files and the directories on the way to them', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'apps/web/node_modules/a.js');
  write(workspace, 'apps/web/main.ts');
  chmodSync(join(workspace.dir, 'apps/web'), 0o750);
  const opened = await openCheckpoint(workspace.source, await save(workspace));
  const target = join(newFolder(t), 'new');
  await openInto(workspace.source, opened, target, { includes: (title) => title === 'deps' });
  t.deepEqual(listPaths(target), ['apps', 'apps/web', 'apps/web/node_modules', 'apps/web/node_modules/a.js']);
  t.is(lstatSync(join(target, 'apps/web')).mode & 0o777, 0o750);
});

test('openInPlace() refuses to bury an ignored file, and changes nothing', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'out.log', 'saved when it was not ignored');
  write(workspace, 'main', 'one');
  const first = await save(workspace);
  rmSync(join(workspace.dir, 'out.log'));
  write(workspace, 'main', 'two');
  await save(workspace);
  workspace.setup.ignore = ['*.log'];
  write(workspace, 'out.log', 'precious');
  const before = factsOnDisk(workspace.dir);
  await t.throwsAsync(open(workspace, first), { code: 'UNSAVED_CHANGES', message: /out\.log/ });
  t.deepEqual(compareFacts(before, factsOnDisk(workspace.dir)), []);
});

test('openInPlace() refuses to put a file where a directory holds an ignored one, and changes nothing', async (t) => {
  const workspace = await newWorkspace(t, { ignore: ['*.log'] });
  write(workspace, 'thing', 'a file');
  write(workspace, 'aaa', 'one');
  const first = await save(workspace);
  rmSync(join(workspace.dir, 'thing'));
  write(workspace, 'thing/deep/saved');
  write(workspace, 'aaa', 'two');
  await save(workspace);
  write(workspace, 'thing/deep/run.log', 'precious');
  const before = factsOnDisk(workspace.dir);
  await t.throwsAsync(open(workspace, first), { code: 'UNSAVED_CHANGES', message: /run\.log/ });
  t.deepEqual(compareFacts(before, factsOnDisk(workspace.dir)), []);
});

test('openInPlace() puts a file where an untracked file keeps a directory: with a backup, never without', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'thing', 'a file');
  const first = await save(workspace);
  rmSync(join(workspace.dir, 'thing'));
  write(workspace, 'thing/untracked');
  await t.throwsAsync(open(workspace, first, { backup: false }), { code: 'UNSAVED_CHANGES' });
  t.is(read(workspace, 'thing/untracked'), 'thing/untracked');
  await open(workspace, first);
  t.is(read(workspace, 'thing'), 'a file');
  await undo(workspace);
  t.is(read(workspace, 'thing/untracked'), 'thing/untracked');
});

test('openInPlace() clears away what a killed restore left behind', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'file', 'one');
  const first = await save(workspace);
  write(workspace, 'file', 'two');
  write(workspace, '.bento-restore/0', 'half');
  await open(workspace, first);
  t.is(read(workspace, 'file'), 'one');
  t.false(existsSync(join(workspace.dir, '.bento-restore')));
  await undo(workspace);
  t.deepEqual(listPaths(workspace.dir), ['file'], 'and it is in no backup');
});

test('openInPlace() reports the changes it made and rewrites nothing that is equal', async (t) => {
  const workspace = await newWorkspace(t);
  const same = write(workspace, 'same');
  write(workspace, 'other', 'one');
  const first = await save(workspace);
  write(workspace, 'other', 'two');
  write(workspace, 'new');
  await save(workspace);
  const { ino } = lstatSync(same);
  const { written, removed, canUndo } = await open(workspace, first);
  t.deepEqual({ written, removed, canUndo }, { written: 2, removed: 1, canUndo: true }, 'the file and the root');
  t.is(lstatSync(same).ino, ino);
});
