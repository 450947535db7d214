import { once } from 'node:events';
import { closeSync, mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

import type { ExecutionContext } from 'ava';

import { mountAsRoot, unmount } from '../../../fs/mounts/dev-fuse.ts';
import type { TreeSource } from '../../../fs/tree/index-checkpoint.ts';
import type { KernelThreadData, KernelThreadMessage } from './kernel-thread.ts';

export interface KernelMount {
  dir: string;
  messages: KernelThreadMessage[];
}

/** A kernel mount of a tree of a store, served by a thread of this process; gone with the test. Needs root. */
export function mountTree(t: ExecutionContext, { store }: TreeSource, shows: KernelThreadData['shows']): KernelMount {
  const dir = mkdtempSync(join(tmpdir(), 'bento-kernel-'));
  const fd = mountAsRoot({ target: dir });
  const workerData: KernelThreadData = { fd, storeRoot: store.root, shows };
  const worker = new Worker(new URL('kernel-thread.js', import.meta.url), { workerData });
  const messages: KernelThreadMessage[] = [];
  worker.on('message', (message: KernelThreadMessage) => messages.push(message));
  const ended = once(worker, 'exit');
  t.teardown(async () => {
    unmount(dir, { lazy: true });
    await ended;
    closeSync(fd);
    rmdirSync(dir);
  });
  return { dir, messages };
}
