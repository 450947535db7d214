import { mkdirSync, readFileSync, rmSync, writeFileSync, chmodSync, existsSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import {
  assertTidy,
  assertFails,
  headOf,
  makeSmallWorkspace,
  readManifest,
  saveSmallWorkspace,
  workspaceId,
  writeFiles,
} from '../fixtures/command-checks.ts';
import { compareByWalk, compareWithRsync, describeTree } from '../fixtures/compare-trees.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { newSandbox } from '../fixtures/sandbox.ts';

const DIGEST = /^sha256:[0-9a-f]{64}$/;
const RFC_3339_SECONDS = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;

/** What the comparison leaves out: bento's own files, and the time of the root, which writing them moves. */
const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];

interface ListRow {
  tags: string[];
  sequence: number;
  digest: string;
  parent: string | null;
  message: string;
  created: string;
  head: boolean;
}

interface Saved {
  saved: boolean;
  tag: string | null;
  tags: string[];
  digest: string;
  sequence: number;
  layers: { title: string; fileCount: number; status: string }[];
  skipped: { path: string; reason: string }[];
}

interface Comparison {
  from: string;
  to: string;
  layers: { title: string; changes: { path: string; kind: string }[] }[];
}

const changesIn = ({ layers }: Comparison): string[] =>
  layers.flatMap(({ title, changes }) => changes.map(({ kind, path: name }) => `${title}: ${kind} ${name}`)).sort();

test.serial("init, save, list, inspect and tag print the original's key lines", async (t) => {
  const sandbox = newSandbox(t);
  const { workspace, storePath } = sandbox;
  makeSmallWorkspace(workspace);

  const init = (await sandbox.bento(['init', '--task', 'try it'])).ok();
  t.is(
    init.stdout,
    `Detected extensions: claude-code, node\nCreated bento.yaml\nStore: ${storePath} (local)\nCreated .bentoignore\n`,
  );
  t.regex(readFileSync(path.join(workspace, 'bento.yaml'), 'utf8'), /^id: ws-[0-9a-f]{16}$/m);
  t.regex(readFileSync(path.join(workspace, 'bento.yaml'), 'utf8'), /^task: try it$/m);
  t.false(existsSync(storePath), 'init makes no store');
  const empty = (await sandbox.bento(['list'])).ok();
  t.is(empty.stdout, 'No checkpoints found. Run `bento save` to create one.\n');

  const saved = (await sandbox.bento(['save', '-m', 'first words'])).ok();
  const [scanning, deps, agent, project, tagged] = saved.stdout.split('\n');
  t.is(scanning, 'Scanning workspace...');
  t.regex(deps ?? '', /^ {2}deps: {6}1 files, \d+(\.\d)?[KM]?B \(changed\)$/);
  t.regex(agent ?? '', /^ {2}agent: {5}1 files, \d+(\.\d)?[KM]?B \(changed\)$/);
  t.regex(project ?? '', /^ {2}project: {3}3 files, \d+(\.\d)?[KM]?B \(changed\)$/);
  t.is(tagged, 'Tagged: cp-1, latest');

  const before = describeTree(storePath, { ignore: ['cache'] });
  const again = (await sandbox.bento(['save', '-m', 'no news'])).ok();
  t.is(again.stdout, 'No changes detected, skipping checkpoint.\n');
  t.deepEqual(describeTree(storePath, { ignore: ['cache'] }), before, 'an unchanged save stores nothing');

  writeFileSync(path.join(workspace, 'src/main.js'), 'changed\n');
  const second = (await sandbox.bento(['save', '-m', 'second'])).ok();
  t.regex(second.stdout, /^ {2}deps: {6}1 files, .* \(unchanged, reusing\)$/m);
  t.regex(second.stdout, /^ {2}project: {3}3 files, .* \(changed\)$/m);
  t.regex(second.stdout, /^Tagged: cp-2, latest$/m);

  const [header, one, two, ...rest] = (await sandbox.bento(['list'])).ok().stdout.split('\n');
  t.is(header, `${'TAG'.padEnd(20)} ${'CREATED'.padEnd(20)} ${'DIGEST'.padEnd(22)} MESSAGE`);
  t.regex(one ?? '', /^cp-1 {17}\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ sha256:[0-9a-f]{12}\.\.\. first words$/);
  t.regex(two ?? '', /^cp-2, latest {9}\d{4}-.*Z sha256:[0-9a-f]{12}\.\.\. second$/);
  t.deepEqual(rest, ['']);

  const inspected = (await sandbox.bento(['inspect'])).ok().stdout;
  t.regex(
    inspected,
    /^Checkpoint: cp-2 \(sequence 2\)\nDigest: {5}sha256:[0-9a-f]{64}\nParent: {5}sha256:[0-9a-f]{64}$/m,
  );
  t.regex(inspected, /^Created: {4}\d{4}-.*Z\nExtensions: claude-code,node\nMessage: {4}second$/m);
  t.regex(inspected, /^Config:\n {2}Task: {6}try it\n {2}Extensions: claude-code, node$/m);
  t.regex(inspected, /^ {2}\[2\/3\] agent — 1 file, \d+(\.\d)?K?B\n {3}digest: sha256:[0-9a-f]{12}\.\.\.$/m);
  t.regex(inspected, /^Total size: \d+(\.\d)?K?B$/m);
  t.false(inspected.includes('main.js'), 'no file name without --files');
  t.regex((await sandbox.bento(['inspect', 'cp-1', '--files'])).ok().stdout, /^ +src\/main\.js$/m);

  t.is((await sandbox.bento(['tag', 'cp-1', 'good'])).ok().stdout, 'Tagged cp-1 as good\n');
  t.regex((await sandbox.bento(['list'])).ok().stdout, /^cp-1, good {11}/m);
  t.is((await sandbox.bento(['inspect', 'good', '--json'])).ok().json<{ sequence: number }>().sequence, 1);
  assertTidy(t, sandbox);
});

