import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { ExecutionContext } from 'ava';
import { assertFails, makeSmallWorkspace, namesIn, temporaryFiles, watchTree } from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const test = testSerialNeeding({ root: true, tools: ['mount'] });
const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];
const MIB = 1 << 20;

/** A file system of its own with so much room. The sandbox unmounts it. */
function smallDisk(sandbox: Sandbox, sizeBytes: number): string {
  const disk = sandbox.makeFolder('disk');
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${sizeBytes}`, 'none', disk]);
  return disk;
}

/** A workspace with cp-1 in a store on a disk of its own. */
async function saveOnSmallDisk(t: ExecutionContext, sizeBytes: number): Promise<{ sandbox: Sandbox; store: string }> {
  const sandbox = newSandbox(t);
  const store = path.join(smallDisk(sandbox, sizeBytes), 'store');
  makeSmallWorkspace(sandbox.workspace);
  (await sandbox.bento(['init', '--store', store])).ok();
  (await sandbox.bento(['save', '-m', 'first'])).ok();
  (await sandbox.bento(['open', '--copy', 'cp-1', '../first'])).ok();
  return { sandbox, store };
}

async function assertFirstIsIntact(t: ExecutionContext, sandbox: Sandbox): Promise<void> {
  t.is((await sandbox.bento(['list', '--json'])).ok().json<unknown[]>().length, 1);
  (await sandbox.bento(['open', '--copy', 'cp-1', '../again'])).ok();
  t.deepEqual(compareByWalk(sandbox.path('first'), sandbox.path('again'), { ignore: OWN_FILES }), []);
  rmSync(sandbox.path('again'), { recursive: true });
}

for (const [where, file] of [
  ['in the first layer', 'node_modules/left-pad/big.bin'],
  ['in the last layer', 'zzz.bin'],
] as const) {
  test(`a disk that is full while saving, ${where}: NO_SPACE, the checkpoints are intact, no litter, and later it works`, async (t) => {
    const { sandbox, store } = await saveOnSmallDisk(t, 4 * MIB);
    const big = path.join(sandbox.workspace, file);
    writeFileSync(big, randomBytes(6 * MIB));
    const changed = watchTree(sandbox.workspace);
    const before = namesIn(path.join(store, 'blobs/sha256'));
    for (const attempt of [1, 2]) {
      const result = await sandbox.bento(['save', '-m', 'too large']);
      assertFails(t, result, { code: 'NO_SPACE', says: /no space left while .*disk\/store/, hint: /free some space/ });
      t.deepEqual(temporaryFiles(store), [], `after attempt ${attempt}`);
    }
    t.deepEqual(changed(), [], 'the head did not move');
    t.deepEqual(namesIn(path.join(store, 'blobs/sha256')), before, 'no blob of a checkpoint that never came');
    await assertFirstIsIntact(t, sandbox);

    writeFileSync(big, randomBytes(MIB));
    (await sandbox.bento(['save', '-m', 'fits'])).ok();
    (await sandbox.bento(['open', '--copy', 'cp-2', '../second'])).ok();
    t.deepEqual(compareByWalk(sandbox.workspace, sandbox.path('second'), { ignore: OWN_FILES }), []);
  });
}

test('a disk that is full while the index grows: NO_SPACE, the checkpoints are intact, no litter, and later it works', async (t) => {
  const { sandbox, store } = await saveOnSmallDisk(t, MIB);
  for (let number = 0; number < 12_000; number++)
    writeFileSync(path.join(sandbox.workspace, `src/empty-${number}`), '');
  const result = await sandbox.bento(['save']);
  assertFails(t, result, { code: 'NO_SPACE', says: /no space left while .*disk\/store/, hint: /free some space/ });
  t.deepEqual(temporaryFiles(store), []);
  await assertFirstIsIntact(t, sandbox);
  for (let number = 0; number < 11_900; number++) rmSync(path.join(sandbox.workspace, `src/empty-${number}`));
  (await sandbox.bento(['save'])).ok();
});

test('a disk that is full while opening: NO_SPACE, and the target is as it was', async (t) => {
  const sandbox = newSandbox(t);
  const disk = smallDisk(sandbox, MIB);
  makeSmallWorkspace(sandbox.workspace);
  writeFileSync(path.join(sandbox.workspace, 'big.bin'), randomBytes(2 * MIB));
  (await sandbox.bento(['init'])).ok();
  (await sandbox.bento(['save'])).ok();
  const target = path.join(disk, 'target');
  const expected = { code: 'NO_SPACE', says: /no space left/ } as const;
  assertFails(t, await sandbox.bento(['open', '--copy', 'cp-1', target]), expected);
  t.false(existsSync(target));

  rmSync(path.join(sandbox.workspace, 'big.bin')); // now in place: cp-2 fits, cp-1 does not
  (await sandbox.bento(['save'])).ok();
  (await sandbox.bento(['open', '--copy', 'cp-2', target])).ok();
  writeFileSync(path.join(target, 'src/main.js'), 'unsaved\n');
  const changed = watchTree(target, { ignore: ['.'] });
  assertFails(t, await sandbox.bento(['open', 'cp-1', '--dir', target]), expected);
  t.deepEqual(changed(), []);
  t.is(readFileSync(path.join(target, 'src/main.js'), 'utf8'), 'unsaved\n');
});

test('a store that may not be written: listing works, and the rest says PERMISSION_DENIED and changes nothing', async (t) => {
  const { sandbox, store } = await saveOnSmallDisk(t, 8 * MIB);
  writeFileSync(path.join(sandbox.workspace, 'src/main.js'), 'changed\n');
  const changed = watchTree(sandbox.workspace);
  const readOnly = (on: boolean) => execFileSync('mount', ['-o', `remount,${on ? 'ro' : 'rw'}`, path.dirname(store)]);
  const place = sandbox.makeFolder('place');
  readOnly(true);
  (await sandbox.bento(['list'])).ok();
  (await sandbox.bento(['inspect', 'cp-1'])).ok();
  for (const command of [
    ['tag', 'cp-1', 'x'],
    ['mount', 'cp-1', place],
    ['fork', 'cp-1', '../fork'],
  ]) {
    assertFails(t, await sandbox.bento(command), { code: 'PERMISSION_DENIED', says: /not allowed while .*disk/ });
  }
  t.deepEqual([changed(), existsSync(sandbox.path('fork')), sandbox.mounts()], [[], false, [path.dirname(store)]]);
  readOnly(false);
  (await sandbox.bento(['save'])).ok();
  t.deepEqual(temporaryFiles(store), []);
});

test('a disk that is full while forking, opening or running a command in a fork: NO_SPACE, and nothing is left', async (t) => {
  const { sandbox, store } = await saveOnSmallDisk(t, 4 * MIB);
  (await sandbox.bento(['fork', 'cp-1', '../warm'])).ok(); // the daemon runs, and the index knows the checkpoint
  const filler = path.join(path.dirname(store), 'filler');
  t.throws(() => writeFileSync(filler, randomBytes(8 * MIB)), { code: 'ENOSPC' });
  for (const command of [
    ['fork', 'cp-1', '../a', '../b'],
    ['fork', 'cp-1', '../a', '--engine', 'cow'],
    ['open', 'cp-1', '../a'],
    ['exec', 'cp-1', '--', 'echo', 'never'],
  ]) {
    assertFails(t, await sandbox.bento(command), { code: 'NO_SPACE', says: /no space left while .*disk\/store/ });
    t.deepEqual([existsSync(sandbox.path('a')), existsSync(sandbox.path('b'))], [false, false]);
    t.deepEqual(namesIn(path.join(store, 'forks')).length, 1);
    t.deepEqual(namesIn(path.join(store, 'mounts')).filter((name) => name.endsWith('.json')).length, 1);
    t.deepEqual(temporaryFiles(store), []);
    t.deepEqual(namesIn(sandbox.path('tmp')), []);
  }
  rmSync(filler);
  (await sandbox.bento(['exec', 'cp-1', '--save', '--', 'sh', '-c', 'echo x > x'])).ok();
  (await sandbox.bento(['close', '../warm'])).ok();
});
