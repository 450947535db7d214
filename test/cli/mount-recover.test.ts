import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { assertFails, assertTidy, saveSmallWorkspace } from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const NOTE = 'BENTO-NOT-MOUNTED.txt';
const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];
const testMounting = testSerialNeeding({ root: true, fuse: true });

interface Listed {
  kind: string;
  target: string;
  state: string;
  remark?: string;
}

async function listed(sandbox: Sandbox): Promise<Listed[]> {
  return (await sandbox.bento(['mounts', '--json'])).ok().json<Listed[]>();
}

async function statesOf(sandbox: Sandbox): Promise<Record<string, string>> {
  return Object.fromEntries((await listed(sandbox)).map(({ target, state }) => [path.basename(target), state]));
}

/** A sandbox with cp-1 mounted on `look`, forked to `fork` with unsaved work in it, and a mount of everything on `all`. */
async function mountThree(t: ExecutionContext): Promise<{ sandbox: Sandbox; look: string; fork: string; all: string }> {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const [look, all, fork] = [sandbox.makeFolder('look'), sandbox.makeFolder('all'), sandbox.path('fork')];
  (await sandbox.bento(['mount', 'cp-1', look])).ok();
  (await sandbox.bento(['mount', '--all', all])).ok();
  (await sandbox.bento(['fork', 'cp-1', fork])).ok();
  writeFileSync(path.join(fork, 'unsaved'), 'precious\n');
  return { sandbox, look, fork, all };
}

/** Ends every process and every mount, as a reboot does. */
async function reboot(sandbox: Sandbox): Promise<void> {
  for (const pid of sandbox.processes()) process.kill(pid, 'SIGKILL');
  for (let tries = 0; tries < 200 && sandbox.processes().length > 0; tries++) await setTimeout(20);
  for (const target of sandbox.mounts()) execFileSync('umount', ['-l', target]);
}

/** Changes the record of a mount, as another boot or program would have written it. */
function editRecord(sandbox: Sandbox, target: string, change: Record<string, unknown>): void {
  const folder = path.join(sandbox.storePath, 'mounts');
  for (const name of readdirSync(folder).filter((found) => found.endsWith('.json'))) {
    const record = JSON.parse(readFileSync(path.join(folder, name), 'utf8')) as Record<string, unknown>;
    if (record['target'] === target) writeFileSync(path.join(folder, name), JSON.stringify({ ...record, ...change }));
  }
}

testMounting('after a reboot a note says what belongs there, and --restore brings all back', async (t) => {
  const { sandbox, look, fork, all } = await mountThree(t);
  t.false(existsSync(path.join(look, NOTE)), 'hidden by the mount');
  await reboot(sandbox);
  for (const dir of [look, fork, all]) t.deepEqual(readdirSync(dir), [NOTE]);
  t.regex(readFileSync(path.join(look, NOTE), 'utf8'), /mount of cp-1 [^]*bento mounts --restore/);
  t.regex(readFileSync(path.join(fork, NOTE), 'utf8'), new RegExp(`fork of cp-1 [^]*bento close ${fork}\n`));

  t.deepEqual(await statesOf(sandbox), { look: 'not mounted', fork: 'not mounted', all: 'not mounted' });
  t.is((await listed(sandbox))[0]?.remark, undefined, 'the same boot');
  for (const dir of [look, fork, all]) editRecord(sandbox, dir, { bootId: 'an earlier one', namespace: '1' });
  const table = (await sandbox.bento(['mounts'])).ok().stdout;
  t.is(table.match(/not mounted .*\(since a reboot\)$/gm)?.length, 3, table);
  t.regex(table, /bento mounts --restore/);

  (await sandbox.bento(['mounts', '--restore'])).ok();
  t.deepEqual(await statesOf(sandbox), { look: 'mounted', fork: 'mounted', all: 'mounted' });
  t.deepEqual(compareByWalk(sandbox.workspace, look, { ignore: OWN_FILES }), []);
  t.is(readFileSync(path.join(fork, 'unsaved'), 'utf8'), 'precious\n');
  t.true(readdirSync(all).length > 0);
  t.is((await listed(sandbox)).filter(({ remark }) => remark !== undefined).length, 0);

  const saved = (await sandbox.bento(['save', '--dir', fork, '--json'])).ok().json<{ digest: string }>();
  const inside = (await sandbox.bento(['diff', 'cp-1', saved.digest, '--json'])).ok().stdout;
  t.false(inside.includes(NOTE), 'the note is in no checkpoint');
  (await sandbox.bento(['unmount', '--all'])).ok();
  for (const dir of [look, fork, all]) t.deepEqual(readdirSync(dir), [], 'unmounting takes the note away');
  assertFails(t, await sandbox.bento(['close', fork]), {
    code: 'UNSAVED_CHANGES',
    says: /it is not mounted, so they were not looked at/,
    hint: /--restore/,
  });
  (await sandbox.bento(['close', '--discard', fork])).ok();
  t.false(existsSync(fork));
  assertTidy(t, sandbox);
});

