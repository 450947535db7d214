import type { ByteOutput } from './byte-output.ts';
import type { LineDiff } from './line-diff.ts';
import type { Lines } from './lines.ts';

/** Unchanged lines around a change. */
const CONTEXT_LINES = 3;

/** Lines of both texts that are shown together; the ends are the first lines after it. */
interface Hunk {
  beforeFrom: number;
  beforeTo: number;
  afterFrom: number;
  afterTo: number;
}

/**
 * Writes the hunks of a unified diff, three lines of context around each, and the lines' bytes as they are.
 *
 * @see POSIX.1-2017 diff, "Diff -u or -U Output Format"
 */
export function writeHunks(diff: LineDiff, out: ByteOutput): void {
  for (const hunk of hunksOf(diff)) {
    const { beforeFrom, beforeTo, afterFrom, afterTo } = hunk;
    out.text(`@@ -${range(beforeFrom, beforeTo)} +${range(afterFrom, afterTo)} @@\n`);
    writeBody(diff, hunk, out);
  }
}

/** Counts are always written, as the original did; an empty range stands after the line before it. */
function range(from: number, to: number): string {
  return `${from === to ? from : from + 1},${to - from}`;
}

function* hunksOf(diff: LineDiff): Generator<Hunk> {
  const { before, after } = diff;
  let hunk: Hunk | undefined;
  for (const { beforeFrom, beforeTo, afterFrom, afterTo } of blocksOf(diff)) {
    if (hunk !== undefined && beforeFrom - hunk.beforeTo > 2 * CONTEXT_LINES) {
      yield widened(hunk, before, after);
      hunk = undefined;
    }
    hunk = { beforeFrom, afterFrom, ...hunk, beforeTo, afterTo };
  }
  if (hunk !== undefined) yield widened(hunk, before, after);
}

function widened(hunk: Hunk, before: Lines, after: Lines): Hunk {
  const above = Math.min(CONTEXT_LINES, hunk.beforeFrom);
  return {
    beforeFrom: hunk.beforeFrom - above,
    beforeTo: Math.min(before.count, hunk.beforeTo + CONTEXT_LINES),
    afterFrom: hunk.afterFrom - above,
    afterTo: Math.min(after.count, hunk.afterTo + CONTEXT_LINES),
  };
}

/** Each run of changed lines. */
function* blocksOf({ before, after, removed, added }: LineDiff): Generator<Hunk> {
  let [i, j] = [0, 0];
  while (i < before.count || j < after.count) {
    const [beforeFrom, afterFrom] = [i, j];
    while (removed[i] === 1) i += 1;
    while (added[j] === 1) j += 1;
    if (i > beforeFrom || j > afterFrom) yield { beforeFrom, beforeTo: i, afterFrom, afterTo: j };
    while (i < before.count && removed[i] === 0 && j < after.count && added[j] === 0) {
      i += 1;
      j += 1;
    }
  }
}

function writeBody({ before, after, removed, added }: LineDiff, hunk: Hunk, out: ByteOutput): void {
  let [i, j] = [hunk.beforeFrom, hunk.afterFrom];
  while (i < hunk.beforeTo || j < hunk.afterTo) {
    for (; i < hunk.beforeTo && removed[i] === 1; i += 1) writeLine('-', before, i, out);
    for (; j < hunk.afterTo && added[j] === 1; j += 1) writeLine('+', after, j, out);
    for (; i < hunk.beforeTo && removed[i] === 0 && added[j] !== 1; i += 1, j += 1) writeLine(' ', before, i, out);
  }
}

function writeLine(sign: string, { bytes, starts }: Lines, line: number, out: ByteOutput): void {
  const [from, to] = [starts[line] ?? 0, starts[line + 1] ?? 0];
  out.text(sign);
  out.bytes(bytes, from, to);
  if (bytes[to - 1] !== 0x0a) out.text('\n\\ No newline at end of file\n');
}
