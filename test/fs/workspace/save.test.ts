import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { linkSync, lstatSync, mkdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

import test from 'ava';

import { storeFirstReads } from '../../../fs/contents/first-reads.ts';
import { diffTrees } from '../../../fs/tree/diff-trees.ts';
import { openTree } from '../../../fs/tree/index-checkpoint.ts';
import { updateConfig } from '../../../fs/workspace/config-file.ts';
import { loadConfig } from '../../../fs/workspace/config.ts';
import type { LayerRule } from '../../../fs/workspace/patterns.ts';
import { saveWorkspace } from '../../../fs/workspace/save.ts';
import { reportTitles } from '../../../fs/workspace/title-report.ts';
import { walkTree } from '../../../fs/tree/tree.ts';
import type { CheckpointNode } from '../../../fs/tree/checkpoint-tree.ts';
import { openCheckpoint, type Workspace } from '../../../fs/workspace/workspace.ts';
import { storeCheckpoint } from '../../../store/checkpoint.ts';
import type { Digest } from '../../../store/digest.ts';
import { KEYS } from '../../../store/manifest.ts';
import { mkfifo } from '../../../store/syscalls.ts';
import { changeDirectory } from '../../fixtures/random-directory.ts';
import { Random } from '../../fixtures/random.ts';
import { compareFacts, factsOfCheckpoint, factsOnDisk, withoutDirTimes } from '../../fixtures/tree-facts.ts';
import { headOf, newSource, newWorkspace } from '../../fixtures/workspaces.ts';

/** Names that the random directories use, in rules that scatter one directory over several titles. */
const SCATTERED: LayerRule[][] = [
  [
    { name: 'deps', patterns: ['**/node_modules/**'], catchAll: false },
    { name: 'agent', patterns: ['*.md', 'b/a/**'], catchAll: false },
    { name: 'project', patterns: ['**'], catchAll: true },
  ],
  [
    { name: 'deps', patterns: ['**/node_modules/**', '!**/node_modules/a'], catchAll: false },
    { name: 'agent', patterns: ['a/**'], catchAll: false },
    { name: 'project', patterns: ['**'], catchAll: true },
  ],
  [
    { name: 'project', patterns: ['b'], catchAll: true },
    { name: 'deps', patterns: ['a', '*.md'], catchAll: false },
    { name: 'extra', patterns: ['node_modules'], catchAll: false },
  ],
];

const STEPS = Number(process.env['BENTO_RANDOM_STEPS'] ?? 60);
const SEEDS = (process.env['BENTO_RANDOM_SEEDS'] ?? '1,2,3,4').split(',').map(Number);

for (const seed of SEEDS) {
  test(`saveWorkspace() after every random change shows exactly the directory, whatever layer a path is in (seed ${seed})`, async (t) => {
    const random = new Random(seed);
    const workspace = await newWorkspace(t, { rules: SCATTERED[0] ?? [] });
    for (let step = 1; step <= STEPS; step += 1) {
      changeDirectory(workspace.dir, random);
      if (random.chance(0.3)) await pretendReads(workspace, random);
      if (random.chance(0.1)) workspace.setup.rules = random.pick(SCATTERED); // as when somebody edits `layers:`
      const wanted = factsOnDisk(workspace.dir);
      const { saved } = await saveWorkspace(workspace, { flat: random.chance(0.15) }); // written anew, by copying
      const differences = await compareHead(workspace, wanted, saved);
      if (differences.length > 0) return t.fail(`step ${step}:\n${differences.join('\n')}`);
      const counts = await compareFileCounts(workspace);
      if (counts.length > 0) return t.fail(`step ${step}: file counts\n${counts.join('\n')}`);
      const again = await saveWorkspace(workspace);
      if (again.saved)
        return t.fail(`step ${step}: saving again is not "no changes": ${await changesSince(workspace)}`);
    }
    const { checkpoint } = await headOf(workspace);
    const rebuilt = await openCheckpoint(await newSource(t, workspace.source.store.root), checkpoint.digest);
    const { tree } = await headOf(workspace);
    t.deepEqual([...walkTree(rebuilt.tree)].map(shownNode), [...walkTree(tree)].map(shownNode), 'from the blobs alone');
  });
}

/** As if some files of the head had been read while it was mounted. */
async function pretendReads({ config, source }: Workspace, random: Random): Promise<void> {
  if (config.head === undefined) return;
  const { checkpoint } = await openCheckpoint(source, config.head as Digest);
  for (const { descriptor } of checkpoint.layers) {
    const positions = Array.from({ length: random.below(20) }, () => 2 + random.below(40));
    storeFirstReads(source.store.cacheDir, descriptor.digest, positions);
  }
}

/** Ids come from the index, which has other numbers when it is made anew. */
function shownNode([path, node]: [string, CheckpointNode]): unknown[] {
  const { id: _id, parts: _parts, identity: _identity, linkKey, ...shared } = node;
  return [path, { ...shared, hasLinks: linkKey !== undefined }];
}

/** What the annotations count and what is there, title by title. */
async function compareFileCounts(workspace: Workspace): Promise<string[]> {
  const { checkpoint, tree } = await headOf(workspace);
  const shown = new Map<string, number>();
  for (const [, node] of walkTree(tree)) {
    if (node.type === 'dir') continue;
    const title = checkpoint.layers[node.depth]?.title ?? '';
    shown.set(title, (shown.get(title) ?? 0) + 1);
  }
  return reportTitles(checkpoint.layers, [])
    .filter(({ title, fileCount }) => fileCount !== (shown.get(title) ?? 0))
    .map(({ title, fileCount }) => `${title}: ${fileCount} counted, ${shown.get(title) ?? 0} there`);
}

/** A save that was not made leaves at most the times of directories behind. */
async function compareHead(
  workspace: Workspace,
  wanted: ReturnType<typeof factsOnDisk>,
  saved: boolean,
): Promise<string[]> {
  const { tree } = await headOf(workspace);
  const shown = factsOfCheckpoint(tree, workspace.reader, workspace.dir);
  return saved ? compareFacts(wanted, shown) : compareFacts(withoutDirTimes(wanted), withoutDirTimes(shown));
}

async function changesSince(workspace: Workspace): Promise<string> {
  const { checkpoint, tree } = await headOf(workspace);
  const before = await workspace.source.store.loadCheckpoint(checkpoint.parent ?? checkpoint.digest);
  const changes = diffTrees(await openTree(workspace.source, before), tree, { sameContent: () => true });
  return changes.map(({ path, kind, differences }) => `${path} ${kind} ${differences.join('+')}`).join(', ');
}

/** The names of the files a checkpoint holds under each title. */
async function filesByTitle(workspace: Workspace): Promise<Record<string, string[]>> {
  const { checkpoint, tree } = await headOf(workspace);
  const files: Record<string, string[]> = {};
  for (const [path, node] of walkTree(tree)) {
    if (node.type !== 'dir') (files[checkpoint.layers[node.depth]?.title ?? ''] ??= []).push(path);
  }
  return files;
}

function write(workspace: Workspace, path: string, content: string | Buffer = path): string {
  const absolute = join(workspace.dir, path);
  mkdirSync(join(absolute, '..'), { recursive: true });
  writeFileSync(absolute, content);
  return absolute;
}

test('saveWorkspace() saves the removal of every file of one layer (weakness D15)', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'node_modules/a.js');
  write(workspace, 'main.ts');
  await saveWorkspace(workspace);
  rmSync(join(workspace.dir, 'node_modules'), { recursive: true });
  const { saved, titles } = await saveWorkspace(workspace);
  t.true(saved);
  t.deepEqual(
    titles.map(({ title, fileCount }) => [title, fileCount]),
    [
      ['deps', 0],
      ['agent', 0],
      ['project', 1],
    ],
  );
  t.deepEqual(await filesByTitle(workspace), { project: ['main.ts'] });
});