test.serial('--json of every command without a mount parses and has its main fields', async (t) => {
  const sandbox = newSandbox(t);
  makeSmallWorkspace(sandbox.workspace);
  const json = async <T>(...args: string[]): Promise<T> => (await sandbox.bento([...args, '--json'])).ok().json<T>();

  const init = await json<{ id: string; store: string; extensions: string[] }>('init');
  t.is(init.id, workspaceId(sandbox));
  t.is(init.store, sandbox.storePath);
  t.deepEqual(init.extensions, ['claude-code', 'node']);
  t.deepEqual(await json<ListRow[]>('list'), []);

  const saved = await json<Saved>('save', '-m', 'first');
  t.like(saved, { saved: true, tag: 'cp-1', sequence: 1, skipped: [] });
  t.deepEqual(saved.tags, ['cp-1', 'latest']);
  t.regex(saved.digest, DIGEST);
  t.deepEqual(
    saved.layers.map(({ title, fileCount, status }) => [title, fileCount, status]),
    [
      ['deps', 1, 'changed'],
      ['agent', 1, 'changed'],
      ['project', 3, 'changed'],
    ],
  );
  t.like(await json<Saved>('save'), { saved: false, tag: null, digest: saved.digest });

  const [row] = await json<ListRow[]>('list');
  t.like(row, {
    tags: ['cp-1', 'latest'],
    sequence: 1,
    digest: saved.digest,
    parent: null,
    message: 'first',
    head: true,
  });
  t.regex(row?.created ?? '', RFC_3339_SECONDS);

  const inspected = await json<{
    ref: string;
    digest: string;
    layers: { title: string; digests: string[]; files: string[] }[];
  }>('inspect', 'cp-1', '--files');
  t.like(inspected, {
    ref: 'cp-1',
    sequence: 1,
    parent: null,
    digest: saved.digest,
    extensions: ['claude-code', 'node'],
  });
  t.deepEqual(
    inspected.layers.map(({ title }) => title),
    ['deps', 'agent', 'project'],
  );
  t.deepEqual(inspected.layers[2]?.files, ['package.json', 'src/main.js', 'src/other.js']);
  t.deepEqual(
    inspected.layers.flatMap(({ digests }) => digests),
    readManifest(sandbox, saved.digest).layers.map(({ digest }) => digest),
  );

  t.deepEqual(await json('tag', 'cp-1', 'good'), { from: 'cp-1', to: 'good', digest: saved.digest, moved: false });
  rmSync(path.join(sandbox.workspace, 'src/other.js'));
  writeFileSync(path.join(sandbox.workspace, 'CLAUDE.md'), '# other notes\n');
  t.deepEqual(changesIn(await json<Comparison>('diff')), [
    'agent: modified CLAUDE.md',
    'project: removed src/other.js',
  ]);
  const patch = await json<{ patch: string }>('diff', '--file', 'CLAUDE.md');
  t.regex(
    patch.patch,
    /^--- a\/CLAUDE\.md \(cp-1\)\n\+\+\+ b\/CLAUDE\.md \(workspace\)\n@@ -1,1 \+1,1 @@\n-# notes\n\+# other notes$/m,
  );

  const opened = await json<{ ref: string; dir: string; digest: string; canUndo: boolean; written: number }>(
    'open',
    'cp-1',
  );
  t.like(opened, { ref: 'cp-1', dir: sandbox.workspace, digest: saved.digest, canUndo: true });
  t.deepEqual(await json('mounts'), []);
  t.deepEqual(await json('unmount', '--all'), { unmounted: [] });

  const failed = await sandbox.bento(['inspect', 'nope', '--json']);
  t.is(failed.stdout, '');
  t.is((JSON.parse(failed.stderr) as { error: { code: string } }).error.code, 'REF_NOT_FOUND');
});

