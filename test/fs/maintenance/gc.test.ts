import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { collectGarbage, type GcOptions, type GcResult } from '../../../fs/maintenance/gc.ts';
import type { RetentionPolicy } from '../../../fs/maintenance/retention.ts';
import { verifyStore } from '../../../fs/maintenance/verify.ts';
import { openInPlace } from '../../../fs/workspace/open.ts';
import { readHeadRecords, removeHeadRecord } from '../../../fs/workspace/heads.ts';
import { saveWorkspace } from '../../../fs/workspace/save.ts';
import { openCheckpoint, type Workspace } from '../../../fs/workspace/workspace.ts';
import { shareBlobs } from '../../../store/blob-lock.ts';
import { hexOf, type Digest } from '../../../store/digest.ts';
import { storeCheckpoint } from '../../../store/checkpoint.ts';
import { headOf, newFolder, newSource, newWorkspace, reopenWorkspace } from '../../fixtures/workspaces.ts';

const SECOND = new Date('2026-03-10T12:00:00Z');
const DAY_MS = 86_400_000;
const KEEP_ONE: RetentionPolicy = { keepLast: 1, keepTagged: false };

async function collect(workspace: Workspace, options: Partial<GcOptions> = {}): Promise<GcResult> {
  return await collectGarbage(workspace.source, {
    workspaceId: workspace.id,
    policy: { keepTagged: false },
    dryRun: false,
    dropDamaged: false,
    ...options,
  });
}

/** Saves `count` different states, all in the same second. @returns their digests */
async function saveTimes(workspace: Workspace, count: number): Promise<Digest[]> {
  const digests: Digest[] = [];
  for (let i = 0; i < count; i++) {
    writeFileSync(join(workspace.dir, 'file'), `${workspace.dir} ${i} ${Math.random()}`);
    digests.push((await saveWorkspace(workspace, { now: SECOND })).digest as Digest);
  }
  return digests;
}

async function tagsOf(workspace: Workspace): Promise<string[]> {
  return [...(await workspace.layout.tags()).keys()];
}

async function assertWhole(t: ExecutionContext, { source, dir, id }: Workspace): Promise<void> {
  const { damages } = await verifyStore(source.store, { dir, workspaceId: id, isQuick: false, isRepair: false });
  t.deepEqual(damages, []);
}

function blobNames({ source }: Workspace): string[] {
  return readdirSync(source.store.blobs.dir).sort();
}

// D7: the original kept the oldest checkpoint of the second and deleted `latest`.
test('collectGarbage() keeps the newest of checkpoints of the same second, and latest', async (t) => {
  const workspace = await newWorkspace(t);
  const digests = await saveTimes(workspace, 4);
  const { deleted } = await collect(workspace, { policy: KEEP_ONE });
  t.deepEqual(
    deleted.map(({ digest }) => digest),
    digests.slice(0, 3).reverse(),
  );
  t.deepEqual(await tagsOf(workspace), ['cp-4', 'latest']);
  await assertWhole(t, workspace);
});

test('collectGarbage() keeps what latest names whatever the policy says', async (t) => {
  const workspace = await newWorkspace(t);
  const [first] = await saveTimes(workspace, 3);
  const size = (await workspace.source.store.blobs.sizeOf(first as Digest)) ?? 0;
  await workspace.layout.setTags(['latest'], { digest: first as Digest, size });
  await collect(workspace, { policy: KEEP_ONE });
  t.deepEqual(await tagsOf(workspace), ['cp-1', 'cp-3', 'latest']);
});

// D8: the original knew no heads, so that after an undo and a gc the head dangled.
test('collectGarbage() keeps the heads of all directories of all workspaces of the store', async (t) => {
  const source = await newSource(t);
  const [a, b] = [await newWorkspace(t, { source, id: 'ws-a' }), await newWorkspace(t, { source, id: 'ws-a' })];
  const other = await newWorkspace(t, { source, id: 'ws-b' });
  await saveTimes(a, 2); // cp-1, cp-2
  await saveTimes(other, 3);
  await saveTimes(b, 1); // cp-3
  await saveTimes(a, 1); // cp-4
  const { deleted } = await collect(a, { policy: KEEP_ONE });
  t.deepEqual(
    deleted.map(({ sequence }) => sequence),
    [2, 1],
  );
  t.deepEqual(await tagsOf(a), ['cp-3', 'cp-4', 'latest']);
  t.deepEqual(await tagsOf(other), ['cp-1', 'cp-2', 'cp-3', 'latest'], 'the policy is about one workspace');
  await assertWhole(t, a);
});

