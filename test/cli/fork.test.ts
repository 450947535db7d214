import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { ExecutionContext } from 'ava';
import {
  assertFails,
  assertTidy,
  digestOfRef,
  headOf,
  namesIn,
  saveSmallWorkspace,
  watchTree,
} from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { makeManyFiles } from '../fixtures/many-files.ts';
import { recordId } from '../../fs/mounts/mount-table.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const test = testSerialNeeding({ root: true, fuse: true });
const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];

interface Fork {
  target: string;
  ref: string;
  digest: string;
  head: string | null;
  engine: string;
}

/** A sandbox with cp-1. */
async function withCheckpoint(t: ExecutionContext): Promise<Sandbox> {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  return sandbox;
}

async function changesOf(sandbox: Sandbox, dir: string): Promise<unknown> {
  return (await sandbox.bento(['status', '--json', '--dir', dir])).ok().json<{ changes: unknown }>().changes;
}

/** Adds, changes and removes a file. */
function leaveUnsaved(dir: string): void {
  writeFileSync(path.join(dir, 'src/new.js'), 'new\n');
  writeFileSync(path.join(dir, 'src/main.js'), 'changed\n');
  rmSync(path.join(dir, 'src/other.js'));
}

const UNSAVED = { added: 1, removed: 1, modified: 1 };

// Several

test('fork -n makes numbered directories, and refuses when one is there before it makes any', async (t) => {
  const sandbox = await withCheckpoint(t);
  const { forks } = (await sandbox.bento(['fork', 'cp-1', '../try/', '-n', '3', '--json']))
    .ok()
    .json<{ forks: Fork[] }>();
  const dirs = [1, 2, 3].map((number) => sandbox.path(`try-${number}`));
  t.deepEqual(
    forks.map(({ target }) => target),
    dirs,
  );
  for (const dir of dirs) t.deepEqual(compareByWalk(sandbox.workspace, dir, { ignore: OWN_FILES }), []);

  sandbox.makeFolder('more-2');
  const before = namesIn(sandbox.root);
  const refused = await sandbox.bento(['fork', 'cp-1', '../more', '-n', '3']);
  assertFails(t, refused, { code: 'TARGET_NOT_EMPTY', says: /more-2 exists already, so nothing was made/ });
  for (const count of ['0', '-1', '1001']) {
    assertFails(t, await sandbox.bento(['fork', 'cp-1', '../more', '-n', count]), {
      code: 'USAGE',
      says: /-n must be/,
    });
  }
  assertFails(t, await sandbox.bento(['fork', 'cp-1', '../more', '../and', '-n', '2']), {
    code: 'USAGE',
    says: /-n takes one directory/,
  });
  t.deepEqual(namesIn(sandbox.root), before);
  assertTidy(t, sandbox, { records: 3, forks: 3 });
});

