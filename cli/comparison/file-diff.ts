import { nodeAt } from '../../fs/tree/tree.ts';
import type { Side } from '../../fs/workspace/compare.ts';
import { fromText, toText, type ByteString } from '../../store/byte-string.ts';
import { BentoError } from '../../store/errors.ts';
import type { ByteOutput } from '../text-diff/byte-output.ts';
import { countChanges } from '../text-diff/line-diff.ts';
import { writeHunks } from '../text-diff/unified.ts';
import { compareContents, TEXT_BYTES_MAX, type Content } from './contents.ts';

/**
 * Writes how one file differs, as a unified diff whose headers name the sides: for reading.
 *
 * @returns whether it differs
 * @throws BentoError FAILED when the file is too large
 */
export function writeFileDiff(before: Side, after: Side, path: ByteString, out: ByteOutput): boolean {
  const old = contentAt(before, path);
  const fresh = contentAt(after, path);
  const compared = compareContents([before, old], [after, fresh]);
  if (compared.kind === 'too large') {
    throw new BentoError(
      'FAILED',
      `${toText(path)} has more than ${TEXT_BYTES_MAX >> 20} MiB, too large for a text diff`,
      {
        hint: 'without --file, bento diff says whether it differs',
      },
    );
  }
  if (compared.kind === 'binary') {
    const isEqual = old !== undefined && fresh !== undefined && isSame(before, after, path, [old, fresh]);
    out.text(isEqual ? `No changes in ${path}\n` : `Binary files a/${path} and b/${path} differ\n`);
    return !isEqual;
  }
  const { insertions, deletions } = countChanges(compared.lines);
  const differs = insertions + deletions > 0 || old?.node.type !== fresh?.node.type;
  if (!differs) {
    out.text(`No changes in ${path}\n`);
    return false;
  }
  out.text(`--- a/${path} (${fromText(before.label)})\n+++ b/${path} (${fromText(after.label)})\n`);
  writeHunks(compared.lines, out);
  return true;
}

function isSame(
  before: Side,
  after: Side,
  path: ByteString,
  [{ node: old }, { node: fresh }]: readonly [Content, Content],
): boolean {
  return (
    old.type === fresh.type &&
    old.sizeBytes === fresh.sizeBytes &&
    before.digest(path, old) === after.digest(path, fresh)
  );
}

function contentAt(side: Side, path: ByteString): Content | undefined {
  const node = nodeAt(side.tree, path);
  return node?.type === 'file' || node?.type === 'symlink' ? { path, node } : undefined;
}