test('collectGarbage() keeps a head that no tag names any more', async (t) => {
  const workspace = await newWorkspace(t);
  const [first] = await saveTimes(workspace, 2);
  const opened = await openCheckpoint(workspace.source, first as Digest);
  await openInPlace(workspace, opened, { includes: undefined, label: 'cp-1', backup: false, isUndo: false });
  await workspace.layout.removeEntries(({ digest }) => digest === first);
  t.deepEqual((await collect(workspace)).blobs, []);
  t.truthy(await openCheckpoint(workspace.source, first as Digest));
});

test('collectGarbage() keeps the undo slot of every directory, and undoing works after it', async (t) => {
  const source = await newSource(t);
  const dirs = [await newWorkspace(t, { source, id: 'ws-a' }), await newWorkspace(t, { source, id: 'ws-a' })];
  for (const workspace of dirs) {
    const [first] = await saveTimes(workspace, 2);
    writeFileSync(join(workspace.dir, 'unsaved'), workspace.dir);
    const opened = await openCheckpoint(source, first as Digest);
    await openInPlace(workspace, opened, { includes: undefined, label: 'it', backup: true, isUndo: false });
  }
  const [a] = dirs as [Workspace];
  await collect(a, { policy: KEEP_ONE });
  const undo = (await tagsOf(a)).filter((tag) => tag.startsWith('pre-open-'));
  t.is(undo.length, 2);
  for (const tag of undo) {
    const digest = (await a.layout.tags()).get(tag)?.digest as Digest;
    t.truthy((await openCheckpoint(source, digest)).tree.find('unsaved'));
  }
  await assertWhole(t, a);
});

test('collectGarbage() keeps the head of a directory that is gone for 30 days, counted from the first look', async (t) => {
  const source = await newSource(t);
  const [here, away] = [await newWorkspace(t, { source, id: 'ws-a' }), await newWorkspace(t, { source, id: 'ws-a' })];
  const [head] = await saveTimes(away, 1); // cp-1
  await saveTimes(here, 1); // cp-2
  renameSync(away.dir, `${away.dir}-moved`);
  const at = (days: number): Partial<GcOptions> => ({
    policy: KEEP_ONE,
    now: new Date(SECOND.getTime() + days * DAY_MS),
  });
  t.deepEqual((await collect(here, at(100))).deleted, [], 'however long ago it was saved');
  t.deepEqual((await collect(here, at(129))).deleted, []);
  t.deepEqual((await collect(here, { ...at(131), dryRun: true })).forgottenDirs, [away.dir]);
  renameSync(`${away.dir}-moved`, away.dir);
  t.deepEqual((await collect(here, at(131))).deleted, [], 'it is back');
  renameSync(away.dir, `${away.dir}-moved`);
  t.deepEqual((await collect(here, at(140))).deleted, [], 'the count begins anew');
  const { deleted, forgottenDirs } = await collect(here, at(171));
  t.deepEqual([deleted.map(({ digest }) => digest), forgottenDirs], [[head], [away.dir]]);
  await assertWhole(t, here);
});

// Directories of the original, and of bento before it took notes
test('collectGarbage() keeps the head of the directory that asks, noted or not, and notes it', async (t) => {
  const workspace = await newWorkspace(t);
  const [first] = await saveTimes(workspace, 2);
  rmSync(join(workspace.layout.dir, 'heads'), { recursive: true });
  const here = { dir: workspace.dir, head: first as Digest };
  t.deepEqual((await collect(workspace, { policy: KEEP_ONE, here, dryRun: true })).deleted, []);
  t.deepEqual(await readHeadRecords(workspace.layout), []);
  t.deepEqual((await collect(workspace, { policy: KEEP_ONE, here })).deleted, []);
  t.deepEqual(await readHeadRecords(workspace.layout), [here]);
});