test('of several directories all are forked or none: what was made before the one that fails is gone', async (t) => {
  const sandbox = await withCheckpoint(t);
  writeFileSync(sandbox.path('file'), 'precious\n');
  const full = sandbox.makeFolder('full');
  writeFileSync(path.join(full, 'precious'), '');
  const empty = sandbox.makeFolder('empty');
  const changed = watchTree(sandbox.root, { ignore: ['.', 'data', 'run', 'tmp'] });
  for (const [bad, code] of [
    ['../full', 'TARGET_NOT_EMPTY'],
    ['../file', 'TARGET_INVALID'],
    ['../no/parent', 'MOUNT_POINT_MISSING'],
    ['../a', 'USAGE'],
  ] as const) {
    const result = await sandbox.bento(['fork', 'cp-1', '../a', empty, bad, '../b']);
    assertFails(t, result, { code, says: /./ });
  }
  t.deepEqual(
    changed().filter((name) => !/^(data|run|tmp)\//.test(name)),
    [],
  );
  t.deepEqual([readdirSync(empty), existsSync(sandbox.path('a'))], [[], false]);
  assertTidy(t, sandbox);
});

test('when the third of three forks cannot be mounted, the first two are taken away again', async (t) => {
  const sandbox = await withCheckpoint(t);
  // The kernel wants an overlay's upper and work folder on one file system.
  const work = path.join(sandbox.storePath, 'forks', recordId(sandbox.path('c')), 'work');
  execFileSync('mkdir', ['-p', work]);
  execFileSync('mount', ['-t', 'tmpfs', 'none', work]);
  const result = await sandbox.bento(['fork', 'cp-1', '../a', '../b', '../c', '--engine', 'overlay']);
  assertFails(t, result, { code: 'MOUNT_FAILED', says: /mounting on \S+\/c failed/ });
  execFileSync('umount', [work]);
  t.deepEqual(
    ['a', 'b', 'c'].map((name) => existsSync(sandbox.path(name))),
    [false, false, true],
  );
  t.deepEqual(
    sandbox.mounts().filter((target) => !target.startsWith(sandbox.runtimeDir)),
    [],
  );
  (await sandbox.bento(['close', '--discard', '../c'])).ok();
  assertTidy(t, sandbox);
});

test('a fork on the directory of one whose record was lost does not bring its changes back, nor throw them away', async (t) => {
  const sandbox = await withCheckpoint(t);
  (await sandbox.bento(['fork', 'cp-1', '../a'])).ok();
  (await sandbox.bento(['unmount', '../a'])).ok();
  const id = recordId(sandbox.path('a'));
  rmSync(path.join(sandbox.storePath, 'mounts', `${id}.json`));
  (await sandbox.bento(['fork', 'cp-1', '../a'])).ok(); // nobody had worked in it
  writeFileSync(sandbox.path('a/mine'), 'precious\n');
  (await sandbox.bento(['unmount', '../a'])).ok();
  rmSync(path.join(sandbox.storePath, 'mounts', `${id}.json`));
  const refused = await sandbox.bento(['fork', 'cp-1', '../b', '../a']);
  assertFails(t, refused, { code: 'TARGET_INVALID', says: /has changes of an earlier fork on \S+\/a/, hint: /remove/ });
  t.is(readFileSync(path.join(sandbox.storePath, 'forks', id, 'upper/mine'), 'utf8'), 'precious\n');
  t.false(existsSync(sandbox.path('b')));
});

test('forks whose command was killed are whole once they are on record, and leave nothing before', async (t) => {
  for (const [fault, states] of [
    ['fork.described', []],
    ['fork.recorded', ['not mounted', 'not mounted']],
    ['fork.mounted', ['mounted', 'mounted']],
  ] as const) {
    const sandbox = await withCheckpoint(t);
    const killed = sandbox.bento(['fork', 'cp-1', '../a', '../b'], { env: { BENTO_FAULT: fault } });
    await t.throwsAsync(killed, { message: /SIGKILL/ });
    const listed = async (): Promise<string[]> =>
      (await sandbox.bento(['mounts', '--json']))
        .ok()
        .json<{ state: string }[]>()
        .map(({ state }) => state);
    t.deepEqual(await listed(), [...states], fault);
    if (states.length === 0) {
      (await sandbox.bento(['gc'])).ok();
      assertTidy(t, sandbox);
      (await sandbox.bento(['fork', 'cp-1', '../a', '../b'])).ok();
    }
    (await sandbox.bento(['mounts', '--restore'])).ok();
    for (const dir of [sandbox.path('a'), sandbox.path('b')]) {
      t.deepEqual(compareByWalk(sandbox.workspace, dir, { ignore: OWN_FILES }), [], fault);
      t.is((await sandbox.bento(['status', '--exit-code', '--dir', dir])).code, 0);
      (await sandbox.bento(['close', dir])).ok();
    }
    assertTidy(t, sandbox);
  }
});

test('a hundred forks in one command take under a megabyte each', async (t) => {
  const sandbox = newSandbox(t);
  makeManyFiles(sandbox.workspace, { fileCount: 2000 });
  (await sandbox.bento(['init'])).ok();
  (await sandbox.bento(['save'])).ok();
  (await sandbox.bento(['fork', 'cp-1', '../warm'])).ok();
  const kib = (): number =>
    Number(execFileSync('du', ['-skx', sandbox.storePath], { encoding: 'utf8' }).split('\t')[0]);
  const before = kib();
  (await sandbox.bento(['fork', 'cp-1', '../f', '-n', '100'])).ok();
  t.log(`${kib() - before} KiB`);
  t.true(kib() - before < 100 * 1024);
  (await sandbox.bento(['unmount', '--all'])).ok();
});

// Of a workspace as it is now

for (const kind of ['plain directory', 'overlay', 'cow'] as const) {
  test(`fork <dir> of a ${kind} takes along what is not saved, as unsaved, and nothing moves`, async (t) => {
    const sandbox = await withCheckpoint(t);
    let from = sandbox.workspace;
    if (kind !== 'plain directory') {
      from = sandbox.path('from');
      (await sandbox.bento(['fork', 'cp-1', from, '--engine', kind])).ok();
    }
    leaveUnsaved(from);
    const head = headOf(from);
    const made = (await sandbox.bento(['fork', '../copy', '--json', '--dir', from])).ok().json<Fork>();
    t.like(made, { target: sandbox.path('copy'), ref: 'cp-1+unsaved', head, engine: 'overlay' });
    t.not(made.digest, head);
    const copy = sandbox.path('copy');
    t.deepEqual(compareByWalk(from, copy, { ignore: OWN_FILES }), []);
    t.deepEqual([headOf(copy), headOf(from)], [head, head]);
    t.deepEqual([await changesOf(sandbox, copy), await changesOf(sandbox, from)], [UNSAVED, UNSAVED]);
    t.is((await sandbox.bento(['list', '--json'])).ok().json<unknown[]>().length, 1, 'nobody sees the checkpoint');

    const main = path.join(copy, 'src/main.js');
    t.is(readFileSync(main, 'utf8'), 'changed\n');
    writeFileSync(main, 'only here\n');
    t.is(readFileSync(path.join(from, 'src/main.js'), 'utf8'), 'changed\n');
    (await sandbox.bento(['gc', '--keep-last', '1'])).ok();
    t.is(readFileSync(path.join(copy, 'src/new.js'), 'utf8'), 'new\n', 'gc keeps what the fork stands on');
    const saved = (await sandbox.bento(['save', '--json', '--dir', copy])).ok().json<{ digest: string; tag: string }>();
    t.is(saved.tag, 'cp-2');
    const { parent } = (await sandbox.bento(['inspect', 'cp-2', '--json'])).ok().json<{ parent: string }>();
    t.is(parent, head);
    t.deepEqual(await changesOf(sandbox, copy), { added: 0, removed: 0, modified: 0 });
    t.is((await sandbox.bento(['diff', copy, 'cp-2', '--exit-code'])).code, 0);
    (await sandbox.bento(['close', copy])).ok();
    (await sandbox.bento(['gc', '--keep-last', '9'])).ok();
    (await sandbox.bento(['verify'])).ok();
    t.false(existsSync(copy));
  });
}

test('fork of a workspace with nothing unsaved stands on its head; of one that was never saved, on nothing', async (t) => {
  const sandbox = await withCheckpoint(t);
  const blobs = (): string[] => namesIn(path.join(sandbox.storePath, 'blobs/sha256'));
  const before = blobs();
  const made = (await sandbox.bento(['fork', '.', '../a', '../b', '--json'])).ok().json<{ forks: Fork[] }>();
  const digest = await digestOfRef(sandbox, 'cp-1');
  for (const fork of made.forks) t.like(fork, { ref: 'cp-1', digest, head: digest });
  t.deepEqual(blobs(), before);

  const fresh = sandbox.makeFolder('fresh');
  writeFileSync(path.join(fresh, 'file'), 'x\n');
  (await sandbox.bento(['init'], { cwd: fresh })).ok();
  const fork = (await sandbox.bento(['fork', '../of-fresh', '--json'], { cwd: fresh })).ok().json<Fork>();
  t.like(fork, { ref: 'unsaved', head: null });
  t.is(readFileSync(sandbox.path('of-fresh/file'), 'utf8'), 'x\n');
  const saved = (await sandbox.bento(['save', '--json', '--dir', sandbox.path('of-fresh')])).ok();
  t.is(saved.json<{ tag: string }>().tag, 'cp-1');
});

test('fork tells a directory from a reference, and what it cannot fork', async (t) => {
  const sandbox = await withCheckpoint(t);
  const nothing = sandbox.makeFolder('nothing');
  assertFails(t, await sandbox.bento(['fork', '../x'], { cwd: nothing }), {
    code: 'CONFIG_MISSING',
    says: /bento\.yaml/,
  });
  assertFails(t, await sandbox.bento(['fork', '../nothing', '../x']), { code: 'CONFIG_MISSING', says: /bento\.yaml/ });
  assertFails(t, await sandbox.bento(['fork', 'src', '../x']), {
    code: 'REF_NOT_FOUND',
    says: /no checkpoint is called src/,
    hint: /\.\/src/,
  });
  assertFails(t, await sandbox.bento(['fork', 'cp-9', '../x']), { code: 'REF_NOT_FOUND', says: /cp-9/ });
  assertFails(t, await sandbox.bento(['fork']), { code: 'USAGE', says: /received 0/ });
  assertFails(t, await sandbox.bento(['fork', 'cp-1', '../x', '--engine', 'warp']), {
    code: 'USAGE',
    says: /no engine warp, but auto, overlay, cow, copy/,
  });
  t.false(existsSync(sandbox.path('x')));
  assertTidy(t, sandbox);
});

// The end

test('close of a fork leaves nothing: no folder, no record, no head, no directory that was made for it', async (t) => {
  const sandbox = await withCheckpoint(t);
  const heads = (): string[] =>
    readdirSync(sandbox.storePath).flatMap((id) => namesIn(path.join(sandbox.storePath, id, 'heads')));
  const [before, empty] = [heads(), sandbox.makeFolder('empty')];
  (await sandbox.bento(['fork', 'cp-1', '../a', empty])).ok();
  t.is(heads().length, before.length + 2);
  (await sandbox.bento(['close', '../a'])).ok();
  (await sandbox.bento(['close', empty])).ok();
  t.deepEqual([heads(), existsSync(sandbox.path('a')), readdirSync(empty)], [before, false, []]);
  assertTidy(t, sandbox);
});
