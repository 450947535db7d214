import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

import type { ByteString } from '../../../store/byte-string.ts';
import type { Chunk, Entry, EntryType, PackedEntry } from '../../../store/entry.ts';
import { chunkOf, endOf, inflateStored, storedBytes, type BlobReader } from '../../../store/layers/layer-reader.ts';
import type { LayerSink } from '../../../store/layers/layer-output.ts';
import { LayerWriter, type LayerContent, type PackedLayer } from '../../../store/layers/layer-writer.ts';
import { PackPool } from '../../../store/layers/pack-pool.ts';

/** An entry to archive, with its bytes when it is a file. */
export interface Sample {
  entry: Entry;
  content?: Buffer;
}

export interface Written {
  blob: Buffer;
  layer: PackedLayer;
  entries: PackedEntry[];
}

export function entryOf(path: ByteString, type: EntryType, fields: Partial<Entry> = {}): Entry {
  const mode = type === 'symlink' ? 0o777 : type === 'dir' ? 0o755 : 0o644;
  return { path, type, mode, uid: 0, gid: 0, mtimeSec: 1_700_000_000, mtimeNsec: 0, sizeBytes: 0, ...fields };
}

export function fileOf(path: ByteString, content: Buffer | string, fields: Partial<Entry> = {}): Sample {
  const bytes = Buffer.from(content);
  return { entry: entryOf(path, 'file', { sizeBytes: bytes.length, ...fields }), content: bytes };
}

/** Packs on the test's own thread. */
export const INLINE = PackPool.for({ entryCount: 0, sizeBytes: 0 });

/** Packs on as many threads as there are processors. */
export function threads(t: ExecutionContext): PackPool {
  const pool = PackPool.for({ entryCount: 0, sizeBytes: 1 << 30 });
  t.teardown(async () => await pool.close());
  return pool;
}

/** Keeps a blob in memory. */
export class MemorySink implements LayerSink {
  blob = Buffer.alloc(0);

  write(bytes: Buffer): void {
    this.blob = Buffer.concat([this.blob, bytes]);
  }

  rewind(sizeBytes: number): void {
    this.blob = this.blob.subarray(0, sizeBytes);
  }
}

/** Yields the bytes in pieces of one size. */
export function sourceOf(bytes: Buffer, pieceBytes = 64 * 1024): Extract<LayerContent, { read: unknown }> {
  return {
    *read() {
      for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
    },
  };
}

export async function writeLayer(samples: readonly Sample[], pieceBytes?: number, pool = INLINE): Promise<Written> {
  const entries: PackedEntry[] = [];
  const sink = new MemorySink();
  const writer = await LayerWriter.create(sink, { pool, onEntry: (entry) => entries.push(entry) });
  for (const { entry, content } of samples) await writer.add(entry, content && sourceOf(content, pieceBytes));
  const layer = await writer.finish();
  return { blob: sink.blob, layer, entries };
}

export function readerOf(blob: Buffer): BlobReader {
  const readAt = async (offset: number, length: number): Promise<Buffer> =>
    Promise.resolve(blob.subarray(offset, offset + length));
  return { sizeBytes: blob.length, readAt };
}

/** Reads a piece of a file as those do who cannot wait. */
export function readSync(blob: Buffer, chunk: Chunk): Buffer {
  const stored = blob.subarray(chunk.blobOffset, chunk.blobOffset + storedBytes(chunk, 'gzip'));
  return chunkOf(inflateStored(stored, 'gzip', endOf(chunk)), chunk);
}

export async function* inPieces(bytes: Buffer, pieceBytes = 1000): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    yield await Promise.resolve(bytes.subarray(at, at + pieceBytes));
  }
}

/** Bytes that do not compress and are the same in every run. */
export function noise(sizeBytes: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  let state = seed;
  for (let at = 0; at + 4 <= sizeBytes; at += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes.writeUInt32LE((state ^ (state >>> 15)) >>> 0, at);
  }
  return bytes;
}

export async function tempDir(t: ExecutionContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'bento-layers-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

/** Whether a second implementation is there to compare with; says so aloud when it is not. */
export function hasTool(t: ExecutionContext, name: string): boolean {
  const found = spawnSync(name, ['--version']).status === 0;
  if (!found) t.log(`skipped: ${name} is missing`);
  return found;
}

/** Runs a tool and returns what it printed; its failure is the test's. */
export function run(t: ExecutionContext, command: readonly [string, ...string[]], input?: Buffer): Buffer {
  const [name, ...args] = command;
  const env = { ...process.env, LC_ALL: 'C', TZ: 'UTC' };
  const result = spawnSync(name, args, { input, env, maxBuffer: 256 * 1024 * 1024 });
  t.is(result.status, 0, `${command.join(' ')}: ${result.stderr.toString()}`);
  return result.stdout;
}
