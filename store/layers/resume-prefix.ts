/** The bits with which a deflate block begins: type, and for a dynamic block its codes. */
export interface BlockHeader {
  /** The first bit is bit `shift` of the first byte. */
  bytes: Buffer;
  shift: number;
  bitCount: number;
}

/** What is put before the bytes of a blob so that an inflater that knows the window can begin in their midst. */
export interface ResumePrefix {
  /** The last byte is shared when `sharedBits` is not 0: its low bits count, the others are those of the blob's byte. */
  bytes: Buffer;
  /** How many low bits of the blob's first byte belong to what comes before. */
  sharedBits: number;
}

/** Bits with the first lowest, as deflate has them. */
class BitWriter {
  readonly #bytes: number[] = [];
  bitCount = 0;

  put(value: number, bitCount: number): void {
    for (let i = 0; i < bitCount; i += 1) {
      const at = this.bitCount++;
      this.#bytes[at >> 3] = (this.#bytes[at >> 3] ?? 0) | (((value >>> i) & 1) << (at & 7));
    }
  }

  finish(): Buffer {
    return Buffer.from(this.#bytes);
  }
}

/** In the order in which a block says how long the codes of code lengths are: 16, 17, 18, 0, 8, 7, …, 1. */
const EMPTY_BLOCK_CODE_LENGTHS = [0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/** A block with fixed codes and nothing in it: 10 bits. */
function putEmptyFixed(out: BitWriter): void {
  out.put(0, 1);
  out.put(1, 2);
  out.put(0, 7); // end of block
}

/**
 * A block with codes of its own and nothing in it: 95 bits, which is odd. Its lengths are written with the codes 0 (a zero),
 * 01 (a one) and 11 (11 zeros and as many more as the next seven bits say).
 */
function putEmptyDynamic(out: BitWriter): void {
  out.put(0, 1);
  out.put(2, 2);
  out.put(0, 5); // 257 literals and lengths
  out.put(0, 5); // one distance
  out.put(14, 4); // 18 lengths of code lengths
  for (const bits of EMPTY_BLOCK_CODE_LENGTHS) out.put(bits, 3);
  out.put(3, 2);
  out.put(127, 7); // 138 zeros
  out.put(3, 2);
  out.put(106, 7); // 117 zeros
  out.put(0, 1); // and one: symbols 0 to 255 have no code
  out.put(1, 2); // end of block has one bit
  out.put(1, 2); // and the distance, too
  out.put(0, 1); // end of block
}

/**
 * Makes the prefix for a place that is `bitOffset` bits behind the start of a byte. Blocks that hold nothing bring an
 * inflater to the same bit; then comes, for a place inside a block, the header of that block again.
 */
export function resumePrefix(bitOffset: number, header?: BlockHeader): ResumePrefix {
  const out = new BitWriter();
  const wantedBits = (bitOffset - (header?.bitCount ?? 0)) & 7;
  if (wantedBits % 2 === 1) putEmptyDynamic(out);
  while ((out.bitCount & 7) !== wantedBits) putEmptyFixed(out);
  if (header !== undefined) {
    for (let i = 0; i < header.bitCount; i += 1) {
      const at = header.shift + i;
      out.put((header.bytes[at >> 3] ?? 0) >>> (at & 7), 1);
    }
  }
  return { bytes: out.finish(), sharedBits: bitOffset };
}

/** How many bytes a prefix takes before those of the blob. */
export function prefixRoom({ bytes, sharedBits }: ResumePrefix): number {
  return sharedBits > 0 ? bytes.length - 1 : bytes.length;
}

/** Puts a prefix before compressed bytes. @param buffer - the bytes of the blob begin behind `prefixRoom` free ones */
export function putPrefix(prefix: ResumePrefix, buffer: Buffer): void {
  const { bytes, sharedBits } = prefix;
  const own = (buffer[prefixRoom(prefix)] ?? 0) & ~((1 << sharedBits) - 1);
  bytes.copy(buffer);
  if (sharedBits > 0) buffer[bytes.length - 1] = (bytes[bytes.length - 1] ?? 0) | own;
}