test('collectGarbage() with dryRun touches nothing, and says exactly what the next run does', async (t) => {
  const workspace = await newWorkspace(t);
  await saveTimes(workspace, 3);
  const before = [blobNames(workspace), await tagsOf(workspace)];
  const planned = await collect(workspace, { policy: KEEP_ONE, dryRun: true });
  t.deepEqual([blobNames(workspace), await tagsOf(workspace)], before);
  const done = await collect(workspace, { policy: KEEP_ONE });
  t.deepEqual({ ...done, dryRun: true }, planned);
  t.is(done.deleted.length, 2);
  const left = new Set(blobNames(workspace));
  t.true(done.blobs.every(({ digest }) => !left.has(digest.slice('sha256:'.length))));
  t.is((before[0]?.length ?? 0) - done.blobs.length, left.size);
});

test('collectGarbage() forgets layers in the index, and one that comes back is indexed anew', async (t) => {
  const workspace = await newWorkspace(t);
  const { db } = workspace.source.index;
  const count = (table: string): number => (db.prepare(`SELECT count(*) AS n FROM ${table}`).get() as { n: number }).n;
  const counts = (): number[] => ['layers', 'trees', 'entries'].map(count);
  const save = async (content: string): Promise<void> => {
    writeFileSync(join(workspace.dir, 'file'), content);
    utimesSync(join(workspace.dir, 'file'), SECOND, SECOND);
    await saveWorkspace(workspace, { now: SECOND });
  };
  await save('first');
  await save('second');
  const full = counts();
  const { deleted } = await collect(workspace, { policy: KEEP_ONE });
  t.is(deleted.length, 1);
  t.deepEqual(counts().slice(0, 1), full.slice(0, 1), 'its layers are below those of cp-2');
  t.true(count('trees') < (full[1] ?? 0));
  await workspace.layout.removeEntries(() => true);
  rmSync(join(workspace.dir, 'bento.yaml'));
  rmSync(join(workspace.layout.dir, 'heads'), { recursive: true });
  await collect(workspace);
  t.deepEqual([...counts(), count('chunks')], [0, 0, 0, 0]);
  t.deepEqual(blobNames(workspace), []);
  const again = await newWorkspace(t, { source: workspace.source, id: 'ws-again' });
  writeFileSync(join(again.dir, 'file'), 'first');
  await saveWorkspace(again, { now: SECOND });
  await assertWhole(t, again);
});

test('collectGarbage() removes what killed commands left, and leaves alone what may be somebody else’s', async (t) => {
  const workspace = await newWorkspace(t);
  const { store } = workspace.source;
  await saveTimes(workspace, 1);
  const live = (await headOf(workspace)).checkpoint.layers[0]?.descriptor.digest as Digest;
  const old = new Date(Date.now() - 2 * DAY_MS);
  const make = (path: string, isOld = false): string => {
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, 'x');
    if (isOld) utimesSync(path, old, old);
    return path;
  };
  const gone = [
    make(join(store.blobs.dir, '.tmp-1-a')),
    make(join(workspace.layout.ingestDir, '.tmp-2-b')),
    make(join(workspace.layout.ingestDir, 'sha256_other-program'), true),
    make(join(workspace.layout.dir, '.tmp-3-c')),
    make(join(store.cacheDir, 'resume', 'sha256', 'a'.repeat(64))),
    make(join(store.cacheDir, 'resume', 'sha256', '.tmp-4-d'), true),
    dirname(dirname(make(join(store.cacheDir, 'unpacked', 'sha256', 'a'.repeat(64))))),
    make(join(store.cacheDir, 'first-reads', 'a'.repeat(64))),
    make(join(store.cacheDir, 'first-reads', '.tmp-6-f'), true),
  ];
  const kept = [
    make(join(store.cacheDir, 'first-reads', hexOf(live))),
    make(join(store.cacheDir, 'first-reads', '.tmp-7-g')),
    make(join(store.cacheDir, 'resume', 'sha256', '.tmp-5-e')),
    make(join(workspace.layout.ingestDir, 'sha256_being-written')),
    make(join(store.blobs.dir, 'README'), true),
    make(join(store.root, 'forks', 'f2', 'upper', 'work-of-a-person')),
  ];
  const emptyFork = join(store.root, 'forks', 'f1');
  make(join(emptyFork, 'upper', 'bento.yaml'));
  const { leftovers, orphanForks } = await collect(workspace);
  t.deepEqual(leftovers.map(({ path }) => path).sort(), [...gone, emptyFork].sort());
  t.deepEqual([...gone, emptyFork].filter(existsSync), []);
  t.deepEqual(
    kept.filter((path) => !existsSync(path)),
    [],
  );
  t.deepEqual(orphanForks, [join(store.root, 'forks', 'f2')]);
});

