import { randomBytes } from 'node:crypto';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  lchownSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { assertFails, assertTidy, makeSmallWorkspace, saveSmallWorkspace } from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { testSerialIf, testSerialNeeding } from '../fixtures/external-tools.ts';
import { missingTool, whatIsMissing } from '../fixtures/machine.ts';
import { ofUser, UID, whyNoOrdinaryUser } from '../fixtures/ordinary-user.ts';
import { Namespaces } from '../fixtures/other-machine.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];
const testMounting = testSerialNeeding({ root: true, fuse: true });

interface Listed {
  target: string;
  state: string;
  engine: string;
  user: string;
  elsewhere: boolean;
  remark?: string;
}

// Everything at once

testMounting(
  'mount --all shows every workspace and tag, follows the store, keeps nothing from gc, and comes back',
  async (t) => {
    const sandbox = newSandbox(t);
    await saveSmallWorkspace(sandbox);
    const all = sandbox.makeFolder('all');
    const mounted = (await sandbox.bento(['mount', '--all', all])).ok();
    t.is(mounted.stdout, `Mounted all checkpoints on ${all} (read-only)\n`);
    const [listed] = (await sandbox.bento(['mounts', '--json']))
      .ok()
      .json<(Listed & { ref: string; digest?: string })[]>();
    t.like(listed, { target: all, ref: 'all', engine: 'fuse', state: 'mounted', digest: undefined });
    const first = path.join(all, path.basename(sandbox.workspace), 'cp-1');
    t.deepEqual(compareByWalk(sandbox.workspace, first, { ignore: OWN_FILES }), []);
    t.deepEqual((await sandbox.bento(['diff', first, 'cp-1', '--exit-code'])).code, 0, 'a directory like any other');

    writeFileSync(path.join(sandbox.workspace, 'src/main.js'), 'second\n');
    (await sandbox.bento(['save'])).ok();
    const second = path.join(all, path.basename(sandbox.workspace), 'cp-2/src/main.js');
    for (let tries = 0; tries < 200 && !existsSync(second); tries++) await setTimeout(50);
    t.is(readFileSync(second, 'utf8'), 'second\n');
    const gc = (await sandbox.bento(['gc', '--keep-last', '1', '--json'])).ok().json<{ deleted: unknown[] }>();
    t.is(gc.deleted.length, 1);
    (await sandbox.bento(['verify'])).ok();

    (await sandbox.bento(['unmount', all])).ok();
    t.deepEqual(readdirSync(all), []);
    (await sandbox.bento(['unmount', '--all'])).ok();
    assertTidy(t, sandbox);
  },
);

testMounting('mount takes <ref> <dir> or --all <dir>, and says so', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const place = sandbox.makeFolder('place');
  for (const args of [['cp-1'], ['--all', 'cp-1', place]]) {
    const refused = await sandbox.bento(['mount', ...args]);
    assertFails(t, refused, { code: 'USAGE', says: /accepts \d arg\(s\), received \d/, hint: /^Usage: bento mount/ });
  }
  assertFails(t, await sandbox.bento(['mount', '--all', '--owners', place]), { code: 'USAGE', says: /--owners/ });
  t.deepEqual(readdirSync(place), []);
});

// Owners

testMounting(
  'a mount belongs to who mounts; --owners shows the recorded owners, and --restore remembers that',
  async (t) => {
    const sandbox = newSandbox(t);
    makeSmallWorkspace(sandbox.workspace);
    lchownSync(path.join(sandbox.workspace, 'src/main.js'), 12345, 23456);
    (await sandbox.bento(['init'])).ok();
    (await sandbox.bento(['save'])).ok();
    const [mine, theirs] = [sandbox.makeFolder('mine'), sandbox.makeFolder('theirs')];
    (await sandbox.bento(['mount', 'cp-1', mine])).ok();
    (await sandbox.bento(['mount', 'cp-1', theirs, '--owners'])).ok();
    const owners = (): [number, number][] =>
      [mine, theirs].map((dir) => {
        const { uid, gid } = statSync(path.join(dir, 'src/main.js'));
        return [uid, gid];
      });
    const expected = [[0, 0], [12345, 23456]]; // prettier-ignore
    t.deepEqual(owners(), expected as [number, number][]);
    (await sandbox.bento(['fork', 'cp-1', sandbox.path('fork')])).ok();
    t.is(statSync(sandbox.path('fork/src/main.js')).uid, 12345, 'what a fork does not change stays as it was');
    for (const target of [mine, theirs]) execFileSync('umount', [target]);
    (await sandbox.bento(['mounts', '--restore'])).ok();
    t.deepEqual(owners(), expected as [number, number][]);
    (await sandbox.bento(['close', sandbox.path('fork')])).ok();
  },
);

