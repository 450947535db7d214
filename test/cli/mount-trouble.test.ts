import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import {
  assertFails,
  assertTidy,
  assertUsable,
  headOf,
  saveSmallWorkspace,
  watchTree,
} from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { bentoAfter, WITHOUT_FUSE } from '../fixtures/other-machine.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];
const testMounting = testSerialNeeding({ root: true, fuse: true });

interface Listed {
  target: string;
  state: string;
  engine: string;
}

async function statesOf(sandbox: Sandbox): Promise<string[]> {
  return (await sandbox.bento(['mounts', '--json']))
    .ok()
    .json<Listed[]>()
    .map(({ state }) => state);
}

/** A sandbox with cp-1 mounted on `mounted` and forked to `fork`. */
async function mountAndFork(t: ExecutionContext): Promise<{ sandbox: Sandbox; mounted: string; fork: string }> {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const [mounted, fork] = [sandbox.makeFolder('mounted'), sandbox.path('fork')];
  (await sandbox.bento(['mount', 'cp-1', mounted])).ok();
  (await sandbox.bento(['fork', 'cp-1', fork])).ok();
  return { sandbox, mounted, fork };
}

/** A process that stands in a directory until the test is over. */
async function standIn(t: ExecutionContext, dir: string): Promise<ChildProcess> {
  const child = spawn('sleep', ['60'], { cwd: dir, stdio: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  await once(child, 'spawn');
  return child;
}

async function end(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL');
  await once(child, 'exit');
}

testMounting('a directory that is mounted already takes no other mount, fork or checkpoint', async (t) => {
  const { sandbox, mounted, fork } = await mountAndFork(t);
  const changed = watchTree(sandbox.storePath);
  for (const command of ['mount', 'fork']) {
    for (const target of [mounted, fork]) {
      assertFails(t, await sandbox.bento([command, 'cp-1', target]), {
        code: 'MOUNT_POINT_BUSY',
        says: new RegExp(target),
        hint: /bento (unmount|close)/,
      });
    }
  }
  assertFails(t, await sandbox.bento(['open', 'cp-1', mounted]), { code: 'MOUNT_POINT_BUSY', says: /mount point/ });
  assertFails(t, await sandbox.bento(['open', '--copy', 'cp-1', mounted]), {
    code: 'TARGET_NOT_EMPTY',
    says: /mounted/,
  });
  assertFails(t, await sandbox.bento(['close', mounted]), {
    code: 'TARGET_INVALID',
    says: /is a mount, not a fork/,
    hint: /bento unmount/,
  });
  t.deepEqual(changed(), []);
  t.deepEqual(await statesOf(sandbox), ['mounted', 'mounted']);
  (await sandbox.bento(['unmount', fork])).ok();
  assertFails(t, await sandbox.bento(['mount', 'cp-1', fork]), { code: 'MOUNT_POINT_BUSY', says: /belongs to a fork/ });
  assertFails(t, await sandbox.bento(['fork', 'cp-1', fork]), { code: 'MOUNT_POINT_BUSY', says: /belongs to a fork/ });
});

testMounting("a mount of somebody else's is never taken away", async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const place = sandbox.makeFolder('tmpfs');
  const mounted = spawn('mount', ['-t', 'tmpfs', 'none', place]);
  t.deepEqual(await once(mounted, 'exit'), [0, null]);
  assertFails(t, await sandbox.bento(['mount', 'cp-1', place]), {
    code: 'MOUNT_POINT_BUSY',
    says: /mount point already/,
  });
  assertFails(t, await sandbox.bento(['unmount', '--force', place]), {
    code: 'NOT_MOUNTED',
    says: /nothing of bento's/,
  });
  (await sandbox.bento(['unmount', '--all'])).ok();
  t.deepEqual(sandbox.mounts(), [place]);
});

testMounting(
  'a mount and a fork that are in use: MOUNT_POINT_BUSY, nothing is lost, and --force ends them',
  async (t) => {
    const { sandbox, mounted, fork } = await mountAndFork(t);
    const other = sandbox.makeFolder('other');
    (await sandbox.bento(['mount', 'cp-1', other])).ok();
    writeFileSync(path.join(fork, 'unsaved'), 'precious\n');
    const users = [await standIn(t, mounted), await standIn(t, fork)];
    for (const command of [
      ['unmount', mounted],
      ['unmount', fork],
      ['close', '--discard', fork],
    ]) {
      const place = command.at(-1) ?? '';
      assertFails(t, await sandbox.bento(command), {
        code: 'MOUNT_POINT_BUSY',
        says: new RegExp(`${place} is in use`),
        hint: /--force/,
      });
    }
    assertFails(t, await sandbox.bento(['unmount', '--all']), { code: 'MOUNT_POINT_BUSY', says: /is in use/ });
    t.deepEqual(await statesOf(sandbox), ['mounted', 'mounted'], '--all ends what is not in use');
    t.is(readFileSync(path.join(fork, 'unsaved'), 'utf8'), 'precious\n');
    t.is(readFileSync(path.join(mounted, 'CLAUDE.md'), 'utf8'), '# notes\n');

    (await sandbox.bento(['unmount', '--force', mounted])).ok();
    (await sandbox.bento(['unmount', '--force', fork])).ok();
    t.deepEqual([readdirSync(mounted), readdirSync(fork)], [[], []]);
    t.deepEqual(await statesOf(sandbox), ['not mounted']);
    await Promise.all(users.map(end));
    (await sandbox.bento(['mounts', '--restore'])).ok();
    t.is(readFileSync(path.join(fork, 'unsaved'), 'utf8'), 'precious\n');
    (await sandbox.bento(['close', '--force', '--discard', fork])).ok();
    t.false(existsSync(fork));
    (await sandbox.bento(['unmount', '--all'])).ok();
    assertTidy(t, sandbox);
  },
);

/** Kills the daemon as the kernel's out-of-memory killer would, and waits until its mounts notice. */
async function killDaemon(sandbox: Sandbox): Promise<void> {
  const pids = sandbox.processes();
  for (const pid of pids) process.kill(pid, 'SIGKILL');
  for (let tries = 0; tries < 100 && sandbox.processes().length > 0; tries++) await setTimeout(20);
}

testMounting(
  'after kill -9 of the daemon: broken mounts are named, changes are there, --restore mends all',
  async (t) => {
    const { sandbox, mounted, fork } = await mountAndFork(t);
    writeFileSync(path.join(fork, 'unsaved'), 'precious\n');
    t.is(sandbox.processes().length, 2, 'supervisor and server');
    await killDaemon(sandbox);
    t.throws(() => readFileSync(path.join(mounted, 'src/main.js'))); // ENOTCONN or, at first, ECONNABORTED

    t.deepEqual(await statesOf(sandbox), ['broken', 'broken']);
    const head = headOf(fork);
    for (const command of [['save'], ['diff'], ['open', 'cp-1']]) {
      assertFails(t, await sandbox.bento([...command, '--dir', fork]), {
        code: 'NOT_MOUNTED',
        says: /fork .* is gone/,
        hint: /bento mounts --restore/,
      });
    }
    const refused = await sandbox.bento(['close', fork]);
    t.is(refused.code, 22, 'a fork that cannot be looked at is not thrown away');
    t.is(headOf(fork), head);
    t.is((await sandbox.bento(['list', '--json'])).ok().json<unknown[]>().length, 1, 'no half-made checkpoint');
    assertFails(t, await sandbox.bento(['mount', 'cp-1', mounted]), { code: 'MOUNT_POINT_BUSY', says: /mounted/ });

    (await sandbox.bento(['mounts', '--restore'])).ok();
    t.deepEqual(await statesOf(sandbox), ['mounted', 'mounted']);
    t.deepEqual(compareByWalk(sandbox.workspace, mounted, { ignore: OWN_FILES }), []);
    t.is(readFileSync(path.join(fork, 'unsaved'), 'utf8'), 'precious\n');
    (await sandbox.bento(['save', '--dir', fork])).ok();
    t.is(sandbox.processes().length, 2, 'supervisor and server');
    (await sandbox.bento(['close', fork])).ok();
    (await sandbox.bento(['unmount', mounted])).ok();
    await assertUsable(t, sandbox);
    assertTidy(t, sandbox);
  },
);

testMounting('after kill -9 of the daemon: unmount --all clears up, and new mounts and forks work', async (t) => {
  const { sandbox, mounted, fork } = await mountAndFork(t);
  await killDaemon(sandbox);
  const [second, third] = [sandbox.makeFolder('second'), sandbox.path('third')];
  (await sandbox.bento(['mount', 'cp-1', second])).ok();
  t.deepEqual(compareByWalk(sandbox.workspace, second, { ignore: OWN_FILES }), []);
  await killDaemon(sandbox);
  (await sandbox.bento(['fork', 'cp-1', third])).ok();
  t.is(readFileSync(path.join(third, 'src/other.js'), 'utf8'), 'other\n');
  (await sandbox.bento(['unmount', '--force', mounted])).ok();
  await killDaemon(sandbox);
  (await sandbox.bento(['unmount', '--all'])).ok();
  const left = sandbox.mounts();
  t.deepEqual(
    left.filter((place) => !place.startsWith(sandbox.runtimeDir)),
    [],
  );
  (await sandbox.bento(['mounts', '--restore'])).ok();
  t.deepEqual(compareByWalk(sandbox.workspace, fork, { ignore: OWN_FILES }), []);
  for (const dir of [fork, third]) (await sandbox.bento(['close', dir])).ok();
  (await sandbox.bento(['unmount', '--all'])).ok();
  t.deepEqual([sandbox.mounts(), sandbox.processes()], [[], []]);
  assertTidy(t, sandbox);
});

for (const [what, hide] of Object.entries(WITHOUT_FUSE)) {
  testSerialNeeding({ root: true, tools: ['unshare', 'mknod'] })(
    `with ${what}, fork() makes a plain copy and says so`,
    async (t) => {
      const sandbox = newSandbox(t);
      await saveSmallWorkspace(sandbox);
      const fork = sandbox.path('fork');
      const forked = (await bentoAfter(sandbox, hide, ['fork', 'cp-1', fork])).ok();
      t.is(forked.stdout, `Forked cp-1 to ${fork} (copied)\n`);
      t.regex(forked.stderr, /^note: \S+ is a plain copy: [^\n]*\/dev\/fuse[^\n]*\n$/);
      t.deepEqual(compareByWalk(sandbox.workspace, fork, { ignore: OWN_FILES }), []);
      writeFileSync(path.join(fork, 'src/main.js'), 'changed\n');
      (await bentoAfter(sandbox, hide, ['save', '--dir', fork])).ok();
      t.is((await sandbox.bento(['list', '--json'])).ok().json<unknown[]>().length, 2);
      writeFileSync(path.join(fork, 'unsaved'), '');
      t.is((await sandbox.bento(['close', fork])).code, 22);
      assertFails(t, await sandbox.bento(['unmount', fork]), {
        code: 'NOT_MOUNTED',
        says: /plain copy/,
        hint: /bento close/,
      });
      (await sandbox.bento(['unmount', '--all'])).ok();
      t.true(existsSync(path.join(fork, 'unsaved')), '--all leaves a copied fork alone');
      (await sandbox.bento(['close', '--discard', fork])).ok();
      t.false(existsSync(fork));
      assertTidy(t, sandbox);
    },
  );
}

testSerialNeeding({ root: true, tools: ['unshare', 'mknod'] })(
  'a copied fork into a directory that was there leaves the directory when it ends',
  async (t) => {
    const sandbox = newSandbox(t);
    await saveSmallWorkspace(sandbox);
    const place = sandbox.makeFolder('place');
    mkdirSync(place, { recursive: true });
    (await bentoAfter(sandbox, WITHOUT_FUSE['no /dev/fuse at all'], ['fork', 'cp-1', place])).ok();
    const inside = path.join(place, 'src/inside');
    mkdirSync(inside);
    t.deepEqual(await once(spawn('mount', ['-t', 'tmpfs', 'none', inside]), 'exit'), [0, null]);
    writeFileSync(path.join(inside, 'precious'), '');
    const refused = await sandbox.bento(['close', '--discard', place]);
    assertFails(t, refused, { code: 'MOUNT_POINT_BUSY', says: /src\/inside is mounted inside/ });
    t.deepEqual(readdirSync(inside), ['precious'], 'nothing is deleted through a mount');
    t.deepEqual(await once(spawn('umount', [inside]), 'exit'), [0, null]);
    (await sandbox.bento(['close', '--discard', place])).ok();
    t.deepEqual(readdirSync(place), [], 'empty again, as it was');
    assertTidy(t, sandbox);
  },
);
