import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import type { ExecutionContext } from 'ava';
import { assertFails, assertTidy, digestOfRef, saveSmallWorkspace } from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { bentoAfter, WITHOUT_FUSE } from '../fixtures/other-machine.ts';
import { newSandbox, type CommandResult, type Sandbox } from '../fixtures/sandbox.ts';

const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];
const MISSING = WITHOUT_FUSE['a /dev/fuse that is something else'];
const testCopying = testSerialNeeding({ root: true, tools: ['unshare', 'mknod'] });

interface Listed {
  target: string;
  state: string;
  engine: string;
}

async function listed(sandbox: Sandbox): Promise<Listed[]> {
  return (await sandbox.bento(['mounts', '--json'])).ok().json<Listed[]>();
}

/** A sandbox with cp-1 "mounted" on a directory of mode 0751, where FUSE is missing. */
async function mountCopy(
  t: ExecutionContext,
  hide: string = MISSING,
): Promise<{ sandbox: Sandbox; place: string; done: CommandResult }> {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const place = sandbox.makeFolder('place');
  chmodSync(place, 0o751);
  const done = (await bentoAfter(sandbox, hide, ['mount', 'cp-1', place])).ok();
  return { sandbox, place, done };
}

for (const [what, hide] of Object.entries(WITHOUT_FUSE)) {
  testCopying(`with ${what}, mount() makes a plain copy, says why, and unmount() removes it`, async (t) => {
    const { sandbox, place, done } = await mountCopy(t, hide);
    t.is(done.stdout, `Mounted cp-1 on ${place} (a copy)\n`);
    t.regex(done.stderr, /^note: \S+ is a plain copy: [^\n]*\/dev\/fuse[^\n]*\n$/);
    t.deepEqual(compareByWalk(sandbox.workspace, place, { ignore: OWN_FILES }), []);
    t.like((await listed(sandbox))[0], { target: place, engine: 'copy', state: 'copy' });
    t.deepEqual((await sandbox.bento(['unmount', place, '--json'])).ok().json(), { unmounted: [place] });
    t.deepEqual(readdirSync(place), []);
    t.is(statSync(place).mode & 0o777, 0o751, 'as it was before');
    t.deepEqual([await listed(sandbox), sandbox.processes()], [[], []]);
    assertTidy(t, sandbox);
  });
}

testCopying('mount --all is no copy: it says what is missing and what works instead', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const place = sandbox.makeFolder('place');
  assertFails(t, await bentoAfter(sandbox, MISSING, ['mount', '--all', place]), {
    code: 'FUSE_UNAVAILABLE',
    says: /\/dev\/fuse/,
    hint: /bento list/,
  });
  t.deepEqual(readdirSync(place), []);
  assertTidy(t, sandbox);
});

testCopying('unmount() of a copy keeps what somebody put there or wrote into it, unless forced', async (t) => {
  const changes: [string, (place: string) => void][] = [
    ['a new file', (place) => writeFileSync(path.join(place, 'src/mine'), 'mine\n')],
    ['a symlink', (place) => symlinkSync('main.js', path.join(place, 'src/mine'))],
    ['a new empty folder', (place) => mkdirSync(path.join(place, 'src/mine'))],
  ];
  for (const [what, change] of changes) {
    const { sandbox, place } = await mountCopy(t);
    change(place);
    const refused = await sandbox.bento(['unmount', place]);
    assertFails(t, refused, { code: 'UNSAVED_CHANGES', says: /somebody changed it: src\/mine/, hint: /--force/ });
    t.is((await sandbox.bento(['unmount', '--all'])).code, 22, what);
    t.true(existsSync(path.join(place, 'src/mine')), what);
    (await sandbox.bento(['unmount', '--force', place])).ok();
    t.deepEqual(readdirSync(place), [], what);
    assertTidy(t, sandbox);
  }
});