test.serial('open() restores an older checkpoint, and open undo takes it back, unsaved work included', async (t) => {
  const sandbox = newSandbox(t);
  const { workspace } = sandbox;
  const ignore = OWN_FILES;
  await saveSmallWorkspace(sandbox);
  const first = describeTree(workspace, { ignore });
  writeFileSync(path.join(workspace, 'src/main.js'), 'saved change\n');
  rmSync(path.join(workspace, 'src/other.js'));
  mkdirSync(path.join(workspace, 'empty'));
  (await sandbox.bento(['save', '-m', 'second'])).ok();
  writeFileSync(path.join(workspace, 'unsaved'), 'never saved\n');
  chmodSync(path.join(workspace, 'package.json'), 0o600);
  const second = describeTree(workspace, { ignore });
  const head = headOf(workspace);

  const opened = (await sandbox.bento(['open', 'cp-1'])).ok();
  t.is(
    opened.stdout,
    `Restoring checkpoint cp-1 (sequence 1)...\nRestored to ${workspace}\n\n  To undo: bento open undo\n`,
  );
  t.deepEqual(describeTree(workspace, { ignore: [...ignore, 'unsaved'] }), first);
  t.not(headOf(workspace), head);
  t.is(
    (await sandbox.bento(['list', '--json']))
      .ok()
      .json<ListRow[]>()
      .find((row) => row.head)?.sequence,
    1,
  );

  (await sandbox.bento(['open', 'undo'])).ok();
  t.deepEqual(describeTree(workspace, { ignore }), second, 'undo brings back what was there, saved or not');
  t.is(headOf(workspace), head, 'and the head it had');
  t.deepEqual(changesIn((await sandbox.bento(['diff', '--json'])).ok().json<Comparison>()), [
    'project: added unsaved',
    'project: modified package.json',
  ]);
  assertTidy(t, sandbox);
});

test.serial('open() keeps ignored files that the checkpoint does not hold', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  mkdirSync(path.join(sandbox.workspace, 'bin'));
  writeFileSync(path.join(sandbox.workspace, 'bin/built'), 'ignored by .bentoignore\n');
  writeFileSync(path.join(sandbox.workspace, 'src/main.js'), 'changed\n');
  (await sandbox.bento(['save'])).ok();
  (await sandbox.bento(['open', 'cp-1'])).ok();
  t.is(readFileSync(path.join(sandbox.workspace, 'bin/built'), 'utf8'), 'ignored by .bentoignore\n');
});

