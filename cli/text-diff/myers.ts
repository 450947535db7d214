/** Rounds of one search before it settles for a cut that need not be the best; more for longer texts. */
const ROUNDS_MIN = 256;
/** Rounds once the whole comparison has taken `STEPS_MAX` steps: a few seconds. */
const ROUNDS_LATE = 24;
const STEPS_MAX = 1e9;
/** Larger than any position. */
const NOWHERE = 0x7fffffff;

/** A part of both sequences: `a` from `a0` to before `a1`, `b` likewise. */
interface Box {
  a0: number;
  a1: number;
  b0: number;
  b1: number;
}

/**
 * Finds a shortest way to make one sequence of numbers out of another: those of `a` that go and those of `b` that come.
 *
 * The linear-space version of the greedy algorithm: a search from both ends meets in the middle of an optimal path, and
 * the two halves are solved in the same way. Memory is linear in the length; time is the length times the number of
 * differences, and bounded: a search that does not meet within some rounds cuts where it got farthest, so that very
 * different texts give a correct result that may not be the shortest.
 *
 * @see E. W. Myers, "An O(ND) Difference Algorithm and Its Variations", Algorithmica 1 (1986), section 4b
 */
export class SequenceDiff {
  readonly #a: Int32Array;
  readonly #b: Int32Array;
  /** On each diagonal (x - y): how far the search from the beginning came, and the one from the end. Positions in `a`. */
  readonly #forward: Int32Array;
  readonly #backward: Int32Array;
  /** Index of diagonal 0. */
  readonly #zero: number;
  readonly #roundsMax: number;
  #steps = 0;

  private constructor(a: Int32Array, b: Int32Array) {
    this.#a = a;
    this.#b = b;
    this.#forward = new Int32Array(a.length + b.length + 3);
    this.#backward = new Int32Array(a.length + b.length + 3);
    this.#zero = b.length + 1;
    this.#roundsMax = Math.max(ROUNDS_MIN, Math.floor(Math.sqrt(a.length + b.length)));
  }

  /** Calls back for each position of `a` that has no partner in `b`, and for each of `b` that has none in `a`. */
  static run(a: Int32Array, b: Int32Array, onRemoved: (at: number) => void, onAdded: (at: number) => void): void {
    const diff = new SequenceDiff(a, b);
    const pending: Box[] = [{ a0: 0, a1: a.length, b0: 0, b1: b.length }];
    for (let box = pending.pop(); box !== undefined; box = pending.pop()) {
      diff.#trim(box);
      const { a0, a1, b0, b1 } = box;
      const cut = a0 < a1 && b0 < b1 ? diff.#cut(box) : undefined;
      if (cut === undefined) {
        for (let at = a0; at < a1; at += 1) onRemoved(at);
        for (let at = b0; at < b1; at += 1) onAdded(at);
        continue;
      }
      pending.push({ a0: cut.x, a1, b0: cut.y, b1 }, { a0, a1: cut.x, b0, b1: cut.y });
    }
  }

