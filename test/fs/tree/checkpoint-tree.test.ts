import test, { type ExecutionContext } from 'ava';

import { CheckpointTree, type CheckpointNode } from '../../../fs/tree/checkpoint-tree.ts';
import type { TreeSource } from '../../../fs/tree/index-checkpoint.ts';
import { walkTree } from '../../../fs/tree/tree.ts';
import { positionOf } from '../../../index/rows.ts';
import { joinPath, type ByteString } from '../../../store/byte-string.ts';
import { digestOf, type Digest } from '../../../store/digest.ts';
import type { PackedEntry } from '../../../store/entry.ts';
import type { LayerItem } from '../../../store/layers/layer-contents.ts';
import { Random } from '../../fixtures/random.ts';
import {
  applyLayer,
  emptyTree,
  indexItems,
  randomLayer,
  type FlatTree,
  type Shown,
} from '../../fixtures/random-layers.ts';
import { newSource } from '../../fixtures/workspaces.ts';
import { entryOf } from '../../store/layers/layer-fixtures.ts';

const STACK_COUNT = 150;

function treeOf({ entries }: TreeSource, digests: readonly Digest[]): CheckpointTree {
  return new CheckpointTree(
    entries,
    digests.flatMap((digest) => entries.layer(digest) ?? []),
  );
}

function everyNode(tree: CheckpointTree): [ByteString, CheckpointNode][] {
  return [['', tree.root], ...walkTree(tree)];
}

function describe({ type, mode, mtimeSec, digest, link, sizeBytes }: Shown): string {
  return [type, mode.toString(8), mtimeSec, sizeBytes, digest ?? '', link ?? ''].join(' ');
}

/** A line for each path; the order is not compared. */
function linesOf(nodes: Iterable<[ByteString, Shown]>): string[] {
  return [...nodes].map(([path, node]) => `${path}: ${describe(node)}`).sort();
}

/** Paths grouped by what tells two files apart, as one text. */
function groupsOf<T>(nodes: Iterable<[ByteString, T]>, key: (node: T) => unknown): string[] {
  const groups = new Map<unknown, ByteString[]>();
  for (const [path, node] of nodes) groups.set(key(node), [...(groups.get(key(node)) ?? []), path]);
  return [...groups.values()].map((paths) => paths.sort().join(' = ')).sort();
}

function checkAgrees(t: ExecutionContext, tree: CheckpointTree, seed: string): void {
  for (const [path, node] of everyNode(tree)) {
    if (node.type !== 'dir') continue;
    const children = tree.children(node);
    const sorted = children.map(({ name }) => name).sort();
    t.deepEqual(
      children.map(({ name }) => name),
      sorted,
      `${seed}: children of "${path}"`,
    );
    for (const child of children)
      t.deepEqual(tree.child(node, child.name), child, `${seed}: ${joinPath(path, child.name)}`);
    for (const name of ['a', 'b', 'a-', 'a.', '\xe9', 'none']) {
      t.is(tree.child(node, name) !== undefined, sorted.includes(name), `${seed}: "${name}" in "${path}"`);
    }
  }
}

function checkDirectoriesFound(t: ExecutionContext, tree: CheckpointTree, seed: string): void {
  for (const [path, node] of everyNode(tree)) {
    for (const { depth, row } of node.parts ?? []) {
      t.deepEqual(tree.directoryAt(depth, positionOf(row.id)), node, `${seed}: "${path}" at depth ${depth}`);
    }
  }
}

test('CheckpointTree shows what applying random layers one after another makes', async (t) => {
  const source = await newSource(t);
  for (let seed = 1; seed <= STACK_COUNT; seed += 1) {
    const random = new Random(seed);
    let expected: FlatTree = emptyTree();
    const stack: Digest[] = [];
    for (let depth = random.below(6); depth >= 0; depth -= 1) {
      const items = randomLayer(random, expected, { hardLinks: true });
      expected = applyLayer(expected, items);
      stack.push(await indexItems(source.index, `${seed}/${depth}`, items));
    }
    const tree = treeOf(source, stack);
    const found = everyNode(tree);
    t.deepEqual(linesOf(found), linesOf(expected), `seed ${seed}`);
    const isFile = ([, { type }]: [ByteString, Shown]): boolean => type === 'file';
    const files = [...expected].filter(isFile);
    t.deepEqual(
      groupsOf(found.filter(isFile), ({ id }) => id),
      groupsOf(files, (node) => node),
      `seed ${seed}`,
    );
    checkAgrees(t, tree, `seed ${seed}`);
    checkDirectoriesFound(t, tree, `seed ${seed}`);
  }
});

