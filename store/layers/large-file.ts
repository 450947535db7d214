import { closeSync, fstatSync, type BigIntStats } from 'node:fs';

import { openRegular } from '../regular-file.ts';
import type { ByteString } from '../byte-string.ts';
import type { ChunkSource } from './pack-job.ts';
import {
  changedFile,
  isAsPlanned,
  isSameFile,
  READ_ATTEMPTS,
  type ChangedFile,
  type FileTimes,
} from './steady-read.ts';
import { CHUNK_BYTES } from './toc.ts';

/** The content of a file that is packed chunk by chunk, perhaps more than once. */
export interface LargeContent {
  /** How many bytes the next reading is going to give, if nothing changes meanwhile. */
  readonly sizeBytes: number;
  chunks(): AsyncIterable<ChunkSource> | Iterable<ChunkSource>;
  /**
   * Called after each reading with the bytes there were.
   *
   * @returns whether they must be read again, because they are not what was announced or not of one moment
   */
  mustRepeat(readBytes: number, attempt: number): boolean;
  /** What the file has become since it was planned. */
  changed(): ChangedFile | undefined;
  close(): void;
}

/** A file that shrinks while it is read is read again at most this often. */
const ATTEMPTS_MAX = 10;

/** A large file on disk. */
export class LargeFile implements LargeContent {
  readonly #fd: number;
  #stat: BigIntStats;
  #changed: ChangedFile | undefined;
  sizeBytes: number;

  /** @param fd - closed by `close` */
  constructor(fd: number, planned: FileTimes | undefined) {
    this.#fd = fd;
    this.#stat = fstatSync(fd, { bigint: true });
    this.sizeBytes = Number(this.#stat.size);
    if (planned !== undefined && !isAsPlanned(fd, planned)) this.#changed = changedFile(this.#stat);
  }

  /** Undefined when the file is gone. */
  static open(path: ByteString, planned: FileTimes | undefined): LargeFile | undefined {
    const fd = openRegular(path);
    return fd === undefined ? undefined : new LargeFile(fd, planned);
  }

  *chunks(): Generator<ChunkSource> {
    for (let offset = 0; offset < this.sizeBytes; offset += CHUNK_BYTES) {
      const sizeBytes = Math.min(CHUNK_BYTES, this.sizeBytes - offset);
      yield { kind: 'fd', fd: this.#fd, offset, sizeBytes };
    }
  }

  mustRepeat(readBytes: number, attempt: number): boolean {
    const before = this.#stat;
    this.#stat = fstatSync(this.#fd, { bigint: true });
    if (readBytes === this.sizeBytes && isSameFile(before, this.#stat)) return false;
    const isLast = attempt >= READ_ATTEMPTS;
    this.#changed = { ...changedFile(this.#stat), isUnsteady: isLast };
    if (readBytes === this.sizeBytes) {
      if (!isLast) this.sizeBytes = Number(this.#stat.size);
      return !isLast;
    }
    this.sizeBytes = isLast ? readBytes : Number(this.#stat.size);
    return attempt < ATTEMPTS_MAX;
  }

  changed(): ChangedFile | undefined {
    return this.#changed;
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** Content that comes in pieces, such as a file of another layer. */
export class LargePieces implements LargeContent {
  readonly #read: () => AsyncIterable<Buffer> | Iterable<Buffer>;
  sizeBytes: number;

  /** @param read - called again when there were not `sizeBytes` bytes the first time */
  constructor(read: () => AsyncIterable<Buffer> | Iterable<Buffer>, sizeBytes: number) {
    this.#read = read;
    this.sizeBytes = sizeBytes;
  }

  async *chunks(): AsyncGenerator<ChunkSource> {
    for await (const bytes of cutChunks(this.#read())) yield { kind: 'bytes', bytes };
  }

  mustRepeat(readBytes: number, attempt: number): boolean {
    if (readBytes === this.sizeBytes) return false;
    this.sizeBytes = readBytes;
    return attempt < ATTEMPTS_MAX;
  }

  changed(): undefined {
    return undefined;
  }

  close(): void {
    // Nothing is open between two readings.
  }
}

/** Cuts pieces of any size into chunks of one size; only the last may be shorter, and none is empty. */
export async function* cutChunks(
  pieces: AsyncIterable<Buffer> | Iterable<Buffer>,
): AsyncGenerator<Buffer, void, undefined> {
  let held: Buffer[] = [];
  let heldBytes = 0;
  for await (const whole of pieces) {
    for (let piece = whole; piece.length > 0;) {
      const part = piece.subarray(0, CHUNK_BYTES - heldBytes);
      held.push(part);
      heldBytes += part.length;
      piece = piece.subarray(part.length);
      if (heldBytes < CHUNK_BYTES) continue;
      yield Buffer.concat(held, heldBytes);
      held = [];
      heldBytes = 0;
    }
  }
  if (heldBytes > 0) yield Buffer.concat(held, heldBytes);
}