testMounting(
  'after a reboot: unmount forgets a mount and its note, close ends a fork, mount takes the place again',
  async (t) => {
    const { sandbox, look, fork, all } = await mountThree(t);
    await reboot(sandbox);
    (await sandbox.bento(['unmount', look])).ok();
    t.deepEqual(readdirSync(look), []);
    (await sandbox.bento(['mount', 'cp-1', all])).ok();
    t.deepEqual(compareByWalk(sandbox.workspace, all, { ignore: OWN_FILES }), []);
    t.is((await sandbox.bento(['close', fork])).code, 22, 'its work was not looked at');
    assertFails(t, await sandbox.bento(['mount', 'cp-1', fork]), {
      code: 'MOUNT_POINT_BUSY',
      says: /belongs to a fork/,
    });
    t.deepEqual(readdirSync(fork), [NOTE]);
    (await sandbox.bento(['close', '--discard', fork])).ok();
    t.false(existsSync(fork), 'with its note');
    (await sandbox.bento(['unmount', '--all'])).ok();
    t.deepEqual(readdirSync(all), []);
    assertTidy(t, sandbox);
  },
);

testMounting(
  '--restore does not mount over files that somebody put there, and says so; the others come back',
  async (t) => {
    const { sandbox, look, fork, all } = await mountThree(t);
    await reboot(sandbox);
    writeFileSync(path.join(look, 'mine'), '');
    rmSync(path.join(all, NOTE));
    rmdirSync(all);
    const restored = await sandbox.bento(['mounts', '--restore', '--json']);
    t.is(restored.code, 1);
    t.regex(restored.stderr, new RegExp(`^note: ${look} is not brought back: .* is not empty`));
    t.deepEqual(
      restored
        .json<{ target: string; restoreFailed?: string }[]>()
        .flatMap(({ target, restoreFailed }) => (restoreFailed ? [target] : [])),
      [look],
    );
    t.deepEqual(await statesOf(sandbox), { look: 'not mounted', fork: 'mounted', all: 'mounted' });
    t.deepEqual(readdirSync(look).sort(), [NOTE, 'mine']);
    (await sandbox.bento(['unmount', look])).ok();
    t.deepEqual(readdirSync(look), ['mine']);
    (await sandbox.bento(['close', '--discard', fork])).ok();
  },
);

testMounting('--prune forgets mounts that are not mounted, never a fork', async (t) => {
  const { sandbox, look, fork, all } = await mountThree(t);
  t.is((await sandbox.bento(['mounts', '--prune'])).ok().stderr, '', 'all are mounted');
  await reboot(sandbox);
  rmSync(look, { recursive: true });
  rmSync(fork, { recursive: true });
  t.deepEqual(
    (await listed(sandbox)).map(({ target, remark }) => [target, remark]),
    [
      [look, 'the directory is gone'],
      [all, undefined],
      [fork, 'the directory is gone'],
    ],
  );
  const pruned = (await sandbox.bento(['mounts', '--prune'])).ok();
  t.is(pruned.stderr, `forgot ${look}\nforgot ${all}\n`);
  t.deepEqual(readdirSync(all), [], 'with its note');
  t.deepEqual(await statesOf(sandbox), { fork: 'not mounted' });
  (await sandbox.bento(['mounts', '--restore'])).ok();
  t.is(readFileSync(path.join(fork, 'unsaved'), 'utf8'), 'precious\n');
  (await sandbox.bento(['close', '--discard', fork])).ok();
  assertTidy(t, sandbox);
});

