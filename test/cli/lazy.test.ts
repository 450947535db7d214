import { readFileSync, statSync } from 'node:fs';
import { appendFile, mkdir, readFile, rename, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import type { ExecutionContext } from 'ava';

import { ERRORS } from '../../store/errors.ts';
import { assertFails, headOf, workspaceId } from '../fixtures/command-checks.ts';
import { daemonLog } from '../fixtures/daemon.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { WRITING_ENGINES } from '../fixtures/fork-engines.ts';
import { differences, LARGE_BYTES, lazyFiles, pushWorkspace, readPart } from '../fixtures/lazy-workspace.ts';
import type { Faults } from '../fixtures/registry/odd-faults.ts';
import { OddRegistry } from '../fixtures/registry/odd-registry.ts';
import { ShapedProxy } from '../fixtures/registry/shaped-proxy.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const test = testSerialNeeding({ fuse: true });

/** A machine that has nothing yet, with a directory to mount on. */
function another(t: ExecutionContext): { there: Sandbox; target: string } {
  const there = newSandbox(t);
  return { there, target: there.makeFolder('mnt') };
}

/** Until the daemon has fetched all there is. */
async function untilWhole(there: Sandbox): Promise<void> {
  while (lazyFiles(there).length > 0) await sleep(50);
}

test('mount --lazy=only fetches what is read, and it is what was saved', async (t) => {
  await using registry = await OddRegistry.start();
  const { remote, files, layer } = await pushWorkspace(t, registry.host);
  const { there, target } = another(t);
  registry.log.clear();
  (await there.bento(['mount', `${remote}:cp-1`, target, '--lazy=only'])).ok();
  t.true(registry.log.sentBytes() < layer.size / 10);
  const expected = files.get('large-b')?.subarray(4_000_000, 4_000_100);
  t.deepEqual(await readPart(path.join(target, 'large-b'), 4_000_000, 100), expected);
  t.deepEqual(await readFile(path.join(target, 'src/m7/f7')), files.get('src/m7/f7'));
  t.true(registry.log.sentBytes() < layer.size / 2);
  t.deepEqual(await differences(target, files), []);
  t.true(registry.log.sentBytes() < layer.size * 1.5);
  t.deepEqual(registry.defects, []);
});

test('of a layout folder, too, only what is read is taken; what is read is what was saved', async (t) => {
  const stick = newSandbox(t).makeFolder('stick');
  await mkdir(path.join(stick, 'me'));
  const { remote, files, layer } = await pushWorkspace(t, `file://${stick}`);
  const { there, target } = another(t);
  (await there.bento(['mount', `${remote}:cp-1`, target, '--lazy=only'])).ok();
  t.deepEqual(await readFile(path.join(target, 'src/m7/f7')), files.get('src/m7/f7'));
  const part = path.join(there.storePath, 'lazy/sha256', layer.digest.slice('sha256:'.length));
  t.true(statSync(part).blocks * 512 < layer.size / 2);
  t.deepEqual(await differences(target, files), []);
  (await there.bento(['verify'])).ok();
});

test('what nobody reads is fetched in the background; afterwards nobody asks the registry any more', async (t) => {
  await using registry = await OddRegistry.start();
  const { remote, files, layer } = await pushWorkspace(t, registry.host);
  const { there, target } = another(t);
  (await there.bento(['mount', `${remote}:cp-1`, target])).ok();
  await untilWhole(there);
  t.is(readFileSync(path.join(there.storePath, 'blobs/sha256', layer.digest.slice(7))).length, layer.size);
  registry.log.clear();
  t.deepEqual(await differences(target, files), []);
  t.is(registry.log.count(), 0);
  (await there.bento(['verify'])).ok();
});

test('a server that is killed while it fetches goes on where it was', async (t) => {
  await using registry = await OddRegistry.start();
  const { remote, files } = await pushWorkspace(t, registry.host);
  await using proxy = await ShapedProxy.start(registry.host, { downBytesPerSec: 4 << 20 });
  const { there, target } = another(t);
  (await there.bento(['mount', `${proxy.host}/${remote.split('/').slice(1).join('/')}:cp-1`, target])).ok();
  const { serverPid } = (await there.bento(['doctor', '--json'])).json<{ serverPid?: number }>();
  for (const pid of serverPid === undefined ? serversOf(there) : [serverPid]) process.kill(pid, 'SIGKILL');
  await untilWhole(there);
  t.deepEqual(await differences(target, files), []);
});

function serversOf(there: Sandbox): number[] {
  return there.processes().filter((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('server'));
}

test('a read waits for the network to come back; one that has no more time fails, and the next one succeeds', async (t) => {
  await using registry = await OddRegistry.start();
  const { remote, files } = await pushWorkspace(t, registry.host);
  await using proxy = await ShapedProxy.start(registry.host);
  const ref = `${proxy.host}/${remote.split('/').slice(1).join('/')}:cp-1`;
  const patient = another(t);
  const hasty = another(t);
  (await patient.there.bento(['mount', ref, patient.target, '--lazy=only'])).ok();
  const env = { BENTO_SLOW_DEADLINE_MS: '1500' };
  (await hasty.there.bento(['mount', ref, hasty.target, '--lazy=only'], { env })).ok();
  await proxy.cut('refuse');
  const reading = readFile(path.join(patient.target, 'large-a'));
  await t.throwsAsync(readFile(path.join(hasty.target, 'large-a')), { code: 'EIO' });
  await proxy.heal();
  t.true((await reading).equals(files.get('large-a') ?? Buffer.alloc(0)));
  while ((await differences(hasty.target, files)).length > 0) await sleep(200); // between two tries the daemon pauses
  t.pass();
});

test('a read goes on after a network in which nothing moved, and is what was saved', async (t) => {
  await using registry = await OddRegistry.start();
  const { remote, files } = await pushWorkspace(t, registry.host);
  await using proxy = await ShapedProxy.start(registry.host, { downBytesPerSec: 8 << 20 });
  const { there, target } = another(t);
  (
    await there.bento(['mount', `${proxy.host}/${remote.split('/').slice(1).join('/')}:cp-1`, target, '--lazy=only'])
  ).ok();
  const startBytes = proxy.downBytes;
  const reading = readFile(path.join(target, 'large-a'));
  while (proxy.downBytes < startBytes + LARGE_BYTES / 4) await sleep(1);
  await proxy.cut('hang');
  const cutAtBytes = proxy.downBytes;
  await sleep(3000);
  t.true(proxy.downBytes < startBytes + LARGE_BYTES && proxy.downBytes - cutAtBytes < LARGE_BYTES / 4);
  await proxy.heal();
  t.true((await reading).equals(files.get('large-a') ?? Buffer.alloc(0)));
  t.deepEqual(await differences(target, files), []);
});

test('wrong bytes are fetched again, and never read; the log names the registry', async (t) => {
  await using registry = await OddRegistry.start();
  const { remote, files, layer } = await pushWorkspace(t, registry.host);
  const { there, target } = another(t);
  (await there.bento(['mount', `${remote}:cp-1`, target, '--lazy=only'])).ok();
  registry.faults.wrongBytes = { blob: layer.digest as `sha256:${string}` };
  await t.throwsAsync(readFile(path.join(target, 'large-a')), { code: 'EIO' });
  await t.throwsAsync(readFile(path.join(target, 'src/m3/f3')), { code: 'EIO' });
  t.true(daemonLog(there).includes(registry.host));
  registry.faults.wrongBytes = undefined;
  t.deepEqual(await differences(target, files), []);
});

const LIES: readonly [what: string, faults: Partial<Faults>][] = [
  ['shifted ranges', { ranges: 'shifted' }],
  ['mislabelled ranges', { ranges: 'mislabelled' }],
  ['short bodies', { bodies: 'short' }],
  ['endless bodies', { bodies: 'endless' }],
  ['redirects in a circle', { redirect: 'loop' }],
];
for (const [what, faults] of LIES) {
  test(`a registry with ${what} is named and refused, and nothing is kept`, async (t) => {
    await using registry = await OddRegistry.start();
    const { remote } = await pushWorkspace(t, registry.host);
    const { there, target } = another(t);
    Object.assign(registry.faults, faults);
    const result = await there.bento(['mount', `${remote}:cp-1`, target]);
    t.is(result.code, ERRORS.REMOTE_INVALID.exitCode);
    t.regex(result.stderr, new RegExp(`^Error: .*${registry.host}`, 'm'));
    t.deepEqual(lazyFiles(there), []);
    t.false(there.mounts().includes(target));
  });
}

test('a wrong table of contents is refused, and nothing is kept', async (t) => {
  await using registry = await OddRegistry.start();
  const { remote, layer } = await pushWorkspace(t, registry.host);
  const { there, target } = another(t);
  registry.faults.wrongBytes = { blob: layer.digest as `sha256:${string}` };
  const result = await there.bento(['mount', `${remote}:cp-1`, target]);
  assertFails(t, result, { code: 'REMOTE_INVALID', says: new RegExp(registry.host) });
  t.deepEqual(lazyFiles(there), []);
});

test('a table of contents that breaks off on its way is fetched again', async (t) => {
  await using registry = await OddRegistry.start();
  const { remote, files } = await pushWorkspace(t, registry.host);
  for (const afterBytes of [0, 1000, 70_000]) {
    const { there, target } = another(t);
    registry.faults.cutDownload = { afterBytes, times: 3 };
    (await there.bento(['mount', `${remote}:cp-1`, target])).ok();
    t.is(registry.faults.cutDownload.times, 0);
    t.deepEqual(await differences(target, files), []);
  }
});

test('a registry that knows no ranges sends the whole layer, once', async (t) => {
  await using registry = await OddRegistry.start({ faults: { ranges: 'ignored' } });
  const { remote, files, layer } = await pushWorkspace(t, registry.host);
  const { there, target } = another(t);
  registry.log.clear();
  (await there.bento(['mount', `${remote}:cp-1`, target])).ok();
  t.deepEqual(await differences(target, files), []);
  t.true(registry.log.sentBytes({ path: new RegExp(layer.digest) }) < layer.size * 2.5);
});

for (const engine of WRITING_ENGINES) {
  test(`a fork (${engine}) of what is in a registry is written, saved and pushed`, async (t) => {
    await using registry = await OddRegistry.start();
    const { here, remote, files } = await pushWorkspace(t, registry.host);
    const there = newSandbox(t);
    const target = there.path('fork');
    (await there.bento(['fork', `${remote}:cp-1`, target, '--lazy=only', '--engine', engine])).ok();
    const changed = new Map(files);
    const edit = (name: string, content: Buffer): unknown => changed.set(name, content);
    await appendFile(path.join(target, 'large-a'), 'more');
    edit('large-a', Buffer.concat([files.get('large-a') ?? Buffer.alloc(0), Buffer.from('more')]));
    await truncate(path.join(target, 'large-b'), LARGE_BYTES - 1_000_001);
    edit('large-b', files.get('large-b')?.subarray(0, LARGE_BYTES - 1_000_001) ?? Buffer.alloc(0));
    await appendFile(path.join(target, 'src/m1/f1'), 'more');
    edit('src/m1/f1', Buffer.concat([files.get('src/m1/f1') ?? Buffer.alloc(0), Buffer.from('more')]));
    await rename(path.join(target, 'src/m2'), path.join(target, 'src/moved'));
    for (const [name, content] of files) {
      if (!name.startsWith('src/m2/')) continue;
      changed.delete(name);
      edit(name.replace('src/m2/', 'src/moved/'), content);
    }
    t.deepEqual(await differences(target, changed), []);
    const run = { cwd: target };
    (await there.bento(['save', '-m', 'second'], run)).ok();
    (await there.bento(['push', remote], run)).ok();
    const opened = here.path('second');
    (await here.bento(['open', `${remote}@${headOf(target)}`, opened, '--copy'], { cwd: here.home })).ok();
    t.deepEqual(await differences(opened, changed), []);
  });
}

test('a save with one changed file in a fork of a registry’s checkpoint sends next to nothing', async (t) => {
  await using registry = await OddRegistry.start();
  const { remote } = await pushWorkspace(t, registry.host);
  const there = newSandbox(t);
  const target = there.path('fork');
  (await there.bento(['fork', `${remote}:cp-1`, target, '--lazy=only'])).ok();
  await writeFile(path.join(target, 'src/m1/f1'), 'changed\n');
  (await there.bento(['save'], { cwd: target })).ok();
  registry.log.clear();
  const pushed = (await there.bento(['push', remote, '--json'], { cwd: target })).ok();
  t.regex(pushed.stdout, /cp-2/);
  t.true(registry.log.receivedBytes() < 128 << 10);
  registry.log.clear();
  (await there.bento(['push', remote], { cwd: target })).ok();
  t.is(registry.log.receivedBytes({ path: /blobs/ }), 0);
});

test('what is here in parts is pushed to another repository of its registry without being fetched or sent', async (t) => {
  await using registry = await OddRegistry.start();
  const { remote, layer } = await pushWorkspace(t, registry.host);
  const there = newSandbox(t);
  const target = there.path('fork');
  (await there.bento(['fork', `${remote}:cp-1`, target, '--lazy=only'])).ok();
  const config = path.join(target, 'bento.yaml');
  await writeFile(config, (await readFile(config, 'utf8')).replace(/^remote: .*\n/m, ''));
  await writeFile(path.join(target, 'src/m1/f1'), 'changed\n');
  (await there.bento(['save'], { cwd: target })).ok();
  registry.log.clear();
  (await there.bento(['push', `${registry.host}/me/copy`], { cwd: target })).ok();
  t.is(registry.log.sentBytes({ path: new RegExp(layer.digest) }), 0);
  t.true(registry.log.receivedBytes() < 128 << 10);
  t.true(lazyFiles(there).length > 0);
});

test('a partly fetched checkpoint is pushed to another registry, which gets all of it', async (t) => {
  await using registry = await OddRegistry.start();
  await using other = await OddRegistry.start();
  const { here, remote, files } = await pushWorkspace(t, registry.host);
  const there = newSandbox(t);
  const target = there.path('fork');
  (await there.bento(['fork', `${remote}:cp-1`, target, '--lazy=only'])).ok();
  await writeFile(path.join(target, 'src/m1/f1'), 'changed\n');
  (await there.bento(['save'], { cwd: target })).ok();
  t.not(lazyFiles(there).length, 0);
  const pushed = (await there.bento(['push', `${other.host}/me/ws`, '--tag', 'cp-2'], { cwd: target })).ok();
  t.false(pushed.stderr.includes('trying again'), pushed.stderr);
  const opened = here.path('elsewhere');
  (await here.bento(['open', `${other.host}/me/ws:cp-2`, opened, '--copy'], { cwd: here.home })).ok();
  t.deepEqual(await differences(opened, new Map([...files, ['src/m1/f1', Buffer.from('changed\n')]])), []);
});

test('commands that need all of a checkpoint fetch the rest of it', async (t) => {
  await using registry = await OddRegistry.start();
  const { remote, files, here } = await pushWorkspace(t, registry.host);
  const { there, target } = another(t);
  (await there.bento(['mount', `${remote}:cp-1`, target, '--lazy=only'])).ok();
  t.not(lazyFiles(there).length, 0);
  t.regex((await there.bento(['mounts'])).ok().stdout, /\(.* of .* fetched\)/);
  t.regex((await there.bento(['verify'])).ok().stdout, /partly in a registry/);
  await writeFile(path.join(here.workspace, 'src/m1/f1'), 'changed\n');
  (await here.bento(['save'])).ok();
  (await here.bento(['push', remote])).ok();
  const patch = (await there.bento(['diff', '--patch', `${remote}:cp-1`, `${remote}:cp-2`])).ok();
  t.regex(patch.stdout, /\+changed/);
  t.deepEqual(lazyFiles(there), []);
  const copied = there.path('copied');
  (await there.bento(['open', `${remote}:cp-1`, copied, '--copy'])).ok();
  t.deepEqual(await differences(copied, files), []);
});

test('a pull makes whole what was read in parts, and fetches the rest only', async (t) => {
  await using registry = await OddRegistry.start();
  const { remote, files, layer } = await pushWorkspace(t, registry.host);
  const { there, target } = another(t);
  (await there.bento(['mount', `${remote}:cp-1`, target, '--lazy=only'])).ok();
  await readFile(path.join(target, 'large-a'));
  registry.log.clear();
  (await there.bento(['init'])).ok();
  (await there.bento(['pull', remote])).ok();
  t.true(registry.log.sentBytes({ path: /blobs/ }) < layer.size * 0.7);
  t.deepEqual(lazyFiles(there), []);
  t.deepEqual(await differences(target, files), []);
});

test('gc keeps what is mounted in parts, and takes away what no checkpoint needs', async (t) => {
  await using registry = await OddRegistry.start();
  const { remote, files } = await pushWorkspace(t, registry.host);
  const { there, target } = another(t);
  (await there.bento(['mount', `${remote}:cp-1`, target, '--lazy=only'])).ok();
  (await there.bento(['init'])).ok();
  (await there.bento(['gc'])).ok();
  t.deepEqual(await differences(target, files), []);
  const { storePath } = there;
  const dead = path.join(storePath, 'lazy/sha256', '0'.repeat(64));
  for (const suffix of ['', '.map', '.json']) await writeFile(`${dead}${suffix}`, '');
  const kept = lazyFiles(there).filter((name) => !name.startsWith('0000'));
  (await there.bento(['gc'])).ok();
  t.deepEqual(lazyFiles(there), kept);
  t.deepEqual(await differences(target, files), []);
});

test('a checkpoint that is here in parts is mounted again without the registry, and what is here can be read', async (t) => {
  const registry = await OddRegistry.start();
  const { here, remote, files } = await pushWorkspace(t, registry.host);
  const { there, target } = another(t);
  const env = { BENTO_SLOW_DEADLINE_MS: '1000' };
  (await there.bento(['mount', `${remote}:cp-1`, target, '--lazy=only'], { env })).ok();
  t.deepEqual(await readFile(path.join(target, 'src/m0/f0')), files.get('src/m0/f0'));
  (await there.bento(['unmount', target])).ok();
  await registry.stop();
  const tag = `remote-${headOf(here.workspace).slice(7, 19)}`;
  (await there.bento(['mount', `${workspaceId(here)}:${tag}`, target, '--lazy=only'], { env })).ok();
  t.deepEqual(await readFile(path.join(target, 'src/m0/f0')), files.get('src/m0/f0'));
  await t.throwsAsync(readFile(path.join(target, 'large-b')), { code: 'EIO' });
});
