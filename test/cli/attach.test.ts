import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { digestOf } from '../../store/digest.ts';
import { MEDIA_TYPES } from '../../store/manifest.ts';
import {
  assertFails,
  blobPath,
  headOf,
  saveSmallWorkspace,
  workspaceId,
  writeFiles,
} from '../fixtures/command-checks.ts';
import { testNeeding } from '../fixtures/external-tools.ts';
import { startDebianRegistry } from '../fixtures/registry/debian-registry.ts';
import { OddRegistry } from '../fixtures/registry/odd-registry.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

interface Referrer {
  type: string;
  artifactType: string;
  title: string | null;
  sizeBytes: number;
  digest: string;
  subject: string;
  created: string;
}

async function savedSandbox(t: ExecutionContext): Promise<Sandbox> {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  return sandbox;
}

/** A file outside of the workspace. */
function fileOf(sandbox: Sandbox, name: string, content: string): string {
  writeFiles(sandbox.path('files'), { [name]: content });
  return sandbox.path('files', name);
}

async function referrersOf(sandbox: Sandbox, ref: string): Promise<Referrer[]> {
  const result = (await sandbox.bento(['inspect', '--referrers', ref, '--json'])).ok();
  return result.json<{ referrers: Referrer[] }>().referrers;
}

test('attach, inspect --referrers, attach get and attach rm, as people use them', async (t) => {
  const sandbox = await savedSandbox(t);
  const bento = async (...args: string[]): Promise<string> => (await sandbox.bento(args)).ok().stdout;
  const file = fileOf(sandbox, 'results.json', '{"passed":7}');
  t.regex(
    await bento('attach', 'cp-1', file, '--type', 'test-results'),
    /^Attached results\.json \(test-results, 12B, sha256:[0-9a-f]{12}\.\.\.\) to cp-1\n$/,
  );
  t.regex(await bento('attach', 'latest', file, '-t', 'test-results'), /is attached to latest already\n$/);
  const fromStdin = await sandbox.bento(['attach', 'head', '-', '--type', 'text/plain', '--name', 'notes'], {
    input: 'a note',
  });
  t.regex(fromStdin.ok().stdout, /^Attached notes \(text\/plain, 6B/);
  const [first, second] = await referrersOf(sandbox, 'cp-1');
  t.like(first, {
    type: 'test-results',
    artifactType: 'application/vnd.bento.attachment.test-results.v1+json',
    title: 'results.json',
    sizeBytes: 12,
    subject: headOf(sandbox.workspace),
  });
  t.regex(first?.created ?? '', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  t.like(second, { type: 'text/plain', title: 'notes' });
  const shown = await bento('inspect', '--referrers');
  t.regex(
    shown,
    /^TYPE +TITLE +SIZE +DIGEST +CREATED\ntest-results +results\.json +12B sha256:\w{12}\.\.\. \S+Z\ntext\/plain +notes/m,
  );

  t.is(await bento('attach', 'get', 'cp-1', 'notes', '-o', '-'), 'a note');
  t.is(await bento('attach', 'get', 'cp-1', (first?.digest ?? '').slice(0, 15), '-o', '-'), '{"passed":7}');
  t.is(
    await bento('attach', 'get', 'cp-1', '--type', 'test-results', '-o', sandbox.path('files/copy')),
    `Wrote ${sandbox.path('files/copy')} (12B)\n`,
  );
  t.is(readFileSync(sandbox.path('files/copy'), 'utf8'), '{"passed":7}');
  t.is(await bento('attach', 'get', 'cp-1', 'notes'), `Wrote ${path.join(sandbox.workspace, 'notes')} (6B)\n`);
  rmSync(path.join(sandbox.workspace, 'notes'));
  t.regex(await bento('attach', 'rm', 'cp-1', 'notes'), /^Took notes \(sha256:\w{12}\.\.\.\) away from cp-1\n$/);
  t.is((await referrersOf(sandbox, 'cp-1')).length, 1);
  t.regex(await bento('gc'), /^Pruned 2 blob\(s\)/);
  t.true((await bento('verify')).endsWith('no damage found.\n'));
  t.is((await bento('list')).split('\n').length, 3, 'an attachment is no checkpoint');
  t.regex(await bento('inspect', '--referrers', 'undo', '--dir', sandbox.workspace).catch(String), /nothing to undo/);
});

test('attachments follow their checkpoint when the directory goes on and comes back', async (t) => {
  const sandbox = await savedSandbox(t);
  (await sandbox.bento(['attach', 'cp-1', fileOf(sandbox, 'a.log', 'log'), '--type', 'log'])).ok();
  writeFiles(sandbox.workspace, { 'src/main.js': 'changed\n' });
  (await sandbox.bento(['save'])).ok();
  t.deepEqual(await referrersOf(sandbox, 'head'), []);
  t.is((await sandbox.bento(['inspect', '--referrers'])).ok().stdout.split('\n').at(-2), 'Nothing is attached to it.');
  (await sandbox.bento(['open', 'cp-1'])).ok();
  t.is((await referrersOf(sandbox, 'head')).length, 1);
  (await sandbox.bento(['gc', '--keep-last', '1'])).ok();
  t.is((await referrersOf(sandbox, 'head')).length, 1, 'the head keeps its checkpoint, which keeps them');
  const elsewhere = sandbox.makeFolder('elsewhere');
  const id = workspaceId(sandbox);
  const other = await sandbox.bento(['inspect', '--referrers', `${id}:cp-1`, '--json'], { cwd: elsewhere });
  t.is(other.ok().json<{ referrers: unknown[] }>().referrers.length, 1);
});

test('a file that is there stays, unless --force says so', async (t) => {
  const sandbox = await savedSandbox(t);
  (await sandbox.bento(['attach', 'cp-1', fileOf(sandbox, 'note', 'new'), '--type', 'text/plain'])).ok();
  const target = sandbox.path('files/there');
  writeFileSync(target, 'old');
  const get = async (...args: string[]) => await sandbox.bento(['attach', 'get', 'cp-1', ...args]);
  assertFails(t, await get('-o', target), {
    code: 'TARGET_NOT_EMPTY',
    says: /there is there already/,
    hint: /--force/,
  });
  t.is(readFileSync(target, 'utf8'), 'old');
  symlinkSync(target, sandbox.path('files/link'));
  assertFails(t, await get('-o', sandbox.path('files/link')), { code: 'TARGET_NOT_EMPTY', says: /link is there/ });
  (await get('-o', sandbox.path('files/link'), '--force')).ok();
  t.deepEqual([readFileSync(target, 'utf8'), readFileSync(sandbox.path('files/link'), 'utf8')], ['old', 'new']);
  t.true(lstatSync(sandbox.path('files/link')).isFile(), 'the link itself was replaced');
  mkdirSync(sandbox.path('files/folder'));
  (await get('-o', sandbox.path('files/folder'))).ok();
  t.is(readFileSync(sandbox.path('files/folder/note'), 'utf8'), 'new');
  assertFails(t, await get('-o', sandbox.path('none/x')), { code: 'TARGET_INVALID', says: /no folder .*none/ });
  assertFails(t, await get('-o', sandbox.path('none/')), { code: 'TARGET_INVALID', says: /no folder .*none/ });
  t.regex((await get('-o', '-', '--json')).stderr, /"code":"USAGE","message":"-o - and --json both want stdout"/);
  t.deepEqual(
    readdirSync(sandbox.path('files')).filter((name) => name.startsWith('.tmp-')),
    [],
  );
});

test('attach refuses what it cannot attach, in one line', async (t) => {
  const sandbox = await savedSandbox(t);
  const file = fileOf(sandbox, 'a', 'a');
  const attach = async (...args: string[]) => await sandbox.bento(['attach', ...args]);
  assertFails(t, await attach('cp-1', file), { code: 'USAGE', says: /needs --type/, hint: /media type/ });
  assertFails(t, await attach('cp-1', file, '--type', 'nonsense'), {
    code: 'USAGE',
    says: /"nonsense"/,
    hint: /test-results/,
  });
  assertFails(t, await attach('cp-1', sandbox.path('none'), '--type', 'log'), {
    code: 'REF_NOT_FOUND',
    says: /no file .*none/,
  });
  assertFails(t, await attach('cp-1', sandbox.path('files'), '--type', 'log'), {
    code: 'TARGET_INVALID',
    says: /is a folder/,
  });
  assertFails(t, await attach('cp-1', '-', '--type', 'log'), {
    code: 'USAGE',
    says: /stdin has no name/,
    hint: /--name/,
  });
  assertFails(t, await attach('cp-1', file, '--type', 'log', '--name', '../x'), {
    code: 'USAGE',
    says: /"\.\.\/x"/,
    hint: /--name/,
  });
  assertFails(t, await attach('cp-9', file, '--type', 'log'), { code: 'REF_NOT_FOUND', says: /cp-9/ });
  assertFails(t, await attach(digestOf('none'), file, '--type', 'log'), { code: 'REF_NOT_FOUND', says: /sha256:/ });
  const large = sandbox.path('files/large');
  execFileSync('truncate', ['-s', '1073741825', large]);
  assertFails(t, await attach('cp-1', large, '--type', 'log'), {
    code: 'TARGET_INVALID',
    says: /larger than 1024 MiB/,
  });
  t.deepEqual(await referrersOf(sandbox, 'cp-1'), []);
  (await attach('cp-1', file, '--type', 'log')).ok();
  const [{ digest } = { digest: '' }] = await referrersOf(sandbox, 'cp-1');
  assertFails(t, await attach(digest, file, '--type', 'log'), {
    code: 'FORMAT_UNSUPPORTED',
    says: /is attached to a checkpoint/,
  });
  for (const args of [
    ['open', digest, 'x'],
    ['tag', digest, 'x'],
    ['mount', digest, sandbox.makeFolder('mounted')],
    ['fork', digest, sandbox.path('fork')],
    ['exec', digest, '--', 'true'],
    ['export', digest, sandbox.path('exported')],
    ['diff', digest, 'cp-1'],
    ['inspect', digest],
  ])
    assertFails(t, await sandbox.bento(args), { code: 'FORMAT_UNSUPPORTED', says: /is attached to a checkpoint/ });
});

test('which attachment is meant has to be clear', async (t) => {
  const sandbox = await savedSandbox(t);
  const get = async (...args: string[]) => await sandbox.bento(['attach', 'get', 'cp-1', '-o', '-', ...args]);
  assertFails(t, await get(), { code: 'REF_NOT_FOUND', says: /cp-1 has no attachment/, hint: /bento attach/ });
  for (const [name, content] of [
    ['one', '1'],
    ['two', '2'],
  ] as const)
    (await sandbox.bento(['attach', 'cp-1', fileOf(sandbox, name, content), '--type', 'log'])).ok();
  assertFails(t, await get(), {
    code: 'REF_INVALID',
    says: /2 attachments of cp-1 fit: .*(one|two) \(sha256:/,
    hint: /digest/,
  });
  assertFails(t, await get('--type', 'log'), { code: 'REF_INVALID', says: /2 attachments/ });
  assertFails(t, await get('three'), { code: 'REF_NOT_FOUND', says: /"three"/, hint: /lists the 2 there are/ });
  assertFails(t, await get('one', '--type', 'diff'), { code: 'REF_NOT_FOUND', says: /"one" of type diff/ });
  t.is((await get('two', '--type', 'log')).ok().stdout, '2');
  t.is((await get(digestOf('1'))).ok().stdout, '1');
  assertFails(t, await sandbox.bento(['attach', 'rm', 'cp-1']), { code: 'REF_INVALID', says: /2 attachments/ });
  t.is((await referrersOf(sandbox, 'cp-1')).length, 2);
});

test('a damaged attachment is not written, and not printed either', async (t) => {
  const sandbox = await savedSandbox(t);
  (await sandbox.bento(['attach', 'cp-1', fileOf(sandbox, 'note', 'right'), '--type', 'text/plain'])).ok();
  const blob = blobPath(sandbox, digestOf('right'));
  rmSync(blob);
  writeFileSync(blob, 'wrong');
  const target = sandbox.path('files/got');
  for (const output of ['-', target]) {
    const result = await sandbox.bento(['attach', 'get', 'cp-1', '-o', output]);
    assertFails(t, result, { code: 'DIGEST_MISMATCH', says: /integrity/ });
  }
  t.false(existsSync(target));
  t.deepEqual(readdirSync(sandbox.path('files')), ['note']);
});

/** Somebody else's attachment, straight into a registry: what a client of ours would never make. */
function putHostile(registry: OddRegistry, subject: string, title: string): void {
  const blob = registry.storage.putBlob('me/ws', Buffer.from('hostile'));
  const config = registry.storage.putBlob('me/ws', Buffer.from('{}'));
  const stored = registry.storage.manifest('me/ws', subject);
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      artifactType: 'application/x-\u001b[31mred',
      config: { mediaType: 'application/vnd.oci.empty.v1+json', digest: config, size: 2 },
      layers: [{ mediaType: 'x/y', digest: blob, size: 7, annotations: { 'org.opencontainers.image.title': title } }],
      subject: { mediaType: stored?.mediaType, digest: subject, size: stored?.bytes.length },
    }),
  );
  registry.storage.putManifest('me/ws', undefined, { mediaType: 'application/vnd.oci.image.manifest.v1+json', bytes });
}

