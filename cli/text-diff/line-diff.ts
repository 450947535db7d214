import { commonEnds, cutLines, LineNumbers, type Lines } from './lines.ts';
import { SequenceDiff } from './myers.ts';

/** Two texts line by line: which lines of the old one are gone, and which of the new one are new. */
export interface LineDiff {
  before: Lines;
  after: Lines;
  /** 1 for each line of `before` that is gone. */
  removed: Uint8Array;
  /** 1 for each line of `after` that is new. */
  added: Uint8Array;
}

/** Compares two texts. Memory and, for similar texts, time are linear in their size; see `SequenceDiff` for the rest. */
export function diffLines(old: Buffer, fresh: Buffer): LineDiff {
  const [before, after] = [cutLines(old), cutLines(fresh)];
  const { head, tail } = commonEnds(before, after);
  const [removed, added] = [new Uint8Array(before.count), new Uint8Array(after.count)];
  const [endBefore, endAfter] = [before.count - tail, after.count - tail];
  const numbers = new LineNumbers([before, after], endBefore + endAfter - 2 * head);
  const a = numbers.of(0, head, endBefore);
  const b = numbers.of(1, head, endAfter);
  // A line that the other text lacks is certainly changed; the search is for the others.
  const left = withPartner(a, seenIn(b, numbers.count));
  const right = withPartner(b, seenIn(a, numbers.count));
  removed.fill(1, head, endBefore);
  added.fill(1, head, endAfter);
  for (const at of left) removed[head + at] = 0;
  for (const at of right) added[head + at] = 0;
  SequenceDiff.run(
    left.map((at) => a[at] ?? 0),
    right.map((at) => b[at] ?? 0),
    (at) => (removed[head + (left[at] ?? 0)] = 1),
    (at) => (added[head + (right[at] ?? 0)] = 1),
  );
  return { before, after, removed, added };
}

function seenIn(numbers: Int32Array, count: number): Uint8Array {
  const seen = new Uint8Array(count);
  for (const number of numbers) seen[number] = 1;
  return seen;
}

/** The positions of those numbers that the other text has too. */
function withPartner(numbers: Int32Array, inOther: Uint8Array): Int32Array {
  const positions = new Int32Array(numbers.length);
  let count = 0;
  for (let at = 0; at < numbers.length; at += 1) if (inOther[numbers[at] ?? 0] === 1) positions[count++] = at;
  return positions.subarray(0, count);
}

/** How many lines came and went. */
export function countChanges({ removed, added }: LineDiff): { insertions: number; deletions: number } {
  return { insertions: countOnes(added), deletions: countOnes(removed) };
}

function countOnes(flags: Uint8Array): number {
  let count = 0;
  for (const flag of flags) count += flag;
  return count;
}
