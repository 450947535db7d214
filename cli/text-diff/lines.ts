/** A text cut into lines. A line ends with its newline; only the last may lack one. */
export interface Lines {
  bytes: Buffer;
  count: number;
  /** Where each line begins; one more entry than there are lines, the last is the length of the text. */
  starts: Uint32Array;
}

const NEWLINE = 0x0a;

export function countLines(bytes: Buffer): number {
  let count = 0;
  for (let at = 0; at < bytes.length; at += 1) if (bytes[at] === NEWLINE) count += 1;
  return bytes.length > 0 && bytes[bytes.length - 1] !== NEWLINE ? count + 1 : count;
}

export function cutLines(bytes: Buffer): Lines {
  const count = countLines(bytes);
  const starts = new Uint32Array(count + 1);
  let line = 1;
  for (let at = 0; at < bytes.length && line < count; at += 1) if (bytes[at] === NEWLINE) starts[line++] = at + 1;
  starts[count] = bytes.length;
  return { bytes, count, starts };
}

/** How many lines two texts have in common at their beginning and, of what is left then, at their end. */
export function commonEnds(a: Lines, b: Lines): { head: number; tail: number } {
  const head = commonHead(a, b);
  return { head, tail: commonTail(a, b, head) };
}

function commonHead(a: Lines, b: Lines): number {
  const lines = Math.min(a.count, b.count);
  let line = 0;
  while (line < lines && sameLine(a, line, b, line)) line += 1;
  return line;
}

function commonTail(a: Lines, b: Lines, head: number): number {
  const lines = Math.min(a.count, b.count) - head;
  let line = 0;
  while (line < lines && sameLine(a, a.count - 1 - line, b, b.count - 1 - line)) line += 1;
  return line;
}

function sameLine(a: Lines, lineA: number, b: Lines, lineB: number): boolean {
  const from = a.starts[lineA] ?? 0;
  const to = a.starts[lineA + 1] ?? 0;
  const shift = (b.starts[lineB] ?? 0) - from;
  if ((b.starts[lineB + 1] ?? 0) - shift !== to) return false;
  for (let at = from; at < to; at += 1) if (a.bytes[at] !== b.bytes[at + shift]) return false;
  return true;
}

/**
 * Gives equal lines equal numbers, so that comparing two lines is comparing two integers. Takes some 30 bytes for each
 * line.
 */
export class LineNumbers {
  readonly #slots: Int32Array;
  readonly #hashes: Int32Array;
  /** Of each number, one line that has it: an index into `#texts` and the line's own. */
  readonly #lineOf: Uint32Array;
  readonly #texts: readonly [Lines, Lines];
  readonly #inSecond: Uint8Array;
  /** Different for each run: nobody can write a file whose lines all land in one place of the table. */
  readonly #seed = Math.floor(Math.random() * 2 ** 32);
  #count = 0;

  /** @param lineCount - how many lines will be numbered at most */
  constructor(texts: readonly [Lines, Lines], lineCount: number) {
    this.#texts = texts;
    this.#slots = new Int32Array(2 ** Math.ceil(Math.log2(lineCount * 2 + 2)));
    this.#hashes = new Int32Array(lineCount);
    this.#lineOf = new Uint32Array(lineCount);
    this.#inSecond = new Uint8Array(lineCount);
  }

  /** How many different lines there were so far. */
  get count(): number {
    return this.#count;
  }

  /** The numbers of the lines of one of the texts. */
  of(which: 0 | 1, from: number, to: number): Int32Array {
    const numbers = new Int32Array(to - from);
    const { bytes, starts } = this.#texts[which];
    for (let line = from; line < to; line += 1) {
      const hash = hashOf(bytes, { from: starts[line] ?? 0, to: starts[line + 1] ?? 0, seed: this.#seed });
      numbers[line - from] = this.#numberOf(which, line, hash);
    }
    return numbers;
  }

  #numberOf(which: 0 | 1, line: number, hash: number): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const number = (slots[slot] ?? 0) - 1;
      if (number < 0) return this.#add(slot, hash, which, line);
      if (this.#hashes[number] === hash && this.#isLine(number, this.#texts[which], line)) return number;
    }
  }

  #add(slot: number, hash: number, which: 0 | 1, line: number): number {
    const number = this.#count;
    this.#hashes[number] = hash;
    this.#lineOf[number] = line;
    this.#inSecond[number] = which;
    this.#count += 1;
    this.#slots[slot] = this.#count;
    return number;
  }

  #isLine(number: number, text: Lines, line: number): boolean {
    const known = this.#texts[this.#inSecond[number] === 1 ? 1 : 0];
    return sameLine(known, this.#lineOf[number] ?? 0, text, line);
  }
}

function hashOf(bytes: Buffer, { from, to, seed }: { from: number; to: number; seed: number }): number {
  let hash = seed | 0;
  for (let at = from; at < to; at += 1) hash = Math.imul(hash ^ (bytes[at] ?? 0), 0x5bd1e995);
  return hash ^ (hash >>> 15);
}