testMounting('a mount inside the workspace is no part of it, before and after a reboot', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const look = path.join(sandbox.workspace, 'look');
  mkdirSync(look);
  (await sandbox.bento(['mount', 'cp-1', look])).ok();
  const changes = async (): Promise<string> => (await sandbox.bento(['diff', '--json'])).ok().stdout;
  t.false((await changes()).includes('look'));
  await reboot(sandbox);
  t.deepEqual(readdirSync(look), [NOTE]);
  t.false((await changes()).includes('look'), 'the note is not saved');
  writeFileSync(path.join(look, 'mine'), '');
  t.true((await changes()).includes('look/mine'), 'what somebody put there is');
});

/** The processes of the daemon: the one that holds the mounts, and the one that answers. */
function daemonOf(sandbox: Sandbox): { supervisor: number; server: number } {
  const find = (program: string): number =>
    sandbox.processes().find((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(program)) ?? 0;
  return { supervisor: find('supervisor.js'), server: find('server.js') };
}

testMounting(
  'mounts whose server does not answer do not make commands hang: they say so, and --force lets go',
  async (t) => {
    const { sandbox, look, fork, all } = await mountThree(t);
    const { supervisor, server } = daemonOf(sandbox);
    process.kill(server, 'SIGSTOP');
    t.teardown(() => {
      for (const pid of sandbox.processes()) process.kill(pid, 'SIGCONT');
    });
    t.deepEqual(await statesOf(sandbox), { look: 'not answering', fork: 'not answering', all: 'not answering' });
    const restored = await sandbox.bento(['mounts', '--restore']);
    t.is(restored.code, 1);
    t.is(restored.stderr.match(/^note: \S+ is not brought back: .* does not answer/gm)?.length, 3, restored.stderr);
    t.is((await sandbox.bento(['close', fork])).code, 22, 'its work was not looked at');
    assertFails(t, await sandbox.bento(['mount', 'cp-1', look]), {
      code: 'MOUNT_POINT_BUSY',
      says: /mount point already/,
    });

    process.kill(supervisor, 'SIGSTOP');
    const silent = await sandbox.bento(['mounts']);
    t.regex(silent.stderr, /^note: the mount daemon does not answer/m);
    (await sandbox.bento(['unmount', '--force', look])).ok();
    (await sandbox.bento(['unmount', '--force', all])).ok();
    t.deepEqual([readdirSync(look), readdirSync(all)], [[], []]);

    for (const pid of [supervisor, server]) process.kill(pid, 'SIGCONT');
    t.deepEqual(await statesOf(sandbox), { fork: 'mounted' });
    t.is(readFileSync(path.join(fork, 'unsaved'), 'utf8'), 'precious\n');
    (await sandbox.bento(['close', '--discard', fork])).ok();
    (await sandbox.bento(['unmount', '--all'])).ok();
    t.deepEqual([sandbox.mounts(), sandbox.processes()], [[], []]);
  },
);

testMounting('what is mounted over a mount of ours is not taken away in its place', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const look = sandbox.makeFolder('look');
  (await sandbox.bento(['mount', 'cp-1', look])).ok();
  execFileSync('mount', ['-t', 'tmpfs', 'none', look]);
  for (const flags of [[], ['--force']]) {
    const refused = await sandbox.bento(['unmount', ...flags, look]);
    assertFails(t, refused, { code: 'MOUNT_POINT_BUSY', says: /something else is mounted over/, hint: /umount/ });
  }
  writeFileSync(path.join(look, 'in the tmpfs'), '');
  execFileSync('umount', [look]);
  (await sandbox.bento(['unmount', look])).ok();
  t.deepEqual(readdirSync(look), []);
});

testMounting('unmount and close find a mount by a relative path and through a symlink', async (t) => {
  const { sandbox, look, fork } = await mountThree(t);
  const link = sandbox.path('link');
  execFileSync('ln', ['-s', look, link]);
  const ended = (await sandbox.bento(['unmount', '../link', '--json'])).ok().json();
  t.deepEqual(ended, { unmounted: [look] });
  (await sandbox.bento(['close', '--discard', '../fork'])).ok();
  t.false(existsSync(fork));
  assertFails(t, await sandbox.bento(['unmount', look]), { code: 'NOT_MOUNTED', says: /nothing of bento's/ });
});
