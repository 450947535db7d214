import test from 'ava';

import { diffTrees } from '../../../fs/tree/diff-trees.ts';
import { walkTree } from '../../../fs/tree/tree.ts';
import { digestOf } from '../../../store/digest.ts';
import { indexDraft, treeOf } from '../../fixtures/layers.ts';
import { newSource } from '../../fixtures/workspaces.ts';

test('an opaque marker without an entry hides what a directory holds, not its mode and owner', async (t) => {
  const source = await newSource(t);
  const layers = [
    await indexDraft(source, {
      entries: [
        { path: 'dir', type: 'dir', mode: 0o700, uid: 5, mtimeSec: 9 },
        { path: 'dir/old', type: 'file' },
      ],
    }),
    await indexDraft(source, { entries: [{ path: 'dir/new', type: 'file' }], opaque: ['dir'] }),
  ];
  const tree = treeOf(source, layers);
  t.like(tree.find('dir'), { mode: 0o700, uid: 5, mtimeSec: 9 });
  t.deepEqual(tree.child(tree.root, 'dir'), tree.children(tree.root)[0]);
  t.deepEqual(
    [...walkTree(tree)].map(([path]) => path),
    ['dir', 'dir/new'],
  );
});

test('a directory that a layer makes anew takes nothing from one that a file had replaced', async (t) => {
  const source = await newSource(t);
  const layers = [
    await indexDraft(source, { entries: [{ path: 'dir', type: 'dir', mode: 0o700 }] }),
    await indexDraft(source, { entries: [{ path: 'dir', type: 'whiteout' }] }),
    await indexDraft(source, { entries: [{ path: 'dir/file', type: 'file' }] }),
  ];
  const { mode, mtimeSec } = treeOf(source, layers).find('dir') ?? {};
  t.not(mode, 0o700);
  t.is(mtimeSec, 0);
});

test('an opaque marker at the root hides all layers below', async (t) => {
  const source = await newSource(t);
  const layers = [
    await indexDraft(source, { entries: [{ path: 'old', type: 'file' }] }),
    await indexDraft(source, { entries: [{ path: 'new', type: 'file' }], opaque: [''] }),
  ];
  const tree = treeOf(source, layers);
  t.deepEqual(
    [...walkTree(tree)].map(([path]) => path),
    ['new'],
  );
  t.is(tree.find('old'), undefined);
});

test('diffTrees() does not skip a directory whose hard link names something else on other ground', async (t) => {
  const source = await newSource(t);
  const [one, two] = [
    await indexDraft(source, { entries: [{ path: 'tool', type: 'file', digest: digestOf('one') }] }),
    await indexDraft(source, { entries: [{ path: 'tool', type: 'file', digest: digestOf('two') }] }),
  ];
  const shared = await indexDraft(source, { entries: [{ path: 'bin/tool', type: 'hardlink', link: 'tool' }] });
  const changes = diffTrees(treeOf(source, [one, shared]), treeOf(source, [two, shared]), { sameContent: () => false });
  t.deepEqual(
    changes.map(({ path, differences }) => `${path}: ${differences.join()}`),
    ['bin/tool: content', 'tool: content'],
  );
});

test('a hard link into a lower layer belongs to the layer that has the name, where a whiteout must hide it', async (t) => {
  const source = await newSource(t);
  const layers = [
    await indexDraft(source, { entries: [{ path: 'original', type: 'file' }] }),
    await indexDraft(source, {
      entries: [
        { path: 'link', type: 'hardlink', link: 'original' },
        { path: 'link-to-link', type: 'hardlink', link: 'link' },
      ],
    }),
  ];
  const tree = treeOf(source, layers);
  t.like(tree.find('original'), { depth: 0, type: 'file' });
  t.like(tree.find('link'), { depth: 1, type: 'file', digest: digestOf('original') });
  t.like(tree.find('link-to-link'), { depth: 1, type: 'file', digest: digestOf('original') });
});