testSerialNeeding({ root: true, fuse: true })(
  'the main job: mount, fork two, change each, save both, diff, open an older one, unmount, close',
  async (t) => {
    const sandbox = newSandbox(t);
    const { workspace } = sandbox;
    const [look, forkA, forkB] = [sandbox.makeFolder('look'), sandbox.path('a'), sandbox.path('b')];
    const bento = async (...args: string[]) => (await sandbox.bento(args)).ok();
    const json = async <T>(...args: string[]): Promise<T> => (await bento(...args, '--json')).json<T>();
    await saveSmallWorkspace(sandbox);
    const base = await json<{ digest: string }>('inspect', 'cp-1');

    t.is((await bento('mount', 'cp-1', look)).stdout, `Mounted cp-1 on ${look} (read-only)\n`);
    t.deepEqual(compareByWalk(workspace, look, { ignore: OWN_FILES }), []);
    t.throws(() => writeFileSync(path.join(look, 'new'), ''), { code: 'EROFS' });
    t.throws(() => rmSync(path.join(look, 'CLAUDE.md')), { code: 'EROFS' });

    t.is((await bento('fork', 'cp-1', forkA, '-m', 'try a')).stdout, `Forked cp-1 to ${forkA}\n`);
    t.like(await json('fork', 'cp-1', forkB), { target: forkB, ref: 'cp-1', digest: base.digest, engine: 'overlay' });
    t.is(headOf(forkA), base.digest);
    t.deepEqual(await compareWithRsync(workspace, forkB, { ignore: OWN_FILES }), []);
    t.deepEqual(changesIn(await json('diff', '--dir', forkA)), [], 'a fresh fork has no changes');
    t.is((await bento('save', '--dir', forkA)).stdout, 'No changes detected, skipping checkpoint.\n');

    writeFileSync(path.join(forkA, 'src/main.js'), 'from a\n');
    writeFileSync(path.join(forkA, 'only-a'), 'a\n');
    rmSync(path.join(forkB, 'src'), { recursive: true });
    writeFileSync(path.join(forkB, 'src'), 'a file now\n');
    t.is(readFileSync(path.join(workspace, 'src/main.js'), 'utf8'), 'first line\nsecond line\n');
    t.is(readFileSync(path.join(look, 'src/main.js'), 'utf8'), 'first line\nsecond line\n');
    t.false(existsSync(path.join(forkB, 'only-a')));

    const savedA = await json<Saved>('save', '--dir', forkA);
    writeFileSync(path.join(workspace, 'CLAUDE.md'), '# from the workspace\n');
    const savedMain = await json<Saved>('save', '-m', 'main goes on');
    const savedB = await json<Saved>('save', '--dir', forkB, '-m', 'b done');
    t.deepEqual([savedA.tag, savedMain.tag, savedB.tag], ['cp-2', 'cp-3', 'cp-4']);
    const rows = await json<ListRow[]>('list');
    t.deepEqual(
      rows.map(({ parent }) => parent),
      [null, base.digest, base.digest, base.digest],
      'every directory goes on from its own head',
    );
    t.is(rows[1]?.message, 'try a', 'the message of the fork is that of its save');
    t.deepEqual([forkA, workspace, forkB].map(headOf), [savedA.digest, savedMain.digest, savedB.digest]);
    t.is((await bento('save', '--dir', forkB)).stdout, 'No changes detected, skipping checkpoint.\n');
    writeFileSync(path.join(forkA, 'only-a'), 'a again\n');
    t.is((await json<Saved>('save', '--dir', forkA)).tag, 'cp-5');
    t.is((await json<ListRow[]>('list')).find(({ sequence }) => sequence === 5)?.parent, savedA.digest);

    const refs = await json<Comparison>('diff', 'cp-2', 'cp-4');
    const expected = [
      'project: modified src',
      'project: removed only-a',
      'project: removed src/main.js',
      'project: removed src/other.js',
    ];
    t.deepEqual(
      changesIn(refs).filter((line) => !line.endsWith('/')),
      expected,
    );
    t.deepEqual(
      changesIn(await json('diff', forkA, forkB)).filter((line) => !line.endsWith('/')),
      expected,
    );
    t.regex((await bento('diff', 'cp-1', 'cp-2')).stdout, /^Comparing cp-1 → cp-2\n\n {2}\[1\/3\] deps: unchanged\n/);
    t.regex(
      (await bento('diff', 'cp-1', 'cp-2')).stdout,
      /project: 2 changes \(1 added, 1 modified\)\n {4}\+ only-a\n {4}~ src\/main\.js/,
    );
    t.deepEqual(changesIn(await json('diff', look, 'cp-3')), ['agent: modified CLAUDE.md']);
    t.regex((await bento('diff')).stdout, /^Comparing workspace → cp-3\n[^]*\nNo changes since last checkpoint\.\n$/);
    t.regex((await bento('diff', 'cp-1', 'cp-1')).stdout, /\nNo changes between checkpoints\.\n$/);

    await bento('open', 'cp-1');
    t.is(readFileSync(path.join(workspace, 'CLAUDE.md'), 'utf8'), '# notes\n');
    await bento('open', 'undo');
    t.is(readFileSync(path.join(workspace, 'CLAUDE.md'), 'utf8'), '# from the workspace\n');
    await bento('open', 'cp-3', '--dir', forkA); // in place, in a fork
    t.is(readFileSync(path.join(forkA, 'src/main.js'), 'utf8'), 'first line\nsecond line\n');
    t.false(existsSync(path.join(forkA, 'only-a')));
    await bento('open', 'undo', '--dir', forkA);
    t.is(readFileSync(path.join(forkA, 'src/main.js'), 'utf8'), 'from a\n');
    t.is(readFileSync(path.join(forkA, 'only-a'), 'utf8'), 'a again\n');

    const mounts = await json<{ kind: string; target: string; mounted: boolean }[]>('mounts');
    t.deepEqual(
      mounts.map(({ kind, target, mounted }) => [kind, target, mounted]),
      [
        ['mount', look, true],
        ['fork', forkA, true],
        ['fork', forkB, true],
      ],
    );
    t.deepEqual(await json('unmount', look), { unmounted: [look] });
    t.is((await bento('unmount', forkB)).stdout, `Unmounted ${forkB}\n`);
    await bento('mounts', '--restore');
    t.is(readFileSync(path.join(forkB, 'src'), 'utf8'), 'a file now\n', 'an unmounted fork keeps its changes');

    writeFileSync(path.join(forkB, 'unsaved'), '');
    const refused = await sandbox.bento(['close', forkB]);
    t.is(refused.code, 22);
    t.regex(refused.stderr, /^ {2}\+ unsaved\nError: .* has 1 unsaved change\n/);
    t.deepEqual(await json('close', forkB, '--discard'), { closed: forkB, discarded: ['+ unsaved'] });
    t.is((await bento('close', forkA)).stdout, `Closed ${forkA}\n`);
    t.deepEqual(
      [forkA, forkB].map((dir) => existsSync(dir)),
      [false, false],
    );
    t.is((await bento('mounts')).stdout, 'Nothing is mounted.\n');
    await bento('unmount', '--all');
    t.deepEqual([sandbox.mounts(), sandbox.processes()], [[], []]);
    assertTidy(t, sandbox);
  },
);

