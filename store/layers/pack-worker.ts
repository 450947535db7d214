import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { parentPort } from 'node:worker_threads';

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

/** zlib's output lies outside V8's heap, and V8 hardly feels it: left alone, each thread keeps 60 MB of it around. */
const GARBAGE_BYTES_MAX = 8 * 1024 * 1024;
const collect = parentPort === null ? undefined : exposedGc();
let garbageBytes = 0;

parentPort?.on('message', ({ id, job }: { id: number; job: PackJob }) => {
  try {
    const result = runJob(job);
    parentPort?.postMessage({ id, result } satisfies PackReply);
    if ('memberBytes' in result) clearGarbage(result.memberBytes);
  } catch (error) {
    parentPort?.postMessage({ id, error: packError(error) } satisfies PackReply);
  }
});

function clearGarbage(memberBytes: number): void {
  garbageBytes += 3 * memberBytes; // zlib's pieces, those put together, and those with their frame
  if (garbageBytes < GARBAGE_BYTES_MAX) return;
  garbageBytes = 0;
  collect?.({ type: 'minor' });
}

function exposedGc(): ((options: { type: 'minor' }) => void) | undefined {
  setFlagsFromString('--expose-gc');
  return runInNewContext('globalThis.gc') as ReturnType<typeof exposedGc>;
}