test('collectGarbage() waits for those who share the blobs, and says so', async (t) => {
  const workspace = await newWorkspace(t);
  await saveTimes(workspace, 2);
  const lock = await shareBlobs(workspace.source.store.root);
  const order: string[] = [];
  const waited = new Promise<void>((resolve) => {
    void collect(workspace, { policy: KEEP_ONE, onWait: () => resolve() }).then(() => order.push('gc'));
  });
  await waited;
  t.is((await tagsOf(workspace)).length, 3, 'nothing went while the lock was held');
  order.push('released');
  lock.release();
  await collect(workspace);
  t.deepEqual(order, ['released', 'gc']);
});

test('collectGarbage() of a store that is not there does nothing, and makes none', async (t) => {
  const workspace = await newWorkspace(t);
  rmSync(workspace.source.store.root, { recursive: true });
  t.deepEqual((await collect(workspace)).blobs, []);
  t.false(existsSync(workspace.source.store.root));
});

test('collectGarbage() takes any digest in a bento.yaml for a head, even where the file is not valid', async (t) => {
  const source = await newSource(t);
  const [here, broken] = [await newWorkspace(t, { source, id: 'ws-a' }), await newWorkspace(t, { source, id: 'ws-a' })];
  const [first] = await saveTimes(broken, 2);
  await saveTimes(here, 1);
  writeFileSync(join(broken.dir, 'bento.yaml'), `head: ${first}\n  : [not yaml`);
  await collect(here, { policy: KEEP_ONE });
  t.deepEqual(await tagsOf(here), ['cp-1', 'cp-2', 'cp-3', 'latest']);
});

test('collectGarbage() keeps a blob that no manifest names while a recipe takes bytes from it', async (t) => {
  const workspace = await newWorkspace(t);
  const { blobs } = workspace.source.store;
  const large = randomBytes(3 << 20);
  writeFileSync(join(workspace.dir, 'large'), large);
  await saveWorkspace(workspace);
  large.fill('changed', 2_000_000, 2_000_500);
  writeFileSync(join(workspace.dir, 'large'), large);
  await saveWorkspace(workspace);
  const { checkpoint } = await headOf(workspace);
  const [base, delta] = checkpoint.layers.slice(-2).map(({ descriptor }) => descriptor.digest) as [Digest, Digest];
  t.deepEqual(await blobs.basesOf(delta), [base]);
  const layers = checkpoint.layers.filter(({ descriptor }) => descriptor.digest !== base);
  const alone = await storeCheckpoint(blobs, { layers, meta: checkpoint.meta, parent: undefined });
  await workspace.layout.setTags(['alone', 'latest'], alone);
  rmSync(workspace.dir, { recursive: true });
  await removeHeadRecord(workspace.layout, workspace.dir);
  const leftover = join(blobs.thinDir, '.tmp-1-a');
  writeFileSync(leftover, 'cut off');
  const { leftovers } = await collect(workspace, { policy: { keepLast: 1, keepTagged: true } });
  t.deepEqual(
    leftovers.map(({ path }) => path),
    [leftover],
  );
  t.deepEqual(
    (await blobs.list()).filter((digest) => digest === base || digest === delta),
    [base, delta].sort(),
  );
  t.deepEqual((await workspace.layout.tags()).get('cp-1'), undefined);
  await assertWhole(t, workspace);
});

test('a workspace that is opened again finds everything after a collection', async (t) => {
  const workspace = await newWorkspace(t);
  await saveTimes(workspace, 3);
  await collect(workspace, { policy: KEEP_ONE });
  const again = await reopenWorkspace(t, workspace.source, { dir: workspace.dir });
  t.false((await saveWorkspace(again)).saved);
  writeFileSync(join(again.dir, 'more'), newFolder(t));
  t.is((await saveWorkspace(again)).sequence, 4);
  await assertWhole(t, again);
});
