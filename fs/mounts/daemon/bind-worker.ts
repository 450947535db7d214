import { parentPort, workerData } from 'node:worker_threads';

import type { ByteString } from '../../../store/byte-string.ts';
import { mount, MS_BIND } from '../../../store/syscalls.ts';

/** A file to be mounted over another. */
export interface FileBind {
  source: ByteString;
  target: ByteString;
}

/** What could not be mounted, a line each; empty when all went well. */
export type BindWorkerMessage = string[];

// A thread of its own, because mount(2) looks at the paths: it waits for the server, which the supervisor must not.
const failures = (workerData as FileBind[]).flatMap(({ source, target }) => {
  try {
    mount(source, target, undefined, MS_BIND);
    return [];
  } catch (error) {
    return [error instanceof Error ? error.message : String(error)];
  }
});
parentPort?.postMessage(failures satisfies BindWorkerMessage);