test('saveWorkspace() stores what changed and moves head, cp-N and latest, and nothing when nothing did', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'node_modules/large.bin', randomBytes(1_000_000));
  write(workspace, 'main.ts', 'one');
  const first = await saveWorkspace(workspace, { message: 'first', now: new Date('2026-01-02T03:04:05.678Z') });
  write(workspace, 'main.ts', 'two');
  const second = await saveWorkspace(workspace);
  t.deepEqual(
    [first.tags, second.tags],
    [
      ['cp-1', 'latest'],
      ['cp-2', 'latest'],
    ],
  );
  t.true(first.addedBytes > 1_000_000);
  t.true(second.addedBytes < 2000, `${second.addedBytes} bytes for one changed file`);
  const third = await saveWorkspace(workspace);
  t.false(third.saved);
  t.is(third.digest, second.digest);
  const { checkpoint } = await headOf(workspace);
  t.is(second.digest, checkpoint.digest);
  t.is(checkpoint.parent, first.digest);
  t.is((await loadConfig(workspace.dir)).config.head, second.digest);
  const loaded = await workspace.source.store.loadCheckpoint(first.digest as Digest);
  t.is(loaded.created, '2026-01-02T03:04:05Z');
  t.is(loaded.message, 'first');
});

test('saveWorkspace() with a tag of its own makes no cp-N, also when that tag is latest', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'a');
  t.deepEqual((await saveWorkspace(workspace, { tag: 'release' })).tags, ['release', 'latest']);
  write(workspace, 'b');
  t.deepEqual((await saveWorkspace(workspace, { tag: 'latest' })).tags, ['latest']);
  const listed = (await workspace.layout.manifests()).map(({ annotations }) => annotations?.[KEYS.refName]);
  t.deepEqual(listed.sort(), ['latest', 'release']);
});

