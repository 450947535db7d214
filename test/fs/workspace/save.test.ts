import test from 'ava';

import { diffTrees } from '../../../fs/tree/diff-trees.ts';
import type { LayerRule } from '../../../fs/workspace/patterns.ts';
import { reportTitles, saveWorkspace } from '../../../fs/workspace/save.ts';
import { walkTree } from '../../../fs/tree/tree.ts';
import type { CheckpointNode } from '../../../fs/tree/checkpoint-tree.ts';
import { openCheckpoint, type Workspace } from '../../../fs/workspace/workspace.ts';
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
      if (random.chance(0.1)) workspace.setup.rules = random.pick(SCATTERED); // as when somebody edits `layers:`
      const wanted = factsOnDisk(workspace.dir);
      const { saved } = await saveWorkspace(workspace);
      const differences = await compareHead(workspace, wanted, saved);
      if (differences.length > 0) return t.fail(`step ${step}:\n${differences.join('\n')}`);
      const counts = await compareFileCounts(workspace);
      if (counts.length > 0) return t.fail(`step ${step}: file counts\n${counts.join('\n')}`);
      const again = await saveWorkspace(workspace);
      if (again.saved) return t.fail(`step ${step}: saving again is not "no changes": ${await changesSince(workspace)}`);
    }
    const { checkpoint } = await headOf(workspace);
    const rebuilt = await openCheckpoint(await newSource(t, workspace.source.store.root), checkpoint.digest);
    const { tree } = await headOf(workspace);
    t.deepEqual([...walkTree(rebuilt.tree)].map(shownNode), [...walkTree(tree)].map(shownNode), 'from the blobs alone');
  });
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
  const { openTree } = await import('../../../fs/tree/index-checkpoint.ts');
  const changes = diffTrees(await openTree(workspace.source, before), tree, { sameContent: () => true });
  return changes.map(({ path, kind, differences }) => `${path} ${kind} ${differences.join('+')}`).join(', ');
}
