import { setTimeout as sleep } from 'node:timers/promises';

import type { ExecutionContext } from 'ava';

import { indexToc } from '../../fs/tree/index-checkpoint.ts';
import { digestOf, type Digest } from '../../store/digest.ts';
import { daemonLog } from '../fixtures/daemon.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { entry } from '../fixtures/layers.ts';
import { differences, lazyFiles, pushWorkspace, type PushedWorkspace } from '../fixtures/lazy-workspace.ts';
import { OddRegistry } from '../fixtures/registry/odd-registry.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';
import { newSource } from '../fixtures/workspaces.ts';

const test = testSerialNeeding({ fuse: true });
const REPOSITORY = 'me/ws';

/** A checkpoint, and a registry with another one that says that its layer is that of the first. */
async function withForged(
  t: ExecutionContext,
  run: (checkpoints: { good: PushedWorkspace; bad: PushedWorkspace }) => Promise<void>,
): Promise<void> {
  await using goodRegistry = await OddRegistry.start();
  await using badRegistry = await OddRegistry.start();
  const good = await pushWorkspace(t, goodRegistry.host);
  const bad = await pushWorkspace(t, badRegistry.host);
  const [own, other] = [bad.layer.digest as Digest, good.layer.digest as Digest];
  const { storage } = badRegistry;
  const bytes = storage.blob(REPOSITORY, own);
  const manifest = storage.manifest(REPOSITORY, 'cp-1');
  if (bytes === undefined || manifest === undefined) throw new Error('nothing was pushed');
  storage.forgeBlob(REPOSITORY, other, bytes);
  const forged = Buffer.from(manifest.bytes.toString().replaceAll(own, other));
  storage.putManifest(REPOSITORY, 'cp-1', { ...manifest, bytes: forged });
  await run({ good, bad });
}

/** The tables of contents by which the index knows layers that are not here; null for each layer that is. */
async function claims(t: ExecutionContext, { storePath }: Sandbox): Promise<unknown[]> {
  const { index } = await newSource(t, storePath);
  return index.db.prepare('SELECT claimed_toc FROM layers WHERE entry_count > 100').pluck().all();
}

for (const lazy of ['only', 'rest']) {
  test(`what a stranger’s manifest says of a layer is not believed for another checkpoint (--lazy=${lazy})`, async (t) => {
    await withForged(t, async ({ good, bad }) => {
      const there = newSandbox(t);
      const target = there.makeFolder('mnt');
      (await there.bento(['mount', `${bad.remote}:cp-1`, target, `--lazy=${lazy}`])).ok();
      if (lazy === 'only') t.deepEqual(await differences(target, bad.files), []);
      else while (!/sent other bytes/.test(daemonLog(there))) await sleep(50); // it comes out that it is another layer
      (await there.bento(['unmount', target])).ok();
      (await there.bento(['mount', `${good.remote}:cp-1`, target, `--lazy=${lazy}`])).ok();
      t.deepEqual(await differences(target, good.files), []);
    });
  });
}

test('of a layer that is here as a whole nothing else is believed', async (t) => {
  await withForged(t, async ({ good, bad }) => {
    const there = newSandbox(t);
    const target = there.makeFolder('mnt');
    (await there.bento(['mount', `${good.remote}:cp-1`, target, '--lazy=off'])).ok();
    t.deepEqual(await claims(t, there), [null]);
    (await there.bento(['unmount', target])).ok();
    (await there.bento(['mount', `${bad.remote}:cp-1`, target, '--lazy=only'])).ok();
    t.deepEqual(await differences(target, good.files), []);
  });
});

test('a layer that was read in parts is believed when all of it is here', async (t) => {
  await using registry = await OddRegistry.start();
  const { remote, files } = await pushWorkspace(t, registry.host);
  const there = newSandbox(t);
  const target = there.makeFolder('mnt');
  (await there.bento(['mount', `${remote}:cp-1`, target])).ok();
  t.regex(String(await claims(t, there)), /^sha256:/);
  while (lazyFiles(there).length > 0) await sleep(50);
  (await there.bento(['unmount', target])).ok();
  (await there.bento(['mount', `${remote}:cp-1`, target])).ok();
  t.deepEqual(await claims(t, there), [null]);
  t.deepEqual(await differences(target, files), []);
});

test('indexToc() takes another table of contents of a layer only when nothing of it is here', async (t) => {
  const source = await newSource(t);
  const layer = digestOf('layer');
  const tocOf = (name: string, isNew: boolean): Parameters<typeof indexToc>[2] => ({
    tocDigest: digestOf(name),
    isNew,
    read: () => ({ entries: [entry({ path: name, type: 'file' })], opaqueDirs: [] }),
  });
  const names = (): unknown[] => source.index.db.prepare("SELECT name FROM entries WHERE name <> ''").pluck().all();
  t.true(indexToc(source, layer, tocOf('a', true)));
  t.true(indexToc(source, layer, tocOf('a', false)));
  t.false(indexToc(source, layer, tocOf('b', false)));
  t.deepEqual(names(), ['a']);
  t.true(indexToc(source, layer, tocOf('b', true)));
  t.deepEqual(names(), ['b']);
});
