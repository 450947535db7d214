import { closeSync, fstatSync, openSync, read, readSync, type BigIntStats } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { hexOf, type Digest } from '../../store/digest.ts';
import { flock } from '../../store/syscalls.ts';

const readAsync = promisify(read);

/** The folder with one file for each content, named by its hex digest. */
export function contentsDir(cacheDir: string): string {
  return join(cacheDir, 'sha256');
}

/** Where the uncompressed copy of a content lies when it is in the cache. */
export function contentPath(cacheDir: string, digest: Digest): string {
  return join(contentsDir(cacheDir), hexOf(digest));
}

/**
 * A whole content in the cache, held open. While it is held, or while the kernel has its open file (as for a mapping or for
 * passthrough), a shared lock on it keeps it from being evicted.
 */
export class CachedContent {
  readonly digest: Digest;
  readonly path: string;
  readonly sizeBytes: number;
  #fd: number | undefined;

  constructor(fd: number, place: { digest: Digest; path: string; sizeBytes: number }) {
    this.#fd = fd;
    this.digest = place.digest;
    this.path = place.path;
    this.sizeBytes = place.sizeBytes;
  }

  /** Opened for reading. */
  get fd(): number {
    if (this.#fd === undefined) throw new TypeError(`${this.path} is closed`);
    return this.#fd;
  }

  stat(): BigIntStats {
    return fstatSync(this.fd, { bigint: true });
  }

  /**
   * Reads from `offset` into `out`.
   *
   * @returns how many bytes, fewer only at the end of the content; undefined when the disk does not give them
   */
  readNow(offset: number, out: Buffer): number | undefined {
    const wantedBytes = Math.max(Math.min(out.length, this.sizeBytes - offset), 0);
    try {
      for (let done = 0; done < wantedBytes;) {
        const sizeBytes = readSync(this.fd, out, done, wantedBytes - done, offset + done);
        if (sizeBytes === 0) return undefined;
        done += sizeBytes;
      }
      return wantedBytes;
    } catch {
      return undefined; // the layer has the bytes, too
    }
  }

  /** Like `readNow`, without holding up the thread. */
  async read(offset: number, length: number): Promise<Buffer | undefined> {
    const out = Buffer.allocUnsafe(Math.max(Math.min(length, this.sizeBytes - offset), 0));
    try {
      for (let done = 0; done < out.length;) {
        const { bytesRead } = await readAsync(this.fd, out, done, out.length - done, offset + done);
        if (bytesRead === 0) return undefined;
        done += bytesRead;
      }
      return out;
    } catch {
      return undefined;
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * Opens a file of the cache and takes a shared lock on it.
 *
 * @returns undefined when it is not there, is just being evicted, or cannot be opened: the layer has the bytes, too
 */
export function openHeld(path: string): { fd: number; stat: BigIntStats } | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(path, 'r');
    const isHeld = flock(fd, 'shared', { wait: false });
    const stat = fstatSync(fd, { bigint: true });
    if (isHeld && stat.nlink > 0n) return { fd, stat };
  } catch {
    // As if it were not there.
  }
  if (fd !== undefined) closeSync(fd);
  return undefined;
}
