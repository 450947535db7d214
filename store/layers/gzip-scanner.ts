import { BentoError } from '../errors.ts';
import { bitsAt, fixedCodes, newCodes, readDynamicCodes } from './block-codes.ts';
import { DISTANCE_ROOT_BITS, ENTRY, LITERAL_ROOT_BITS } from './huffman-table.ts';
import { resumePrefix, type BlockHeader, type ResumePrefix } from './resume-prefix.ts';

/** Somewhere between two symbols of a deflate stream, where inflating can begin. */
export interface ResumeMark {
  /** How many inflated bytes come before. */
  tarOffset: number;
  /** How many of them the inflater has to know, up to 32 KiB: the window. */
  windowBytes: number;
  /** The byte of the blob that holds the first bit. */
  blobOffset: number;
  prefix: ResumePrefix;
}

/** From one mark to the next there are so many inflated bytes, and those of one stored block or symbol. */
export const SPAN_BYTES = 1 << 20;
export const SPAN_BYTES_MAX = SPAN_BYTES + (64 << 10) + 512;
/** Blocks and members that give nothing take room, too: there is a mark after so many compressed bytes at the latest. */
const SPAN_BLOB_BYTES = 4 << 20;
/** Names and comments in gzip headers that are longer than this are no names. */
const HEADER_FIELD_BYTES_MAX = 64 << 10;
/**
 * What a span of a stream takes at most: symbols of up to 48 bits for a byte each (no compressor writes them), and what can
 * come without any.
 */
export const SPAN_BLOB_BYTES_MAX = 6 * SPAN_BYTES_MAX + SPAN_BLOB_BYTES + (1 << 20);

/** Distances of deflate reach so far back. */
export const WINDOW_BYTES = 32 << 10;
/** No step reads more at once: codes of a block take 563 bytes at most. */
const MARGIN_BYTES = 1024;

const MAGIC = 0x1f8b08; // gzip, deflate
const FIXED_HEADER_BYTES = 10;
const TRAILER_BYTES = 8;
const FHCRC = 1 << 1;
const FEXTRA = 1 << 2;
const FNAME = 1 << 3;
const FCOMMENT = 1 << 4;

const LITERAL_MASK = (1 << LITERAL_ROOT_BITS) - 1;
const LITERAL_LONGER_MASK = (1 << (15 - LITERAL_ROOT_BITS)) - 1;
const DISTANCE_MASK = (1 << DISTANCE_ROOT_BITS) - 1;
const DISTANCE_LONGER_MASK = (1 << (15 - DISTANCE_ROOT_BITS)) - 1;

/** What comes next in the stream. */
type Step =
  'member' | 'extra' | 'name' | 'comment' | 'header-crc' | 'block' | 'symbols' | 'stored' | 'trailer' | 'over';

/**
 * Goes over a gzip stream of any number of members, counts the bytes it inflates to and marks places where inflating can
 * begin. Zlib does not say where it is; this does, and nothing else: it neither makes the bytes nor checks distances and
 * checksums, which whoever inflates the same stream does.
 */
export class GzipScanner {
  readonly #onMark: (mark: ResumeMark) => void;
  readonly #spanBytes: number;
  #bytes: Buffer = Buffer.alloc(0);
  #view = viewOf(this.#bytes);
  /** Where `#bytes` begins in the blob. */
  #base = 0;
  /** The next bit, from the start of `#bytes`. */
  #bit = 0;
  /** Where the stream ends in `#bytes`, as far as it is known. */
  #dataEnd = 0;
  /** No step begins behind this byte: it might have to read more than there is. */
  #limit = -1;
  #step: Step = 'member';
  #flags = 0;
  /** Bytes of a stored block to come, or of a field of a gzip header. */
  #left = 0;
  #isLast = false;
  readonly #dynamicCodes = newCodes();
  #codes = this.#dynamicCodes;
  #header: BlockHeader | undefined;
  #tarBytes = 0;
  #streamBytes = 0;
  #memberStart = 0;
  #markAt = 0;
  #markBlob = 0;

  /**
   * @param onMark - told of each mark, in order; the first is before the first block
   * @param options.spanBytes - for tests
   */
  constructor(onMark: (mark: ResumeMark) => void, { spanBytes = SPAN_BYTES } = {}) {
    this.#onMark = onMark;
    this.#spanBytes = spanBytes;
  }

  /** Inflated bytes so far. */
  get tarBytes(): number {
    return this.#tarBytes;
  }

  /** How many bytes of the blob it has gone over: up to 1 KiB less than it was given, until `end`. */
  get scannedBytes(): number {
    return this.#base + (this.#bit >> 3);
  }

  /** Where the last member ends, when it is over. */
  get streamBytes(): number {
    return this.#streamBytes;
  }

  /** @throws BentoError FORMAT_INVALID when this is no gzip stream */
  write(piece: Buffer): void {
    this.#append(piece);
    this.#dataEnd = this.#bytes.length;
    this.#limit = this.#dataEnd - MARGIN_BYTES;
    this.#run();
  }

