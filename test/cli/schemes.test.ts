import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import test, { type ExecutionContext } from 'ava';

import {
  assertFails,
  digestOfRef,
  headOf,
  saveSmallWorkspace,
  workspaceId,
  writeFiles,
} from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { testNeeding } from '../fixtures/external-tools.ts';
import { OddRegistry } from '../fixtures/registry/odd-registry.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];

/** A saved workspace that was pushed to a folder, as on a stick; and its address. */
async function onStick(t: ExecutionContext): Promise<{ sandbox: Sandbox; stick: string }> {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const stick = `file://${sandbox.makeFolder('stick')}/my%20ws`;
  (await sandbox.bento(['push', stick])).ok();
  return { sandbox, stick };
}

test('a folder is pushed to and pulled from, remembered, and compared with, like a registry', async (t) => {
  const { sandbox, stick } = await onStick(t);
  t.true(readFileSync(path.join(sandbox.workspace, 'bento.yaml'), 'utf8').includes(`\nremote: ${stick}\n`));
  t.true(existsSync(sandbox.path('stick/my ws/index.json')));
  t.regex((await sandbox.bento(['status'])).ok().stdout, /Remote: {4}file:.+my%20ws\n {2}Sync: {4}up to date \(cp-1\)/);
  writeFiles(sandbox.workspace, { 'src/new.js': 'new\n' });
  (await sandbox.bento(['save'])).ok();
  t.regex((await sandbox.bento(['status'])).ok().stdout, /1 checkpoint ahead/);
  const pushed = (await sandbox.bento(['push', '--json'])).ok().json<{ sentCount: number; remembered: boolean }>();
  t.like(pushed, { remembered: false });

  const other = newSandbox(t);
  (await other.bento(['init', '--id', workspaceId(sandbox)])).ok();
  t.regex((await other.bento(['pull', stick])).ok().stdout, /pulled cp-1\n {2}pulled cp-2\n {2}pulled latest/);
  (await other.bento(['open', '--copy', 'cp-2', other.path('opened')])).ok();
  t.deepEqual(compareByWalk(sandbox.workspace, other.path('opened'), { ignore: OWN_FILES }), []);
});

test('references to folders and archives are opened, inspected, compared, exported and imported', async (t) => {
  const { sandbox, stick } = await onStick(t);
  const digest = headOf(sandbox.workspace);
  const folder = sandbox.path('stick/my ws');
  (await sandbox.bento(['export', 'cp-1', sandbox.path('one.tar')])).ok();
  const other = newSandbox(t);
  const written = [
    `${stick}:cp-1`,
    `${stick}@${digest}`,
    `oci://${folder}:cp-1`,
    `oci:${folder}`,
    `file://${sandbox.path('one.tar')}:cp-1`,
    `oci-archive:${sandbox.path('one.tar')}:cp-1`,
  ];
  for (const ref of written) t.is(await digestOfRef(other, ref), digest, ref);
  const relative = await other.bento(['inspect', `oci://./${path.relative(other.workspace, folder)}:cp-1`, '--json']);
  t.is(relative.ok().json<{ digest: string }>().digest, digest);
  (await other.bento(['open', '--copy', `${stick}:cp-1`, other.path('opened')])).ok();
  t.deepEqual(compareByWalk(sandbox.workspace, other.path('opened'), { ignore: OWN_FILES }), []);
  t.is(headOf(other.path('opened')), digest);
  t.regex((await other.bento(['diff', `${stick}:cp-1`, `${stick}:latest`])).ok().stdout, /No changes between/);
  (await other.bento(['export', `${stick}:cp-1`, '../again.tar'])).ok();
  const back = newSandbox(t);
  (await back.bento(['import', `file://${other.path('again.tar')}:cp-1`, '--name', 'back'])).ok();
  t.is(await digestOfRef(back, 'back:cp-1'), digest);
  assertFails(t, await other.bento(['inspect', `${stick}:cp-9`]), {
    code: 'REMOTE_NOT_FOUND',
    says: /file:\/\/.+my%20ws has no cp-9/,
  });
  const unplugged = await other.bento(['inspect', 'file:///nowhere/stick/ws:cp-1']);
  assertFails(t, unplugged, { code: 'REMOTE_UNREACHABLE', says: /folder \/nowhere\/stick neither/, hint: /mount/ });
});

