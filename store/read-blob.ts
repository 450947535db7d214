import { read, readSync } from 'node:fs';
import { promisify } from 'node:util';

import type { BlobFile } from './blob-file.ts';

const readAsync = promisify(read);

/**
 * Reads a stretch.
 *
 * @param into - filled from its beginning
 * @returns how many bytes; fewer than `into` has room for only when a file was cut off
 */
export function readBlobSync(file: BlobFile, offset: number, into: Buffer): number {
  let done = 0;
  for (const range of file.ranges(offset, into.length)) {
    for (let part = 0; part < range.lengthBytes;) {
      const bytesRead = readSync(range.fd, into, done, range.lengthBytes - part, range.offset + part);
      if (bytesRead === 0) return done;
      part += bytesRead;
      done += bytesRead;
    }
  }
  return done;
}

/** `readBlobSync` on a thread of Node's pool. */
export async function readBlob(file: BlobFile, offset: number, into: Buffer): Promise<number> {
  let done = 0;
  for (const range of file.ranges(offset, into.length)) {
    for (let part = 0; part < range.lengthBytes;) {
      const { bytesRead } = await readAsync(range.fd, into, done, range.lengthBytes - part, range.offset + part);
      if (bytesRead === 0) return done;
      part += bytesRead;
      done += bytesRead;
    }
  }
  return done;
}

const STREAM_BYTES = 1 << 20;

/** All bytes of a blob from an offset on, in pieces of 1 MiB; the next is read while the last is in use. */
export async function* streamBlob(file: BlobFile, from = 0): AsyncGenerator<Buffer, void, undefined> {
  const readFrom = async (offset: number): Promise<Buffer> => {
    const piece = Buffer.allocUnsafe(Math.max(Math.min(STREAM_BYTES, file.sizeBytes - offset), 0));
    return piece.subarray(0, await readBlob(file, offset, piece));
  };
  let next = readFrom(from);
  try {
    for (let offset = from; offset < file.sizeBytes;) {
      const piece = await next;
      if (piece.length === 0) return; // cut off meanwhile: whoever verifies notices
      offset += piece.length;
      next = readFrom(offset);
      next.catch(() => undefined); // looked at when its turn comes
      yield piece;
    }
  } finally {
    await next.catch(() => undefined); // nothing may read when the file is closed
  }
}
