import { open, mkdir, rename, rm, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { crc32, deflateRaw } from 'node:zlib';

import { digestToBytes, type Digest } from '../digest.ts';
import { temporaryBeside } from '../durable.ts';
import { BentoError } from '../errors.ts';
import { GzipScanner, WINDOW_BYTES, type ResumeMark } from './gzip-scanner.ts';
import { FOOTER, RESUME_MAGIC, RESUME_VERSION, ROW, tableCrc } from './resume-points.ts';

const deflateRawAsync = promisify(deflateRaw) as (bytes: Buffer) => Promise<Buffer>;

/**
 * Notes where a foreign compressed layer can be inflated from, while somebody else inflates it: the compressed bytes go through
 * `through`, what they inflate to comes to `take`. Memory does not grow with the layer but by a row for each MiB. The file takes
 * its place when it is whole and durable.
 */
export class ResumeRecorder {
  readonly #path: string;
  readonly #temporary: string;
  readonly #file: FileHandle;
  readonly #digest: Digest;
  readonly #scanner = new GzipScanner((mark) => this.#marks.push(mark));
  /** Those whose windows have not come yet. */
  readonly #marks: ResumeMark[] = [];
  readonly #rows: Buffer[] = [];
  #fileBytes = 0;
  #tarBytes = 0;
  /** The end of what came last. */
  #tail: Buffer = Buffer.alloc(0);

  private constructor(path: string, digest: Digest, { file, temporary }: { file: FileHandle; temporary: string }) {
    this.#path = path;
    this.#digest = digest;
    this.#file = file;
    this.#temporary = temporary;
  }

  static async create(path: string, digest: Digest): Promise<ResumeRecorder> {
    await mkdir(dirname(path), { recursive: true, mode: 0o755 });
    const temporary = temporaryBeside(path);
    return new ResumeRecorder(path, digest, { file: await open(temporary, 'wx', 0o600), temporary });
  }

  /**
   * Hands the bytes of the blob on when it has gone over them, so that no inflated byte comes before its marks.
   *
   * @throws BentoError FORMAT_INVALID when it is no gzip stream
   */
  async *through(blob: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, undefined> {
    const held: Buffer[] = [];
    let handedBytes = 0;
    for await (const piece of blob) {
      held.push(piece);
      this.#scanner.write(piece);
      for (let next = held[0]; next !== undefined; next = held[0]) {
        if (handedBytes + next.length > this.#scanner.scannedBytes) break;
        handedBytes += next.length;
        yield next;
        held.shift();
      }
    }
    this.#scanner.end();
    yield* held;
  }

  /** The next bytes of the uncompressed tar. */
  async take(bytes: Buffer): Promise<void> {
    for (let mark = this.#marks[0]; mark !== undefined; mark = this.#marks[0]) {
      const inBytes = mark.tarOffset - this.#tarBytes;
      if (inBytes > bytes.length) break;
      if (inBytes < 0) throw new RangeError('inflated bytes came before their mark');
      await this.#add(mark, lastBytes(this.#tail, bytes.subarray(0, inBytes), mark.windowBytes));
      this.#marks.shift();
    }
    this.#tarBytes += bytes.length;
    this.#tail = lastBytes(this.#tail, bytes, WINDOW_BYTES);
  }

  /** Call when all has come. @throws BentoError FORMAT_INVALID when scanner and inflater do not agree on the stream */
  async finish(): Promise<void> {
    await this.take(Buffer.alloc(0));
    if (this.#tarBytes !== this.#scanner.tarBytes || this.#marks.length > 0) {
      const what = `it inflates to ${this.#tarBytes} bytes, and is said to hold ${this.#scanner.tarBytes}`;
      throw new BentoError('FORMAT_INVALID', `a layer cannot be read: ${what}`);
    }
    const table = Buffer.concat(this.#rows);
    await this.#write(table);
    await this.#write(this.#footer(table));
    await this.#file.datasync();
    await this.#file.close();
    await rename(this.#temporary, this.#path);
  }

  /** Removes what was written, unless it is finished. May be called twice. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
    await rm(this.#temporary, { force: true });
  }

  async #add({ tarOffset, blobOffset, prefix }: ResumeMark, window: Buffer): Promise<void> {
    const stored = window.length === 0 ? window : await deflateRawAsync(window);
    const record = Buffer.concat([prefix.bytes, stored]);
    const row = Buffer.alloc(ROW.bytes);
    row.writeBigUInt64LE(BigInt(tarOffset), ROW.tarOffset);
    row.writeBigUInt64LE(BigInt(blobOffset), ROW.blobOffset);
    row.writeBigUInt64LE(BigInt(this.#fileBytes), ROW.recordOffset);
    row.writeUInt32LE(crc32(record), ROW.recordCrc);
    row.writeUInt32LE(stored.length, ROW.storedWindowBytes);
    row.writeUInt16LE(window.length, ROW.windowBytes);
    row.writeUInt16LE(prefix.bytes.length, ROW.prefixBytes);
    row.writeUInt8(prefix.sharedBits, ROW.sharedBits);
    this.#rows.push(row);
    await this.#write(record);
  }

  #footer(table: Buffer): Buffer {
    const footer = Buffer.alloc(FOOTER.bytes);
    RESUME_MAGIC.copy(footer);
    footer.writeUInt32LE(RESUME_VERSION, FOOTER.version);
    footer.writeUInt32LE(this.#rows.length, FOOTER.rowCount);
    footer.writeBigUInt64LE(BigInt(this.#fileBytes - table.length), FOOTER.tableOffset);
    footer.writeBigUInt64LE(BigInt(this.#tarBytes), FOOTER.tarBytes);
    footer.writeBigUInt64LE(BigInt(this.#scanner.streamBytes), FOOTER.streamBytes);
    digestToBytes(this.#digest).copy(footer, FOOTER.digest);
    footer.writeUInt32LE(tableCrc(table, footer), FOOTER.crc);
    return footer;
  }

  async #write(bytes: Buffer): Promise<void> {
    await this.#file.writeFile(bytes);
    this.#fileBytes += bytes.length;
  }
}

/** The last bytes of two buffers, one after the other; in a buffer of their own, or they would keep a larger one. */
function lastBytes(before: Buffer, bytes: Buffer, length: number): Buffer {
  if (bytes.length >= length) return Buffer.from(bytes.subarray(bytes.length - length));
  const fromBefore = before.subarray(Math.max(before.length - (length - bytes.length), 0));
  return Buffer.concat([fromBefore, bytes]);
}
