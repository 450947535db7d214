import { chownSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { ERRORS } from '../../store/errors.ts';
import { saveSmallWorkspace } from '../fixtures/command-checks.ts';
import { describeTree } from '../fixtures/compare-trees.ts';
import { testNeeding, testSerialNeeding } from '../fixtures/external-tools.ts';
import { bentoAfter, FUSE_FOR_ALL, Namespaces, WITHOUT_FUSE } from '../fixtures/other-machine.ts';
import { newSandbox, type CommandResult, type Sandbox } from '../fixtures/sandbox.ts';

interface Report {
  version: string;
  works: boolean;
  mount: { engine: string; why: string };
  fork: { engine: string; why: string };
  checks: {
    group: string;
    id: string;
    title: string;
    state: string;
    finding: string;
    advice: string | null;
    code: string | null;
    facts: Record<string, unknown>;
  }[];
}

const IDS = [
  ...['node', 'native-modules', 'kernel', 'memory', 'descriptors', 'inotify', 'user-namespaces', 'tools'],
  ...['fuse-device', 'mount-rights', 'fusermount3', 'user-allow-other', 'fuse', 'fuse-passthrough', 'fuse-resend'],
  'overlay',
  ...['config', 'store', 'space', 'locks', 'reflink', 'index', 'thin', 'daemon', 'mounts'],
];

function statesIn({ checks }: Report): Record<string, string> {
  return Object.fromEntries(checks.map(({ id, state }) => [id, state]));
}

function find({ checks }: Report, id: string): Report['checks'][number] {
  const found = checks.find((check) => check.id === id);
  if (found === undefined) throw new Error(`no check is called ${id}`);
  return found;
}

/** Everything in the sandbox, but for the times of folders: in some, something is tried for a moment. */
function filesOf(sandbox: Sandbox, ignore: readonly string[]): string[] {
  return [...describeTree(sandbox.root, { ignore })].map(([name, { mtimeNs, ...facts }]) =>
    JSON.stringify([name, facts, facts.type === 'directory' ? '' : mtimeNs]),
  );
}

interface Diagnosis {
  run?: (args: readonly string[]) => Promise<CommandResult>;
  /** Parts of the sandbox in which something is mounted. */
  ignore?: readonly string[];
}

/** Runs it, and holds against it whatever it made, changed or left running. */
async function diagnose(
  t: ExecutionContext,
  sandbox: Sandbox,
  { run = (args) => sandbox.bento(args), ignore = [] }: Diagnosis = {},
): Promise<{ report: Report; code: number }> {
  const [files, mounts, running] = [filesOf(sandbox, ignore), sandbox.mounts(), sandbox.processes()];
  const result = await run(['doctor', '--json']);
  t.deepEqual(filesOf(sandbox, ignore), files, 'files');
  t.deepEqual(sandbox.mounts(), mounts, 'mounts');
  t.deepEqual(
    sandbox.processes().filter((pid) => !running.includes(pid)),
    [],
    'processes',
  );
  t.is(result.stderr, '');
  const report = result.json<Report>();
  t.deepEqual(
    report.checks.map(({ id }) => id),
    IDS,
  );
  const complaints = report.checks.filter(
    ({ finding, advice }) => /\n/.test(finding) || finding === '' || advice === '',
  );
  t.deepEqual(complaints, []);
  t.is(report.works, result.code === 0);
  t.true(report.checks.every(({ state, code }) => (state === 'broken') === (code !== null)));
  return { report, code: result.code };
}

testNeeding({ root: true, fuse: true })('doctor as root finds FUSE, overlays and what the kernel offers', async (t) => {
  const sandbox = newSandbox(t);
  rmSync(sandbox.dataHome, { recursive: true });
  const { report, code } = await diagnose(t, sandbox);
  t.is(code, 0);
  t.like(report, { works: true, mount: { engine: 'bind' }, fork: { engine: 'overlay' } });
  t.like(statesIn(report), {
    node: 'ok',
    'native-modules': 'ok',
    'fuse-device': 'ok',
    fuse: 'ok',
    overlay: 'ok',
    store: 'ok',
  });
  t.like(find(report, 'store').facts, { path: sandbox.storePath, exists: false });
  t.is(find(report, 'daemon').facts['running'], false);
  const { flags } = find(report, 'fuse').facts as { flags: string[] };
  t.true(flags.includes('ASYNC_READ'));
  t.is(find(report, 'fuse-resend').state, flags.includes('HAS_RESEND') ? 'ok' : 'limited');
  t.is(find(report, 'fuse-passthrough').state, flags.includes('PASSTHROUGH') ? 'ok' : 'limited');
  t.deepEqual(
    report.checks
      .map((check) => Object.keys(check))
      .filter((keys) => keys.join() !== 'group,id,title,state,finding,advice,code,facts'),
    [],
  );
});

test('doctor prints a line for each thing, one more for what to do, and what commands will do', async (t) => {
  const sandbox = newSandbox(t);
  const { stdout, code } = await sandbox.bento(['doctor']);
  t.is(code, 0, stdout);
  t.regex(stdout, /^bento \d+\.\d+\.\d+\n\nMachine:\n {2}ok {7}Node\.js {3,}\d+\./);
  t.regex(
    stdout,
    /\n\nMounting:\n[^]*\n\nStore:\n[^]*\n\nbento mount: [^\n]*, because [^\n]*\nbento fork: {2}[^\n]*, because/,
  );
  t.true(stdout.endsWith('All that bento needs is here.\n'));
  const titles = stdout.split('\n').filter((line) => /^ {2}[a-z]/.test(line));
  t.is(titles.length, IDS.length);
  const [first = ''] = titles;
  const column = first.indexOf(process.versions.node);
  t.true(
    titles.every((line) => line[column] !== ' ' && line.slice(column - 2, column) === '  '),
    'aligned',
  );
});

testSerialNeeding({ root: true, fuse: true, tools: ['unshare'] })(
  'doctor says that mounts are copies where /dev/fuse is hidden, missing or closed',
  async (t) => {
    for (const [what, prepare] of Object.entries(WITHOUT_FUSE)) {
      const sandbox = newSandbox(t);
      const { report, code } = await diagnose(t, sandbox, { run: (args) => bentoAfter(sandbox, prepare, args) });
      t.is(code, 0, what);
      t.like(report, { mount: { engine: 'copy' }, fork: { engine: 'copy' } }, what);
      t.like(statesIn(report), { 'fuse-device': 'missing', fuse: 'missing', 'fuse-resend': 'unknown' }, what);
      t.regex(find(report, 'fuse-device').advice ?? '', /--device \/dev\/fuse/, what);
    }
  },
);

const NOBODY = 65_534;

/** Gives the sandbox to a user without any rights. */
function giveTo(sandbox: Sandbox, uid: number): void {
  for (const name of ['', ...readdirSync(sandbox.root)]) chownSync(path.join(sandbox.root, name), uid, uid);
}

testSerialNeeding({ root: true, fuse: true, tools: ['unshare', 'nsenter', 'setpriv', 'fusermount3'] })(
  'doctor as an ordinary user tries fusermount3, and knows that forks are copy-on-write',
  async (t) => {
    const sandbox = newSandbox(t);
    giveTo(sandbox, NOBODY);
    const machine = await Namespaces.ofMounts(t, sandbox, FUSE_FOR_ALL);
    const { report, code } = await diagnose(t, sandbox, { run: (args) => machine.bentoAs(NOBODY, args) });
    t.is(code, 0);
    t.like(report, { mount: { engine: 'fuse' }, fork: { engine: 'cow' } });
    t.like(statesIn(report), {
      'fuse-device': 'ok',
      'mount-rights': 'limited',
      fusermount3: 'ok',
      fuse: 'ok',
      overlay: 'limited',
    });
    t.regex(String(find(report, 'fusermount3').facts['version']), /^\d+\.\d+/);
    t.is((await machine.run(['grep', '-c', 'bento-doctor', '/proc/self/mounts'])).stdout, '0\n');
  },
);

testSerialNeeding({ root: true, tools: ['unshare', 'nsenter', 'setpriv'] })(
  'doctor as an ordinary user who may not open /dev/fuse, with a store that is not theirs',
  async (t) => {
    const sandbox = newSandbox(t);
    giveTo(sandbox, NOBODY);
    const machine = await Namespaces.ofMounts(
      t,
      sandbox,
      'mount -t tmpfs none /mnt; mknod -m 600 /mnt/fuse c 10 229; mount --bind /mnt/fuse /dev/fuse',
    );
    const { report, code } = await diagnose(t, sandbox, { run: (args) => machine.bentoAs(NOBODY, args) });
    t.is(code, 0);
    t.like(report, { mount: { engine: 'copy' }, fork: { engine: 'copy' } });
    t.regex(find(report, 'fuse-device').advice ?? '', /chmod/);

    mkdirSync(sandbox.storePath, { recursive: true });
    const refused = await diagnose(t, sandbox, { run: (args) => machine.bentoAs(NOBODY, args) });
    t.is(refused.code, ERRORS.PERMISSION_DENIED.exitCode);
    t.like(find(refused.report, 'store'), { state: 'broken', code: 'PERMISSION_DENIED' });
    t.like(statesIn(refused.report), { locks: 'unknown', reflink: 'unknown', overlay: 'limited' });
  },
);

testSerialNeeding({ root: true, fuse: true, tools: ['unshare', 'nsenter'] })(
  'doctor inside a user namespace finds mounts without passthrough',
  async (t) => {
    const sandbox = newSandbox(t);
    const machine = await Namespaces.ofUser(t, sandbox);
    const { report } = await diagnose(t, sandbox, { run: (args) => machine.bento(args) });
    t.like(report, { works: true, mount: { engine: 'bind' } });
    t.like(statesIn(report), { 'mount-rights': 'limited', fuse: 'ok', 'fuse-passthrough': 'limited' });
  },
);

test('doctor does without any other program', async (t) => {
  const sandbox = newSandbox(t);
  const run = async (args: readonly string[]): Promise<CommandResult> =>
    await sandbox.bento(args, { env: { PATH: '' } });
  const { report, code } = await diagnose(t, sandbox, { run });
  t.is(code, 0);
  t.is(find(report, 'user-namespaces').state, 'unknown');
  t.is(find(report, 'fusermount3').facts['version'], null);
  t.deepEqual(find(report, 'tools').facts, { found: [] });
});

test('doctor works with a bento.yaml that no other command can read, and says so', async (t) => {
  const sandbox = newSandbox(t);
  writeFileSync(path.join(sandbox.workspace, 'bento.yaml'), 'id: [\n');
  const { report, code } = await diagnose(t, sandbox);
  t.is(code, ERRORS.CONFIG_INVALID.exitCode);
  t.like(find(report, 'config'), { state: 'broken', code: 'CONFIG_INVALID' });
  t.is(find(report, 'store').facts['path'], sandbox.storePath, 'the store of the user');
  const { stdout } = await sandbox.bento(['doctor']);
  t.true(stdout.endsWith('To be mended: bento.yaml\n'), stdout);
});

test('doctor says what is wrong with a store that is a file, and with a damaged index', async (t) => {
  const sandbox = newSandbox(t);
  mkdirSync(path.dirname(sandbox.storePath), { recursive: true });
  writeFileSync(sandbox.storePath, 'x');
  const { report, code } = await diagnose(t, sandbox);
  t.is(code, ERRORS.TARGET_INVALID.exitCode);
  t.regex(find(report, 'store').finding, /is not a directory/);
  rmSync(sandbox.storePath);
  await saveSmallWorkspace(sandbox);
  const healthy = (await diagnose(t, sandbox)).report;
  t.like(find(healthy, 'store').facts, { exists: true });
  t.like(find(healthy, 'index'), { state: 'ok', facts: { version: find(healthy, 'index').facts['wanted'] } });
  writeFileSync(path.join(sandbox.storePath, 'cache', 'index.db'), 'damaged');
  const damaged = await diagnose(t, sandbox);
  t.is(damaged.code, 0, 'it is a cache');
  t.is(find(damaged.report, 'index').state, 'limited');
});

testSerialNeeding({ root: true, fuse: true })('doctor tells of the daemon and of mounts that are gone', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const target = sandbox.makeFolder('mounted');
  (await sandbox.bento(['mount', 'cp-1', target])).ok();
  const ignore = ['mounted', 'run'];
  const mounted = (await diagnose(t, sandbox, { ignore })).report;
  t.like(find(mounted, 'daemon'), { state: 'ok', facts: { running: true, state: 'serving', restartCount: 0 } });
  t.like(find(mounted, 'mounts'), {
    state: 'ok',
    finding: '1 mounted',
    facts: { mounted: 1, notMounted: 0, leftBehind: 0 },
  });

  const { pid, serverPid } = find(mounted, 'daemon').facts as { pid: number; serverPid: number };
  for (const one of [pid, serverPid]) process.kill(one, 'SIGKILL');
  while (existsSync(`/proc/${pid}`) || existsSync(`/proc/${serverPid}`))
    await new Promise((resolve) => setTimeout(resolve, 20));
  const killed = await diagnose(t, sandbox, { ignore });
  t.is(killed.code, ERRORS.DAEMON_FAILED.exitCode);
  t.like(find(killed.report, 'mounts'), { state: 'broken', code: 'DAEMON_FAILED' });
  t.regex(find(killed.report, 'mounts').finding, /^1 broken, \d left by a daemon that was killed$/);
  t.like(find(killed.report, 'daemon').facts, { running: false });
  t.is(find(killed.report, 'fuse').state, 'ok');
});
