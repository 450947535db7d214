import test from 'ava';

import { CheckpointTree, type CheckpointNode } from '../../../fs/tree/checkpoint-tree.ts';
import { comparePaths, diffTrees, type Change } from '../../../fs/tree/diff-trees.ts';
import type { Tree, TreeNode } from '../../../fs/tree/tree.ts';
import type { ByteString } from '../../../store/byte-string.ts';
import type { Digest } from '../../../store/digest.ts';
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

const NEVER_ASKED = {
  sameContent: (path: ByteString): boolean => {
    throw new Error(`${path} has a digest on both sides`);
  },
};

function line(path: ByteString, kind: string, differences: readonly string[]): string {
  return `${kind} ${path}: ${[...differences].sort().join(',')}`;
}

function linesOf(changes: readonly Change[]): string[] {
  return changes.map(({ path, kind, differences }) => line(path, kind, differences));
}

/** Looks at every path of both trees. */
function bruteForce(before: FlatTree, after: FlatTree): string[] {
  const paths = [...new Set([...before.keys(), ...after.keys()])].sort(comparePaths);
  return paths.flatMap((path) => {
    const [b, a] = [before.get(path), after.get(path)];
    if (b === undefined) return [line(path, 'added', [])];
    if (a === undefined) return [line(path, 'removed', [])];
    const differences = differencesOf(b, a);
    return differences.length > 0 ? [line(path, 'modified', differences)] : [];
  });
}

function differencesOf(b: Shown, a: Shown): string[] {
  if (b.type !== a.type) return ['type'];
  return [
    ...(b.digest === a.digest ? [] : ['content']),
    ...(b.link === a.link ? [] : ['link']),
    ...(b.mode === a.mode ? [] : ['mode']),
    ...(b.mtimeSec === a.mtimeSec ? [] : ['mtime']),
  ];
}

/** Counts the directories that somebody looks into. */
function counted<N extends TreeNode>(tree: Tree<N>): Tree<N> & { count: number } {
  const counting = {
    root: tree.root,
    count: 0,
    children: (dir: N): readonly N[] => {
      counting.count += 1;
      return tree.children(dir);
    },
  };
  return counting;
}

/** The same for a tree that can say where it differs. */
function lookingUp(tree: CheckpointTree): Tree<CheckpointNode> & { count: number } {
  return Object.assign(counted(tree), {
    child: (dir: CheckpointNode, name: ByteString) => tree.child(dir, name),
    differingNames: (dir: CheckpointNode, other: TreeNode) => tree.differingNames(dir, other),
  });
}

test('diffTrees() of random checkpoints that share layers finds what looking at every path finds', async (t) => {
  const { index, entries } = await newSource(t);
  let changeCount = 0;
  for (let seed = 1; seed <= 150; seed += 1) {
    const random = new Random(seed);
    const grow = async (from: FlatTree, name: string): Promise<[FlatTree, Digest]> => {
      const items = randomLayer(random, from, { hardLinks: false });
      return [applyLayer(from, items), await indexItems(index, `diff/${seed}/${name}`, items)];
    };
    const treeOf = (digests: readonly Digest[]): CheckpointTree =>
      new CheckpointTree(
        entries,
        digests.flatMap((digest) => entries.layer(digest) ?? []),
      );
    const [base, baseDigest] = await grow(emptyTree(), 'base');
    const [shared, sharedDigest] = await grow(base, 'shared');
    const [left, leftDigest] = await grow(shared, 'left');
    const [right, rightDigest] = await grow(shared, 'right');
    const stack = [baseDigest, sharedDigest];
    const checkpoints: [FlatTree, CheckpointTree][] = [
      [shared, treeOf(stack)],
      [left, treeOf([...stack, leftDigest])],
      [right, treeOf([...stack, rightDigest])],
    ];
    for (const [before, beforeTree] of checkpoints) {
      for (const [after, afterTree] of checkpoints) {
        const changes = linesOf(diffTrees(beforeTree, afterTree, NEVER_ASKED));
        t.deepEqual(changes, bruteForce(before, after), `seed ${seed}`);
        changeCount += changes.length;
      }
    }
  }
  t.true(changeCount > 1000, 'the random layers differ enough to say something');
});

