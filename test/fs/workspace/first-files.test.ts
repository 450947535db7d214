import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import test from 'ava';

import {
  FIRST_FILE_BYTES_MAX,
  FIRST_FILES_MAX,
  firstReadsDir,
  storeFirstReads,
} from '../../../fs/contents/first-reads.ts';
import { PathFinder } from '../../../fs/tree/tree.ts';
import { arrange, usualRank } from '../../../fs/workspace/first-files.ts';
import type { PlannedEntry } from '../../../fs/workspace/plan-layers.ts';
import { saveWorkspace } from '../../../fs/workspace/save.ts';
import type { WorkNode } from '../../../fs/workspace/work-tree.ts';
import type { Workspace } from '../../../fs/workspace/workspace.ts';
import { positionOf } from '../../../index/rows.ts';
import type { Digest } from '../../../store/digest.ts';
import type { Entry } from '../../../store/entry.ts';
import { readToc } from '../../../store/layers/layer-reader.ts';
import { PREFETCH_BYTES_MAX, prioritisedFiles } from '../../../store/layers/prefetch.ts';
import { headOf, newWorkspace } from '../../fixtures/workspaces.ts';

function planned(path: string, fields: Partial<Entry> & Partial<PlannedEntry<WorkNode>> = {}): PlannedEntry<WorkNode> {
  const { mustPrecede, type = 'file', sizeBytes = 1, link } = fields;
  const entry = {
    path,
    type,
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    sizeBytes,
    ...(link && { link }),
  };
  const content = type === 'dir' ? undefined : ({} as WorkNode);
  return { entry, content, replaces: false, linkKey: undefined, ...(mustPrecede && { mustPrecede }) };
}

/** Paths in the order in which they are wanted. */
function arranged(entries: readonly PlannedEntry<WorkNode>[], order: readonly string[]): string[][] {
  const rankOf = ({ entry }: PlannedEntry<WorkNode>): number | undefined =>
    order.includes(entry.path) ? order.indexOf(entry.path) : undefined;
  const { first, rest } = arrange(entries, rankOf);
  return [first, rest].map((part) => part.map(({ entry }) => entry.path));
}

test('arrange() takes out the files that are wanted, in that order', (t) => {
  const entries = [planned('', { type: 'dir' }), ...['a', 'b', 'c'].map((path) => planned(path))];
  t.deepEqual(arranged(entries, ['c', 'x', 'a', '']), [
    ['c', 'a'],
    ['', 'b'],
  ]);
  t.deepEqual(arranged(entries, []), [[], ['', 'a', 'b', 'c']]);
});

test('arrange() takes the name that holds the bytes of a file with several names, and nothing that has none', (t) => {
  const entries = [
    planned('a'),
    planned('b', { type: 'hardlink', link: 'a', sizeBytes: 0 }),
    planned('empty', { sizeBytes: 0 }),
    planned('link', { type: 'symlink', link: 'a', sizeBytes: 0 }),
  ];
  t.deepEqual(arranged(entries, ['empty', 'link', 'b']), [['a'], ['b', 'empty', 'link']]);
});

test('arrange() leaves a file in its place whose directory stands where something else was', (t) => {
  const entries = [
    planned('d', { type: 'dir', mustPrecede: true }),
    planned('d/e', { type: 'dir' }),
    planned('d/e/f'),
    planned('dd'),
  ];
  t.deepEqual(arranged(entries, ['d/e/f', 'dd']), [['dd'], ['d', 'd/e', 'd/e/f']]);
});

test('arrange() keeps to what is fetched ahead', (t) => {
  const many = Array.from({ length: FIRST_FILES_MAX + 1 }, (_, i) => planned(`f${i}`));
  const names = many.map(({ entry }) => entry.path);
  t.deepEqual(arranged(many, names), [names.slice(0, -1), names.slice(-1)]);
  const large = Array.from({ length: 5 }, (_, i) => planned(`l${i}`, { sizeBytes: FIRST_FILE_BYTES_MAX }));
  const fitting = Math.floor(PREFETCH_BYTES_MAX / FIRST_FILE_BYTES_MAX);
  const [first = []] = arranged(
    [...large, planned('huge', { sizeBytes: FIRST_FILE_BYTES_MAX + 1 })],
    ['huge', 'l4', 'l3', 'l2', 'l1', 'l0'],
  );
  t.deepEqual(first, ['l4', 'l3', 'l2', 'l1', 'l0'].slice(0, fitting));
});

