import type { Entries } from '../../index/entries.ts';
import type { ByteString } from '../../store/byte-string.ts';
import type { CheckpointNode, CheckpointTree } from '../tree/checkpoint-tree.ts';

/** Of a directory over which layers above list more names than this, nobody counts the directories in it. */
const COUNTED_NAMES_MAX = 200;
/** What tools take for "not known". */
const UNKNOWN = 1;

/**
 * How many links a directory of a merged tree has: 2 and a `..` in each directory in it, as ext4 counts; 1 where counting
 * would take long. Its lowest layer says how many it has there; only at the names that others list can it be otherwise.
 */
export function countLinks(entries: Entries, tree: CheckpointTree, dir: CheckpointNode): number {
  const rows = (dir.parts ?? []).map(({ row }) => row);
  const lowest = rows.pop();
  if (lowest === undefined) return UNKNOWN;
  const names = new Set<ByteString>();
  for (const { id } of rows) {
    for (const name of entries.names(id, COUNTED_NAMES_MAX)) names.add(name);
    if (names.size >= COUNTED_NAMES_MAX) return UNKNOWN;
  }
  let count = lowest.nlink;
  for (const name of names) {
    if (entries.child(lowest.id, name)?.type === 'dir') count -= 1;
    if (tree.child(dir, name)?.type === 'dir') count += 1;
  }
  return count;
}
