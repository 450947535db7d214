import type { ByteString } from '../../store/byte-string.ts';
import { toBytes } from '../../store/byte-string.ts';
import type { ComparedChange, Side, SideNode } from '../../fs/workspace/compare.ts';
import { countChanges, diffLines, type LineDiff } from '../text-diff/line-diff.ts';
import { countLines } from '../text-diff/lines.ts';

/** Two files that have more bytes or lines than this together are compared as if they were binary. */
export const TEXT_BYTES_MAX = 512 << 20;
const LINES_MAX = 1 << 25;
/** A NUL byte this early makes a file binary, as git decides it. */
const BINARY_PROBE_BYTES = 8000;
const NOTHING = Buffer.alloc(0);

/** The bytes that a patch has for one side of a change: a file's content, or where a symlink leads. */
export interface Content {
  path: ByteString;
  node: SideNode;
}

/** What became of a text, or that it is none that can be shown line by line. */
export type TextComparison = { kind: 'text'; lines: LineDiff } | { kind: 'binary' } | { kind: 'too large' };

/** What a patch can hold of one side of a change; undefined for directories, fifos and devices. */
export function contentOf(change: ComparedChange, side: 'before' | 'after'): Content | undefined {
  const node = change[side];
  const path = side === 'before' ? (change.from ?? change.path) : change.path;
  return node?.type === 'file' || node?.type === 'symlink' ? { path, node } : undefined;
}

/** Reads both sides, of which either may be missing, and compares them line by line. */
export function compareContents(
  [before, old]: readonly [Side, Content | undefined],
  [after, fresh]: readonly [Side, Content | undefined],
): TextComparison {
  if (isTooLarge(old?.node, fresh?.node)) return { kind: 'too large' };
  const left = readText(before, old);
  const right = left && readText(after, fresh);
  if (left === undefined || right === undefined) return { kind: 'binary' };
  if (countLines(left) + countLines(right) > LINES_MAX) return { kind: 'too large' };
  return { kind: 'text', lines: diffLines(left, right) };
}

/** Whether two files are compared as if they were binary, whatever is in them. */
export function isTooLarge(before: SideNode | undefined, after: SideNode | undefined): boolean {
  return (before?.sizeBytes ?? 0) + (after?.sizeBytes ?? 0) > TEXT_BYTES_MAX;
}

/** Undefined for a binary file, of which only the beginning is read. */
function readText(side: Side, content: Content | undefined): Buffer | undefined {
  if (content === undefined) return NOTHING;
  const { path, node } = content;
  if (node.type === 'symlink') return toBytes(node.link ?? '');
  let bytes = Buffer.allocUnsafe(node.sizeBytes);
  let sizeBytes = 0;
  for (const piece of side.content(path, node)) {
    const probed = Math.max(0, BINARY_PROBE_BYTES - sizeBytes);
    if (piece.subarray(0, probed).includes(0)) return undefined;
    if (sizeBytes + piece.length > bytes.length)
      bytes = Buffer.concat([bytes.subarray(0, sizeBytes), piece]); // it grew
    else piece.copy(bytes, sizeBytes);
    sizeBytes += piece.length;
  }
  return bytes.subarray(0, sizeBytes);
}

/** What `--stat` shows of one change. */
export type ChangeSize =
  | { kind: 'lines'; insertions: number; deletions: number }
  | { kind: 'binary'; beforeBytes: number; afterBytes: number };

/** Counts what one change adds and takes away; undefined when it is nothing that a patch could hold. */
export function sizeOfChange(before: Side, after: Side, change: ComparedChange): ChangeSize | undefined {
  const old = contentOf(change, 'before');
  const fresh = contentOf(change, 'after');
  if (!isInPatch(change)) return undefined;
  if (change.kind === 'renamed' || !hasOtherContent(change)) return { kind: 'lines', insertions: 0, deletions: 0 };
  const isSameKind = old === undefined || fresh === undefined || old.node.type === fresh.node.type;
  const compared = isSameKind
    ? [compareContents([before, old], [after, fresh])]
    : [compareContents([before, old], [after, undefined]), compareContents([before, undefined], [after, fresh])];
  let [insertions, deletions] = [0, 0];
  for (const one of compared) {
    if (one.kind !== 'text') {
      return { kind: 'binary', beforeBytes: old?.node.sizeBytes ?? 0, afterBytes: fresh?.node.sizeBytes ?? 0 };
    }
    const counts = countChanges(one.lines);
    insertions += counts.insertions;
    deletions += counts.deletions;
  }
  return { kind: 'lines', insertions, deletions };
}

/** Whether a patch in git's format can tell anything of a change: contents, links, names, and whether a file is executable. */
export function isInPatch(change: ComparedChange): boolean {
  const old = contentOf(change, 'before');
  const fresh = contentOf(change, 'after');
  if (old === undefined || fresh === undefined) return old !== undefined || fresh !== undefined;
  return change.kind === 'renamed' || hasOtherContent(change) || gitMode(old.node) !== gitMode(fresh.node);
}

function hasOtherContent({ kind, differences }: ComparedChange): boolean {
  return kind !== 'modified' || differences.some((one) => one === 'content' || one === 'link' || one === 'type');
}

/** git knows three modes of files: plain, executable and symlink. */
export function gitMode({ type, mode }: SideNode): '100644' | '100755' | '120000' {
  if (type === 'symlink') return '120000';
  return (mode & 0o100) === 0 ? '100644' : '100755';
}
