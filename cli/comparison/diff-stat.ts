import type { ComparedChange } from '../../fs/workspace/compare.ts';
import { toText } from '../../store/byte-string.ts';
import type { ChangeSize } from './contents.ts';

/** Characters in a line, as git has it where it does not know the terminal. */
const LINE_CHARACTERS = 80;
const GRAPH_CHARACTERS_MIN = 10;

export interface SizedChange {
  change: ComparedChange;
  size: ChangeSize;
}

/** Lines as `git diff --stat` prints them, the summary last. */
export function statLines(changes: readonly SizedChange[]): string[] {
  const names = changes.map(({ change }) => statName(change));
  const nameWidth = names.reduce((width, name) => Math.max(width, name.length), 0);
  const most = changes.reduce((count, { size }) => Math.max(count, lineCount(size)), 0);
  const hasBinary = changes.some(({ size }) => size.kind === 'binary');
  const countWidth = Math.max(String(most).length, hasBinary ? 3 : 0);
  const graphWidth = Math.max(GRAPH_CHARACTERS_MIN, LINE_CHARACTERS - nameWidth - countWidth - 5);
  const rows = changes.map(({ size }, i) => {
    const name = (names[i] ?? '').padEnd(nameWidth);
    return ` ${name} | ${shownSize(size, { countWidth, graphWidth, most })}`.trimEnd();
  });
  return [...rows, summaryLine(changes)];
}

function lineCount(size: ChangeSize): number {
  return size.kind === 'lines' ? size.insertions + size.deletions : 0;
}

interface StatLayout {
  countWidth: number;
  graphWidth: number;
  /** The largest count there is. */
  most: number;
}

function shownSize(size: ChangeSize, { countWidth, graphWidth, most }: StatLayout): string {
  if (size.kind === 'binary') return `${'Bin'.padStart(countWidth)} ${size.beforeBytes} -> ${size.afterBytes} bytes`;
  const { insertions, deletions } = size;
  const scale = (count: number): number =>
    most <= graphWidth || count === 0 ? count : Math.max(1, Math.floor((count * graphWidth) / most));
  const graph = '+'.repeat(scale(insertions)) + '-'.repeat(scale(deletions));
  return `${String(insertions + deletions).padStart(countWidth)} ${graph}`;
}

function summaryLine(changes: readonly SizedChange[]): string {
  const { insertions, deletions } = totals(changes);
  const files = ` ${changes.length} file${changes.length === 1 ? '' : 's'} changed`;
  return `${files}, ${insertions} insertion${insertions === 1 ? '' : 's'}(+), ${deletions} deletion${deletions === 1 ? '' : 's'}(-)`;
}

export function totals(changes: readonly SizedChange[]): { files: number; insertions: number; deletions: number } {
  const sum = { files: changes.length, insertions: 0, deletions: 0 };
  for (const { size } of changes) {
    if (size.kind === 'binary') continue;
    sum.insertions += size.insertions;
    sum.deletions += size.deletions;
  }
  return sum;
}

/** `path`, or for a renamed file `a/{old => new}/c`. */
function statName({ path, from }: ComparedChange): string {
  if (from === undefined) return toText(path) || '.';
  const [old, fresh] = [from.split('/'), path.split('/')];
  const shorter = Math.min(old.length, fresh.length) - 1; // the last name belongs to what is in the middle
  let head = 0;
  while (head < shorter && old[head] === fresh[head]) head += 1;
  let tail = 0;
  while (tail < shorter - head + 1 && old.at(-1 - tail) === fresh.at(-1 - tail)) tail += 1;
  const show = (names: readonly string[]): string => toText(names.join('/'));
  const middle = `${show(old.slice(head, old.length - tail))} => ${show(fresh.slice(head, fresh.length - tail))}`;
  if (head + tail === 0) return middle;
  const before = head === 0 ? '' : `${show(old.slice(0, head))}/`;
  return `${before}{${middle}}${tail === 0 ? '' : `/${show(old.slice(old.length - tail))}`}`;
}
