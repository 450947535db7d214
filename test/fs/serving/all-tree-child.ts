import { readSync, writeSync } from 'node:fs';

import { AllTree } from '../../../fs/serving/all-tree.ts';
import { type Negotiated, serve } from '../../../fs/serving/serve-loop.ts';
import { StoreTree } from '../../../fs/serving/store-tree.ts';
import { ContentReader } from '../../../fs/contents/content-reader.ts';
import { treeSource } from '../../../fs/tree/index-checkpoint.ts';
import { IndexDatabase } from '../../../index/database.ts';
import { Store } from '../../../store/store.ts';

/**
 * A process that serves all of a store on descriptor 3, to be killed. What it has no time for it says on stdout, and waits
 * until a byte on stdin tells that it is done (`y`) or failed (`n`): whoever started it is the slow lane.
 *
 *     node all-tree-child.js <store> [what a predecessor negotiated, as JSON]
 */
const [storeRoot = '', negotiated] = process.argv.slice(2);

function say(message: unknown): void {
  writeSync(1, `${JSON.stringify(message)}\n`);
}

const store = new Store(storeRoot);
const source = treeSource(store, await IndexDatabase.open(store.cacheDir));
const reader = new ContentReader(store, source.entries);
const options = { owner: { uid: 7, gid: 8 }, keepOwners: false };
const tree = new AllTree(store, new StoreTree(source.entries, source.trees, reader, options));
const quick = tree.lookup.bind(tree);
tree.lookup = (parent, name) => {
  const found = quick(parent, name);
  if (found !== 'slow') return found;
  say({ slow: { parent, name } });
  const answer = Buffer.alloc(1);
  readSync(0, answer, 0, 1, null);
  if (answer.toString() !== 'y') throw new Error('the slow lane failed');
  return quick(parent, name);
};

serve(3, tree, {
  mayGrow: (nodeId) => tree.mayGrow(nodeId),
  onInit: (agreed) => say({ negotiated: agreed }),
  onError: (error) => say({ error: String(error) }),
  ...(negotiated !== undefined && { resume: JSON.parse(negotiated) as Negotiated }),
});
