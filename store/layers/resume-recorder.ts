import { createHash } from 'node:crypto';
import { closeSync, fdatasyncSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { crc32, deflateRawSync } from 'node:zlib';

import { digestToBytes, hexOf, shortDigest, type Digest } from '../digest.ts';
import { temporaryBeside } from '../durable.ts';
import { BentoError, describeSystemError } from '../errors.ts';
import { GzipScanner, WINDOW_BYTES, type ResumeMark } from './gzip-scanner.ts';
import { inflateSpanSync, spanBuffer } from './inflate-span.ts';
import { FOOTER, RESUME_MAGIC, RESUME_VERSION, ROW, tableCrc } from './resume-points.ts';

/** Levels above save 3 % and take twice the time. */
const WINDOW_LEVEL = 4;
const PIECE_BYTES = 1 << 20;

/** A blob that is read at random, synchronously: fills `into`, or throws. */
export interface BlobToRecord {
  sizeBytes: number;
  read: (offset: number, into: Buffer) => void;
}

/** Where a span ends: at the next mark, or with the stream. */
type SpanEnd = Pick<ResumeMark, 'tarOffset' | 'blobOffset'> & { sharedBits: number };

/**
 * Notes where a foreign compressed layer can be inflated from, while somebody else inflates it: the compressed bytes go through
 * `through`, what they inflate to comes to `take`. Memory does not grow with the layer but by a row for each MiB. The file takes
 * its place when it is whole and durable.
 */
export class ResumeRecorder {
  readonly #path: string;
  readonly #temporary: string;
  #fd: number | undefined;
  readonly #digest: Digest;
  readonly #scanner = new GzipScanner((mark) => this.#marks.push(mark));
  /** Those whose windows have not come yet. */
  readonly #marks: ResumeMark[] = [];
  readonly #rows: Buffer[] = [];
  #fileBytes = 0;
  #tarBytes = 0;
  /** The mark that was noted last, and its window. */
  #last: { mark: ResumeMark; window: Buffer } | undefined;
  /** The end of what came last. */
  #tail: Buffer = Buffer.alloc(0);

  private constructor(path: string, digest: Digest, { fd, temporary }: { fd: number; temporary: string }) {
    this.#path = path;
    this.#digest = digest;
    this.#fd = fd;
    this.#temporary = temporary;
  }

  /** @param path - of the file to be; close it with `using` */
  static create(path: string, digest: Digest): ResumeRecorder {
    const temporary = temporaryBeside(path);
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
      return new ResumeRecorder(path, digest, { fd: openSync(temporary, 'wx', 0o600), temporary });
    } catch (error) {
      throw describeSystemError(error, `writing ${path}`);
    }
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

  /**
   * Does all by itself, for those who cannot wait: each span is inflated from the mark before it. The blob is verified: windows
   * of a damaged one must not outlive it.
   *
   * @throws BentoError FORMAT_INVALID or DIGEST_MISMATCH, or what `blob.read` throws
   */
  goOver(blob: BlobToRecord): void {
    const hash = createHash('sha256');
    for (let offset = 0; offset < blob.sizeBytes; offset += PIECE_BYTES) {
      const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, blob.sizeBytes - offset));
      blob.read(offset, piece);
      hash.update(piece);
      this.#scanner.write(piece);
      this.#catchUp(blob);
    }
    this.#scanner.end();
    this.#catchUp(blob);
    const { tarBytes, streamBytes } = this.#scanner;
    this.#goTo({ tarOffset: tarBytes, blobOffset: streamBytes, sharedBits: 0 }, blob);
    if (hash.digest('hex') === hexOf(this.#digest)) return;
    throw new BentoError('DIGEST_MISMATCH', `layer ${shortDigest(this.#digest)} is not what its digest says`);
  }

  #catchUp(blob: BlobToRecord): void {
    this.take(Buffer.alloc(0));
    for (let next = this.#marks[0]; next !== undefined; next = this.#marks[0]) {
      const { tarOffset, blobOffset, prefix } = next;
      this.#goTo({ tarOffset, blobOffset, sharedBits: prefix.sharedBits }, blob);
      if (this.#marks[0] === next) throw new BentoError('FORMAT_INVALID', 'a layer cannot be inflated from its middle');
    }
  }

  /** The next bytes of the uncompressed tar. */
  take(bytes: Buffer): void {
    for (let mark = this.#marks[0]; mark !== undefined; mark = this.#marks[0]) {
      const inBytes = mark.tarOffset - this.#tarBytes;
      if (inBytes > bytes.length) break;
      if (inBytes < 0) throw new RangeError('inflated bytes came before their mark');
      this.#add(mark, lastBytes(this.#tail, bytes.subarray(0, inBytes), mark.windowBytes));
      this.#marks.shift();
    }
    this.#tarBytes += bytes.length;
    this.#tail = lastBytes(this.#tail, bytes, WINDOW_BYTES);
  }

  /** Call when all has come. @throws BentoError FORMAT_INVALID when scanner and inflater do not agree on the stream */
  finish(): void {
    this.take(Buffer.alloc(0));
    if (this.#tarBytes !== this.#scanner.tarBytes || this.#marks.length > 0) {
      const what = `it inflates to ${this.#tarBytes} bytes, and is said to hold ${this.#scanner.tarBytes}`;
      throw new BentoError('FORMAT_INVALID', `a layer cannot be read: ${what}`);
    }
    const table = Buffer.concat(this.#rows);
    this.#write(table);
    this.#write(this.#footer(table));
    if (this.#fd !== undefined) fdatasyncSync(this.#fd);
    this.#close();
    renameSync(this.#temporary, this.#path);
  }

  /** Removes what was written, unless it is finished. May be called twice. */
  [Symbol.dispose](): void {
    this.#close();
    rmSync(this.#temporary, { force: true });
  }

  #close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** Inflates what lies between the mark that was noted last and this place. */
  #goTo(end: SpanEnd, blob: BlobToRecord): void {
    if (this.#last === undefined) return;
    const { mark, window } = this.#last;
    const start = { prefix: mark.prefix, window, tarBytes: end.tarOffset - mark.tarOffset };
    const { buffer, room } = spanBuffer(start, end.blobOffset + Number(end.sharedBits > 0) - mark.blobOffset);
    blob.read(mark.blobOffset, buffer.subarray(room));
    this.take(inflateSpanSync(start, buffer));
  }

  #add(mark: ResumeMark, window: Buffer): void {
    const { tarOffset, blobOffset, prefix } = mark;
    this.#last = { mark, window };
    const stored = window.length === 0 ? window : deflateRawSync(window, { level: WINDOW_LEVEL });
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
    this.#write(record);
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

  #write(bytes: Buffer): void {
    if (this.#fd === undefined) throw new RangeError('it is finished');
    try {
      for (let done = 0; done < bytes.length;) done += writeSync(this.#fd, bytes, done);
    } catch (error) {
      throw describeSystemError(error, `writing ${this.#path}`);
    }
    this.#fileBytes += bytes.length;
  }
}

/** The last bytes of two buffers, one after the other; in a buffer of their own, or they would keep a larger one. */
function lastBytes(before: Buffer, bytes: Buffer, length: number): Buffer {
  if (bytes.length >= length) return Buffer.from(bytes.subarray(bytes.length - length));
  const fromBefore = before.subarray(Math.max(before.length - (length - bytes.length), 0));
  return Buffer.concat([fromBefore, bytes]);
}
