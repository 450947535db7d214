import { closeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';

import { Entries } from '../../index/entries.ts';
import { IndexDatabase } from '../../index/database.ts';
import { Trees } from '../../index/trees.ts';
import type { Digest } from '../../store/digest.ts';
import { Store } from '../../store/store.ts';
import { ContentReader } from '../tree/content-reader.ts';
import { serve } from './serve-loop.ts';
import { StoreTree } from './store-tree.ts';

/** What the daemon hands to the thread that serves one FUSE connection. */
export interface ServeWorkerData {
  fd: number;
  storeRoot: string;
  /** Serve this checkpoint alone; absent: all of the store. */
  manifest?: Digest;
}

/** A line for the daemon's log. */
export interface ServeWorkerMessage {
  error: string;
  operation: string;
  nodeId: number;
}

const { fd, storeRoot, manifest } = workerData as ServeWorkerData;
const store = new Store(storeRoot);
using index = await IndexDatabase.open(store.cacheDir);
const entries = new Entries(index);
const reader = new ContentReader(store, entries);
const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
const tree = new StoreTree(entries, new Trees(index, entries), reader, { owner, ...(manifest && { manifest }) });

serve(fd, tree, {
  mayGrow: (nodeId) => manifest === undefined && nodeId === 1,
  onError: (error, { operation, nodeId }) => {
    const message: ServeWorkerMessage = {
      error: error instanceof Error ? error.message : String(error),
      operation,
      nodeId,
    };
    parentPort?.postMessage(message);
  },
});
reader.close();
closeSync(fd);
