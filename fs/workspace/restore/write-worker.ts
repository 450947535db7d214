import { parentPort, workerData } from 'node:worker_threads';

import { BentoError, errnoOf, type ErrorCode } from '../../../store/errors.ts';
import { FileWriter } from './file-writer.ts';
import type { FileBatch, Refusal, WriteContext } from './file-job.ts';

/** What a writing thread answers to a batch; an error in a form that survives the way between threads. */
export interface WriteAnswer {
  refused: Refusal[];
  failed?: { message: string; bento?: ErrorCode; hint?: string | undefined; errno?: string | undefined };
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
    const message = error instanceof Error ? error.message : String(error);
    if (!(error instanceof BentoError)) return { refused: [], failed: { message, errno: errnoOf(error) } };
    return { refused: [], failed: { message, bento: error.code, hint: error.hint } };
  }
}

/** A Buffer arrives from another thread as a plain Uint8Array. */
function buffersOf(xattrs: ReadonlyMap<string, Uint8Array>): Map<string, Buffer> {
  return new Map(
    [...xattrs].map(([name, value]) => [name, Buffer.from(value.buffer, value.byteOffset, value.byteLength)]),
  );
}
