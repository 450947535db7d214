import test from 'ava';

import { ByteOutput } from '../../../cli/text-diff/byte-output.ts';
import { countChanges, diffLines, type LineDiff } from '../../../cli/text-diff/line-diff.ts';
import { cutLines } from '../../../cli/text-diff/lines.ts';
import { SequenceDiff } from '../../../cli/text-diff/myers.ts';
import { writeHunks } from '../../../cli/text-diff/unified.ts';
import { Random } from '../../fixtures/random.ts';

function hunksOf(diff: LineDiff): string {
  let text = '';
  const out = new ByteOutput((piece) => (text += piece.toString('latin1')));
  writeHunks(diff, out);
  out.flush();
  return text;
}

/** Does what `patch` does, trusting the line numbers and checking every line. */
function applyHunks(old: string, hunks: string): string {
  const { bytes, starts, count } = cutLines(Buffer.from(old, 'latin1'));
  const line = (at: number) => bytes.toString('latin1', starts[at], starts[at + 1]);
  const result: string[] = [];
  let next = 0;
  for (const row of hunks.replace(/\n\\ No newline at end of file/g, '\x01').split(/(?<=\n)/)) {
    const text = row.slice(1).replace('\x01\n', '');
    const header = /^@@ -(\d+),(\d+) \+(\d+),(\d+) @@\n$/.exec(row);
    if (header !== null) {
      const start = Number(header[1]) - (header[2] === '0' ? 0 : 1);
      while (next < start) result.push(line(next++));
      if (result.length !== Number(header[3]) - (header[4] === '0' ? 0 : 1)) throw new Error(`wrong place: ${row}`);
    } else if (row.startsWith('+')) result.push(text);
    else if (row !== '' && line(next++) !== text) throw new Error(`${JSON.stringify(text)} is not line ${next}`);
    else if (row.startsWith(' ')) result.push(text);
  }
  while (next < count) result.push(line(next++));
  return result.join('');
}

/** The length of the longest common subsequence, by the quadratic table of the textbooks. */
function commonLines(a: readonly string[], b: readonly string[]): number {
  let above = new Array<number>(b.length + 1).fill(0);
  for (const line of a) {
    const row = [0];
    for (const [j, other] of b.entries())
      row.push(line === other ? (above[j] ?? 0) + 1 : Math.max(above[j + 1] ?? 0, row[j] ?? 0));
    above = row;
  }
  return above[b.length] ?? 0;
}

function randomText(random: Random, lineCountMax: number): string {
  const kinds = 1 + random.below(8);
  const lines = Array.from({ length: random.below(lineCountMax) }, () =>
    '\n'.padStart(1 + random.below(kinds), 'x\xff'),
  );
  return lines.join('') + (random.chance(0.3) ? 'end' : '');
}

test('diffLines() of small random texts is minimal, and its hunks make the new text out of the old one', (t) => {
  for (let seed = 0; seed < 3000; seed += 1) {
    const random = new Random(seed);
    const [old, fresh] = [randomText(random, 25), randomText(random, 25)];
    const diff = diffLines(Buffer.from(old, 'latin1'), Buffer.from(fresh, 'latin1'));
    const lines = [old, fresh].map((text) => text.split(/(?<=\n)/).filter((line) => line !== ''));
    const [a = [], b = []] = lines;
    const common = commonLines(a, b);
    const counts = countChanges(diff);
    if (
      counts.deletions !== a.length - common ||
      counts.insertions !== b.length - common ||
      applyHunks(old, hunksOf(diff)) !== fresh
    ) {
      t.fail(`seed ${seed}: ${JSON.stringify({ old, fresh, counts, common })}`);
      return;
    }
  }
  t.pass();
});

test('diffLines() of long texts with edits far apart: hunks apply, and count what was edited', (t) => {
  const random = new Random(7);
  const lines = Array.from({ length: 20_000 }, (_, i) => `line ${random.below(4000)} ${i % 7}\n`);
  const fresh = [...lines];
  for (let at = 50; at < fresh.length; at += 997) fresh[at] = `edited ${at}\n`;
  const diff = diffLines(Buffer.from(lines.join('')), Buffer.from(fresh.join('')));
  t.deepEqual(countChanges(diff), { insertions: 21, deletions: 21 });
  t.is(applyHunks(lines.join(''), hunksOf(diff)), fresh.join(''));
});

test('diffLines() of texts that have nothing in order gives up on the shortest, not on a correct one', (t) => {
  const random = new Random(11);
  const shuffled = () => Array.from({ length: 30_000 }, () => `${random.below(500)}\n`).join('');
  const [old, fresh] = [shuffled(), shuffled()];
  const diff = diffLines(Buffer.from(old), Buffer.from(fresh));
  t.is(applyHunks(old, hunksOf(diff)), fresh);
  t.true(countChanges(diff).deletions < 30_000, 'some lines are found in both');
});

// P9: the original's table for these two would take 40,000 × 40,000 cells, 6 GB with four bytes each.
test('diffLines() takes memory in proportion to the texts, not to their product', (t) => {
  const random = new Random(13);
  const text = () => Buffer.from(Array.from({ length: 40_000 }, () => `${random.below(300)}\n`).join(''));
  const [old, fresh] = [text(), text()];
  const before = process.memoryUsage().arrayBuffers;
  const diff = diffLines(old, fresh);
  const takenBytes = process.memoryUsage().arrayBuffers - before;
  t.true(takenBytes < 100 * (old.length + fresh.length), `${takenBytes} bytes`);
  t.is(diff.removed.length + diff.added.length, 80_000);
});

test('SequenceDiff marks everything where nothing is common, and nothing where all is', (t) => {
  const marks = (a: number[], b: number[]): [number[], number[]] => {
    const [removed, added]: [number[], number[]] = [[], []];
    SequenceDiff.run(
      Int32Array.from(a),
      Int32Array.from(b),
      (at) => removed.push(at),
      (at) => added.push(at),
    );
    return [removed.sort((x, y) => x - y), added.sort((x, y) => x - y)];
  };
  t.deepEqual(marks([1, 2], [3]), [[0, 1], [0]]);
  t.deepEqual(marks([1, 2, 3], [1, 2, 3]), [[], []]);
  t.deepEqual(marks([], [4]), [[], [0]]);
  t.deepEqual(marks([1, 2, 3, 1], [2, 1]), [[0, 2], []]);
});

test('writeHunks() puts three lines around a change and joins those that touch', (t) => {
  const old = Array.from({ length: 20 }, (_, i) => `${i + 1}\n`);
  const fresh = [...old];
  fresh[4] = 'five\n';
  fresh.splice(12, 1);
  const text = (lines: string[]) => Buffer.from(lines.join(''));
  t.is(
    hunksOf(diffLines(text(old), text(fresh))),
    '@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n@@ -10,7 +10,6 @@\n 10\n 11\n 12\n-13\n 14\n 15\n 16\n',
  );
  fresh[8] = 'nine\n';
  t.is(hunksOf(diffLines(text(old), text(fresh))).match(/@@ -/g)?.length, 1);
  t.is(hunksOf(diffLines(text([]), text(['a\n']))), '@@ -0,0 +1,1 @@\n+a\n');
  t.is(
    hunksOf(diffLines(Buffer.from('a'), Buffer.from('a\n'))),
    '@@ -1,1 +1,1 @@\n-a\n\\ No newline at end of file\n+a\n',
  );
});
