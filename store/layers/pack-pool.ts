import { availableParallelism } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';

import type { Digest } from '../digest.ts';
import { unpackError } from '../thread-error.ts';
import { sharedBytes, type EarlierChunk } from './earlier-chunk.ts';
import type { SharedBytes } from './layer-output.ts';
import { GroupFacts, newChunkRoom, newRoom, type ChunkReply, type ChunkRoom, type ChunkSource } from './pack-job.ts';
import type { FileJob, FileReply, GroupReply, GroupRoom, PackJob, RecordItem } from './pack-job.ts';
import { runJob, type PackReply } from './pack-worker.ts';
import type { ChangedFile } from './steady-read.ts';

/** A thread costs 30 ms to start: for less than this, in bytes, it does not pay. */
const THREADS_BYTES_MIN = 4 * 1024 * 1024;
/** So many entries cost as much as that many bytes: opening a file takes as long as compressing some. */
const ENTRY_BYTES = 4 * 1024;
const THREADS_MAX = 8;

export interface PackedGroup {
  /** Uncompressed; empty when everything in the group is gone. */
  raw: Uint8Array;
  member: Uint8Array;
  facts: GroupFacts;
  changed: Map<number, ChangedFile> | undefined;
  /** Where all of it lies, until it is released. */
  room: GroupRoom;
}

export interface PackedChunk {
  /** Shorter than what was asked for when the file has become so. */
  raw: Uint8Array;
  member: Uint8Array;
  digest: Digest;
  /** What of the member lies in other blobs, too, in order. */
  shared?: readonly SharedBytes[];
  /** Where it lies until it is released; absent when it is the caller's own memory. */
  room?: ChunkRoom;
}

export type PackedFile =
  (PackedChunk & { kind: 'packed'; changed: ChangedFile | undefined }) | Exclude<FileReply, { kind: 'packed' }>;

interface Waiting {
  resolve: (result: unknown) => void;
  reject: (error: unknown) => void;
}

/**
 * Reads, hashes and compresses on as many threads as there are processors, or right here when there is little to do.
 * Descriptors belong to the process, so a file opened here is read there.
 */
export class PackPool {
  readonly #threads: PackThread[];
  readonly #rooms: GroupRoom[] = [];
  readonly #chunkRooms: ChunkRoom[] = [];
  #lastId = 0;

  private constructor(threadCount: number) {
    this.#threads = Array.from({ length: threadCount }, () => new PackThread());
  }

  /** @param work - how much there will be to do; it decides whether threads are started, never what comes out */
  static for(work: { entryCount: number; sizeBytes: number }): PackPool {
    const isLarge = work.sizeBytes + work.entryCount * ENTRY_BYTES >= THREADS_BYTES_MIN;
    return new PackPool(isLarge ? Math.min(availableParallelism(), THREADS_MAX) : 0);
  }

  /** How many jobs are worth having under way. */
  get width(): number {
    return Math.max(this.#threads.length, 1);
  }

  async group(items: readonly RecordItem[]): Promise<PackedGroup> {
    const room = this.#rooms.pop() ?? newRoom();
    const reply = (await this.#run({ kind: 'group', items, room })) as GroupReply;
    const { rawBytes, memberBytes, outgrown, changed } = reply;
    const raw = outgrown?.raw ?? Buffer.from(room.raw, 0, rawBytes);
    const member = outgrown?.member ?? Buffer.from(room.member, 0, memberBytes);
    return { raw, member, facts: new GroupFacts(room), changed, room };
  }

  async file(source: FileJob['source']): Promise<PackedFile> {
    const room = this.#chunkRooms.pop() ?? newChunkRoom();
    const reply = (await this.#run({ kind: 'file', source, room })) as FileReply;
    if (reply.kind === 'packed') return { ...packedChunk(reply, room), kind: 'packed', changed: reply.changed };
    this.#chunkRooms.push(room);
    return reply;
  }

  /** @param earlier - what was at the same place before: bytes that are the same need not be compressed, nor kept twice */
  async chunk(source: ChunkSource, earlier?: EarlierChunk): Promise<PackedChunk> {
    const room = this.#chunkRooms.pop() ?? newChunkRoom();
    const reply = (await this.#run({ kind: 'chunk', source, room, earlier })) as ChunkReply;
    const packed = packedChunk(reply, room);
    return earlier === undefined || reply.same === undefined
      ? packed
      : { ...packed, shared: sharedBytes(reply.same, earlier) };
  }

  /** Takes back the memory of what is written and recorded. */
  release({ room }: PackedGroup | PackedChunk): void {
    if (room === undefined) return;
    if ('facts' in room) this.#rooms.push(room);
    else this.#chunkRooms.push(room);
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map(async (thread) => await thread.end()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #run(job: PackJob): Promise<unknown> {
    const [first, ...others] = this.#threads;
    if (first === undefined) {
      await setImmediate(); // timers and signals have their turn between two jobs
      return runJob(job);
    }
    const idlest = others.reduce((best, thread) => (thread.load < best.load ? thread : best), first);
    return await idlest.run(++this.#lastId, job);
  }
}

class PackThread {
  readonly #worker = new Worker(new URL('./pack-worker.js', import.meta.url), { trackUnmanagedFds: false });
  readonly #waiting = new Map<number, Waiting>();
  #dead: Error | undefined;

  constructor() {
    this.#worker.on('message', (reply: PackReply) => this.#settle(reply));
    this.#worker.on('error', (error) => this.#die(error));
    this.#worker.on('exit', () => this.#die(new Error('a packing thread ended early')));
    this.#worker.unref();
  }

  get load(): number {
    return this.#waiting.size;
  }

  async run(id: number, job: PackJob): Promise<unknown> {
    if (this.#dead !== undefined) throw this.#dead;
    this.#worker.ref();
    return await new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, job });
    });
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }

  #settle({ id, result, error }: PackReply): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (this.#waiting.size === 0) this.#worker.unref();
    if (error === undefined) waiting?.resolve(result);
    else waiting?.reject(unpackError(error));
  }

  #die(error: Error): void {
    this.#dead ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#dead);
    this.#waiting.clear();
  }
}

function packedChunk(
  { rawBytes, memberBytes, digest }: ChunkReply,
  room: ChunkRoom,
): PackedChunk & { room: ChunkRoom } {
  return { raw: Buffer.from(room.raw, 0, rawBytes), member: Buffer.from(room.member, 0, memberBytes), digest, room };
}
