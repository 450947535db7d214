import { parentPort } from 'node:worker_threads';

import { allowGarbage, noteGarbage } from '../buffer-garbage.ts';
import { packError, type ThreadError } from '../thread-error.ts';
import { packChunk, packFile, packGroup, type PackJob } from './pack-job.ts';
import type { ChunkReply, FileReply, GroupReply } from './pack-job.ts';

/** What travels back for a job: what was packed, or why not. */
export interface PackReply {
  id: number;
  result?: unknown;
  error?: ThreadError;
}

/** Runs one job on whatever thread this is. */
export function runJob(job: PackJob): GroupReply | ChunkReply | FileReply {
  if (job.kind === 'group') return packGroup(job);
  return job.kind === 'file' ? packFile(job) : packChunk(job);
}

const GARBAGE_BYTES_MAX = 8 << 20;
if (parentPort !== null) allowGarbage(GARBAGE_BYTES_MAX, 'minor');

parentPort?.on('message', ({ id, job }: { id: number; job: PackJob }) => {
  try {
    const result = runJob(job);
    parentPort?.postMessage({ id, result } satisfies PackReply);
    if ('memberBytes' in result) noteGarbage(3 * result.memberBytes); // zlib's pieces, put together, and with their frame
  } catch (error) {
    parentPort?.postMessage({ id, error: packError(error) } satisfies PackReply);
  }
});