// once ended in ENOTDIR half-way through the restore
for (const [what, from, to] of [
  ['a file became a directory', { thing: 'file\n' }, { 'thing/below/deep': 'deep\n' }],
  ['a directory became a file', { 'thing/below/deep': 'deep\n' }, { thing: 'file\n' }],
] as const) {
  test.serial(`open() and open undo cross a checkpoint in which ${what}`, async (t) => {
    const sandbox = newSandbox(t);
    await saveSmallWorkspace(sandbox);
    const thing = path.join(sandbox.workspace, 'thing');
    writeFiles(sandbox.workspace, from);
    (await sandbox.bento(['save'])).ok();
    const older = describeTree(sandbox.workspace, { ignore: OWN_FILES });
    rmSync(thing, { recursive: true });
    writeFiles(sandbox.workspace, to);
    (await sandbox.bento(['save'])).ok();
    const newer = describeTree(sandbox.workspace, { ignore: OWN_FILES });
    (await sandbox.bento(['open', 'cp-2'])).ok();
    t.deepEqual(describeTree(sandbox.workspace, { ignore: OWN_FILES }), older);
    (await sandbox.bento(['open', 'undo'])).ok();
    t.deepEqual(describeTree(sandbox.workspace, { ignore: OWN_FILES }), newer);
  });
}

testSerialNeeding({ root: true, fuse: true })('a fork of a fork starts from what the fork saved', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const [one, two] = [sandbox.path('one'), sandbox.path('two')];
  (await sandbox.bento(['fork', 'cp-1', one])).ok();
  writeFileSync(path.join(one, 'src/main.js'), 'of one\n');
  (await sandbox.bento(['save', '--dir', one])).ok();
  (await sandbox.bento(['fork', 'head', two, '--dir', one])).ok();
  t.is(readFileSync(path.join(two, 'src/main.js'), 'utf8'), 'of one\n');
  t.is(headOf(two), headOf(one));
  assertFails(t, await sandbox.bento(['fork', 'cp-1', two]), { code: 'MOUNT_POINT_BUSY', says: /\/two/ });
});
