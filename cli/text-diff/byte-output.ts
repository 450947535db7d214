import type { ByteString } from '../../store/byte-string.ts';

const PIECE_BYTES = 64 << 10;

/** Gathers small pieces of bytes and hands them on in large ones. */
export class ByteOutput {
  readonly #sink: (piece: Buffer) => void;
  #piece = Buffer.allocUnsafe(PIECE_BYTES);
  #length = 0;

  /** @param sink - may keep what it gets */
  constructor(sink: (piece: Buffer) => void) {
    this.#sink = sink;
  }

  text(text: ByteString): void {
    if (text.length <= PIECE_BYTES) this.#makeRoom(text.length);
    if (text.length > PIECE_BYTES) this.bytes(Buffer.from(text, 'latin1'), 0, text.length);
    else this.#length += this.#piece.write(text, this.#length, 'latin1');
  }

  bytes(bytes: Buffer, from = 0, to = bytes.length): void {
    for (let at = from; at < to;) {
      this.#makeRoom(1);
      const copied = bytes.copy(this.#piece, this.#length, at, to);
      this.#length += copied;
      at += copied;
    }
  }

  flush(): void {
    if (this.#length === 0) return;
    this.#sink(this.#piece.subarray(0, this.#length));
    this.#piece = Buffer.allocUnsafe(PIECE_BYTES);
    this.#length = 0;
  }

  #makeRoom(lengthBytes: number): void {
    if (this.#length + lengthBytes > PIECE_BYTES) this.flush();
  }
}
