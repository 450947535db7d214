import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { assertTidy } from '../fixtures/command-checks.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { makeManyFiles } from '../fixtures/many-files.ts';
import { newSandbox } from '../fixtures/sandbox.ts';

const FORK_COUNT = 20;
const DISK_BYTES_MAX = 10 << 20;
const SHARED = 'node_modules/package-0000/package.json';

/** What is really on disk below a directory; mounts do not count. */
function diskBytes(dir: string): number {
  return Number(execFileSync('du', ['-sx', '--block-size=1', dir], { encoding: 'utf8' }).split('\t')[0]);
}

testSerialNeeding({ root: true, fuse: true, tools: ['du'] })(
  'twenty forks of one checkpoint are independent, and together take under 10 MB of disk',
  async (t) => {
    const sandbox = newSandbox(t);
    makeManyFiles(sandbox.workspace, { fileCount: 3000 });
    const original = readFileSync(path.join(sandbox.workspace, SHARED), 'utf8');
    (await sandbox.bento(['init'])).ok();
    (await sandbox.bento(['save'])).ok();
    const before = diskBytes(sandbox.root);
    const forks = Array.from({ length: FORK_COUNT }, (_, number) => sandbox.path(`fork-${number}`));
    const made = (await sandbox.bento(['fork', 'cp-1', ...forks, '--json']))
      .ok()
      .json<{ forks: { engine: string }[] }>();
    t.deepEqual(new Set(made.forks.map(({ engine }) => engine)), new Set(['overlay']));

    for (const [number, fork] of forks.entries()) {
      writeFileSync(path.join(fork, 'mine'), `${number}\n`);
      writeFileSync(path.join(fork, SHARED), `${number}\n`);
      rmSync(path.join(fork, `node_modules/package-${String(number + 1).padStart(4, '0')}`), { recursive: true });
    }
    for (const [number, fork] of forks.entries()) {
      t.is(readFileSync(path.join(fork, 'mine'), 'utf8'), `${number}\n`);
      t.is(readFileSync(path.join(fork, SHARED), 'utf8'), `${number}\n`);
      for (let other = 0; other < FORK_COUNT; other++) {
        const folder = path.join(fork, `node_modules/package-${String(other + 1).padStart(4, '0')}`);
        t.is(existsSync(folder), other !== number);
      }
    }
    t.is(readFileSync(path.join(sandbox.workspace, SHARED), 'utf8'), original);
    t.false(existsSync(path.join(sandbox.workspace, 'mine')));
    const added = diskBytes(sandbox.root) - before;
    t.log(`${FORK_COUNT} forks of 3,000 files, each changed: ${(added / 1e6).toFixed(1)} MB on disk`);
    t.true(added < DISK_BYTES_MAX, `${added} bytes`);

    const heads = new Set<string>();
    for (const fork of forks.slice(0, 3)) {
      heads.add((await sandbox.bento(['save', '--json', '--dir', fork])).ok().json<{ digest: string }>().digest);
    }
    t.is(heads.size, 3);
    t.is((await sandbox.bento(['close', forks[3] ?? ''])).code, 22, 'unsaved');
    for (const fork of forks.slice(0, 3)) (await sandbox.bento(['close', fork])).ok();
    (await sandbox.bento(['unmount', '--all'])).ok();
    t.deepEqual([sandbox.mounts(), sandbox.processes()], [[], []]);
    assertTidy(t, sandbox, { records: FORK_COUNT - 3, forks: FORK_COUNT - 3 });
  },
);
