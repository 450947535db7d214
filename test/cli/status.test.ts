import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import test from 'ava';

import { ago } from '../../cli/commands/status.ts';
import { hexOf, type Digest } from '../../store/digest.ts';
import { assertFails, writeFiles } from '../fixtures/command-checks.ts';
import { testNeeding } from '../fixtures/external-tools.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

interface Status {
  head: { digest: Digest; sequence: number | null; message: string } | null;
  localCount: number;
  forkOf: string | null;
  remote: string | null;
  changes: { added: number; removed: number; modified: number } | null;
  clean: boolean;
  skipped: { path: string; reason: string }[];
}

async function savedWorkspace(t: Parameters<typeof newSandbox>[0]): Promise<Sandbox> {
  const sandbox = newSandbox(t);
  writeFiles(sandbox.workspace, { 'a.txt': 'one', 'src/b.txt': 'two', 'CLAUDE.md': 'memory' });
  (await sandbox.bento(['init', '--task', 'try it'])).ok();
  (await sandbox.bento(['save', '-m', 'first one'])).ok();
  return sandbox;
}

async function statusOf(sandbox: Sandbox): Promise<Status> {
  return (await sandbox.bento(['status', '--json'])).ok().json<Status>();
}

test('status shows where a workspace stands, in the lines of the original', async (t) => {
  const sandbox = await savedWorkspace(t);
  const clean = (await sandbox.bento(['status'])).ok();
  t.is(
    clean.stdout,
    [
      `Workspace: ${sandbox.workspace}`,
      'Task:      try it',
      'Extensions: claude-code',
      '',
      'Head:      cp-1 (saved just now)',
      'Message:   first one',
      'Local:     1 checkpoint(s)',
      '',
      'Remote:    (none)',
      '',
      'Changes:   clean',
      '',
    ].join('\n'),
  );
  t.is(clean.stderr, '');
});

test('status counts what was added, removed and modified, and does not write', async (t) => {
  const sandbox = await savedWorkspace(t);
  writeFiles(sandbox.workspace, { 'a.txt': 'changed', 'new/c.txt': 'three', 'new/d.txt': 'four' });
  rmSync(path.join(sandbox.workspace, 'src'), { recursive: true });
  const { stdout } = (await sandbox.bento(['status'])).ok();
  t.true(
    stdout.endsWith(
      'Changes:   4 files changed (2 added, 1 removed, 1 modified) since last save\n' +
        '           run `bento diff` for details\n',
    ),
    stdout,
  );
  t.deepEqual((await statusOf(sandbox)).changes, { added: 2, removed: 1, modified: 1 });
  rmSync(path.join(sandbox.workspace, 'new'), { recursive: true });
  writeFiles(sandbox.workspace, { 'a.txt': 'one', 'src/b.txt': 'TWO' });
  t.regex((await sandbox.bento(['status'])).ok().stdout, /modified\) since last save/);
});

test('status before the first save says so, makes no store, and exits with 0', async (t) => {
  const sandbox = newSandbox(t);
  (await sandbox.bento(['init'])).ok();
  const { stdout } = (await sandbox.bento(['status'])).ok();
  t.is(
    stdout,
    `Workspace: ${sandbox.workspace}\n\nHead:      (none — run \`bento save\` to create first checkpoint)\n`,
  );
  t.is((await statusOf(sandbox)).head, null);
});

// U6: the original reported what .bentoignore and extensions leave out as added.
test('status leaves out what .bentoignore and the configuration ignore (weakness U6)', async (t) => {
  const sandbox = await savedWorkspace(t);
  writeFileSync(path.join(sandbox.workspace, '.bentoignore'), '*.log\ncache/\n');
  writeFiles(sandbox.workspace, { 'x.log': 'x', 'src/y.log': 'y', 'cache/z': 'z' });
  t.true((await statusOf(sandbox)).clean);
  writeFiles(sandbox.workspace, { 'src/y.txt': 'y' });
  t.deepEqual((await statusOf(sandbox)).changes, { added: 1, removed: 0, modified: 0 });
});

test('status --exit-code exits with 1 when something is not saved', async (t) => {
  const sandbox = newSandbox(t);
  (await sandbox.bento(['init'])).ok();
  t.is((await sandbox.bento(['status', '--exit-code'])).code, 1);
  writeFiles(sandbox.workspace, { 'a.txt': 'one' });
  (await sandbox.bento(['save'])).ok();
  t.is((await sandbox.bento(['status', '--exit-code'])).code, 0);
  writeFiles(sandbox.workspace, { 'a.txt': 'two' });
  t.is((await sandbox.bento(['status', '--exit-code'])).code, 1);
  t.is((await sandbox.bento(['status'])).code, 0);
});

