import { parentPort, workerData } from 'node:worker_threads';

import { packError, type ThreadError } from '../../../store/thread-error.ts';
import { FileWriter } from './file-writer.ts';
import type { FileBatch, Refusal, WriteContext } from './file-job.ts';

/** What a writing thread answers to a batch. */
export interface WriteAnswer {
  refused: Refusal[];
  failed?: ThreadError;
}

const writer = new FileWriter(workerData as WriteContext);

parentPort?.on('message', (batch: FileBatch) => {
  parentPort?.postMessage(answer(batch));
});

function answer(batch: FileBatch): WriteAnswer {
  try {
    for (const job of batch.jobs) if (job.xattrs !== undefined) job.xattrs = buffersOf(job.xattrs);
    return { refused: writer.write(batch) };
  } catch (error) {
    return { refused: [], failed: packError(error) };
  }
}

/** A Buffer arrives from another thread as a plain Uint8Array. */
function buffersOf(xattrs: ReadonlyMap<string, Uint8Array>): Map<string, Buffer> {
  return new Map(
    [...xattrs].map(([name, value]) => [name, Buffer.from(value.buffer, value.byteOffset, value.byteLength)]),
  );
}
