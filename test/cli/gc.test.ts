import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import {
  assertFails,
  assertTidy,
  assertUsable,
  blobPath,
  digestOfRef,
  headOf,
  namesIn,
  saveSmallWorkspace,
  watchTree,
  workspaceId,
  writeFiles,
} from '../fixtures/command-checks.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

interface Row {
  tags: string[];
}

async function saveStates(sandbox: Sandbox, count: number, dir = sandbox.workspace): Promise<void> {
  for (let i = 0; i < count; i++) {
    writeFiles(dir, { 'src/main.js': `state ${i} of ${dir}\n` });
    (await sandbox.bento(['save', '-m', `state ${i}`, '--dir', dir])).ok();
  }
}

async function tagsOf(sandbox: Sandbox): Promise<string[]> {
  const rows = (await sandbox.bento(['list', '--json'])).ok().json<Row[]>();
  return rows.flatMap(({ tags }) => tags).sort();
}

async function assertVerified(
  t: { is: (a: unknown, b: unknown, m?: string) => void },
  sandbox: Sandbox,
): Promise<void> {
  const result = await sandbox.bento(['verify']);
  t.is(result.code, 0, result.toString());
}

function setRetention(sandbox: Sandbox, lines: string): void {
  const file = path.join(sandbox.workspace, 'bento.yaml');
  writeFileSync(file, readFileSync(file, 'utf8').replace(/retention:\n(?: .*\n)*/, lines));
}

// U13: in the original, latest and cp-4 used up both places, and keep_tagged kept everything because of the tags cp-N
test.serial('gc --keep-last counts checkpoints, and says what went in the words of the original', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  await saveStates(sandbox, 3);
  const before = namesIn(path.join(sandbox.storePath, 'blobs', 'sha256')).length;
  const { stdout } = (await sandbox.bento(['gc', '--keep-last', '2'])).ok();
  t.regex(stdout, /^Deleted 2 checkpoint\(s\)\.\nPruned \d+ blob\(s\), freed \d+(\.\d)?(B|KB)\.\n$/);
  t.deepEqual(await tagsOf(sandbox), ['cp-3', 'cp-4', 'latest']);
  t.is(
    before - namesIn(path.join(sandbox.storePath, 'blobs', 'sha256')).length,
    Number(/Pruned (\d+)/.exec(stdout)?.[1]),
  );
  t.is((await sandbox.bento(['gc', '--keep-last', '2'])).ok().stdout, 'Nothing to clean up.\n');
  await assertVerified(t, sandbox);
  await assertUsable(t, sandbox);
});

test.serial('gc goes by retention in bento.yaml, and deletes nothing that nobody asked to be deleted', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  await saveStates(sandbox, 3);
  (await sandbox.bento(['tag', 'cp-1', 'release'])).ok();
  t.is((await sandbox.bento(['gc'])).ok().stdout, 'Nothing to clean up.\n', 'what init writes keeps the last hour');
  setRetention(sandbox, '');
  t.is((await sandbox.bento(['gc'])).ok().stdout, 'Nothing to clean up.\n', 'nothing is written down');
  setRetention(sandbox, '');
  writeFileSync(path.join(sandbox.workspace, 'bento.yaml'), 'retention:\n    keep_last: 1\n    keep_tagged: true\n', {
    flag: 'a',
  });
  t.regex((await sandbox.bento(['gc'])).ok().stdout, /^Deleted 2 checkpoint\(s\)\./);
  t.deepEqual(await tagsOf(sandbox), ['cp-1', 'cp-4', 'latest', 'release']);
  setRetention(sandbox, 'retention:\n    keep_last: 1\n');
  t.is((await sandbox.bento(['gc', '--keep-tagged'])).ok().stdout, 'Nothing to clean up.\n');
  t.regex((await sandbox.bento(['gc'])).ok().stdout, /^Deleted 1 checkpoint\(s\)\./);
});

