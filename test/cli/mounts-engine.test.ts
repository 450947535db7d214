import { closeSync, openSync, readdirSync, readFileSync, rmSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { ExecutionContext } from 'ava';
import { assertFails, assertTidy, saveSmallWorkspace } from '../fixtures/command-checks.ts';
import { describeTree } from '../fixtures/compare-trees.ts';
import { testSerialIf, testSerialNeeding } from '../fixtures/external-tools.ts';
import { ofUser, UID, whyNoOrdinaryUser } from '../fixtures/ordinary-user.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const test = testSerialNeeding({ root: true, fuse: true });

interface Listed {
  target: string;
  state: string;
  engine: string;
}

async function enginesOf(sandbox: Sandbox): Promise<Record<string, string>> {
  const listed = (await sandbox.bento(['mounts', '--json'])).ok().json<Listed[]>();
  return Object.fromEntries(listed.map(({ target, engine, state }) => [path.basename(target), `${engine} ${state}`]));
}

/** A fork with every kind of change. */
async function withFork(t: ExecutionContext, name: string, engine: string): Promise<{ sandbox: Sandbox; dir: string }> {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const dir = sandbox.path(name);
  (await sandbox.bento(['fork', 'cp-1', dir, '--engine', engine])).ok();
  writeFileSync(path.join(dir, 'src/new.js'), 'new\n');
  writeFileSync(path.join(dir, 'src/main.js'), 'changed\n');
  rmSync(path.join(dir, 'CLAUDE.md'));
  rmSync(path.join(dir, 'node_modules'), { recursive: true });
  mkdirSync(path.join(dir, 'node_modules'));
  writeFileSync(path.join(dir, 'node_modules/other'), 'only this\n');
  return { sandbox, dir };
}

/** What is in a fork; the inode numbers of directories may be others. */
function look(dir: string): string {
  return JSON.stringify([...describeTree(dir, { ignore: ['.', 'bento.yaml'] })]);
}

for (const [from, to] of [
  ['overlay', 'cow'],
  ['cow', 'overlay'],
] as const) {
  test(`mounts --restore --engine takes a fork from ${from} to ${to} and back, with all of its changes`, async (t) => {
    const { sandbox, dir } = await withFork(t, 'fork', from);
    const before = look(dir);
    for (const engine of [to, from, to]) {
      (await sandbox.bento(['mounts', '--restore', dir, '--engine', engine])).ok();
      t.deepEqual(await enginesOf(sandbox), { fork: `${engine} mounted` });
      t.is(look(dir), before);
    }
    t.is((await sandbox.bento(['status', '--exit-code', '--dir', dir])).code, 1);
    (await sandbox.bento(['save', '--dir', dir])).ok();
    (await sandbox.bento(['unmount', dir])).ok();
    (await sandbox.bento(['mounts', '--restore', '--engine', from])).ok();
    t.deepEqual(await enginesOf(sandbox), { fork: `${from} mounted` });
    t.is(look(dir), before);
    t.is((await sandbox.bento(['status', '--exit-code', '--dir', dir])).code, 0);
    (await sandbox.bento(['close', dir])).ok();
    assertTidy(t, sandbox);
  });
}

test('a fork that somebody uses keeps its engine, and the others get theirs', async (t) => {
  const { sandbox, dir } = await withFork(t, 'used', 'overlay');
  (await sandbox.bento(['fork', 'cp-1', '../free'])).ok();
  const fd = openSync(path.join(dir, 'src/main.js'), 'r');
  const result = await sandbox.bento(['mounts', '--restore', '--engine', 'cow']);
  t.is(result.code, 1);
  t.regex(result.stderr, /^note: \S+\/used is not brought back: \S+\/used is in use/);
  t.deepEqual(await enginesOf(sandbox), { used: 'overlay mounted', free: 'cow mounted' });
  t.is(readFileSync(path.join(dir, 'src/main.js'), 'utf8'), 'changed\n');
  closeSync(fd);
});

test('mounts --restore brings back the directories it is given, and refuses what it cannot', async (t) => {
  const { sandbox } = await withFork(t, 'one', 'overlay');
  (await sandbox.bento(['fork', 'cp-1', '../two', '../three', '--engine', 'cow'])).ok();
  (await sandbox.bento(['fork', 'cp-1', '../copied', '--engine', 'copy'])).ok();
  (await sandbox.bento(['unmount', '--all'])).ok();
  (await sandbox.bento(['mounts', '--restore', '../two'])).ok();
  t.deepEqual(await enginesOf(sandbox), {
    one: 'overlay not mounted',
    two: 'cow mounted',
    three: 'cow not mounted',
    copied: 'copy copy',
  });
  const copied = await sandbox.bento(['mounts', '--restore', '../copied', '--engine', 'cow']);
  t.is(copied.code, 1);
  t.regex(copied.stderr, /copied is a plain copy: there is nothing to mount/);
  (await sandbox.bento(['mounts', '--restore'])).ok();
  t.deepEqual(Object.values(await enginesOf(sandbox)).sort(), [
    'copy copy',
    'cow mounted',
    'cow mounted',
    'overlay mounted',
  ]);
  assertFails(t, await sandbox.bento(['mounts', '--restore', '../nothing']), { code: 'NOT_MOUNTED', says: /nothing/ });
  for (const args of [['../two'], ['--engine', 'cow']])
    assertFails(t, await sandbox.bento(['mounts', ...args]), { code: 'USAGE', says: /--restore/ });
  for (const engine of ['copy', 'warp'])
    assertFails(t, await sandbox.bento(['mounts', '--restore', '--engine', engine]), {
      code: 'USAGE',
      says: /no engine/,
    });
});

const noUser = whyNoOrdinaryUser();

testSerialIf(noUser === undefined, noUser ?? '')(
  'an ordinary user forks copy-on-write, brings it back, closes it, and is told why it is no overlay',
  async (t) => {
    const { sandbox, inside } = await ofUser(t, '');
    const bento = async (...args: string[]) => (await inside.bentoAs(UID, args)).ok();
    const dir = sandbox.path('fork');
    t.is((await bento('fork', 'cp-1', dir)).stderr, '');
    const engines = async () =>
      (await bento('mounts', '--json')).json<Listed[]>().map(({ engine, state }) => `${engine} ${state}`);
    t.deepEqual(await engines(), ['cow mounted']);
    (await inside.runAs(UID, ['sh', '-c', `cd ${dir} && echo changed > src/main.js && rm CLAUDE.md`])).ok();
    await bento('unmount', dir);
    t.deepEqual(await engines(), ['cow not mounted']);
    await bento('mounts', '--restore');
    t.is((await inside.runAs(UID, ['cat', path.join(dir, 'src/main.js')])).ok().stdout, 'changed\n');
    const refused = await inside.bentoAs(UID, ['mounts', '--restore', dir, '--engine', 'overlay']);
    t.is(refused.code, 1);
    t.regex(refused.stderr, /^note: \S+\/fork is not brought back: only root may mount an overlay/);
    t.deepEqual(await engines(), ['cow mounted']);
    t.is((await inside.bentoAs(UID, ['close', dir])).code, 22);
    await bento('fork', sandbox.path('second'), '--dir', dir);
    t.is((await inside.runAs(UID, ['cat', sandbox.path('second/src/main.js')])).ok().stdout, 'changed\n');
    await bento('save', '--dir', dir);
    await bento('close', dir);
    await bento('close', '--discard', sandbox.path('second'));
    await bento('unmount', '--all');
    t.deepEqual(readdirSync(path.join(sandbox.storePath, 'forks')), []);
    assertTidy(t, sandbox);
  },
);