// Large files

/** The file mounts of the daemon's below a directory. */
function fileMounts(sandbox: Sandbox, dir: string): string[] {
  return sandbox.mounts().filter((target) => target.startsWith(`${dir}/`));
}

/** Reads a file until the daemon has mounted it on its own; false where that does not happen: an older kernel. */
async function isMountedOnItsOwn(sandbox: Sandbox, file: string): Promise<boolean> {
  readFileSync(file);
  for (let tries = 0; tries < 100; tries++) {
    if (sandbox.mounts().includes(file)) return true;
    await setTimeout(50);
  }
  return false;
}

testMounting(
  'unmount takes the mounts of large files along; while one of them is in use, all stays as it was',
  async (t) => {
    const sandbox = newSandbox(t);
    makeSmallWorkspace(sandbox.workspace);
    const content = randomBytes(33 << 20);
    writeFileSync(path.join(sandbox.workspace, 'model.bin'), content);
    writeFileSync(path.join(sandbox.workspace, 'other.bin'), content.subarray(1));
    (await sandbox.bento(['init'])).ok();
    (await sandbox.bento(['save'])).ok();
    const look = sandbox.makeFolder('look');
    (await sandbox.bento(['mount', 'cp-1', look])).ok();
    const [file, other] = [path.join(look, 'model.bin'), path.join(look, 'other.bin')];
    if (!(await isMountedOnItsOwn(sandbox, file)) || !(await isMountedOnItsOwn(sandbox, other))) {
      t.log('large files are not mounted on their own here');
      (await sandbox.bento(['unmount', look])).ok();
      t.pass();
      return;
    }
    t.true(readFileSync(file).equals(content));
    assertFails(t, await sandbox.bento(['mount', 'cp-1', look]), {
      code: 'MOUNT_POINT_BUSY',
      says: /mount point already/,
    });

    const fd = openSync(file, 'r');
    assertFails(t, await sandbox.bento(['unmount', look]), {
      code: 'MOUNT_POINT_BUSY',
      says: /in use/,
      hint: /--force/,
    });
    t.true(readFileSync(file).equals(content));
    for (let tries = 0; tries < 100 && fileMounts(sandbox, look).length < 2; tries++) await setTimeout(50);
    t.deepEqual(fileMounts(sandbox, look).sort(), [file, other], 'what was taken away comes back');
    const states = (await sandbox.bento(['mounts', '--json'])).ok().json<Listed[]>();
    t.deepEqual(
      states.map(({ target, state }) => [target, state]),
      [[look, 'mounted']],
    );
    closeSync(fd);

    (await sandbox.bento(['unmount', look])).ok();
    t.deepEqual([fileMounts(sandbox, look), readdirSync(look)], [[], []]);

    (await sandbox.bento(['mount', 'cp-1', look])).ok();
    t.true(await isMountedOnItsOwn(sandbox, file), 'the content is in the cache now');
    const again = openSync(file, 'r');
    (await sandbox.bento(['unmount', '--force', look])).ok();
    t.deepEqual([fileMounts(sandbox, look), readdirSync(look)], [[], []]);
    closeSync(again);
    (await sandbox.bento(['unmount', '--all'])).ok();
    t.deepEqual([sandbox.mounts(), sandbox.processes()], [[], []]);
  },
);

