import { openSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';

import { LargeTree } from '../../../fs/serving/large-tree.ts';
import type { Session } from '../../../fs/serving/handlers.ts';
import { type Negotiated, serve } from '../../../fs/serving/serve-loop.ts';
import type { ServedTree } from '../../../fs/serving/served-tree.ts';
import { StoreTree } from '../../../fs/serving/store-tree.ts';
import { ContentReader } from '../../../fs/contents/content-reader.ts';
import { treeSource } from '../../../fs/tree/index-checkpoint.ts';
import { IndexDatabase } from '../../../index/database.ts';
import type { Digest } from '../../../store/digest.ts';
import { Store } from '../../../store/store.ts';
import { ioctl } from '../../../store/syscalls.ts';

/** What a worker thread is told that answers for trees of a store on a descriptor. */
export interface KernelThreadData {
  fd: number;
  storeRoot: string;
  shows:
    | { kind: 'checkpoint'; manifest: Digest; keepOwners: boolean; xattrs: boolean }
    /** Every checkpoint as a folder. */
    | { kind: 'all' }
    /** Large files; the kernel reads this file instead of any of them. */
    | { kind: 'large'; backing: string };
}

/** What it reports; the number of a file registered with the kernel, when one was asked for. */
export type KernelThreadMessage = { negotiated: Negotiated } | { backingId: number } | { error: string };

/** FUSE_DEV_IOC_BACKING_OPEN; struct fuse_backing_map: descriptor i32, flags u32, padding u64. */
const BACKING_OPEN = 0x4010_e501;

const { fd, storeRoot, shows } = workerData as KernelThreadData;
const store = new Store(storeRoot);
const { entries, trees } = treeSource(store, await IndexDatabase.open(store.cacheDir));
const reader = new ContentReader(store, entries);
const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };

function tell(message: KernelThreadMessage): void {
  parentPort?.postMessage(message);
}

function opener(path: string): Session['opener'] {
  let backingId: number | undefined;
  return () => {
    if (backingId === undefined) {
      const map = Buffer.alloc(16);
      map.writeInt32LE(openSync(path, 'r'), 0);
      backingId = ioctl(fd, BACKING_OPEN, map);
      tell({ backingId });
    }
    return { backingId };
  };
}

function treeAndOptions(): [ServedTree, Parameters<typeof serve>[2]] {
  switch (shows.kind) {
    case 'checkpoint': {
      const { manifest, keepOwners, xattrs } = shows;
      return [new StoreTree(entries, trees, reader, { owner, keepOwners, manifest }), { xattrs }];
    }
    case 'all':
      return [
        new StoreTree(entries, trees, reader, { owner, keepOwners: false }),
        { mayGrow: (nodeId) => nodeId === 1 },
      ];
    case 'large':
      return [new LargeTree(entries, reader, { owner }), { opener: opener(shows.backing) }];
  }
}

const [tree, options] = treeAndOptions();
serve(fd, tree, {
  ...options,
  onInit: (negotiated) => tell({ negotiated }),
  onError: (error) => tell({ error: String(error) }),
});