function item(path: ByteString, type: PackedEntry['type'], fields: Partial<PackedEntry> = {}): LayerItem {
  return { kind: 'entry', entry: { ...entryOf(path, type), chunks: [], ...fields } };
}

async function treeOfLayers(t: ExecutionContext, ...layers: LayerItem[][]): Promise<CheckpointTree> {
  const source = await newSource(t);
  const digests: Digest[] = [];
  for (const [i, items] of layers.entries()) digests.push(await indexItems(source.index, String(i), items));
  return treeOf(source, digests);
}

function pathsOf(tree: CheckpointTree): ByteString[] {
  return [...walkTree(tree)].map(([path]) => path);
}

const CONTENT = { digest: digestOf('x'), sizeBytes: 1 };

test('children() hides a lower name that a whiteout covers, and shows what a still higher layer brings back', async (t) => {
  const lower = [item('d/a', 'file', CONTENT), item('d/b', 'file', CONTENT)];
  t.deepEqual(pathsOf(await treeOfLayers(t, lower, [item('d/a', 'whiteout')])), ['d', 'd/b']);
  const back = await treeOfLayers(t, lower, [item('d/a', 'whiteout')], [item('d/a/new', 'file', CONTENT)]);
  t.deepEqual(pathsOf(back), ['d', 'd/a', 'd/a/new', 'd/b']);
});

test('a directory that was a file in between does not show what lay below it before', async (t) => {
  const tree = await treeOfLayers(
    t,
    [item('d/old', 'file', CONTENT)],
    [item('d', 'file', CONTENT)],
    [item('d', 'dir')],
  );
  t.deepEqual(pathsOf(tree), ['d']);
});

test('a hard link finds its file in a lower layer, also when its own layer replaces that name', async (t) => {
  const other = { digest: digestOf('yy'), sizeBytes: 2 };
  const tree = await treeOfLayers(
    t,
    [item('a', 'file', CONTENT)],
    [item('b', 'hardlink', { link: 'a' })],
    [item('a', 'whiteout'), item('c', 'hardlink', { link: 'b' })],
    [item('b', 'file', other)],
  );
  t.deepEqual(pathsOf(tree), ['b', 'c']);
  t.like(tree.find('c'), { type: 'file', name: 'c', ...CONTENT });
  t.like(tree.find('b'), { type: 'file', ...other });
});

test('a hard link to a link into a lower layer is the file, not a link', async (t) => {
  const tree = await treeOfLayers(
    t,
    [item('a', 'file', CONTENT)],
    [item('b', 'hardlink', { link: 'a' }), item('c', 'hardlink', { link: 'b' })],
  );
  for (const name of ['a', 'b', 'c']) t.like(tree.find(name), { type: 'file', name, ...CONTENT }, name);
  t.is(tree.find('c')?.id, tree.find('a')?.id);
});

test('a hard link to nothing, to a directory or to itself shows nothing', async (t) => {
  const lower = [
    item('dir', 'dir'),
    item('loop', 'hardlink', { link: 'loop' }),
    item('none', 'hardlink', { link: 'no' }),
  ];
  const upper = [item('to-dir', 'hardlink', { link: 'dir' }), item('loop', 'hardlink', { link: 'loop' })];
  t.deepEqual(pathsOf(await treeOfLayers(t, lower, upper)), ['dir']);
});

test('directoryAt() does not know what an upper layer hides, nor what is no directory or nowhere', async (t) => {
  const tree = await treeOfLayers(t, [item('d', 'dir'), item('f', 'file', CONTENT)], [item('d', 'whiteout')]);
  t.is(tree.directoryAt(0, 1), tree.directoryAt(1, 1)?.type === 'dir' ? tree.directoryAt(0, 1) : undefined);
  for (const [depth, position] of [
    [0, 2],
    [0, 3],
    [0, 99],
    [2, 1],
    [-1, 1],
  ] as const) {
    t.is(tree.directoryAt(depth, position), undefined, `${depth}/${position}`);
  }
});