test('a title of a registry is no name for a file here unless it is a plain one', async (t) => {
  await using registry = await OddRegistry.start();
  const remote = `${registry.host}/me/ws`;
  const sandbox = await savedSandbox(t);
  (await sandbox.bento(['push', remote])).ok();
  const titles = ['../../escaped', sandbox.path('escaped'), '.bashrc', '-rf', 'a\u001b[2Jb', '..'];
  for (const title of titles) putHostile(registry, headOf(sandbox.workspace), title);
  t.regex((await sandbox.bento(['pull', remote])).ok().stdout, /pulled 6 attachment\(s\)/);
  t.false((await sandbox.bento(['inspect', '--referrers'])).ok().stdout.includes('\u001b'));
  const folder = sandbox.makeFolder('a/b');
  for (const { digest, title } of await referrersOf(sandbox, 'cp-1')) {
    t.true(titles.includes(title ?? ''));
    const [ref, output] = title?.startsWith('.') === true ? [`${remote}:cp-1`, folder] : ['cp-1', `${folder}/`];
    const result = await sandbox.bento(['attach', 'get', '-o', output, ref, digest]);
    assertFails(t, result, { code: 'TARGET_INVALID', says: /no name for a file here/, hint: /-o <file>/ });
    (await sandbox.bento(['attach', 'get', 'cp-1', digest, '-o', sandbox.path('files'), '--force'])).ok();
    t.is(readFileSync(sandbox.path('files'), 'utf8'), 'hostile');
  }
  t.deepEqual([readdirSync(folder), existsSync(sandbox.path('escaped'))], [[], false]);
});