test('usualRank() knows the files in the root that tools read first, not their namesakes', (t) => {
  const paths = ['package.json', '.git/index', '.git/refs/heads/main', 'CLAUDE.md', '.git/HEAD'];
  const ranks = paths.map((path) => usualRank(path) ?? -1);
  t.deepEqual(
    paths.sort((a, b) => (usualRank(a) ?? 0) - (usualRank(b) ?? 0)),
    ['.git/HEAD', '.git/refs/heads/main', '.git/index', 'CLAUDE.md', 'package.json'],
  );
  t.true(ranks.every((rank) => rank >= 0));
  for (const path of ['src/package.json', 'x.git/HEAD', '.git/refs', '.git/objects/pack/p', ''])
    t.is(usualRank(path), undefined);
});

function write({ dir }: Workspace, path: string, content: string | Buffer): void {
  mkdirSync(dirname(join(dir, path)), { recursive: true });
  writeFileSync(join(dir, path), content);
}

/** As if these files of the head had been read first while it was mounted. */
async function pretendRead(workspace: Workspace, paths: readonly string[]): Promise<void> {
  const { checkpoint, tree } = await headOf(workspace);
  const finder = new PathFinder(tree);
  const positions = new Map<number, number[]>();
  for (const path of paths) {
    const node = finder.find(path);
    if (node === undefined) throw new Error(`no ${path}`);
    positions.set(node.depth, [...(positions.get(node.depth) ?? []), positionOf(node.id)]);
  }
  for (const [depth, read] of positions) {
    storeFirstReads(workspace.source.store.cacheDir, checkpoint.layers[depth]?.descriptor.digest as Digest, read);
  }
}

/** What the layers of a title put first, lowest first. */
async function firstIn(workspace: Workspace, title: string): Promise<string[][]> {
  const { checkpoint } = await headOf(workspace);
  const orders: string[][] = [];
  for (const { descriptor } of checkpoint.layers.filter((layer) => layer.title === title)) {
    const blob = workspace.source.store.blobs.open(descriptor.digest);
    const toc = await readToc(blob);
    blob.close();
    orders.push(prioritisedFiles(toc ?? { entries: [] }).map(({ path }) => path));
  }
  return orders;
}

async function digestsOf(workspace: Workspace, title: string): Promise<Digest[]> {
  const { checkpoint } = await headOf(workspace);
  return checkpoint.layers.filter((layer) => layer.title === title).map(({ descriptor }) => descriptor.digest);
}

test('saveWorkspace() puts first what was read first, in deltas and in layers that are written anew', async (t) => {
  const workspace = await newWorkspace(t);
  for (const name of ['a', 'b', 'c', 'd', 'e', 'package.json']) write(workspace, name, name);
  await saveWorkspace(workspace);
  t.deepEqual(await firstIn(workspace, 'project'), [['package.json']]);
  await pretendRead(workspace, ['e', 'b', 'd']);
  for (const name of ['b', 'c', 'e', 'new']) write(workspace, name, `changed ${name}`);
  await saveWorkspace(workspace);
  t.deepEqual((await firstIn(workspace, 'project'))[1], ['e', 'b']);

  await pretendRead(workspace, ['c', 'new']);
  write(workspace, 'new', 'changed again');
  await saveWorkspace(workspace, { flat: true });
  const order = ['c', 'new', 'e', 'd', 'b', 'package.json'];
  const [anew = []] = await firstIn(workspace, 'project');
  t.deepEqual([...anew].sort(), order.sort());
  t.deepEqual(anew.slice(0, 2), ['c', 'new'], 'what lies on top was read last');

  // Nothing was read since, but what the layers put first is not forgotten.
  for (const content of ['1', '2']) {
    write(workspace, 'a', content);
    await saveWorkspace(workspace, { flat: content === '2' });
  }
  t.deepEqual(await firstIn(workspace, 'project'), [anew]);
});

