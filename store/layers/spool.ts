import { randomUUID } from 'node:crypto';
import { open, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

/** Compressed members of a large file stay in memory up to this size. */
const MEMORY_BYTES_MAX = 4 * 1024 * 1024;

/** Holds buffers until they are read back in order: in memory while small, then in a file without a name. */
export class Spool {
  readonly #dir: string;
  #memory: Buffer[] = [];
  #memoryBytes = 0;
  readonly #lengths: number[] = [];
  #file: FileHandle | undefined;
  #fileBytes = 0;

  constructor(dir: string) {
    this.#dir = dir;
  }

  async append(bytes: Buffer): Promise<void> {
    this.#memory.push(bytes);
    this.#memoryBytes += bytes.length;
    this.#lengths.push(bytes.length);
    if (this.#memoryBytes > MEMORY_BYTES_MAX) await this.#spill();
  }

  /** The buffers as they were appended. */
  async *read(): AsyncGenerator<Buffer, void, undefined> {
    let at = 0;
    let inMemory = 0;
    for (const length of this.#lengths) {
      if (at < this.#fileBytes) yield await this.#readFile(at, length);
      else yield this.#memory[inMemory++] ?? Buffer.alloc(0);
      at += length;
    }
  }

  async close(): Promise<void> {
    this.#memory = [];
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }

  async #spill(): Promise<void> {
    this.#file ??= await openNameless(this.#dir);
    const bytes = Buffer.concat(this.#memory, this.#memoryBytes);
    for (let written = 0; written < bytes.length;) {
      const at = this.#fileBytes + written;
      written += (await this.#file.write(bytes, written, bytes.length - written, at)).bytesWritten;
    }
    this.#fileBytes += bytes.length;
    this.#memory = [];
    this.#memoryBytes = 0;
  }

  async #readFile(at: number, length: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(length);
    let done = 0;
    while (done < length) {
      const read = await this.#file?.read(bytes, done, length - done, at + done);
      if (!read?.bytesRead) throw new Error('a temporary file of the layer writer became shorter');
      done += read.bytesRead;
    }
    return bytes;
  }
}

/** A file that is gone when it is closed, even by a crash. */
async function openNameless(dir: string): Promise<FileHandle> {
  const path = join(dir, `bento-spool-${randomUUID()}`);
  const file = await open(path, 'wx+', 0o600);
  await unlink(path);
  return file;
}
