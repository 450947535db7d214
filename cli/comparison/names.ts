import type { ComparedChange } from '../../fs/workspace/compare.ts';
import { fromText, toText, type ByteString } from '../../store/byte-string.ts';
import type { ByteOutput } from '../text-diff/byte-output.ts';

export interface NameOptions {
  /** A letter before each path. */
  nameStatus: boolean;
  /** The names' own bytes, each ended by a NUL; else text, one change a line. */
  zero: boolean;
}

/** Writes the paths of changes as `git diff --name-only` and `--name-status` do. */
export function writeNames(
  changes: readonly ComparedChange[],
  { nameStatus, zero }: NameOptions,
  out: ByteOutput,
): void {
  const shown = (path: ByteString): ByteString => (zero ? path || '.' : fromText(toText(path) || '.'));
  for (const change of changes) {
    const { path, from } = change;
    const fields = nameStatus
      ? [letterOf(change), ...(from === undefined ? [] : [shown(from)]), shown(path)]
      : [shown(path)];
    out.text(zero ? fields.map((field) => `${field}\0`).join('') : `${fields.join('\t')}\n`);
  }
}

function letterOf({ kind, differences }: ComparedChange): string {
  switch (kind) {
    case 'added':
      return 'A';
    case 'removed':
      return 'D';
    case 'renamed':
      return 'R100';
    case 'modified':
      return differences.includes('type') ? 'T' : 'M';
  }
}