test('saveWorkspace() makes no layer because of an order alone', async (t) => {
  const workspace = await newWorkspace(t);
  for (let i = 0; i < 200; i += 1) write(workspace, `node_modules/m/${i}.js`, `module ${i}`);
  write(workspace, 'main.ts', '1');
  await saveWorkspace(workspace);
  const deps = await digestsOf(workspace, 'deps');
  await pretendRead(workspace, ['node_modules/m/150.js', 'node_modules/m/3.js', 'main.ts']);
  const idle = await saveWorkspace(workspace);
  t.false(idle.saved);
  t.is(idle.addedBytes, 0);

  write(workspace, 'main.ts', '2');
  await saveWorkspace(workspace);
  await saveWorkspace(workspace, { flat: true });
  t.is((await headOf(workspace)).checkpoint.layers.length, 3, 'all layers were written anew');
  t.deepEqual(await digestsOf(workspace, 'deps'), deps, 'and what did not change came out the same');

  write(workspace, 'node_modules/m/7.js', 'changed');
  await saveWorkspace(workspace);
  await saveWorkspace(workspace, { flat: true });
  t.deepEqual(await firstIn(workspace, 'deps'), [['node_modules/m/150.js', 'node_modules/m/3.js']]);
  const ordered = await digestsOf(workspace, 'deps');
  await pretendRead(workspace, ['node_modules/m/9.js']);
  write(workspace, 'main.ts', '3');
  await saveWorkspace(workspace);
  await saveWorkspace(workspace, { flat: true });
  t.deepEqual(await digestsOf(workspace, 'deps'), ordered, 'with the order that it had');
});

test('saveWorkspace() of the same tree with the same order writes the same layers', async (t) => {
  const [one, two] = [await newWorkspace(t), await newWorkspace(t)];
  const copyAndSave = async (flat: boolean): Promise<void> => {
    execFileSync('cp', ['-a', join(one.dir, 'node_modules'), two.dir]);
    for (const workspace of [one, two]) await saveWorkspace(workspace, { flat });
  };
  for (let i = 0; i < 300; i += 1) write(one, `node_modules/${i % 9}/${i}`, `file ${i} `.repeat(i));
  await copyAndSave(false);
  const [unordered] = await digestsOf(one, 'deps');
  const order = ['node_modules/8/8', 'node_modules/1/298', 'node_modules/0/90'];
  for (const workspace of [one, two]) await pretendRead(workspace, order);
  write(one, 'node_modules/1/1', 'changed');
  await copyAndSave(false);
  await copyAndSave(true);
  t.deepEqual(await firstIn(one, 'deps'), [order]);
  t.deepEqual(await digestsOf(one, 'deps'), await digestsOf(two, 'deps'));
  t.notDeepEqual(await digestsOf(one, 'deps'), [unordered]);
});

test('saveWorkspace() puts nothing before a directory that takes the place of a link', async (t) => {
  const workspace = await newWorkspace(t);
  symlinkSync('/etc', join(workspace.dir, '.git'));
  await saveWorkspace(workspace);
  rmSync(join(workspace.dir, '.git'));
  write(workspace, '.git/HEAD', 'ref: refs/heads/main\n');
  await saveWorkspace(workspace);
  t.deepEqual((await firstIn(workspace, 'project'))[1], []);
  write(workspace, '.git/HEAD', 'ref: refs/heads/other\n');
  await saveWorkspace(workspace);
  t.deepEqual((await firstIn(workspace, 'project'))[2], ['.git/HEAD']);
});

test('saveWorkspace() does without an order that is damaged or means nothing', async (t) => {
  const workspace = await newWorkspace(t);
  write(workspace, 'sub/file', '1');
  await saveWorkspace(workspace);
  const { source } = workspace;
  const [project] = await digestsOf(workspace, 'project');
  storeFirstReads(source.store.cacheDir, project as Digest, [2, 3, 4, 5, 6, 7, 500, 16_000_000]);
  write(workspace, 'sub/file', '2');
  await saveWorkspace(workspace);
  const dir = firstReadsDir(source.store.cacheDir);
  for (const name of readdirSync(dir)) writeFileSync(join(dir, name), 'nonsense');
  write(workspace, 'sub/file', '3');
  t.true((await saveWorkspace(workspace)).saved);
  t.deepEqual((await firstIn(workspace, 'project'))[2], []);
});
