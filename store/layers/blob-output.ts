import { createHash } from 'node:crypto';

import type { Digest } from '../digest.ts';

/** Where the bytes of a blob go. A returned promise holds the writer back. */
export interface LayerSink {
  write(bytes: Buffer): Promise<void> | void;
}

/** Members of small files are a few hundred bytes: they reach the sink in pieces of about this size. */
const PIECE_BYTES = 256 * 1024;

/** Counts and hashes a blob on its way to a sink. */
export class BlobOutput {
  readonly #sink: LayerSink;
  readonly #hash = createHash('sha256');
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  sizeBytes = 0;

  constructor(sink: LayerSink) {
    this.#sink = sink;
  }

  async write(bytes: Buffer): Promise<void> {
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
    this.sizeBytes += bytes.length;
    if (this.#pendingBytes >= PIECE_BYTES) await this.#flush();
  }

  async finish(): Promise<Digest> {
    await this.#flush();
    return `sha256:${this.#hash.digest('hex')}`;
  }

  async #flush(): Promise<void> {
    const piece = Buffer.concat(this.#pending, this.#pendingBytes);
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#hash.update(piece);
    if (piece.length > 0) await this.#sink.write(piece);
  }
}