test('status names a head that cannot be loaded, and exits with 0', async (t) => {
  const sandbox = await savedWorkspace(t);
  const { head } = await statusOf(sandbox);
  rmSync(path.join(sandbox.storePath, 'blobs', 'sha256', hexOf(head?.digest ?? 'sha256:')));
  const { stdout } = (await sandbox.bento(['status'])).ok();
  t.true(stdout.includes(`Head:      ${head?.digest.slice(0, 19) ?? ''}... (unable to load)\n`), stdout);
  t.true(stdout.endsWith('Changes:   unable to load last checkpoint\n'), stdout);
});

test('status takes no arguments and needs a workspace', async (t) => {
  const sandbox = newSandbox(t);
  assertFails(t, await sandbox.bento(['status']), { code: 'CONFIG_MISSING', says: /no bento\.yaml found in/ });
  (await sandbox.bento(['init'])).ok();
  assertFails(t, await sandbox.bento(['status', 'x']), { code: 'USAGE', says: /accepts 0 arg\(s\), received 1/ });
  assertFails(t, await sandbox.bento(['status', '--nope']), { code: 'USAGE', says: /unknown flag: --nope/ });
});

test('status shows the remote, and a time an old checkpoint has', async (t) => {
  const sandbox = await savedWorkspace(t);
  const file = path.join(sandbox.workspace, 'bento.yaml');
  writeFileSync(file, `remote: localhost:1/me/ws\n`, { flag: 'a' }); // where nobody listens
  const { stdout } = (await sandbox.bento(['status'])).ok();
  t.regex(
    stdout,
    /\nRemote: {4}localhost:1\/me\/ws\n {2}Sync: {4}unable to reach remote \(.+\)\n\nChanges: {3}clean\n/,
  );
  const now = Date.parse('2026-01-10T00:00:00Z');
  const at = (text: string): string => ago(text, now);
  t.is(at('2026-01-09T23:59:01Z'), 'just now');
  t.is(at('2026-01-09T23:59:00Z'), '1 minute ago');
  t.is(at('2026-01-09T23:01:00Z'), '59 minutes ago');
  t.is(at('2026-01-09T23:00:00Z'), '1 hour ago');
  t.is(at('2026-01-09T01:00:00Z'), '23 hours ago');
  t.is(at('2026-01-09T00:00:00Z'), '1 day ago');
  t.is(at('2025-12-10T00:00:00Z'), '31 days ago');
  t.is(at('2027-01-01T00:00:00Z'), 'just now');
});

test('status mentions what is not saved', async (t) => {
  const sandbox = await savedWorkspace(t);
  const { createServer } = await import('node:net');
  const server = createServer().listen(path.join(sandbox.workspace, 's'));
  t.teardown(() => server.close());
  const { stderr } = (await sandbox.bento(['status'])).ok();
  t.is(stderr, 'note: s is not saved: socket\n');
  t.deepEqual((await statusOf(sandbox)).skipped, [{ path: 's', reason: 'socket' }]);
});

test('of many things that are not saved, twenty are named and the others counted', async (t) => {
  const sandbox = await savedWorkspace(t);
  const { createServer } = await import('node:net');
  for (let i = 0; i < 22; i += 1) {
    const server = createServer().listen(path.join(sandbox.workspace, `s${i}`));
    t.teardown(() => server.close());
  }
  const lines = (await sandbox.bento(['status'])).ok().stderr.trimEnd().split('\n');
  t.is(lines.length, 21);
  t.is(lines.at(-1), 'note: 2 more are not saved; --json lists them all');
  t.is((await statusOf(sandbox)).skipped.length, 22);
});

testNeeding({ root: true, fuse: true })('status in a fork names what it is a fork of', async (t) => {
  const sandbox = await savedWorkspace(t);
  const fork = sandbox.path('fork');
  (await sandbox.bento(['fork', 'cp-1', fork])).ok();
  const clean = (await sandbox.bento(['status'], { cwd: fork })).ok();
  t.true(clean.stdout.includes('\nFork of:   cp-1\n'), clean.stdout);
  t.true(clean.stdout.endsWith('Changes:   clean\n'), clean.stdout);
  mkdirSync(path.join(fork, 'empty'));
  writeFiles(fork, { 'a.txt': 'in the fork' });
  const { changes } = (await sandbox.bento(['status', '--json'], { cwd: fork })).ok().json<Status>();
  t.deepEqual(changes, { added: 1, removed: 0, modified: 1 });
});