test('diffTrees() does not look into directories that are the same rows', async (t) => {
  const { index, entries } = await newSource(t);
  const entry = { mode: 0o644, uid: 0, gid: 0, mtimeSec: 1, mtimeNsec: 0, sizeBytes: 0, chunks: [] } as const;
  const dirs = Array.from({ length: 50 }, (_, i) => `dir-${i}/deep/file`);
  const base = await indexItems(
    index,
    'base',
    dirs.map((path) => ({ kind: 'entry', entry: { ...entry, path, type: 'fifo' } })),
  );
  const change = await indexItems(index, 'change', [
    { kind: 'entry', entry: { ...entry, path: 'dir-7/new', type: 'fifo' } },
  ]);
  const [lower, upper] = [base, change].map((digest) => entries.layer(digest));
  if (lower === undefined || upper === undefined) throw new Error('not indexed');
  const before = counted(new CheckpointTree(entries, [lower]));
  const after = counted(new CheckpointTree(entries, [lower, upper]));
  t.deepEqual(linesOf(diffTrees(before, after, NEVER_ASKED)), ['added dir-7/new: ']);
  t.deepEqual([before.count, after.count], [2, 2], 'the root and dir-7');
  t.deepEqual(diffTrees(after, after, NEVER_ASKED), []);
  t.is(after.count, 2);
});

test('diffTrees() of two checkpoints on one base looks up what the deltas list, and lists no large directory', async (t) => {
  const { index, entries } = await newSource(t);
  const entry = { mode: 0o644, uid: 0, gid: 0, mtimeSec: 1, mtimeNsec: 0, sizeBytes: 0, chunks: [] } as const;
  const fifo = (path: string): LayerItem => ({ kind: 'entry', entry: { ...entry, path, type: 'fifo' } });
  const names = Array.from({ length: 3000 }, (_, i) => `many/name-${String(i).padStart(4, '0')}/file`);
  const base = await indexItems(index, 'large base', names.map(fifo));
  const left = await indexItems(index, 'left', [fifo('many/name-0007/left'), fifo('many/odd')]);
  const right = await indexItems(index, 'right', [
    fifo('many/name-0008/right'),
    { kind: 'entry', entry: { ...entry, path: 'many/name-0009', type: 'whiteout' } },
  ]);
  const treeOf = (...digests: Digest[]) =>
    lookingUp(
      new CheckpointTree(
        entries,
        digests.flatMap((digest) => entries.layer(digest) ?? []),
      ),
    );
  const [before, after] = [treeOf(base, left), treeOf(base, right)];
  t.deepEqual(linesOf(diffTrees(before, after, NEVER_ASKED)), [
    'removed many/name-0007/left: ',
    'added many/name-0008/right: ',
    'removed many/name-0009: ',
    'removed many/name-0009/file: ',
    'removed many/odd: ',
  ]);
  t.true(before.count + after.count < 5, `${before.count + after.count} directories were listed`);
});

test('diffTrees() trusts no identity across two indexes', async (t) => {
  const entry = { mode: 0o644, uid: 0, gid: 0, mtimeSec: 1, mtimeNsec: 0, sizeBytes: 0, chunks: [] } as const;
  const treeWith = async (path: string): Promise<CheckpointTree> => {
    const { index, entries } = await newSource(t);
    const digest = await indexItems(index, path, [{ kind: 'entry', entry: { ...entry, path, type: 'fifo' } }]);
    return new CheckpointTree(
      entries,
      [entries.layer(digest)].flatMap((layer) => layer ?? []),
    );
  };
  const [one, other] = [await treeWith('dir/one'), await treeWith('dir/other')];
  t.is(one.root.identity, other.root.identity, 'the same numbers for other things');
  const changes = linesOf(diffTrees(one, other, { ...NEVER_ASKED, apart: true }));
  t.deepEqual(changes, ['removed dir/one: ', 'added dir/other: ']);
});
