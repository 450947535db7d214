import { createHash, type Hash } from 'node:crypto';

import type { BlobPlace } from '../blob-file.ts';
import type { Digest } from '../digest.ts';

/** Where the bytes of a blob go. A returned promise holds the writer back, which then uses the memory again. */
export interface LayerSink {
  write(bytes: Buffer): Promise<void> | void;
  /** The same for bytes that lie elsewhere in the store; a sink that has no use for that is given them to write. */
  refer?(bytes: Uint8Array, place: BlobPlace): Promise<void> | void;
  /** Forgets everything behind the first `sizeBytes` bytes. */
  rewind(sizeBytes: number): Promise<void> | void;
}

/** Bytes of a member that lie in another blob, too. */
export interface SharedBytes {
  /** Where in the member they begin. */
  at: number;
  lengthBytes: number;
  place: BlobPlace;
}

/** A place in a layer to come back to. */
export interface LayerMark {
  sizeBytes: number;
  uncompressedBytes: number;
  blob: Hash;
  tar: Hash;
}

/** Members reach the sink in pieces of this size. */
const PIECE_BYTES = 1024 * 1024;

/** Counts and hashes a layer on its way to a sink: the blob, and the tar it inflates to. */
export class LayerOutput {
  readonly #sink: LayerSink;
  #blob = createHash('sha256');
  #tar = createHash('sha256');
  /** Only ever written by one at a time, so it is free again when the sink is done with it. */
  readonly #pending = Buffer.allocUnsafeSlow(PIECE_BYTES);
  #pendingBytes = 0;
  sizeBytes = 0;
  uncompressedBytes = 0;

  constructor(sink: LayerSink) {
    this.#sink = sink;
  }

  /**
   * @param raw - what `member` inflates to
   * @param shared - what of it lies elsewhere, in order
   * @returns where in the blob the member begins
   */
  async member(raw: Uint8Array, member: Uint8Array, shared: readonly SharedBytes[] = []): Promise<number> {
    const offset = this.sizeBytes;
    this.#tar.update(raw);
    this.uncompressedBytes += raw.length;
    let done = 0;
    for (const { at, lengthBytes, place } of shared) {
      await this.bytes(member.subarray(done, at));
      done = at + lengthBytes;
      await this.#refer(member.subarray(at, done), place);
    }
    await this.bytes(member.subarray(done));
    return offset;
  }

  async #refer(bytes: Uint8Array, place: BlobPlace): Promise<void> {
    if (this.#sink.refer === undefined) {
      await this.bytes(bytes);
      return;
    }
    await this.#flush();
    this.sizeBytes += bytes.length;
    this.#blob.update(bytes);
    await this.#sink.refer(bytes, place);
  }

  /** Bytes that are not part of the tar. They are copied: the caller may use their memory again. */
  async bytes(bytes: Uint8Array): Promise<void> {
    this.sizeBytes += bytes.length;
    for (let done = 0; done < bytes.length;) {
      const part = bytes.subarray(done, done + PIECE_BYTES - this.#pendingBytes);
      this.#pending.set(part, this.#pendingBytes);
      this.#pendingBytes += part.length;
      done += part.length;
      if (this.#pendingBytes === PIECE_BYTES) await this.#flush();
    }
  }

  async mark(): Promise<LayerMark> {
    await this.#flush();
    const { sizeBytes, uncompressedBytes } = this;
    return { sizeBytes, uncompressedBytes, blob: this.#blob.copy(), tar: this.#tar.copy() };
  }

  /** Takes back everything since the mark, which is used up. */
  async rewind(mark: LayerMark): Promise<void> {
    this.#pendingBytes = 0;
    this.sizeBytes = mark.sizeBytes;
    this.uncompressedBytes = mark.uncompressedBytes;
    this.#blob = mark.blob;
    this.#tar = mark.tar;
    await this.#sink.rewind(mark.sizeBytes);
  }

  async finish(): Promise<{ digest: Digest; diffId: Digest }> {
    await this.#flush();
    return { digest: `sha256:${this.#blob.digest('hex')}`, diffId: `sha256:${this.#tar.digest('hex')}` };
  }

  async #flush(): Promise<void> {
    if (this.#pendingBytes === 0) return;
    const piece = this.#pending.subarray(0, this.#pendingBytes);
    this.#pendingBytes = 0;
    this.#blob.update(piece);
    await this.#sink.write(piece);
  }
}
