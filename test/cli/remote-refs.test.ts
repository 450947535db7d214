import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import test from 'ava';

import {
  assertFails,
  headOf,
  makeSmallWorkspace,
  saveSmallWorkspace,
  workspaceId,
} from '../fixtures/command-checks.ts';
import { testNeeding } from '../fixtures/external-tools.ts';
import type { Faults } from '../fixtures/registry/odd-faults.ts';
import { OddRegistry } from '../fixtures/registry/odd-registry.ts';
import { startDebianRegistry } from '../fixtures/registry/debian-registry.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const testWithRegistry = testNeeding({ tools: ['docker-registry'] });

testWithRegistry('a checkpoint of a registry is opened, inspected and compared where it never was', async (t) => {
  await using registry = await startDebianRegistry();
  const remote = `${registry.host}/me/ws`;
  const here = newSandbox(t);
  await saveSmallWorkspace(here);
  (await here.bento(['push', remote])).ok();
  const there = newSandbox(t);
  const target = path.join(there.workspace, 'opened');
  mkdirSync(there.workspace, { recursive: true });
  (await there.bento(['open', `${remote}:cp-1`, target, '--copy'])).ok();
  t.deepEqual(readFileSync(path.join(target, 'src/main.js')), readFileSync(path.join(here.workspace, 'src/main.js')));
  t.is(headOf(target), headOf(here.workspace));
  const digest = headOf(here.workspace);
  t.is((await there.bento(['inspect', `${remote}@${digest}`, '--json'])).json<{ digest: string }>().digest, digest);
  const compared = (await there.bento(['diff', `${remote}:cp-1`, `${remote}:latest`])).ok().stdout;
  t.regex(compared, /No changes between checkpoints/);
  assertFails(t, await there.bento(['open', `${remote}:cp-9`, path.join(there.workspace, 'x')]), {
    code: 'REMOTE_NOT_FOUND',
    says: /has no cp-9/,
  });
});

/** Workspaces of a store that list a checkpoint. */
function listed({ storePath }: Sandbox): string[] {
  const names = existsSync(storePath) ? readdirSync(storePath) : [];
  return names.filter((name) => existsSync(path.join(storePath, name, 'index.json')));
}

const LIES: readonly [what: string, faults: Partial<Faults>][] = [
  ['wrong bytes', { wrongBytes: { blob: 0 } }],
  ['bodies without an end', { bodies: 'endless' }],
  ['redirects in a circle', { redirect: 'loop' }],
];
for (const [what, faults] of LIES) {
  test(`a registry with ${what} is named and refused, and no checkpoint is listed`, async (t) => {
    await using registry = await OddRegistry.start();
    const remote = `${registry.host}/me/ws`;
    const here = newSandbox(t);
    await saveSmallWorkspace(here);
    (await here.bento(['push', remote])).ok();
    t.is(listed(here).length, 1);
    Object.assign(registry.faults, faults);
    const there = newSandbox(t);
    const target = path.join(there.home, 'opened');
    const result = await there.bento(['open', `${remote}:cp-1`, target], { cwd: there.home });
    assertFails(t, result, { code: 'REMOTE_INVALID', says: new RegExp(registry.host) });
    t.false(existsSync(target));
    t.deepEqual(listed(there), []);
  });
}

test('a download that is cut in the middle goes on, and is whole', async (t) => {
  await using registry = await OddRegistry.start();
  const remote = `${registry.host}/me/ws`;
  const here = newSandbox(t);
  makeSmallWorkspace(here.workspace);
  writeFileSync(path.join(here.workspace, 'large'), randomBytes(3_000_000));
  (await here.bento(['init'])).ok();
  (await here.bento(['save'])).ok();
  (await here.bento(['push', remote])).ok();
  registry.faults.cutDownload = { afterBytes: 1_000_000, times: 1 };
  const there = newSandbox(t);
  const target = path.join(there.home, 'opened');
  (await there.bento(['open', `${remote}:cp-1`, target, '--copy'], { cwd: there.home })).ok();
  t.deepEqual(readFileSync(path.join(target, 'large')), readFileSync(path.join(here.workspace, 'large')));
  t.is(registry.faults.cutDownload.times, 0);
});

test('a workspace that is opened or forked from a registry is pushed to where it came from', async (t) => {
  await using registry = await OddRegistry.start();
  const [first, second] = [`${registry.host}/me/first`, `${registry.host}/me/second`];
  const here = newSandbox(t);
  await saveSmallWorkspace(here);
  (await here.bento(['push', first])).ok();
  writeFileSync(path.join(here.workspace, 'more'), 'more');
  (await here.bento(['save'])).ok(); // its checkpoint says that its remote is the first
  (await here.bento(['push', second])).ok();
  const there = newSandbox(t);
  const opened = there.path('opened');
  (await there.bento(['open', `${second}:cp-2`, opened, '--copy'], { cwd: there.home })).ok();
  const forked = there.path('forked');
  (await there.bento(['fork', `${second}:cp-2`, forked, '--engine', 'copy'], { cwd: there.home })).ok();
  for (const dir of [opened, forked])
    t.regex(readFileSync(path.join(dir, 'bento.yaml'), 'utf8'), new RegExp(`^remote: ${second}$`, 'm'));
  writeFileSync(path.join(opened, 'theirs'), 'theirs');
  (await there.bento(['save'], { cwd: opened })).ok();
  t.regex((await there.bento(['push'], { cwd: opened })).ok().stdout, new RegExp(`^Pushing to ${second}`));
  t.is((await here.bento(['inspect', `${second}:cp-3`, '--json'])).json<{ digest: string }>().digest, headOf(opened));
  const local = there.path('local');
  (await there.bento(['open', `${workspaceId(here)}:cp-3`, local, '--copy'], { cwd: there.home })).ok();
  t.regex(readFileSync(path.join(local, 'bento.yaml'), 'utf8'), new RegExp(`^remote: ${second}$`, 'm'));
});

test('what the remote has is not sent to another repository of its registry, unless the registry cannot mount', async (t) => {
  await using registry = await OddRegistry.start();
  const here = newSandbox(t);
  await saveSmallWorkspace(here);
  const push = async (...args: string[]): Promise<{ sentCount: number; thereCount: number }> =>
    (await here.bento(['push', ...args, '--json'])).ok().json();
  const { sentCount } = await push(`${registry.host}/me/first`);
  t.true(sentCount > 0);
  registry.log.clear();
  t.like(await push(`${registry.host}/me/second`), { sentCount: 0, sentBytes: 0, thereCount: sentCount });
  t.is(registry.log.receivedBytes({ path: /blobs/ }), 0);
  registry.faults.mounts = false;
  t.like(await push(`${registry.host}/me/third`), { sentCount, thereCount: 0 });
  t.deepEqual(registry.defects, []);
});