testNeeding({ root: true, fuse: true })('checkpoints of a folder are mounted and forked', async (t) => {
  const { sandbox, stick } = await onStick(t);
  const other = newSandbox(t);
  const mounted = other.makeFolder('mounted');
  (await other.bento(['mount', `${stick}:cp-1`, mounted])).ok();
  t.deepEqual(compareByWalk(sandbox.workspace, mounted, { ignore: OWN_FILES }), []);
  (await other.bento(['fork', `${stick}:cp-1`, other.path('fork')])).ok();
  t.deepEqual(compareByWalk(sandbox.workspace, other.path('fork'), { ignore: OWN_FILES }), []);
});

test('an archive is pulled from, but not remembered and not pushed to', async (t) => {
  const { sandbox } = await onStick(t);
  const archive = sandbox.path('all.tar');
  (await sandbox.bento(['export', '--all', archive])).ok();
  const other = newSandbox(t);
  (await other.bento(['init', '--id', workspaceId(sandbox)])).ok();
  t.regex((await other.bento(['pull', `file://${archive}`])).ok().stdout, /pulled cp-1\n {2}pulled latest/);
  t.false(readFileSync(path.join(other.workspace, 'bento.yaml'), 'utf8').includes('remote:'));
  writeFiles(sandbox.workspace, { more: 'more\n' });
  (await sandbox.bento(['save'])).ok();
  for (const target of [`file://${archive}`, 'file:///tmp/new.tar', `oci-archive:${other.path('new')}`]) {
    const refused = await sandbox.bento(['push', target]);
    assertFails(t, refused, {
      code: 'REMOTE_REFUSED',
      says: /is an archive, and nothing can be added/,
      hint: /bento export/,
    });
  }
  t.false(existsSync(other.path('new')));
});

test('a reference that is not here is looked for in the remote of the workspace', async (t) => {
  const { sandbox, stick } = await onStick(t);
  const other = newSandbox(t);
  (await other.bento(['init', '--id', workspaceId(sandbox), '--store', other.path('their-store')])).ok();
  assertFails(t, await other.bento(['inspect', 'cp-1']), { code: 'REF_NOT_FOUND', says: /tag "cp-1" not found/ });
  const config = path.join(other.workspace, 'bento.yaml');
  writeFileSync(config, `${readFileSync(config, 'utf8')}remote: ${stick}\n`);
  const opened = await other.bento(['open', '--copy', 'cp-1', other.path('opened')]);
  t.regex(opened.ok().stderr, /cp-1 was not here; it came from file:/);
  t.is(headOf(other.path('opened')), headOf(sandbox.workspace));
  const fresh = newSandbox(t);
  (await fresh.bento(['init', '--id', workspaceId(sandbox)])).ok();
  const freshConfig = path.join(fresh.workspace, 'bento.yaml');
  writeFileSync(freshConfig, `${readFileSync(freshConfig, 'utf8')}remote: ${stick}\n`);
  t.is(await digestOfRef(fresh, headOf(sandbox.workspace)), headOf(sandbox.workspace));
  assertFails(t, await fresh.bento(['inspect', 'cp-9']), {
    code: 'REF_NOT_FOUND',
    says: /checkpoint cp-9 not found locally and pull failed: file:.+ has no cp-9/,
  });
  assertFails(t, await fresh.bento(['inspect', 'sha256:abcdef']), { code: 'REF_NOT_FOUND', says: /not found/ });
});

test('a store is a folder, named by its path or address; a registry in its place is the remote', async (t) => {
  const sandbox = newSandbox(t);
  await using registry = await OddRegistry.start();
  const remote = `${registry.host}/me/ws`;
  const made = await sandbox.bento(['init', '--store', `oci://${remote}`, '--json']);
  t.like(made.ok().json(), { store: sandbox.storePath, remote });
  const text = readFileSync(path.join(sandbox.workspace, 'bento.yaml'), 'utf8');
  t.true(text.includes(`store: ${sandbox.storePath}\n`) && text.includes(`remote: ${remote}\n`), text);
  writeFiles(sandbox.workspace, { a: 'a\n' });
  (await sandbox.bento(['save'])).ok();
  t.is(registry.log.count(), 0, 'a save stays here');
  (await sandbox.bento(['push'])).ok();

  const other = newSandbox(t);
  const written = `id: ${workspaceId(sandbox)}\nstore: docker://${remote}\n`;
  writeFileSync(path.join(other.workspace, 'bento.yaml'), written);
  t.regex((await other.bento(['pull'])).ok().stdout, /pulled cp-1/);
  t.is(await digestOfRef(other, 'cp-1'), headOf(sandbox.workspace));
  t.is(readFileSync(path.join(other.workspace, 'bento.yaml'), 'utf8'), written, 'as it was written');

  const third = newSandbox(t);
  const folder = third.path('a store');
  const address = `file://${folder.replace(' ', '%20')}`;
  const first = await third.bento(['init', '--store', address, '--json']);
  t.is(first.ok().json<{ store: string }>().store, folder);
  writeFileSync(path.join(third.workspace, 'bento.yaml'), `store: ${address}\n`);
  writeFiles(third.workspace, { a: 'a\n' });
  (await third.bento(['save'])).ok();
  t.true(existsSync(path.join(folder, 'blobs')));
  t.deepEqual(readdirSync(third.workspace).sort(), ['.bentoignore', 'a', 'bento.yaml']);
});

