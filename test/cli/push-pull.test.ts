import { readFileSync } from 'node:fs';
import path from 'node:path';

import type { ExecutionContext } from 'ava';

import { assertFails, headOf, saveSmallWorkspace, workspaceId, writeFiles } from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { testNeeding } from '../fixtures/external-tools.ts';
import { startDebianRegistry } from '../fixtures/registry/debian-registry.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

interface Pushed {
  sentCount: number;
  sentBytes: number;
  tags: { tag: string; outcome: string }[];
}

/** @returns a repository of a real registry */
async function startRegistry(t: ExecutionContext): Promise<string> {
  const registry = await startDebianRegistry();
  t.teardown(async () => await registry.stop());
  return `${registry.host}/me/ws`;
}

/** Another home and store with a directory of the same workspace. */
async function otherMachine(t: ExecutionContext, id: string): Promise<Sandbox> {
  const other = newSandbox(t);
  (await other.bento(['init', '--id', id])).ok();
  return other;
}

const testWithRegistry = testNeeding({ tools: ['docker-registry'] });

testWithRegistry('a workspace goes to a registry and comes back on another machine', async (t) => {
  const remote = await startRegistry(t);
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const digest = headOf(sandbox.workspace).slice(0, 19);
  const first = (await sandbox.bento(['push', remote])).ok().stdout.split('\n');
  t.deepEqual(first.slice(0, 3), [
    `Pushing to ${remote}...`,
    `  pushed cp-1 (${digest}...)`,
    `  pushed latest (${digest}...)`,
  ]);
  t.deepEqual(first.slice(4), [`Remote: ${remote}`, 'Done.', '']);
  t.true(readFileSync(path.join(sandbox.workspace, 'bento.yaml'), 'utf8').includes(`\nremote: ${remote}\n`));
  const again = (await sandbox.bento(['push', '--json'])).ok().json<Pushed>();
  t.like(again, { sentCount: 0, sentBytes: 0 });
  t.true(again.tags.every(({ outcome }) => outcome === 'same'));

  const other = await otherMachine(t, workspaceId(sandbox));
  const pulled = (await other.bento(['pull', remote])).ok().stdout;
  t.regex(pulled, /^Pulling from .+\n {2}pulled cp-1\n {2}pulled latest\n {2}\d+ blob/);
  t.is((await other.bento(['pull', '--tag', 'cp-1'])).ok().stdout.split('\n')[0], `Pulling cp-1 from ${remote}...`);
  t.true(pulled.endsWith('Done.\n\nUse `bento list` to see checkpoints, `bento open <ref>` to restore.\n'), pulled);
  (await other.bento(['open', '--copy', 'cp-1', other.path('opened')])).ok();
  t.deepEqual(
    compareByWalk(sandbox.workspace, other.path('opened'), { ignore: ['.', 'bento.yaml', '.bentoignore'] }),
    [],
  );
});

testWithRegistry('status tells how the head stands against the remote', async (t) => {
  const remote = await startRegistry(t);
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  (await sandbox.bento(['push', remote])).ok();
  t.true((await sandbox.bento(['status'])).ok().stdout.includes(`${remote}\n  Sync:    up to date (cp-1)\n\n`));
  writeFiles(sandbox.workspace, { 'src/new.js': 'new\n' });
  (await sandbox.bento(['save'])).ok();
  const ahead = (await sandbox.bento(['status'])).ok().stdout;
  const line = '  Sync:    1 checkpoint ahead (head is cp-2, remote has cp-1)\n           run `bento push` to sync\n';
  t.true(ahead.includes(line), ahead);
});

testWithRegistry('two machines that both made a cp-2 lose neither', async (t) => {
  const remote = await startRegistry(t);
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  (await sandbox.bento(['push', remote])).ok();
  const other = await otherMachine(t, workspaceId(sandbox));
  (await other.bento(['pull', remote])).ok();
  (await other.bento(['open', '--copy', 'cp-1', other.path('opened')])).ok();
  writeFiles(other.path('opened'), { 'theirs.txt': 'theirs' });
  (await other.bento(['save', '--dir', other.path('opened'), '--tag', 'cp-2'])).ok();
  (await other.bento(['push', remote, '--tag', 'cp-2', '--dir', other.path('opened')])).ok();
  writeFiles(sandbox.workspace, { 'ours.txt': 'ours' });
  (await sandbox.bento(['save', '--tag', 'cp-2'])).ok();
  const refused = await sandbox.bento(['push']);
  assertFails(t, refused, {
    code: 'DIVERGED',
    says: /push failed: cp-2 is sha256:.+ here and sha256:.+ on the remote/,
  });
  t.regex((await sandbox.bento(['pull'])).ok().stdout, /diverged cp-2: it stays .+\n.+ is cp-2-remote-[0-9a-f]{12}\n/);
  (await sandbox.bento(['push', '--force'])).ok();
});