  /** @throws BentoError FORMAT_INVALID when the stream ends before it is over */
  end(): void {
    this.#append(Buffer.alloc(MARGIN_BYTES)); // to be read, never to be gone over
    this.#dataEnd = this.#bytes.length - MARGIN_BYTES;
    this.#limit = this.#dataEnd;
    this.#run();
    if (this.#step !== 'over') throw cutOff();
  }

  #append(piece: Buffer): void {
    const done = this.#bit >> 3;
    const rest = this.#bytes.subarray(Math.min(done, this.#bytes.length));
    this.#base += this.#bytes.length - rest.length;
    this.#bit -= (this.#bytes.length - rest.length) * 8;
    this.#bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
    this.#view = viewOf(this.#bytes);
  }

  #run(): void {
    while (this.#step !== 'over' && this.#bit >> 3 <= this.#limit) this.#step = this.#do(this.#step);
    if (this.#step === 'over') this.#bit = this.#bytes.length * 8; // what follows does not belong to it
  }

  /** Goes on by one step, and says which is the next. Each of them moves on, or throws. */
  #do(step: Exclude<Step, 'over'>): Step {
    switch (step) {
      case 'member':
        return this.#member();
      case 'extra':
        this.#pass();
        return this.#left > 0 ? 'extra' : this.#afterField(FEXTRA);
      case 'name':
        return this.#passText() ? this.#afterField(FNAME) : 'name';
      case 'comment':
        return this.#passText() ? this.#afterField(FCOMMENT) : 'comment';
      case 'header-crc':
        this.#takeBytes(2);
        return this.#afterField(FHCRC);
      case 'block':
        return this.#block();
      case 'symbols':
        return this.#symbols();
      case 'stored':
        this.#tarBytes += this.#pass();
        return this.#left > 0 ? 'stored' : this.#nextBlock();
      case 'trailer':
        this.#align();
        this.#takeBytes(TRAILER_BYTES);
        return 'member';
    }
  }

  // Members

