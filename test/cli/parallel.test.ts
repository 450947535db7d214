import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { assertTidy, headOf, saveSmallWorkspace } from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { newSandbox } from '../fixtures/sandbox.ts';

const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];
const testMounting = testSerialNeeding({ root: true, fuse: true });

interface Row {
  tags: string[];
  sequence: number;
  digest: string;
  parent: string | null;
}

testMounting(
  'saves of a workspace and two forks at once: distinct numbers, own parents, no lost checkpoint',
  async (t) => {
    const sandbox = newSandbox(t);
    await saveSmallWorkspace(sandbox);
    const dirs = [sandbox.workspace, sandbox.path('a'), sandbox.path('b')];
    (await sandbox.bento(['fork', 'cp-1', ...dirs.slice(1)])).ok();
    const parents = new Map(dirs.map((dir) => [dir, headOf(dir)]));
    const expected = new Map<string, string>();
    const rounds = 3;
    for (let round = 1; round <= rounds; round++) {
      const results = await Promise.all(
        dirs.map(async (dir, at) => {
          writeFileSync(path.join(dir, `from-${at}`), `round ${round}\n`);
          return (await sandbox.bento(['save', '--json', '--dir', dir])).ok().json<Row & { tag: string }>();
        }),
      );
      t.is(new Set(results.map(({ tag }) => tag)).size, dirs.length, 'every save has a number of its own');
      for (const [at, dir] of dirs.entries()) {
        const digest = results[at]?.digest ?? '';
        t.is(headOf(dir), digest);
        expected.set(digest, parents.get(dir) ?? '');
        parents.set(dir, digest);
      }
    }
    const rows = (await sandbox.bento(['list', '--json'])).ok().json<Row[]>();
    const numbers = rows.map(({ sequence }) => sequence).sort((a, b) => a - b);
    t.deepEqual(
      numbers,
      Array.from({ length: 1 + rounds * dirs.length }, (_, at) => at + 1),
    );
    for (const [digest, parent] of expected) t.is(rows.find((row) => row.digest === digest)?.parent, parent);
    for (const row of rows) {
      t.true(row.tags.includes(`cp-${row.sequence}`));
    }
    for (const [at, dir] of dirs.entries()) {
      (await sandbox.bento(['open', headOf(dir), `../opened-${at}`])).ok();
      t.deepEqual(compareByWalk(dir, sandbox.path(`opened-${at}`), { ignore: OWN_FILES }), []);
    }
  },
);

// saveWorkspace() takes the lock after its caller read the head
test.serial('two saves of one directory at once: one saves, the other finds nothing new', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  writeFileSync(path.join(sandbox.workspace, 'new'), 'new\n');
  const results = await Promise.all(
    [1, 2, 3].map(async () => (await sandbox.bento(['save', '--json'])).ok().json<{ saved: boolean }>()),
  );
  t.is((await sandbox.bento(['list', '--json'])).ok().json<Row[]>().length, 2);
  t.is(results.filter(({ saved }) => saved).length, 1);
  assertTidy(t, sandbox);
});

test.serial('a save and tags at once: no tag is lost', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  writeFileSync(path.join(sandbox.workspace, 'new'), 'new\n');
  const commands = [['save'], ...['a', 'b', 'c', 'd', 'e'].map((name) => ['tag', 'cp-1', name])];
  for (const result of await Promise.all(commands.map(async (command) => await sandbox.bento(command)))) result.ok();
  const tags = (await sandbox.bento(['list', '--json']))
    .ok()
    .json<Row[]>()
    .flatMap((row) => row.tags);
  t.deepEqual(tags.sort(), ['a', 'b', 'c', 'cp-1', 'cp-2', 'd', 'e', 'latest']);
});

testMounting('mounts and forks of many shells at once start one daemon, and all of them work', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const names = ['1', '2', '3', '4'];
  for (const name of names) sandbox.makeFolder(`mount-${name}`);
  const commands = names.flatMap((name) => [
    ['mount', 'cp-1', `../mount-${name}`],
    ['fork', 'cp-1', `../fork-${name}`],
  ]);
  for (const result of await Promise.all(commands.map(async (command) => await sandbox.bento(command)))) result.ok();
  t.is(sandbox.processes().length, 2, 'one daemon: supervisor and server');
  for (const name of names) {
    for (const kind of ['mount', 'fork']) {
      t.deepEqual(compareByWalk(sandbox.workspace, sandbox.path(`${kind}-${name}`), { ignore: OWN_FILES }), []);
    }
  }
  const ends = names.flatMap((name) => [
    ['unmount', `../mount-${name}`],
    ['close', `../fork-${name}`],
  ]);
  for (const result of await Promise.all(ends.map(async (command) => await sandbox.bento(command)))) result.ok();
  (await sandbox.bento(['unmount', '--all'])).ok();
  t.deepEqual([sandbox.mounts(), sandbox.processes()], [[], []]);
  assertTidy(t, sandbox);
});

testMounting(
  'two shells that mount on one directory, or fork to it, at once: one gets it, the other is told',
  async (t) => {
    const sandbox = newSandbox(t);
    await saveSmallWorkspace(sandbox);
    sandbox.makeFolder('place');
    for (const [kind, target] of [
      ['mount', '../place'],
      ['fork', '../fork'],
    ] as const) {
      const results = await Promise.all([1, 2, 3].map(async () => await sandbox.bento([kind, 'cp-1', target])));
      t.is(results.filter(({ code }) => code === 0).length, 1, results.join('\n'));
      for (const { code, stderr } of results.filter((result) => result.code !== 0)) {
        t.true([20, 31].includes(code), stderr);
        t.is(stderr.split('\n').filter((line) => line.startsWith('Error: ')).length, 1, stderr);
      }
      const place = sandbox.path(target.slice(3));
      t.is(readFileSync(path.join(place, 'CLAUDE.md'), 'utf8'), '# notes\n');
      t.is(sandbox.mounts().filter((mounted) => mounted === place).length, 1, 'mounted once, not twice over');
    }
    assertTidy(t, sandbox, { records: 2, forks: 1 });
    (await sandbox.bento(['close', '../fork'])).ok();
    t.false(existsSync(sandbox.path('fork')));
    (await sandbox.bento(['unmount', '../place'])).ok();
    t.deepEqual(readdirSync(sandbox.path('place')), []);
  },
);
