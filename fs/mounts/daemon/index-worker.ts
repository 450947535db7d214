import { workerData } from 'node:worker_threads';

import { IndexDatabase } from '../../../index/database.ts';
import type { Digest } from '../../../store/digest.ts';
import { Store } from '../../../store/store.ts';
import { openTree, treeSource } from '../../tree/index-checkpoint.ts';

export interface IndexWorkerData {
  storeRoot: string;
  manifest: Digest;
}

async function main({ storeRoot, manifest }: IndexWorkerData): Promise<void> {
  const store = new Store(storeRoot);
  using index = await IndexDatabase.open(store.cacheDir);
  await openTree(treeSource(store, index), await store.loadCheckpoint(manifest));
}

// A thread that ends when it is done: what indexing 100,000 files leaves behind, a quarter of a gigabyte, goes with it.
void main(workerData as IndexWorkerData);
