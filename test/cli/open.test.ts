import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { assertFails, assertTidy, digestOfRef, headOf, saveSmallWorkspace } from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { testSerialIf, testSerialNeeding } from '../fixtures/external-tools.ts';
import { bentoAfter, WITHOUT_FUSE } from '../fixtures/other-machine.ts';
import { ofUser, UID, whyNoOrdinaryUser } from '../fixtures/ordinary-user.ts';
import { newSandbox, type RunOptions, type Sandbox } from '../fixtures/sandbox.ts';

const test = testSerialNeeding({ root: true, fuse: true });
const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];

interface Opened {
  dir: string;
  engine: string;
  digest: string;
  written: number;
}

async function open(sandbox: Sandbox, args: readonly string[], options: RunOptions = {}): Promise<Opened> {
  return (await sandbox.bento(['open', ...args, '--json'], options)).ok().json<Opened>();
}

/** Whether something is mounted there. */
function isMounted(sandbox: Sandbox, dir: string): boolean {
  return sandbox.mounts().includes(dir);
}

test('open into a new directory mounts a workspace, which saves and closes like any fork', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const dir = sandbox.path('opened');
  const result = (await sandbox.bento(['open', 'cp-1', '../opened'])).ok();
  t.is(result.stdout, `Restoring checkpoint cp-1 (sequence 1)...\nRestored to ${dir}\n`);
  t.is(result.stderr, '');
  t.true(isMounted(sandbox, dir));
  t.deepEqual(compareByWalk(sandbox.workspace, dir, { ignore: OWN_FILES }), []);
  t.is(headOf(dir), await digestOfRef(sandbox, 'cp-1'));

  writeFileSync(path.join(dir, 'src/main.js'), 'opened\n');
  t.is((await sandbox.bento(['close', dir])).code, 22, 'unsaved');
  (await sandbox.bento(['save', '--dir', dir])).ok();
  (await sandbox.bento(['close', dir])).ok();
  t.false(existsSync(dir));

  const empty = sandbox.makeFolder('empty');
  t.like(await open(sandbox, ['cp-2', empty]), { dir: empty, engine: 'overlay', written: 0 });
  (await sandbox.bento(['close', empty])).ok();
  t.deepEqual(readdirSync(empty), []);
  assertTidy(t, sandbox);
});

test('open --copy, BENTO_OPEN and open: in bento.yaml decide whether a new directory is mounted', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const yaml = path.join(sandbox.workspace, 'bento.yaml');
  const config = (line: string): void =>
    writeFileSync(yaml, `id: ws\nhead: ${headOf(sandbox.workspace)}\nstore: ${sandbox.storePath}\n${line}`);
  let number = 0;
  const engineOf = async (args: string[], mode?: string): Promise<string> => {
    const dir = sandbox.path(`new-${(number += 1)}`);
    const { engine } = await open(sandbox, [await digestOfRef(sandbox, 'head'), dir, ...args], {
      env: { BENTO_OPEN: mode },
    });
    t.is(isMounted(sandbox, dir), engine === 'overlay');
    t.deepEqual(compareByWalk(sandbox.workspace, dir, { ignore: OWN_FILES }), []);
    return engine;
  };
  t.is(await engineOf(['--copy']), 'copy');
  t.is(await engineOf(['--copy'], 'mount'), 'copy');
  t.is(await engineOf([], 'copy'), 'copy');
  t.is(await engineOf([], ''), 'overlay');
  t.is((await open(sandbox, ['cp-1', sandbox.path('some'), '--layers', 'project'])).engine, 'copy', 'a mount has all');
  const { digest } = await open(sandbox, ['cp-1', sandbox.path('last')]);
  t.is(digest, headOf(sandbox.workspace));
  assertFails(t, await sandbox.bento(['open', 'cp-1', '../x'], { env: { BENTO_OPEN: 'clone' } }), {
    code: 'USAGE',
    says: /BENTO_OPEN is clone, not mount or copy/,
  });

  config('open: clone\n');
  assertFails(t, await sandbox.bento(['open', 'cp-1', '../x']), {
    code: 'CONFIG_INVALID',
    says: /open "clone" is invalid — must be "mount" or "copy"/,
  });
  config('open: copy\n');
  t.is(await engineOf([]), 'copy');
  t.is(await engineOf([], 'mount'), 'overlay');
  config('open: mount\n');
  t.is(await engineOf([]), 'overlay');
});

test('open in a workspace restores in place, mounted or not', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  writeFileSync(path.join(sandbox.workspace, 'src/main.js'), 'second\n');
  (await sandbox.bento(['save'])).ok();
  t.like(await open(sandbox, ['cp-1']), { dir: sandbox.workspace, engine: 'copy', written: 1 });
  const fork = sandbox.path('fork');
  (await sandbox.bento(['fork', 'cp-2', fork])).ok();
  t.like(await open(sandbox, ['cp-1', '--dir', fork]), { dir: fork, engine: 'overlay' });
  t.deepEqual(compareByWalk(sandbox.workspace, fork, { ignore: OWN_FILES }), []);
});

test('open mounts where an earlier open --copy was killed', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const killed = sandbox.bento(['open', '--copy', 'cp-1', '../new'], { env: { BENTO_FAULT: 'open.new-written' } });
  await t.throwsAsync(killed, { message: /SIGKILL/ });
  t.true(readdirSync(sandbox.path('new')).includes('.bento-restore'));
  t.like(await open(sandbox, ['cp-1', '../new']), { engine: 'overlay' });
  t.deepEqual(compareByWalk(sandbox.workspace, sandbox.path('new'), { ignore: OWN_FILES }), []);
});

for (const [what, hide] of Object.entries(WITHOUT_FUSE)) {
  testSerialNeeding({ root: true, tools: ['unshare', 'mknod'] })(
    `with ${what}, open writes plain files and says why`,
    async (t) => {
      const sandbox = newSandbox(t);
      await saveSmallWorkspace(sandbox);
      const done = (await bentoAfter(sandbox, hide, ['open', 'cp-1', sandbox.path('new')])).ok();
      t.regex(done.stderr, /^note: \S+\/new gets plain files: [^\n]*\/dev\/fuse[^\n]*\n$/);
      t.regex(done.stdout, /^Restored to \S+\/new$/m);
      t.deepEqual(compareByWalk(sandbox.workspace, sandbox.path('new'), { ignore: OWN_FILES }), []);
      (await sandbox.bento(['save', '--dir', sandbox.path('new')])).ok();
      assertTidy(t, sandbox);
    },
  );
}

const noUser = whyNoOrdinaryUser();

testSerialIf(noUser === undefined, noUser ?? '')(
  'an ordinary user opens a workspace, and gets all of it',
  async (t) => {
    const { sandbox, inside } = await ofUser(t, '');
    const dir = sandbox.path('opened');
    (await inside.runAs(UID, ['mkdir', dir])).ok();
    (await inside.bentoAs(UID, ['open', 'cp-1', dir])).ok();
    t.is((await inside.runAs(UID, ['cat', path.join(dir, 'CLAUDE.md')])).ok().stdout, '# notes\n');
    t.is((await inside.bentoAs(UID, ['status', '--dir', dir, '--exit-code'])).code, 0);
  },
);