test('saveWorkspace() of the same files by another workspace writes the same layers', async (t) => {
  const layers = [];
  for (const id of ['ws-one', 'ws-two']) {
    const workspace = await newWorkspace(t, { id });
    for (const path of ['src/b', 'src/a', 'node_modules/x/y', 'odd name']) utimesSync(write(workspace, path), 1, 1);
    for (const path of ['src', 'node_modules/x', 'node_modules', '.']) utimesSync(join(workspace.dir, path), 1, 1);
    await saveWorkspace(workspace);
    layers.push((await headOf(workspace)).checkpoint.layers.map(({ descriptor }) => descriptor.digest));
  }
  t.deepEqual(layers[0], layers[1]);
});

test('saveWorkspace() writes a tall stack anew as one layer a title', async (t) => {
  const workspace = await newWorkspace(t);
  const heights: number[] = [];
  for (let i = 0; i < 45; i += 1) {
    write(workspace, 'main.ts', String(i));
    await saveWorkspace(workspace);
    heights.push((await headOf(workspace)).checkpoint.layers.filter(({ title }) => title === 'project').length);
  }
  t.true(Math.max(...heights) <= 40);
  t.true(heights.lastIndexOf(1) > 1, heights.join(' '));
});

test('saveWorkspace() with `flat` writes what a first save would write, copying what the layers hold already', async (t) => {
  const workspace = await newWorkspace(t);
  const random = new Random(7);
  for (let i = 0; i < 60; i += 1) write(workspace, `node_modules/f${i % 7}/${i}`, random.bytes(random.below(9000)));
  write(workspace, 'large.bin', random.bytes(5 << 20));
  await saveWorkspace(workspace);
  for (const change of ['node_modules/f3/17', 'node_modules/f1/new', 'main.ts']) {
    write(workspace, change, change);
    await saveWorkspace(workspace);
  }
  rmSync(join(workspace.dir, 'node_modules/f5'), { recursive: true });
  write(workspace, 'agent.md', 'changed in this save');
  const before = factsOnDisk(workspace.dir);
  let removed = false;
  const { saved, unsteady } = await saveWorkspace(workspace, {
    flat: true,
    onEvent: () => {
      if (removed) return;
      removed = true;
      rmSync(join(workspace.dir, 'large.bin')); // it is not read any more: it is copied
    },
  });
  t.true(saved && removed);
  t.deepEqual(unsteady, []);
  const { checkpoint, tree } = await headOf(workspace);
  t.deepEqual(
    checkpoint.layers.map(({ title }) => title),
    ['deps', 'agent', 'project'],
  );
  t.deepEqual(compareFacts(before, factsOfCheckpoint(tree, workspace.reader, workspace.dir)), []);

  const deps = checkpoint.layers.find(({ title }) => title === 'deps')?.descriptor.digest;
  const fresh = await newWorkspace(t);
  execFileSync('cp', ['-a', join(workspace.dir, 'node_modules'), fresh.dir]);
  utimesSync(fresh.dir, lstatSync(workspace.dir).atime, new Date());
  await saveWorkspace(fresh);
  const freshDeps = (await headOf(fresh)).checkpoint.layers.find(({ title }) => title === 'deps')?.descriptor.digest;
  t.is(deps, freshDeps, 'byte for byte');
});

test('saveWorkspace() with `flat` puts no delta on a single layer', async (t) => {
  const workspace = await newWorkspace(t);
  for (const content of ['one', 'two']) {
    write(workspace, 'main.ts', content);
    const { titles } = await saveWorkspace(workspace, { flat: true });
    t.deepEqual(
      titles.map(({ layerCount }) => layerCount),
      [1, 1, 1],
    );
  }
});

test('saveWorkspace() with `flat` makes a checkpoint although nothing changed, and only once', async (t) => {
  const workspace = await newWorkspace(t);
  for (const content of ['1', '2']) {
    write(workspace, 'main.ts', content);
    await saveWorkspace(workspace);
  }
  t.true((await saveWorkspace(workspace, { flat: true })).saved);
  t.false((await saveWorkspace(workspace, { flat: true })).saved);
  const { checkpoint } = await headOf(workspace);
  t.is(checkpoint.layers.length, 3);
  t.is(checkpoint.sequence, 3);
});

