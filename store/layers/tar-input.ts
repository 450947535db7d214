import { BentoError } from '../errors.ts';
import { BLOCK_BYTES, paddingOf } from './tar-fields.ts';

/** An uncompressed layer may be this long: the end of a decompression bomb, far above any workspace. */
export const TAR_BYTES_MAX = 256 * 1024 ** 3;

/** Sees every byte of the uncompressed tar, in order; a returned promise holds the reader back. */
export type TarBytesListener = (bytes: Buffer) => Promise<void> | void;

/** Hands out the bytes of a tar in the portions its reader asks for, and always knows where it is. */
export class TarInput {
  readonly #pieces: AsyncIterator<Buffer, unknown>;
  readonly #onBytes: TarBytesListener | undefined;
  #piece: Buffer = Buffer.alloc(0);
  #receivedBytes = 0;

  constructor(pieces: AsyncIterable<Buffer>, onBytes?: TarBytesListener) {
    this.#pieces = pieces[Symbol.asyncIterator]();
    this.#onBytes = onBytes;
  }

  /** Where in the uncompressed tar the next byte lies. */
  get offset(): number {
    return this.#receivedBytes - this.#piece.length;
  }

  /** @throws BentoError FORMAT_INVALID when the tar ends before `length` bytes */
  async take(length: number): Promise<Buffer> {
    if (this.#piece.length >= length) return this.#cut(length); // the usual case for headers
    const parts: Buffer[] = [];
    for await (const part of this.parts(length)) parts.push(part);
    return Buffer.concat(parts, length);
  }

  /** The next `length` bytes in whatever portions they arrive. */
  async *parts(length: number): AsyncGenerator<Buffer, void, undefined> {
    for (let left = length; left > 0;) {
      if (this.#piece.length === 0 && !(await this.#receive())) {
        throw new BentoError('FORMAT_INVALID', `a tar is cut off after ${this.offset} bytes`);
      }
      const part = this.#cut(Math.min(left, this.#piece.length));
      left -= part.length;
      yield part;
    }
  }

  async takeBlock(): Promise<Buffer> {
    return this.take(BLOCK_BYTES);
  }

  /** Skips the zeros behind content of this size. */
  async skipPadding(sizeBytes: number): Promise<void> {
    await this.take(paddingOf(sizeBytes));
  }

  /** Reads what follows the end of the archive: it means nothing, but counts for digests. */
  async drain(): Promise<void> {
    this.#piece = Buffer.alloc(0);
    while (await this.#receive()) this.#piece = Buffer.alloc(0);
  }

  async close(): Promise<void> {
    await this.#pieces.return?.();
  }

  #cut(length: number): Buffer {
    const part = this.#piece.subarray(0, length);
    this.#piece = this.#piece.subarray(length);
    return part;
  }

  async #receive(): Promise<boolean> {
    const next = await this.#pieces.next();
    if (next.done === true) return false;
    this.#piece = next.value;
    this.#receivedBytes += next.value.length;
    if (this.#receivedBytes > TAR_BYTES_MAX) {
      throw new BentoError('FORMAT_INVALID', `a layer unpacks to more than ${TAR_BYTES_MAX} bytes`);
    }
    await this.#onBytes?.(next.value);
    return true;
  }
}