const NO_STORES = [
  's3://bucket/x',
  'oci:dir',
  'oci:///x',
  'oci-archive:x.tar',
  'file://host/x',
  'oci://ghcr.io/me/ws:v1',
  'oci://nohost/x',
  'docker:x',
  'file:///x:v1',
];

test('a store that cannot be one is refused in one line, and no folder of that name is made', async (t) => {
  const sandbox = newSandbox(t);
  for (const store of NO_STORES) {
    const refused = await sandbox.bento(['init', '--store', store]);
    assertFails(t, refused, { code: 'CONFIG_INVALID', says: /cannot be the store: /, hint: /oci:\/\/registry\/path/ });
    t.is(refused.stderr.trim().split('\n').length, 2, refused.stderr);
    writeFileSync(path.join(sandbox.workspace, 'bento.yaml'), `id: ws\nstore: ${store}\n`);
    assertFails(t, await sandbox.bento(['save']), { code: 'CONFIG_INVALID', says: /cannot be the store: / });
    writeFileSync(path.join(sandbox.workspace, 'bento.yaml'), '');
    (await sandbox.bento(['list'])).ok();
    t.deepEqual(readdirSync(sandbox.workspace), ['bento.yaml']);
    rmSync(path.join(sandbox.workspace, 'bento.yaml'));
  }
});

test('what is in no folder is not exported to, and a registry is imported from', async (t) => {
  await using registry = await OddRegistry.start();
  const remote = `${registry.host}/me/ws`;
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  writeFileSync(sandbox.path('note'), 'a note');
  (await sandbox.bento(['attach', 'cp-1', sandbox.path('note'), '--type', 'text/plain'])).ok();
  (await sandbox.bento(['push', `docker://${remote}`])).ok();
  assertFails(t, await sandbox.bento(['export', 'cp-1', `oci://${remote}:v1`]), {
    code: 'REF_INVALID',
    says: /is in a registry/,
    hint: /bento push/,
  });
  assertFails(t, await sandbox.bento(['export', 'cp-1', 's3://b/x']), {
    code: 'REF_INVALID',
    says: /bento knows no s3:/,
  });
  const other = newSandbox(t);
  mkdirSync(other.path('empty'));
  const imported = await other.bento(['import', `docker://${remote}:cp-1`, '--json'], { cwd: other.path('empty') });
  const [image] = imported.ok().json<{ images: { store: string; tag: string; digest: string }[] }>().images;
  t.like(image, { store: workspaceId(sandbox), tag: 'cp-1', digest: headOf(sandbox.workspace), attachmentCount: 1 });
  t.is((await other.bento(['attach', 'get', `${workspaceId(sandbox)}:cp-1`, 'note', '-o', '-'])).ok().stdout, 'a note');
  (await other.bento(['import', `docker://${remote}:cp-1`, '--name', 'theirs', '--tag', 'v1'])).ok();
  t.is(await digestOfRef(other, 'theirs:v1'), headOf(sandbox.workspace));
  writeFiles(sandbox.workspace, { more: 'more\n' });
  (await sandbox.bento(['save', '--tag', 'v2'])).ok();
  (await sandbox.bento(['push', '--tag', 'v2'])).ok();
  const taken = await other.bento(['import', `docker://${remote}:v2`, '--name', 'theirs', '--tag', 'v1']);
  assertFails(t, taken, { code: 'DIVERGED', says: /theirs:v1 is/, hint: /--force/ });
});