testSerialNeeding({ root: true, fuse: true, tools: ['unshare', 'nsenter'] })(
  'each mount has file mounts of its own where mounts propagate, as systemd has it',
  async (t) => {
    const sandbox = newSandbox(t);
    makeSmallWorkspace(sandbox.workspace);
    writeFileSync(path.join(sandbox.workspace, 'model.bin'), randomBytes(33 << 20));
    const inside = await Namespaces.ofMounts(t, sandbox, 'mount --make-rshared /');
    const bento = async (...args: string[]) => (await inside.bento(args)).ok();
    const countOf = async (dir: string): Promise<number> => {
      const { stdout } = (await inside.run(['cat', '/proc/self/mounts'])).ok();
      return stdout.split('\n').filter((line) => line.includes(` ${dir}/model.bin `)).length;
    };
    await bento('init');
    await bento('save');
    const [one, two] = [sandbox.makeFolder('one'), sandbox.makeFolder('two')];
    for (const dir of [one, two]) await bento('mount', 'cp-1', dir);
    await inside.run(['cat', path.join(one, 'model.bin')]);
    for (let tries = 0; tries < 100 && (await countOf(two)) === 0; tries++) await setTimeout(50);
    if ((await countOf(two)) === 0) t.log('large files are not mounted on their own here');
    else t.deepEqual([await countOf(one), await countOf(two)], [1, 1]);
    const before = await countOf(two);
    await bento('unmount', one);
    t.is(await countOf(two), before);
    await bento('unmount', '--all');
    t.is((await inside.run(['grep', '-c', sandbox.root, '/proc/self/mounts'])).stdout, '0\n');
  },
);

// Everybody

const noUser = whyNoOrdinaryUser();

testSerialIf(noUser === undefined, noUser ?? '')(
  'an ordinary user without capabilities mounts, reads, lists, mends and unmounts',
  async (t) => {
    const { sandbox, inside, look } = await ofUser(t, '');
    const read = async (file: string) => await inside.runAs(UID, ['cat', path.join(look, file)]);
    const bento = async (...args: string[]) => (await inside.bentoAs(UID, args)).ok();
    t.is((await bento('mount', 'cp-1', look)).stderr, '');
    t.is((await read('src/main.js')).ok().stdout, 'first line\nsecond line\n');
    const [listed] = (await bento('mounts', '--json')).json<Listed[]>();
    t.like(listed, { target: look, engine: 'fuse', state: 'mounted' });
    t.is((await inside.run(['ls', look])).code, 2, 'not even root may look');
    t.is((await inside.bento(['mounts', '--json'])).ok().json<Listed[]>()[0]?.state, 'mounted', 'but is told');

    for (const pid of sandbox.processes()) process.kill(pid, 'SIGKILL');
    for (let tries = 0; tries < 100 && sandbox.processes().length > 0; tries++) await setTimeout(20);
    t.is((await bento('mounts', '--json')).json<Listed[]>()[0]?.state, 'broken');
    await bento('mounts', '--restore');
    t.is((await read('CLAUDE.md')).ok().stdout, '# notes\n');
    for (const pid of sandbox.processes()) process.kill(pid, 'SIGKILL');
    await bento('unmount', look);
    t.deepEqual((await inside.runAs(UID, ['ls', '-A', look])).ok().stdout, '', 'nobody was there to do it');

    await bento('mount', '--all', look);
    t.is((await read('ws/cp-1/CLAUDE.md')).ok().stdout, '# notes\n');
    await bento('unmount', '--all');
    const refused = await inside.bentoAs(UID, ['mount', 'cp-1', look, '--allow-other']);
    assertFails(t, refused, {
      code: 'PERMISSION_DENIED',
      says: /--allow-other/,
      hint: /user_allow_other to \/etc\/fuse\.conf/,
    });
    assertTidy(t, sandbox);
  },
);

testSerialIf(noUser === undefined, noUser ?? '')(
  "where root allows it, --allow-other lets others look at an ordinary user's mount, after --restore too",
  async (t) => {
    const { inside, look } = await ofUser(t, '# for containers\nuser_allow_other\n');
    const file = path.join(look, 'CLAUDE.md');
    (await inside.bentoAs(UID, ['mount', 'cp-1', look, '--allow-other'])).ok();
    t.is((await inside.runAs(1234, ['cat', file])).ok().stdout, '# notes\n');
    (await inside.run(['umount', look])).ok();
    (await inside.bentoAs(UID, ['mounts', '--restore'])).ok();
    t.is((await inside.runAs(1234, ['cat', file])).ok().stdout, '# notes\n');
    (await inside.bentoAs(UID, ['unmount', '--all'])).ok();
  },
);

