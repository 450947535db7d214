import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { assertTidy, headOf, saveSmallWorkspace, workspaceId, writeFiles } from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];
const RETRY_MAX = 100;
/** Every step of a collection that changes what is on disk. */
const FAULTS = [
  'gc.untagged',
  'gc.forgotten',
  'gc.blob-deleted',
  'gc.index-forgotten',
  'gc.index-pruned',
  'gc.leftover-deleted',
] as const;

/** Six checkpoints of which five go, a directory that is given up, and things to sweep: every step has something to do. */
async function prepare(sandbox: Sandbox): Promise<void> {
  await saveSmallWorkspace(sandbox);
  for (let i = 0; i < 3; i++) {
    writeFiles(sandbox.workspace, { 'src/main.js': `state ${i}\n`, [`node_modules/p${i}/index.js`]: `${i}\n` });
    (await sandbox.bento(['save'])).ok();
  }
  const main = headOf(sandbox.workspace);
  (await sandbox.bento(['open', 'cp-1', '--no-backup'])).ok();
  for (const [from, content] of [
    ['cp-1', 'a branch whose layer goes'],
    [main, 'and the main line again'],
  ] as const) {
    (await sandbox.bento(['open', from, '--no-backup'])).ok();
    writeFiles(sandbox.workspace, { 'src/main.js': content });
    (await sandbox.bento(['save'])).ok();
  }
  writeFiles(sandbox.storePath, {
    [`${workspaceId(sandbox)}/heads/00000000.json`]: JSON.stringify({
      dir: '/nowhere/at/all',
      missingSince: '2020-01-01T00:00:00Z',
    }),
    'blobs/sha256/.tmp-1-a': 'cut off',
    [`cache/resume/sha256/${'a'.repeat(64)}`]: 'resume points of a layer that is gone',
  });
}

/** The steps that a whole collection passes, in order. */
async function faultsOf(sandbox: Sandbox): Promise<string[]> {
  const log = sandbox.path('faults');
  writeFileSync(log, '');
  (await sandbox.bento(['gc', '--keep-last', '1'], { env: { BENTO_FAULT: `log:${log}` } })).ok();
  return readFileSync(log, 'utf8').split('\n').filter(Boolean);
}

test.serial('the steps of gc are those at which it is killed below', async (t) => {
  const sandbox = newSandbox(t);
  await prepare(sandbox);
  const passed = new Set(await faultsOf(sandbox));
  t.deepEqual([...passed].filter((name) => name.startsWith('gc.')).sort(), [...FAULTS].sort());
});

for (const fault of FAULTS) {
  test.serial(`gc killed at ${fault} loses nothing, and the next one finishes`, async (t) => {
    const whole = newSandbox(t);
    await prepare(whole);
    const count = (await faultsOf(whole)).filter((passed) => passed === fault).length;
    for (const at of new Set([1, count])) {
      const sandbox = newSandbox(t);
      await prepare(sandbox);
      await assertFinishes(t, sandbox, `${fault}:${at}`);
      await sandbox.dispose();
    }
  });
}

async function assertFinishes(t: ExecutionContext, sandbox: Sandbox, fault: string): Promise<void> {
  const head = headOf(sandbox.workspace);
  const env = { BENTO_FAULT: fault };
  await t.throwsAsync(sandbox.bento(['gc', '--keep-last', '1'], { env }), { message: /SIGKILL/ }, fault);
  const between = await sandbox.bento(['verify']);
  t.is(between.code, 0, `${fault}: ${between.toString()}`);
  (await sandbox.bento(['gc', '--keep-last', '1'])).ok();
  t.is((await sandbox.bento(['gc', '--keep-last', '1'])).ok().stdout, 'Nothing to clean up.\n');
  const after = await sandbox.bento(['verify', '--json']);
  t.is(after.code, 0, `${fault}: ${after.toString()}`);
  t.is(after.json<{ checkpointCount: number }>().checkpointCount, 1);
  t.is(headOf(sandbox.workspace), head);
  (await sandbox.bento(['open', '--copy', 'cp-6', '../opened'])).ok();
  t.deepEqual(compareByWalk(sandbox.workspace, sandbox.path('opened'), { ignore: OWN_FILES }), []);
  assertTidy(t, sandbox);
}

test.serial('saves, opens and gcs of two workspaces and a parallel directory at once: nothing is lost', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const [parallel, other] = [sandbox.path('parallel'), sandbox.makeFolder('other')];
  (await sandbox.bento(['open', '--copy', 'cp-1', parallel])).ok();
  writeFiles(other, { file: 'of another workspace\n' });
  (await sandbox.bento(['init', '--dir', other])).ok();
  (await sandbox.bento(['save', '--dir', other])).ok();
  const dirs = [sandbox.workspace, parallel, other];
  let isDone = false;
  const collecting = Promise.all(
    [sandbox.workspace, other].map(async (dir) => {
      let runs = 0;
      for (; !isDone && runs < RETRY_MAX; runs++) (await sandbox.bento(['gc', '--keep-last', '2', '--dir', dir])).ok();
      return runs;
    }),
  );
  const digests = new Map<string, string[]>();
  await Promise.all(
    dirs.map(async (dir) => {
      for (let round = 0; round < 6; round++) {
        writeFiles(dir, { shared: `round ${round}\n`, [`node_modules/p${round}/x.js`]: `${dir} ${round}\n` });
        const { digest } = (await sandbox.bento(['save', '--json', '--dir', dir])).ok().json<{ digest: string }>();
        digests.set(dir, [...(digests.get(dir) ?? []), digest]);
        (
          await sandbox.bento([
            'open',
            '--copy',
            'head',
            sandbox.path(`opened-${path.basename(dir)}-${round}`),
            '--dir',
            dir,
          ])
        ).ok();
      }
    }),
  ).finally(() => (isDone = true));
  for (const runs of await collecting) t.true(runs > 0);
  for (const dir of dirs) {
    t.is(headOf(dir), digests.get(dir)?.at(-1) ?? '');
    const opened = sandbox.path(`last-${path.basename(dir)}`);
    (await sandbox.bento(['open', '--copy', 'head', opened, '--dir', dir])).ok();
    t.deepEqual(compareByWalk(dir, opened, { ignore: OWN_FILES }), []);
  }
  const numbers = new Set([...(digests.get(sandbox.workspace) ?? []), ...(digests.get(parallel) ?? [])]);
  t.is(numbers.size, 12, 'distinct checkpoints');
  const verified = await sandbox.bento(['verify']);
  t.is(verified.code, 0, verified.toString());
  assertTidy(t, sandbox);
});