test('saveWorkspace() writes a stack anew when what is out of date outweighs the rest, not for one large file', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'small', 'base');
  await saveWorkspace(workspace);
  for (const height of [2, 3, 4]) {
    write(workspace, 'large', randomBytes((32 + height) << 20)); // each heavier than the one before
    await saveWorkspace(workspace);
    t.is((await headOf(workspace)).checkpoint.layers.filter(({ title }) => title === 'project').length, height);
  }
  write(workspace, 'small', 'next');
  await saveWorkspace(workspace);
  const { checkpoint, tree } = await headOf(workspace);
  t.is(checkpoint.layers.filter(({ title }) => title === 'project').length, 1);
  t.deepEqual(compareFacts(factsOnDisk(workspace.dir), factsOfCheckpoint(tree, workspace.reader, workspace.dir)), []);
});

test('saveWorkspace() of workspaces at the same time loses none and uses no number twice (weakness D6)', async (t) => {
  const source = await newSource(t);
  const workspaces = await Promise.all([1, 2, 3, 4].map(async () => await newWorkspace(t, { source })));
  const saved = await Promise.all(
    workspaces.map(async (workspace, i) => {
      write(workspace, `file-${i}`);
      return await saveWorkspace(workspace);
    }),
  );
  t.deepEqual(saved.map(({ sequence }) => sequence).sort(), [1, 2, 3, 4]);
  const tags = await workspaces[0]?.layout.tags();
  for (const { digest, tags: own } of saved) t.is(tags?.get(own[0] ?? '')?.digest, digest);
});

test('saveWorkspace() records a fifo, leaves a socket out and says so (weakness U3)', async (t) => {
  const workspace = await newWorkspace(t);
  mkfifo(join(workspace.dir, 'queue'), 0o640);
  const server = createServer();
  t.teardown(() => server.close());
  server.listen(join(workspace.dir, 'agent.sock'));
  await once(server, 'listening');
  const { skipped } = await saveWorkspace(workspace);
  t.deepEqual(skipped, [{ path: 'agent.sock', reason: 'socket' }]);
  const { tree } = await headOf(workspace);
  t.is(tree.find('queue')?.type, 'fifo');
  t.is(tree.find('queue')?.mode, 0o640);
  t.is(tree.find('agent.sock'), undefined);
  t.false((await saveWorkspace(workspace)).saved);
});

test('saveWorkspace() beside a process that appends to a file saves a beginning of it (weakness U3)', async (t) => {
  const workspace = await newWorkspace(t);
  const log = write(workspace, 'growing', 'x');
  const writer = spawn('sh', ['-c', 'while printf xxxxxxxxxxxxxxxx >> "$0"; do :; done', log], { stdio: 'ignore' });
  t.teardown(() => writer.kill('SIGKILL'));
  for (let i = 0; i < 5; i += 1) {
    await saveWorkspace(workspace);
    const { tree } = await headOf(workspace);
    const node = tree.find('growing');
    const content = Buffer.concat([...workspace.reader.pieces(node?.id ?? 0)]);
    t.is(node?.sizeBytes, content.length);
    t.true(content.every((byte) => byte === 0x78));
    await setTimeout(30);
  }
  writer.kill('SIGKILL');
  await once(writer, 'exit');
  await saveWorkspace(workspace);
  const { tree } = await headOf(workspace);
  t.is(tree.find('growing')?.sizeBytes, lstatSync(log).size, 'what came after the scan is not taken for saved');
});

