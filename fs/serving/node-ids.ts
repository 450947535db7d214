import { entryId, numberOf, POSITION_MAX, positionOf } from '../../index/rows.ts';

/**
 * A file's node id is its entry's id in the index, with marks in bits that no position reaches: where the same entry is
 * shown with other attributes, it must be another object to the kernel. From bit 24, 7 bits: how many names show, where
 * that is not what its layer says. Bit 31: its owners are shown as they are recorded.
 */
const NAMES_SHIFT = 24;
const NAMES_MAX = 127;
const OWNERS = 2 ** 31;

/** @param names - how many of a file's names show; undefined: as many as its layer says */
export function fileNodeId(id: number, names: number | undefined): number {
  return names === undefined || names > NAMES_MAX ? id : id + names * 2 ** NAMES_SHIFT;
}

/** The same file with the owners that its checkpoint records. */
export function withRecordedOwners(nodeId: number): number {
  return nodeId + OWNERS;
}

/** The entry behind a file's node id. */
export function entryOfNode(nodeId: number): number {
  return entryId(numberOf(nodeId), positionOf(nodeId) & POSITION_MAX);
}

/** How many names a node id says that a file has; undefined: as many as its layer says. */
export function namesOfNode(nodeId: number): number | undefined {
  const names = (positionOf(nodeId) >>> NAMES_SHIFT) & NAMES_MAX;
  return names === 0 ? undefined : names;
}

export function hasRecordedOwners(nodeId: number): boolean {
  return positionOf(nodeId) >= OWNERS;
}
