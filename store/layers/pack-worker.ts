import { parentPort } from 'node:worker_threads';

import { BentoError, errnoOf, type ErrorCode } from '../errors.ts';
import { packChunk, packFile, packGroup, type PackJob } from './pack-job.ts';
import type { PackedChunk, PackedFile, PackedGroup } from './pack-job.ts';

/** What travels back for a job: what was packed, or why not. */
export interface PackReply {
  id: number;
  result?: unknown;
  error?: { message: string; code?: ErrorCode; hint?: string | undefined; errno?: string | undefined };
}

/** Runs one job on whatever thread this is. */
export function runJob(job: PackJob): PackedGroup | PackedChunk | PackedFile {
  if (job.kind === 'group') return packGroup(job);
  return job.kind === 'file' ? packFile(job) : packChunk(job);
}

parentPort?.on('message', ({ id, job }: { id: number; job: PackJob }) => {
  try {
    const result = runJob(job);
    const buffers = 'raw' in result ? [result.raw.buffer, result.member.buffer] : [];
    const own = buffers.filter((buffer) => buffer instanceof ArrayBuffer);
    parentPort?.postMessage({ id, result } satisfies PackReply, own);
  } catch (error) {
    parentPort?.postMessage({ id, error: describe(error) } satisfies PackReply);
  }
});

function describe(error: unknown): NonNullable<PackReply['error']> {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof BentoError) return { message, code: error.code, hint: error.hint };
  return { message, errno: errnoOf(error) };
}
