import { Entries } from '../../../index/entries.ts';
import { IndexDatabase } from '../../../index/database.ts';
import { Trees } from '../../../index/trees.ts';
import { Store } from '../../../store/store.ts';
import { ContentCache } from '../../contents/content-cache.ts';
import { ContentReader } from '../../contents/content-reader.ts';
import { AllTree } from '../../serving/all-tree.ts';
import type { ConnectionSpec } from './connection.ts';
import { LargeTree } from '../../serving/large-tree.ts';
import type { ServeOptions } from '../../serving/serve-loop.ts';
import type { ServedTree } from '../../serving/served-tree.ts';
import { StoreTree, type StoreTreeOptions } from '../../serving/store-tree.ts';

/** What a thread needs to answer for trees of one store; each has its own, because none can be shared between threads. */
export interface Serving {
  store: Store;
  index: IndexDatabase;
  entries: Entries;
  trees: Trees;
  cache: ContentCache;
  reader: ContentReader;
  /** Set where the trees of this thread are read from. */
  onRead?: StoreTreeOptions['onRead'];
}

/** @param verified - what the threads of this process know of the content cache, from `newVerifiedMemory` */
export async function openServing(storeRoot: string, verified: SharedArrayBuffer): Promise<Serving> {
  const store = new Store(storeRoot);
  const index = await IndexDatabase.open(store.cacheDir);
  const entries = new Entries(index);
  const cache = new ContentCache(store.cacheDir, { verified });
  const reader = new ContentReader(store, entries, cache);
  return { store, index, entries, trees: new Trees(index, entries), cache, reader };
}

/** The tree that a connection shows, and how it is served. */
export function servedTree(
  { store, entries, trees, reader, onRead }: Serving,
  { shows, negotiated }: ConnectionSpec,
): { tree: ServedTree; options: ServeOptions } {
  const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  const resume = negotiated;
  switch (shows.kind) {
    case 'tree': {
      const tree = new StoreTree(entries, trees, reader, { owner, keepOwners: shows.keepOwners, onRead });
      return { tree, options: { resume, xattrs: shows.xattrs, mayGrow: (nodeId) => nodeId === ROOT_NODE_ID } };
    }
    case 'checkpoint': {
      const { manifest, keepOwners, xattrs } = shows;
      const tree = new StoreTree(entries, trees, reader, { owner, keepOwners, manifest, onRead });
      return { tree, options: { resume, xattrs } };
    }
    case 'large':
      return { tree: new LargeTree(entries, reader, { owner }), options: { resume, opener: () => 'slow' } };
    case 'workspace': {
      // What lies below: on other threads than the workspace's own, nothing else is asked for.
      const { manifest, keepOwners } = shows;
      return { tree: new StoreTree(entries, trees, reader, { owner, keepOwners, manifest }), options: { resume } };
    }
    case 'all': {
      const tree = new AllTree(store, new StoreTree(entries, trees, reader, { owner, keepOwners: false, onRead }));
      return { tree, options: { resume, mayGrow: (nodeId) => tree.mayGrow(nodeId) } };
    }
  }
}

const ROOT_NODE_ID = 1;
