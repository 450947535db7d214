import { workerData } from 'node:worker_threads';

import { CowTree } from '../../overlay/cow-tree.ts';
import { settleUpper } from '../../overlay/settle-upper.ts';
import { newVerifiedMemory } from '../../contents/verified-stamps.ts';
import { treeOptions, type WorkspaceKind } from './served-workspace.ts';
import { openServing } from './served-trees.ts';

export interface SettleWorkerData {
  storeRoot: string;
  shows: WorkspaceKind;
}

async function main({ storeRoot, shows }: SettleWorkerData): Promise<void> {
  const serving = await openServing(storeRoot, newVerifiedMemory());
  settleUpper(new CowTree(treeOptions(serving, shows, new Map())), { followsRedirects: !shows.userxattr });
  serving.reader.close();
  serving.index.close();
}

// A thread that ends when it is done: copying what is missing of large files may take a while.
void main(workerData as SettleWorkerData);
