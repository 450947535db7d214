import { createHash } from 'node:crypto';
import { closeSync, fstatSync, readSync } from 'node:fs';

import type { ByteString } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import { openRegular } from '../../store/regular-file.ts';

const READ_BYTES = 1 << 20;
/** Hashing keeps nothing of what it reads, so all files go through one buffer. */
const HASHED_PIECE = Buffer.allocUnsafeSlow(READ_BYTES);

/** Hashes a file as it is now. Undefined when it is gone. */
export function hashFile(absolute: ByteString): Digest | undefined {
  const fd = openRegular(absolute);
  if (fd === undefined) return undefined;
  try {
    const hash = createHash('sha256');
    for (let length = readSync(fd, HASHED_PIECE); length > 0; length = readSync(fd, HASHED_PIECE)) {
      hash.update(HASHED_PIECE.subarray(0, length));
    }
    return `sha256:${hash.digest('hex')}`;
  } finally {
    closeSync(fd);
  }
}

/** A file held open: it can be read even when its name is gone by then. */
export class OpenFile {
  #fd: number | undefined;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Undefined when the file is gone. */
  static open(absolute: ByteString): OpenFile | undefined {
    const fd = openRegular(absolute);
    return fd === undefined ? undefined : new OpenFile(fd);
  }

  /** The pieces of the file from its beginning to wherever it ends when the end is reached; then it is closed. */
  *pieces(): Generator<Buffer> {
    const fd = this.#fd;
    if (fd === undefined) throw new TypeError('this file is closed');
    try {
      // One byte more than the file has: a read that comes back short has reached the end.
      const pieceBytes = Math.min(fstatSync(fd).size + 1, READ_BYTES);
      for (let length = pieceBytes; length === pieceBytes;) {
        const piece = Buffer.allocUnsafe(pieceBytes);
        length = readSync(fd, piece);
        if (length > 0) yield piece.subarray(0, length);
      }
    } finally {
      this.close();
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}
