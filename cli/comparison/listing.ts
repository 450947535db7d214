import type { ComparedChange, TitleComparison } from '../../fs/workspace/compare.ts';
import type { Change } from '../../fs/tree/diff-trees.ts';
import type { TreeNode } from '../../fs/tree/tree.ts';
import { toText } from '../../store/byte-string.ts';
import type { ChangeSize } from './contents.ts';

/** One change as JSON has it. */
export interface ShownChange {
  /** With a slash at the end for a directory. */
  path: string;
  kind: ComparedChange['kind'];
  /** Where a renamed file was. */
  from?: string;
  type: string;
  differences: readonly string[];
  /** What differs where it is not simply the content, in words. */
  remark: string;
  /** Lines; only where they were counted and the file is text. */
  insertions?: number;
  deletions?: number;
}

/** A directory that moved with files in it: the renames are among the changes, too. */
export interface ShownMove {
  from: string;
  path: string;
  files: number;
}

export interface ShownLayer {
  title: string;
  changes: ShownChange[];
  moves: ShownMove[];
}

const KINDS = ['added', 'removed', 'modified', 'renamed'] as const;
const SIGN = { added: '+', removed: '-', modified: '~', renamed: 'R' } as const;

/** Added, removed, modified, renamed; each sorted by path. */
export function shownLayer(
  { title, changes, moved }: TitleComparison,
  sizeOf: (change: ComparedChange) => ChangeSize | undefined,
): ShownLayer {
  const rows = changes.map((change) => shownChange(change, sizeOf(change)));
  return {
    title,
    changes: rows.sort((a, b) => KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind)),
    moves: moved.map(({ from, to, paths }) => ({
      from: `${toText(from)}/`,
      path: `${toText(to)}/`,
      files: paths.length,
    })),
  };
}

function shownChange(change: ComparedChange, size: ChangeSize | undefined): ShownChange {
  const { path, kind, from, before, after, differences } = change;
  const type = (after ?? before)?.type ?? 'file';
  return {
    path: (toText(path) || '.') + (type === 'dir' ? '/' : ''),
    kind,
    ...(from !== undefined && { from: toText(from) }),
    type,
    differences,
    remark: remark(change),
    ...(size?.kind === 'lines' && { insertions: size.insertions, deletions: size.deletions }),
  };
}

/** The lines for one layer: its summary, then its changes, the files of a moved directory as one. */
export function layerLines({ title, changes, moves }: ShownLayer, position: string): string[] {
  const alone = changes.filter((change) => !moves.some((move) => isMovedBy(change, move)));
  return [
    `  [${position}] ${title}: ${summary(changes)}`,
    ...alone.map(changeLine),
    ...moves.map(({ from, path, files }) => `    ${SIGN.renamed} ${from} → ${path}  (${files} files)`),
  ];
}

/** A file whose mode changed on the way keeps its own line. */
function isMovedBy({ kind, path, from, remark: text }: ShownChange, move: ShownMove): boolean {
  if (kind !== 'renamed' || from === undefined || text !== '') return false;
  return from.startsWith(move.from) && path === move.path + from.slice(move.from.length);
}

function summary(changes: readonly ShownChange[]): string {
  if (changes.length === 0) return 'unchanged';
  const counts = KINDS.flatMap((kind) => {
    const count = changes.filter((change) => change.kind === kind).length;
    return count === 0 ? [] : [`${count} ${kind}`];
  });
  return `${changes.length} change${changes.length === 1 ? '' : 's'} (${counts.join(', ')})`;
}

function changeLine({ kind, path, from, remark: text }: ShownChange): string {
  const name = from === undefined ? path : `${from} → ${path}`;
  return `    ${SIGN[kind]} ${name}${text === '' ? '' : `  (${text})`}`;
}

/** What differs where it is not simply the content. The time is worth a word only when it is all. */
function remark({ kind, before, after, differences }: ComparedChange): string {
  if (before === undefined || after === undefined) return '';
  const isTimeWorthIt = kind === 'modified' && differences.length === 1;
  const said = differences.filter((difference) => difference !== 'mtime' || isTimeWorthIt);
  return said.flatMap((difference) => describe(difference, before, after)).join(', ');
}

function describe(difference: Change['differences'][number], before: TreeNode, after: TreeNode): string[] {
  switch (difference) {
    case 'content':
      return [];
    case 'type':
      return [`${before.type} → ${after.type}`];
    case 'mode':
      return [`mode ${before.mode.toString(8)} → ${after.mode.toString(8)}`];
    case 'owner':
      return [`owner ${before.uid}:${before.gid} → ${after.uid}:${after.gid}`];
    case 'link':
      return [after.link === undefined ? 'device' : `→ ${toText(after.link)}`];
    case 'mtime':
      return ['time'];
    case 'xattrs':
      return ['attributes'];
    case 'links':
      return ['hard links'];
  }
}