testCopying(
  'a changed file of a copy is found by its contents, even when size and times are those of before',
  async (t) => {
    const { sandbox, place } = await mountCopy(t);
    const file = path.join(place, 'src/main.js');
    writeFileSync(file, 'x'.repeat(statSync(file).size));
    execFileSync('touch', ['-r', path.join(sandbox.workspace, 'src/main.js'), file]);
    const refused = await sandbox.bento(['unmount', place]);
    assertFails(t, refused, { code: 'UNSAVED_CHANGES', says: /src\/main\.js/ });
  },
);

testCopying(
  'unmount() of a copy does not mind what the checkpoint still has: deleted files, times, permissions',
  async (t) => {
    const { sandbox, place } = await mountCopy(t);
    rmSync(path.join(place, 'src/main.js'));
    utimesSync(path.join(place, 'src/other.js'), 1, 1);
    chmodSync(path.join(place, 'CLAUDE.md'), 0o600);
    (await sandbox.bento(['unmount', place])).ok();
    t.deepEqual(readdirSync(place), []);
  },
);

testCopying('a copy in which something is mounted is not removed through that mount', async (t) => {
  const { sandbox, place } = await mountCopy(t);
  const inside = path.join(place, 'src');
  t.deepEqual(await once(spawn('mount', ['-t', 'tmpfs', 'none', inside]), 'exit'), [0, null]);
  writeFileSync(path.join(inside, 'precious'), '');
  for (const flags of [[], ['--force']]) {
    const refused = await sandbox.bento(['unmount', ...flags, place]);
    assertFails(t, refused, { code: 'MOUNT_POINT_BUSY', says: /place\/src is mounted inside/ });
  }
  t.deepEqual(readdirSync(inside), ['precious']);
  t.deepEqual(await once(spawn('umount', [inside]), 'exit'), [0, null]);
  (await sandbox.bento(['unmount', place])).ok();
});

testCopying('a copy keeps its directory and its checkpoint; one that was not finished says so', async (t) => {
  const { sandbox, place } = await mountCopy(t);
  for (const args of [
    ['mount', 'cp-1', place],
    ['fork', 'cp-1', place],
  ]) {
    assertFails(t, await bentoAfter(sandbox, MISSING, args), { code: 'TARGET_NOT_EMPTY', says: /not empty/ });
  }
  const digest = await digestOfRef(sandbox, 'cp-1');
  writeFileSync(path.join(sandbox.workspace, 'src/main.js'), 'second\n');
  (await sandbox.bento(['save'])).ok();
  (await sandbox.bento(['gc', '--keep-last', '1'])).ok();
  (await sandbox.bento(['inspect', digest])).ok();

  const [file = ''] = readdirSync(path.join(sandbox.storePath, 'mounts')).filter((name) => name.endsWith('.json'));
  const recordPath = path.join(sandbox.storePath, 'mounts', file);
  const { copied: _, ...record } = JSON.parse(readFileSync(recordPath, 'utf8')) as Record<string, unknown>;
  writeFileSync(recordPath, JSON.stringify(record)); // as it is when the command is killed in the middle
  t.is((await listed(sandbox))[0]?.state, 'unfinished');
  assertFails(t, await sandbox.bento(['unmount', place]), {
    code: 'UNSAVED_CHANGES',
    says: /was interrupted/,
    hint: /--force/,
  });
  (await sandbox.bento(['unmount', '--force', place])).ok();
  t.deepEqual(readdirSync(place), []);
  assertTidy(t, sandbox);
});

testCopying('a copy whose directory is gone is listed as such, and --prune forgets it', async (t) => {
  const { sandbox, place } = await mountCopy(t);
  rmSync(place, { recursive: true });
  t.like((await listed(sandbox))[0], { state: 'not mounted', remark: 'the directory is gone' });
  const pruned = (await sandbox.bento(['mounts', '--prune'])).ok();
  t.is(pruned.stderr, `forgot ${place}\n`);
  t.is(pruned.stdout, 'Nothing is mounted.\n');
  assertTidy(t, sandbox);
});