/** Both ways in which registries keep what refers to a manifest. */
const REGISTRIES = {
  'without the referrers API': async (t: ExecutionContext): Promise<string> => {
    const registry = await startDebianRegistry();
    t.teardown(async () => await registry.stop());
    return registry.host;
  },
  'that is a folder': async (t: ExecutionContext): Promise<string> => {
    const stick = newSandbox(t).makeFolder('stick');
    mkdirSync(path.join(stick, 'me'));
    return await Promise.resolve(`file://${stick}`);
  },
  'with the referrers API': async (t: ExecutionContext): Promise<string> => {
    const registry = await OddRegistry.start({ faults: { pageSize: 1 } });
    t.teardown(async () => await registry.stop());
    return registry.host;
  },
};

for (const [what, start] of Object.entries(REGISTRIES)) {
  const needs = what.startsWith('without') ? { tools: ['docker-registry'] } : {};
  testNeeding(needs)(`attachments go to a registry ${what} and come back on another machine`, async (t) => {
    const remote = `${await start(t)}/me/ws`;
    const sandbox = await savedSandbox(t);
    (await sandbox.bento(['push', remote])).ok();
    for (const [name, content] of [
      ['one', '1'],
      ['empty', ''],
    ] as const)
      (await sandbox.bento(['attach', 'cp-1', fileOf(sandbox, name, content), '--type', 'log'])).ok();
    t.regex(
      (await sandbox.bento(['push'])).ok().stdout,
      / {2}unchanged cp-1 .*\n {2}unchanged latest .*\n {2}pushed 2 attachment\(s\)\n/,
    );
    t.notRegex((await sandbox.bento(['push'])).ok().stdout, /attachment/);

    const other = newSandbox(t);
    (await other.bento(['init', '--id', workspaceId(sandbox)])).ok();
    const there = await referrersOf(other, `${remote}:cp-1`);
    t.deepEqual(there.map(({ title }) => title).sort(), ['empty', 'one']);
    t.is((await other.bento(['attach', 'get', `${remote}:cp-1`, 'one', '-o', '-'])).ok().stdout, '1');
    t.false(existsSync(path.join(other.storePath, 'blobs')), 'nothing else was fetched');
    t.regex((await other.bento(['pull', remote])).ok().stdout, /pulled latest\n {2}pulled 2 attachment\(s\)\n/);
    t.deepEqual(
      (await referrersOf(other, 'cp-1')).map(({ digest }) => digest).sort(),
      there.map(({ digest }) => digest).sort(),
    );
    t.is((await other.bento(['attach', 'get', 'cp-1', 'empty', '-o', '-'])).ok().stdout, '');
    t.true((await other.bento(['verify'])).ok().stdout.endsWith('no damage found.\n'));

    const attached = await other.bento(['attach', `${remote}:latest`, '-', '-t', 'usage', '--name', 'usage.json'], {
      input: '{}',
    });
    t.regex(attached.ok().stdout, new RegExp(`^Attached usage\\.json .* to ${remote}:latest\n$`));
    const again = await other.bento(['attach', `${remote}:latest`, fileOf(other, 'usage.json', '{}'), '-t', 'usage']);
    t.regex(again.ok().stdout, /already\n$/);
    t.regex((await sandbox.bento(['pull'])).ok().stdout, /pulled 1 attachment\(s\)/);
    t.deepEqual((await referrersOf(sandbox, 'cp-1')).map(({ title }) => title).sort(), ['empty', 'one', 'usage.json']);
    (await other.bento(['attach', 'rm', `${remote}:cp-1`, 'usage.json'])).ok();
    t.deepEqual((await referrersOf(other, `${remote}:cp-1`)).map(({ title }) => title).sort(), ['empty', 'one']);
    assertFails(t, await other.bento(['inspect', '--referrers', `${remote}:cp-7`]), {
      code: 'REMOTE_NOT_FOUND',
      says: /there is no .*:cp-7/,
    });
  });
}