const noNamespace =
  whatIsMissing({ root: true, fuse: true, tools: ['unshare', 'nsenter'] }) ??
  (spawnSync('unshare', ['-Urm', 'true']).status === 0 ? undefined : 'user namespaces are not allowed') ??
  missingTool('readlink');

testSerialIf(noNamespace === undefined, noNamespace ?? '')(
  'inside a user namespace mounts and forks work with a daemon of their own; outside they are known to be elsewhere',
  async (t) => {
    const sandbox = newSandbox(t);
    await saveSmallWorkspace(sandbox);
    const [look, outer, fork] = [sandbox.makeFolder('look'), sandbox.makeFolder('outer'), sandbox.path('fork')];
    const inside = await Namespaces.ofUser(t, sandbox);
    (await sandbox.bento(['mount', 'cp-1', outer])).ok(); // a daemon outside, whose mounts are not seen inside
    const bento = async (...args: string[]) => (await inside.bento(args)).ok();
    const stateOf = (listed: Listed[], target: string) => listed.find((one) => one.target === target)?.state;

    await bento('mount', 'cp-1', look);
    t.is((await inside.run(['cat', path.join(look, 'CLAUDE.md')])).ok().stdout, '# notes\n');
    t.deepEqual(readdirSync(look), ['BENTO-NOT-MOUNTED.txt'], 'outside it is not seen');
    t.is((await bento('fork', 'cp-1', fork)).stderr, '', 'no copy');
    const change = 'rm -r src && mkdir src && echo new > src/new && echo more >> CLAUDE.md && rm package.json';
    (await inside.run(['sh', '-c', `cd ${fork} && ${change}`])).ok();
    await bento('save', '--dir', fork);
    const changes = (await sandbox.bento(['diff', 'cp-1', 'cp-2', '--json'])).ok().stdout;
    for (const name of ['src/new', 'src/main.js', 'CLAUDE.md', 'package.json'])
      t.true(changes.includes(`"${name}"`), name);

    const listedInside = (await bento('mounts', '--json')).json<Listed[]>();
    t.deepEqual(
      [look, fork, outer].map((target) => stateOf(listedInside, target)),
      ['mounted', 'mounted', 'elsewhere'],
    );
    const listedOutside = (await sandbox.bento(['mounts', '--json'])).ok().json<Listed[]>();
    t.deepEqual(
      [look, fork, outer].map((target) => stateOf(listedOutside, target)),
      ['elsewhere', 'elsewhere', 'mounted'],
    );
    for (const args of [
      ['unmount', look],
      ['close', '--discard', fork],
      ['unmount', '--force', fork],
    ]) {
      assertFails(t, await sandbox.bento(args), { code: 'NOT_MOUNTED', says: /another mount namespace/ });
    }
    assertFails(t, await sandbox.bento(['mount', 'cp-1', look]), { code: 'MOUNT_POINT_BUSY', says: /elsewhere/ });
    (await sandbox.bento(['mounts', '--restore'])).ok();
    t.deepEqual(readdirSync(look), ['BENTO-NOT-MOUNTED.txt'], 'left to those who see it');

    await bento('unmount', fork);
    await bento('mounts', '--restore');
    t.is((await inside.run(['ls', path.join(fork, 'src')])).ok().stdout, 'new\n', 'what was removed stays removed');
    await bento('unmount', '--all');
    t.deepEqual(readdirSync(look), []);
    (await sandbox.bento(['mounts', '--restore'])).ok();
    t.deepEqual(readdirSync(path.join(fork, 'src')), ['new'], 'outside too');
    (await sandbox.bento(['close', fork])).ok();
    rmSync(look, { recursive: true });
    (await sandbox.bento(['unmount', '--all'])).ok();
    assertTidy(t, sandbox);
  },
);