test('saveWorkspace() leaves out what disappears, or becomes something else, between scan and packing (weakness U3)', async (t) => {
  const workspace = await newWorkspace(t);
  const at = (path: string): string => join(workspace.dir, path);
  for (const path of ['gone', 'was-saved', 'dir/inside', 'fifo', 'link', 'stays', 'b-first'])
    write(workspace, path, 'one');
  await saveWorkspace(workspace);
  write(workspace, 'node_modules/new.js'); // its layer is packed first
  rmSync(at('gone'));
  for (const path of ['gone', 'was-saved', 'dir/inside', 'fifo', 'link', 'stays', 'b-first'])
    write(workspace, path, 'two');
  linkSync(at('b-first'), at('c-second'));
  linkSync(at('b-first'), at('d-third'));
  write(workspace, 'never-saved');
  let packed = 0;
  const { skipped, titles } = await saveWorkspace(workspace, {
    onEvent: ({ kind }) => {
      if (kind !== 'packed' || (packed += 1) > 1) return;
      for (const path of ['gone', 'was-saved', 'dir', 'fifo', 'link', 'never-saved', 'b-first'])
        rmSync(at(path), { recursive: true });
      write(workspace, 'dir', 'a file now');
      mkfifo(at('fifo'), 0o644);
      symlinkSync('/etc/hostname', at('link'));
    },
  });
  const gone = ['b-first', 'dir/inside', 'fifo', 'gone', 'link', 'never-saved', 'was-saved'];
  t.deepEqual(
    skipped,
    gone.map((path) => ({ path, reason: 'it disappeared meanwhile' })),
  );
  t.deepEqual(await filesByTitle(workspace), {
    deps: ['node_modules/new.js'],
    project: ['c-second', 'd-third', 'stays'],
  });
  t.deepEqual(
    titles.map(({ fileCount }) => fileCount),
    [1, 0, 3],
  );
  const { tree } = await headOf(workspace);
  const [second, third] = [tree.find('c-second'), tree.find('d-third')];
  t.is(Buffer.concat([...workspace.reader.pieces(second?.id ?? 0)]).toString(), 'two');
  t.is(second?.id, third?.id, 'still one file');

  await saveWorkspace(workspace);
  const shown = factsOfCheckpoint((await headOf(workspace)).tree, workspace.reader, workspace.dir);
  t.deepEqual(compareFacts(factsOnDisk(workspace.dir), shown, ['.']), [], 'and the next save has everything');
});

test('saveWorkspace() beside a process that makes and removes files does not fail (weakness U3)', async (t) => {
  const workspace = await newWorkspace(t);
  const script =
    'cd "$0"; while :; do for i in 1 2 3 4 5 6 7 8 9; do mkdir d$i; echo $i > d$i/f; ln -s f d$i/l; ln d$i/f h$i; done; rm -rf d* h*; done';
  const churn = spawn('sh', ['-c', script, workspace.dir], { stdio: 'ignore' });
  t.teardown(() => churn.kill('SIGKILL'));
  for (let i = 0; i < 15; i += 1) await t.notThrowsAsync(saveWorkspace(workspace));
  churn.kill('SIGKILL');
  await once(churn, 'exit');
  await setTimeout(100); // a last rm may still be at it
  await saveWorkspace(workspace);
  const shown = factsOfCheckpoint((await headOf(workspace)).tree, workspace.reader, workspace.dir);
  t.deepEqual(compareFacts(withoutDirTimes(factsOnDisk(workspace.dir)), withoutDirTimes(shown), ['.']), []);
});

test('saveWorkspace() sees a change that kept size and time', async (t) => {
  const workspace = await newWorkspace(t);
  const file = write(workspace, 'main.ts', 'one');
  utimesSync(file, 1_000_000_000, 1_000_000_000);
  await saveWorkspace(workspace);
  await saveWorkspace(workspace); // by now the stat cache knows the file, if it may
  writeFileSync(file, 'two');
  utimesSync(file, 1_000_000_000, 1_000_000_000);
  t.true((await saveWorkspace(workspace)).saved);
});

test('saveWorkspace() puts a layer of a checkpoint with mixed-up titles where it does no harm', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'node_modules/a', 'first');
  write(workspace, 'main.ts', 'first');
  await saveWorkspace(workspace);
  const { checkpoint } = await headOf(workspace);
  const [deps, , project] = checkpoint.layers;
  if (deps === undefined || project === undefined) return t.fail();
  // Somebody else's image: the lowest layer is called project, as is the topmost.
  const mixed = [{ ...project, title: 'project' }, deps, { ...project, title: 'project' }].map((layer) => ({
    ...layer,
    descriptor: { ...layer.descriptor, annotations: { ...layer.descriptor.annotations, [KEYS.title]: layer.title } },
  }));
  const made = await storeCheckpoint(workspace.source.store.blobs, {
    layers: mixed,
    meta: checkpoint.meta,
    parent: undefined,
  });
  workspace.config.head = made.digest;
  await updateConfig(workspace.dir, { head: made.digest });
  write(workspace, 'node_modules/a', 'second');
  await saveWorkspace(workspace);
  t.deepEqual(await filesByTitle(workspace), { deps: ['node_modules/a'], project: ['main.ts'] });
  const shown = factsOfCheckpoint((await headOf(workspace)).tree, workspace.reader, workspace.dir);
  t.deepEqual(compareFacts(factsOnDisk(workspace.dir), shown, ['.']), []);
});
