import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import type { ExecutionContext } from 'ava';

import type { DaemonHealth } from '../../../../fs/mounts/daemon/control.ts';
import { testSerialNeeding } from '../../../fixtures/external-tools.ts';
import { askDaemon } from '../../../fixtures/daemon.ts';
import { CLI_PATH, newSandbox, type Sandbox } from '../../../fixtures/sandbox.ts';

const NEEDS = { fuse: true, root: true };
const PACKAGE = path.join(path.dirname(CLI_PATH), '..', '..');

/** A copy of the program that says it is another version, as an upgrade leaves it. */
function programOfVersion(sandbox: Sandbox, version: string): string {
  const dir = sandbox.makeFolder(`program-${version}`);
  cpSync(path.dirname(CLI_PATH), path.join(dir, 'dist', 'bundle'), { recursive: true });
  const json = JSON.parse(readFileSync(path.join(PACKAGE, 'package.json'), 'utf8')) as object;
  writeFileSync(path.join(dir, 'package.json'), JSON.stringify({ ...json, version }));
  symlinkSync(path.join(PACKAGE, 'node_modules'), path.join(dir, 'node_modules'));
  return path.join(dir, 'dist', 'bundle');
}

async function mounted(t: ExecutionContext): Promise<{ sandbox: Sandbox; dir: string; mountLine: () => string }> {
  const sandbox = newSandbox(t);
  for (let i = 0; i < 50; i += 1) writeFileSync(path.join(sandbox.workspace, `file-${i}`), `content ${i}\n`);
  (await sandbox.bento(['init'])).ok();
  (await sandbox.bento(['save'])).ok();
  const dir = sandbox.makeFolder('mount');
  (await sandbox.bento(['mount', 'cp-1', dir])).ok();
  const mountLine = (): string =>
    readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((line) => line.split(' ')[4] === dir)
      .join('\n');
  return { sandbox, dir, mountLine };
}

async function health(sandbox: Sandbox): Promise<DaemonHealth> {
  return (await askDaemon(sandbox, { op: 'hello' })).health;
}

testSerialNeeding(NEEDS)(
  'a newer program takes the mounts over without unmounting, in the middle of reading',
  async (t) => {
    const { sandbox, dir, mountLine } = await mounted(t);
    const [before, line] = [await health(sandbox), mountLine()];
    const reader = spawn('sh', [
      '-c',
      `for i in $(seq 300); do cat ${dir}/file-* ${dir}/no-such-$i 2>/dev/null; done | wc -c`,
    ]);
    reader.stdout.setEncoding('utf8');
    let read = '';
    reader.stdout.on('data', (piece: string) => (read += piece));

    const program = programOfVersion(sandbox, '99.0.0');
    const second = sandbox.makeFolder('second');
    const command = spawn(process.execPath, [path.join(program, 'main.js'), 'mount', 'cp-1', second], {
      cwd: sandbox.workspace,
      env: sandbox.env,
      stdio: 'inherit',
    });
    t.deepEqual(await once(command, 'exit'), [0, null]);
    const after = await health(sandbox);
    t.is(after.version, '99.0.0');
    t.not(after.pid, before.pid);
    t.is(mountLine(), line, 'the same mount');
    await once(reader, 'close');
    const all = Array.from({ length: 50 }, (_, i) => `content ${i}\n`.length).reduce((sum, length) => sum + length);
    t.is(Number(read), 300 * all);
    t.is(readFileSync(path.join(second, 'file-7'), 'utf8'), 'content 7\n');

    (await sandbox.bento(['mounts'])).ok(); // an older program leaves the newer daemon alone
    t.is((await health(sandbox)).pid, after.pid);
    (await sandbox.bento(['unmount', '--all'])).ok();
  },
);

testSerialNeeding(NEEDS)('a program that cannot take over leaves everything as it was', async (t) => {
  const { sandbox, dir, mountLine } = await mounted(t);
  const [before, line] = [await health(sandbox), mountLine()];
  const broken = path.join(sandbox.makeFolder('broken'), 'supervisor.js');
  mkdirSync(path.dirname(broken), { recursive: true });
  writeFileSync(broken, 'process.exit(3);\n');
  await t.throwsAsync(askDaemon(sandbox, { op: 'upgrade', program: broken }), {
    message: /could not be handed over: it ended with status 3/,
  });
  await t.throwsAsync(askDaemon(sandbox, { op: 'upgrade', program: '/no/such/program' }), { code: 'DAEMON_FAILED' });
  const after = await health(sandbox);
  t.is(after.pid, before.pid);
  t.is(mountLine(), line);
  t.is(readFileSync(path.join(dir, 'file-3'), 'utf8'), 'content 3\n');
  t.false(existsSync(path.join(dir, 'a-name-nobody-asked-for')));
});