  #member(): Step {
    const at = this.#bit >> 3;
    const isFirst = this.#base + at === 0;
    this.#streamBytes = this.#base + at;
    // As zlib has it: zeros behind a member are padding, and so is whatever follows those.
    if (!isFirst && this.#bytes[at] === 0) return 'over';
    if (isFirst && this.#dataEnd === 0) return 'over';
    if (this.#bytes.readUIntBE(at, 3) !== MAGIC) throw invalidStream('incorrect header check');
    this.#flags = this.#bytes[at + 3] ?? 0;
    this.#takeBytes(FIXED_HEADER_BYTES);
    this.#memberStart = this.#tarBytes;
    return this.#nextField();
  }

  #afterField(flag: number): Step {
    this.#flags &= ~flag;
    return this.#nextField();
  }

  #nextField(): Step {
    this.#left = HEADER_FIELD_BYTES_MAX;
    if (this.#flags & FEXTRA) {
      this.#left = this.#take(16);
      return 'extra';
    }
    if (this.#flags & FNAME) return 'name';
    if (this.#flags & FCOMMENT) return 'comment';
    return this.#flags & FHCRC ? 'header-crc' : 'block';
  }

  /** Passes over `#left` bytes, as far as they are here. @returns how many */
  #pass(): number {
    const count = Math.min(this.#left, this.#dataEnd - (this.#bit >> 3));
    if (count === 0 && this.#left > 0) throw cutOff();
    this.#takeBytes(count);
    this.#left -= count;
    return count;
  }

  /** Passes over text, as far as it is here. @returns whether its end was */
  #passText(): boolean {
    const at = this.#bit >> 3;
    const nul = this.#bytes.indexOf(0, at);
    const isHere = nul >= 0 && nul < this.#dataEnd;
    const count = (isHere ? nul + 1 : this.#dataEnd) - at;
    if (count === 0) throw cutOff();
    if (count > this.#left) throw invalidStream(`a name in its header has more than ${HEADER_FIELD_BYTES_MAX} bytes`);
    this.#takeBytes(count);
    this.#left -= count;
    return isHere;
  }

  // Blocks

  #nextBlock(): Step {
    return this.#isLast ? 'trailer' : 'block';
  }

  #block(): Step {
    const blobOffset = this.#base + (this.#bit >> 3);
    if (this.#tarBytes >= this.#markAt || blobOffset - this.#markBlob >= SPAN_BLOB_BYTES) this.#mark();
    const start = this.#bit;
    this.#isLast = this.#take(1) === 1;
    const type = this.#take(2);
    if (type === 0) return this.#storedBlock();
    if (type === 3) throw invalidStream('invalid block type');
    this.#codes = type === 1 ? fixedCodes() : this.#dynamicCodes;
    if (type === 2) this.#bit = readDynamicCodes(this.#bytes, this.#bit, this.#codes);
    const bytes = Buffer.from(this.#bytes.subarray(start >> 3, (this.#bit + 7) >> 3));
    this.#header = { bytes, shift: start & 7, bitCount: this.#bit - start };
    return 'symbols';
  }

  #storedBlock(): Step {
    this.#align();
    this.#left = this.#take(16);
    if (this.#take(16) !== (this.#left ^ 0xffff)) throw invalidStream('invalid stored block lengths');
    return this.#left > 0 ? 'stored' : this.#nextBlock();
  }

  #mark(header?: BlockHeader): void {
    const tarOffset = this.#tarBytes;
    const blobOffset = this.#base + (this.#bit >> 3);
    const windowBytes = Math.min(tarOffset - this.#memberStart, WINDOW_BYTES);
    this.#onMark({ tarOffset, windowBytes, blobOffset, prefix: resumePrefix(this.#bit & 7, header) });
    this.#markAt = tarOffset + this.#spanBytes;
    this.#markBlob = blobOffset;
  }

  /** Counts symbols until the block ends, the input does, or a mark is due: the loop in which nearly all the time goes. */
  #symbols(): Step {
    const { literals, distances } = this.#codes;
    const [literal, distance, view] = [literals.entries, distances.entries, this.#view];
    const [posMax, markAt] = [this.#limit + 4, this.#markAt];
    let tarBytes = this.#tarBytes;
    let isOver = false;
    // `hold` has the next `count` bits; whatever it has above them are the bits that follow, or zeros.
    let pos = (this.#bit >> 3) + 3;
    let count = 24 - (this.#bit & 7);
    let hold = (view.getInt32(this.#bit >> 3, true) & 0xffffff) >>> (this.#bit & 7);
    while (pos <= posMax && tarBytes < markAt) {
      hold |= view.getInt32(pos, true) << count;
      pos += (31 - count) >> 3;
      count |= 24;
      let entry = literal[hold & LITERAL_MASK] ?? 0;
      if ((entry & ENTRY.kind) === ENTRY.plain) {
        hold >>>= entry & ENTRY.bits;
        count -= entry & ENTRY.bits;
        tarBytes += entry >>> ENTRY.valueShift;
        entry = literal[hold & LITERAL_MASK] ?? 0; // literals come in rows, and 13 bits are left for a second look
        if ((entry & ENTRY.kind) === ENTRY.plain) {
          hold >>>= entry & ENTRY.bits;
          count -= entry & ENTRY.bits;
          tarBytes += entry >>> ENTRY.valueShift;
          continue;
        }
        hold |= view.getInt32(pos, true) << count;
        pos += (31 - count) >> 3;
        count |= 24;
      }
      if ((entry & ENTRY.kind) === ENTRY.longer) {
        entry = literal[(entry >>> ENTRY.valueShift) + ((hold >>> LITERAL_ROOT_BITS) & LITERAL_LONGER_MASK)] ?? 0;
      }
      const codeBits = entry & ENTRY.bits;
      const extraBits = (entry >>> ENTRY.extraShift) & ENTRY.extra;
      tarBytes += (entry >>> ENTRY.valueShift) + ((hold >>> codeBits) & ((1 << extraBits) - 1));
      hold >>>= codeBits + extraBits;
      count -= codeBits + extraBits;
      const kind = entry & ENTRY.kind;
      if (kind === ENTRY.plain) continue;
      if (kind !== ENTRY.length) {
        if (kind === ENTRY.nothing) throw invalidStream('invalid literal/length code');
        isOver = true;
        break;
      }
      hold |= view.getInt32(pos, true) << count;
      pos += (31 - count) >> 3;
      count |= 24;
      entry = distance[hold & DISTANCE_MASK] ?? 0;
      if ((entry & ENTRY.kind) === ENTRY.longer) {
        entry = distance[(entry >>> ENTRY.valueShift) + ((hold >>> DISTANCE_ROOT_BITS) & DISTANCE_LONGER_MASK)] ?? 0;
      }
      if ((entry & ENTRY.kind) === ENTRY.nothing) throw invalidStream('invalid distance code');
      let distanceBits = entry & ENTRY.bits;
      if (distanceBits > count) {
        hold >>>= 16;
        count -= 16;
        distanceBits -= 16;
        hold |= view.getInt32(pos, true) << count;
        pos += (31 - count) >> 3;
        count |= 24;
      }
      hold >>>= distanceBits;
      count -= distanceBits;
    }
    this.#bit = pos * 8 - count;
    this.#tarBytes = tarBytes;
    if (isOver) return this.#nextBlock();
    if (tarBytes >= markAt) this.#mark(this.#header);
    return 'symbols';
  }

  // Bits

  #take(count: number): number {
    const value = bitsAt(this.#bytes, this.#bit, count);
    this.#bit += count;
    return value;
  }

  #takeBytes(count: number): void {
    this.#bit += count * 8;
  }

  #align(): void {
    this.#bit = (this.#bit + 7) & ~7;
  }
}

function viewOf({ buffer, byteOffset, byteLength }: Buffer): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}

function cutOff(): BentoError {
  return invalidStream('unexpected end of file');
}

function invalidStream(why: string): BentoError {
  return new BentoError('FORMAT_INVALID', `a layer cannot be read: ${why}`);
}