test('a registry that does not delete says so when an attachment is to be taken away', async (t) => {
  await using registry = await OddRegistry.start();
  const remote = `${registry.host}/me/ws`;
  const sandbox = await savedSandbox(t);
  (await sandbox.bento(['attach', 'cp-1', fileOf(sandbox, 'note', 'x'), '--type', 'log'])).ok();
  (await sandbox.bento(['push', remote])).ok();
  registry.faults.burst = { status: 405, times: 1, method: 'DELETE' };
  assertFails(t, await sandbox.bento(['attach', 'rm', `${remote}:cp-1`]), { code: 'REMOTE_REFUSED', says: /deleting/ });
  t.is((await referrersOf(sandbox, `${remote}:cp-1`)).length, 1);
});

test('of a list of images, the one for a platform is imported with what is attached to it', async (t) => {
  const sandbox = await savedSandbox(t);
  (await sandbox.bento(['attach', 'cp-1', fileOf(sandbox, 'note', 'a note'), '--type', 'text/plain'])).ok();
  const layout = sandbox.path('layout');
  (await sandbox.bento(['export', 'cp-1', layout])).ok();
  const file = path.join(layout, 'index.json');
  const index = JSON.parse(readFileSync(file, 'utf8')) as { manifests: Record<string, unknown>[] };
  const [image = {}, ...attached] = index.manifests;
  const { mediaType, digest, size, annotations } = image;
  const platform = { os: 'linux', architecture: 's390x' };
  const list = JSON.stringify({ schemaVersion: 2, manifests: [{ mediaType, digest, size, platform }] });
  const listDigest = digestOf(list);
  writeFileSync(path.join(layout, 'blobs/sha256', listDigest.slice('sha256:'.length)), list);
  const listed = { mediaType: MEDIA_TYPES.index, digest: listDigest, size: list.length, annotations };
  writeFileSync(file, JSON.stringify({ ...index, manifests: [listed, ...attached] }));
  const other = newSandbox(t);
  const taken = await other.bento(['import', layout, '--platform', 'linux/s390x']);
  t.regex(taken.ok().stdout, /:cp-1 .*, 1 attachment\(s\), /);
  const ref = `${workspaceId(sandbox)}:cp-1`;
  t.is((await other.bento(['attach', 'get', ref, 'note', '-o', '-'])).ok().stdout, 'a note');
  const both = await other.bento(['inspect', '--referrers', '--platform', 'linux/s390x', `oci:${layout}:cp-1`]);
  assertFails(t, both, { code: 'USAGE', says: /exactly what is named/, hint: /digest/ });
});