test.serial('gc -n lists what would go and changes nothing', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  await saveStates(sandbox, 2);
  const digests = [await digestOfRef(sandbox, 'cp-1'), await digestOfRef(sandbox, 'cp-2')];
  const ignore = ['cache', '.blob-lock', '.blob-gate'];
  const changed = watchTree(sandbox.storePath, { ignore });
  const { stdout } = (await sandbox.bento(['gc', '--keep-last', '1', '-n'])).ok();
  t.regex(stdout, /^Would delete 2 checkpoint\(s\):\n {2}cp-2 .*state 0\n {2}cp-1 .*first\nWould prune \d+ blob\(s\)/);
  const planned = (await sandbox.bento(['gc', '--keep-last', '1', '--dry-run', '--json'])).ok().json<{
    dryRun: boolean;
    deleted: { digest: string }[];
    blobs: { digest: string }[];
  }>();
  t.true(planned.dryRun);
  t.deepEqual(planned.deleted.map(({ digest }) => digest).sort(), digests.sort());
  t.deepEqual(
    changed().filter((name) => name !== '.' && !/^\.blob|^cache/.test(name)),
    [],
  );
  for (const { digest } of planned.blobs) t.true(existsSync(blobPath(sandbox, digest)));
});

// D8: in the original, after `open undo` and gc the head dangled and every later parent link pointed nowhere
test.serial('gc after open and undo keeps the head, and saving goes on from it', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  await saveStates(sandbox, 2);
  (await sandbox.bento(['open', 'cp-1'])).ok();
  (await sandbox.bento(['gc', '--keep-last', '1'])).ok();
  t.deepEqual(await tagsOf(sandbox).then((tags) => tags.filter((tag) => /^cp/.test(tag))), ['cp-1', 'cp-3']);
  (await sandbox.bento(['open', 'undo'])).ok();
  t.is(readFileSync(path.join(sandbox.workspace, 'src/main.js'), 'utf8'), `state 1 of ${sandbox.workspace}\n`);
  (await sandbox.bento(['gc', '--keep-last', '1'])).ok();
  const head = headOf(sandbox.workspace);
  t.true(existsSync(blobPath(sandbox, head)));
  await assertVerified(t, sandbox);
  writeFiles(sandbox.workspace, { more: 'more\n' });
  const { digest } = (await sandbox.bento(['save', '--json'])).ok().json<{ digest: string }>();
  const { parent } = (await sandbox.bento(['inspect', digest, '--json'])).ok().json<{ parent: string }>();
  t.is(parent, head);
});

test.serial('gc in one directory keeps what parallel directories are at', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  (await sandbox.bento(['open', '--copy', 'cp-1', '../parallel'])).ok();
  await saveStates(sandbox, 2);
  (await sandbox.bento(['gc', '--keep-last', '1'])).ok();
  t.deepEqual(await tagsOf(sandbox), ['cp-1', 'cp-3', 'latest']);
  writeFiles(sandbox.path('parallel'), { 'src/main.js': 'of its own\n' });
  (await sandbox.bento(['save', '--dir', sandbox.path('parallel')])).ok(); // cp-4, from cp-1
  (await sandbox.bento(['gc', '--keep-last', '1'])).ok();
  t.deepEqual(await tagsOf(sandbox), ['cp-3', 'cp-4', 'latest']);
  await assertVerified(t, sandbox);
});

testSerialNeeding({ root: true, fuse: true })('gc keeps what is mounted or forked, unmounted forks too', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  await saveStates(sandbox, 3);
  const mounted = sandbox.makeFolder('mounted');
  (await sandbox.bento(['mount', 'cp-1', mounted])).ok();
  (await sandbox.bento(['fork', 'cp-2', '../fork'])).ok();
  (await sandbox.bento(['unmount', '../fork'])).ok();
  (await sandbox.bento(['gc', '--keep-last', '1'])).ok();
  t.deepEqual(await tagsOf(sandbox), ['cp-1', 'cp-2', 'cp-4', 'latest']);
  t.is(readFileSync(path.join(mounted, 'src/other.js'), 'utf8'), 'other\n');
  (await sandbox.bento(['mounts', '--restore'])).ok();
  t.is(readFileSync(sandbox.path('fork', 'src/main.js'), 'utf8'), `state 0 of ${sandbox.workspace}\n`);
  (await sandbox.bento(['unmount', mounted])).ok();
  (await sandbox.bento(['close', '../fork', '--force'])).ok();
  (await sandbox.bento(['gc', '--keep-last', '1'])).ok();
  t.deepEqual(await tagsOf(sandbox), ['cp-4', 'latest']);
  await assertVerified(t, sandbox);
});