  #trim(box: Box): void {
    while (box.a0 < box.a1 && box.b0 < box.b1 && this.#a[box.a0] === this.#b[box.b0]) {
      box.a0 += 1;
      box.b0 += 1;
    }
    while (box.a0 < box.a1 && box.b0 < box.b1 && this.#a[box.a1 - 1] === this.#b[box.b1 - 1]) {
      box.a1 -= 1;
      box.b1 -= 1;
    }
  }

  /** A point inside the box that a good path goes through; undefined when there is none but its corners. */
  #cut(box: Box): { x: number; y: number } | undefined {
    const { a0, a1, b0, b1 } = box;
    const search = new Search(box);
    this.#forward[this.#zero + a0 - b0] = a0;
    this.#backward[this.#zero + a1 - b1] = a1;
    const roundsMax = this.#steps > STEPS_MAX ? ROUNDS_LATE : this.#roundsMax;
    for (let round = 0; round < roundsMax; round += 1) {
      const met = this.#stepForward(search) ?? this.#stepBackward(search);
      if (met !== undefined) return inside(met, box);
      this.#steps += search.f1 - search.f0 + search.r1 - search.r0;
    }
    return inside(this.#farthest(search), box);
  }

  #stepForward(search: Search): { x: number; y: number } | undefined {
    const { a1, b1 } = search.box;
    const [a, b, far] = [this.#a, this.#b, this.#forward];
    if (search.f0 > search.low) far[--search.f0 - 1 + this.#zero] = -1;
    else search.f0 += 1;
    if (search.f1 < search.high) far[++search.f1 + 1 + this.#zero] = -1;
    else search.f1 -= 1;
    for (let diagonal = search.f1; diagonal >= search.f0; diagonal -= 2) {
      const at = this.#zero + diagonal;
      const [left, right] = [far[at - 1] ?? 0, far[at + 1] ?? 0];
      let x = left >= right ? left + 1 : right;
      let y = x - diagonal;
      while (x < a1 && y < b1 && a[x] === b[y]) {
        x += 1;
        y += 1;
      }
      far[at] = x;
      const isSeen = search.isOdd && diagonal >= search.r0 && diagonal <= search.r1;
      if (isSeen && (this.#backward[at] ?? 0) <= x) return { x, y };
    }
    return undefined;
  }

  #stepBackward(search: Search): { x: number; y: number } | undefined {
    const { a0, b0 } = search.box;
    const [a, b, far] = [this.#a, this.#b, this.#backward];
    if (search.r0 > search.low) far[--search.r0 - 1 + this.#zero] = NOWHERE;
    else search.r0 += 1;
    if (search.r1 < search.high) far[++search.r1 + 1 + this.#zero] = NOWHERE;
    else search.r1 -= 1;
    for (let diagonal = search.r1; diagonal >= search.r0; diagonal -= 2) {
      const at = this.#zero + diagonal;
      const [left, right] = [far[at - 1] ?? 0, far[at + 1] ?? 0];
      let x = left < right ? left : right - 1;
      let y = x - diagonal;
      while (x > a0 && y > b0 && a[x - 1] === b[y - 1]) {
        x -= 1;
        y -= 1;
      }
      far[at] = x;
      const isSeen = !search.isOdd && diagonal >= search.f0 && diagonal <= search.f1;
      if (isSeen && x <= (this.#forward[at] ?? 0)) return { x, y };
    }
    return undefined;
  }

  /** Where either search has left the most behind it. */
  #farthest({ box, f0, f1, r0, r1 }: Search): { x: number; y: number } {
    let ahead = { x: box.a0, y: box.b0 };
    for (let diagonal = f1; diagonal >= f0; diagonal -= 2) {
      const x = Math.min(this.#forward[this.#zero + diagonal] ?? 0, box.a1, box.b1 + diagonal);
      if (2 * x - diagonal > ahead.x + ahead.y) ahead = { x, y: x - diagonal };
    }
    let behind = { x: box.a1, y: box.b1 };
    for (let diagonal = r1; diagonal >= r0; diagonal -= 2) {
      const x = Math.max(this.#backward[this.#zero + diagonal] ?? 0, box.a0, box.b0 + diagonal);
      if (2 * x - diagonal < behind.x + behind.y) behind = { x, y: x - diagonal };
    }
    const isAheadBetter = ahead.x + ahead.y - box.a0 - box.b0 >= box.a1 + box.b1 - behind.x - behind.y;
    return isAheadBetter ? ahead : behind;
  }
}

/** How far a search for the middle of one box has come. */
class Search {
  readonly box: Box;
  /** The box's outermost diagonals. */
  readonly low: number;
  readonly high: number;
  /** The outermost diagonals reached from the beginning, and from the end. */
  f0: number;
  f1: number;
  r0: number;
  r1: number;
  /** Whether the length of the path is odd: then it is the search from the beginning that sees the other first. */
  readonly isOdd: boolean;

  constructor(box: Box) {
    const { a0, a1, b0, b1 } = box;
    this.box = box;
    this.low = a0 - b1;
    this.high = a1 - b0;
    this.f0 = this.f1 = a0 - b0;
    this.r0 = this.r1 = a1 - b1;
    this.isOdd = ((this.f0 - this.r0) & 1) !== 0;
  }
}

function inside(cut: { x: number; y: number }, { a0, a1, b0, b1 }: Box): { x: number; y: number } | undefined {
  const isCorner = (cut.x === a0 && cut.y === b0) || (cut.x === a1 && cut.y === b1);
  return isCorner ? undefined : cut;
}