test('attachments are exported and imported with their checkpoint', async (t) => {
  const sandbox = await savedSandbox(t);
  (await sandbox.bento(['attach', 'cp-1', fileOf(sandbox, 'note', 'a note'), '--type', 'text/plain'])).ok();
  for (const target of ['layout', 'archive.tar']) {
    const flags = target === 'layout' ? [] : ['--attachments'];
    const exported = (await sandbox.bento(['export', 'cp-1', sandbox.path(target), ...flags])).ok().stdout;
    t.regex(exported, /^Exported cp-1 with 1 attachment\(s\) to /);
    if (target === 'layout') (await sandbox.bento(['export', 'cp-1', sandbox.path(target)])).ok(); // lists nothing twice
    const other = newSandbox(t);
    (await other.bento(['init', '--id', workspaceId(sandbox)])).ok();
    t.regex((await other.bento(['import', sandbox.path(target)])).ok().stdout, /3 layer\(s\), 1 attachment\(s\), /);
    t.is((await other.bento(['attach', 'get', 'cp-1', 'note', '-o', '-'])).ok().stdout, 'a note');
    t.true((await other.bento(['verify'])).ok().stdout.endsWith('no damage found.\n'));
  }
  const index = JSON.parse(readFileSync(sandbox.path('layout/index.json'), 'utf8')) as { manifests: unknown[] };
  t.is(index.manifests.length, 2);
  const plain = (await sandbox.bento(['export', 'cp-1', sandbox.path('plain'), '--no-attachments'])).ok().stdout;
  t.regex(plain, /^Exported cp-1 to /);
  const archive = (await sandbox.bento(['export', 'cp-1', sandbox.path('plain.tar')])).ok();
  t.regex(archive.stdout, /^Exported cp-1 to /);
  t.regex(archive.stderr, /note: 1 attachment\(s\) stay out of the archive: --attachments takes them along/);
});