// D9: the original took a damaged index.json for an empty one and deleted the workspace's data
for (const [what, damage] of [
  ['cut off', (text: string) => text.slice(0, text.length / 2)],
  ['empty', () => ''],
  ['of another kind', () => '[]'],
] as const) {
  test.serial(`gc with an index.json that is ${what} refuses, names the file and deletes nothing`, async (t) => {
    const sandbox = newSandbox(t);
    await saveSmallWorkspace(sandbox);
    await saveStates(sandbox, 2);
    const other = sandbox.makeFolder('other');
    writeFiles(other, { file: 'of another workspace\n' });
    (await sandbox.bento(['init', '--dir', other])).ok();
    (await sandbox.bento(['save', '--dir', other])).ok();
    const file = path.join(sandbox.storePath, workspaceId(sandbox, other), 'index.json');
    const text = readFileSync(file, 'utf8');
    writeFileSync(file, damage(text));
    const blobs = namesIn(path.join(sandbox.storePath, 'blobs', 'sha256'));
    const tags = await tagsOf(sandbox);
    for (const flags of [[], ['-n'], ['--drop-damaged']]) {
      const result = await sandbox.bento(['gc', '--keep-last', '1', ...flags]);
      assertFails(t, result, { code: 'FORMAT_INVALID', says: /nothing was deleted/, hint: /backup/ });
      t.true(result.stderr.includes(file));
    }
    t.deepEqual(namesIn(path.join(sandbox.storePath, 'blobs', 'sha256')), blobs);
    t.deepEqual(await tagsOf(sandbox), tags);
    writeFileSync(file, text);
    (await sandbox.bento(['gc', '--keep-last', '1'])).ok();
    await assertVerified(t, sandbox);
  });
}

test.serial('gc with a damaged record of a head or mount refuses and names it', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  await saveStates(sandbox, 1);
  const id = workspaceId(sandbox);
  for (const file of [path.join(id, 'heads', '01234567.json'), path.join('mounts', '0123456789abcdef.json')]) {
    writeFiles(sandbox.storePath, { [file]: '{"dir":' });
    const result = await sandbox.bento(['gc', '--keep-last', '1']);
    assertFails(t, result, { code: 'FORMAT_INVALID', says: /nothing was deleted/ });
    t.true(result.stderr.includes(file));
    rmSync(path.join(sandbox.storePath, file));
  }
  t.deepEqual(await tagsOf(sandbox), ['cp-1', 'cp-2', 'latest']);
});

test.serial('gc with a manifest that cannot be read refuses; --drop-damaged gives the checkpoint up', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  await saveStates(sandbox, 2);
  rmSync(blobPath(sandbox, await digestOfRef(sandbox, 'cp-2')));
  const blobs = namesIn(path.join(sandbox.storePath, 'blobs', 'sha256'));
  assertFails(t, await sandbox.bento(['gc', '--keep-last', '1']), {
    code: 'BLOB_MISSING',
    says: /nothing was deleted: what .*:cp-2 needs/,
    hint: /verify --repair.*--drop-damaged/,
  });
  t.deepEqual(namesIn(path.join(sandbox.storePath, 'blobs', 'sha256')), blobs);
  t.regex((await sandbox.bento(['gc', '--drop-damaged'])).ok().stdout, /^Deleted 1 checkpoint\(s\)\./);
  t.deepEqual(await tagsOf(sandbox), ['cp-1', 'cp-3', 'latest']);
  await assertVerified(t, sandbox);
});

// U18: after a crash, the original's lock file had to be removed by hand
test.serial('gc is not held up by a stale lock file of the original, nor by its own', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  await saveStates(sandbox, 1);
  writeFiles(sandbox.storePath, { '.gc-lock': '12345', '.blob-lock': '', '.blob-gate': '' });
  (await sandbox.bento(['gc', '--keep-last', '1'])).ok();
  t.deepEqual(await tagsOf(sandbox), ['cp-2', 'latest']);
  rmSync(path.join(sandbox.storePath, '.gc-lock'));
  (await sandbox.bento(['gc'])).ok();
  t.false(existsSync(path.join(sandbox.storePath, '.gc-lock')), 'none is made that would hold up the original');
  assertTidy(t, sandbox);
});

test.serial('gc where there is no workspace says so', async (t) => {
  const sandbox = newSandbox(t);
  assertFails(t, await sandbox.bento(['gc']), { code: 'CONFIG_MISSING', says: /no bento\.yaml/, hint: /bento init/ });
  (await sandbox.bento(['init'])).ok();
  t.is((await sandbox.bento(['gc'])).ok().stdout, 'Nothing to clean up.\n');
});
