import type { ByteString } from '../../store/byte-string.ts';
import type { Metadata, Xattrs } from '../../store/entry.ts';

/** What the kernel is told about one object. */
export interface ServedNode extends Omit<Metadata, 'link' | 'xattrs'> {
  /** The name between us and the kernel: below 2^53, never 0; 1 is the root. Equal for equal bytes, also after a restart. */
  nodeId: number;
  /** What `stat` prints; hard links of one file share it. */
  ino: number;
  /** Of a directory: 2 and 1 for each directory in it, or 1 where that is not known. */
  nlink: number;
}

export interface ServedDirent {
  name: ByteString;
  node: ServedNode;
}

/** What `df` shows: how much a checkpoint holds. */
export interface ServedTotals {
  totalBytes: number;
  fileCount: number;
}

/**
 * A tree that never changes while the kernel knows it, answered synchronously from local data. Only directories that are
 * said to grow get other entries, and with them another modification time: the kernel compares it before it trusts the
 * listing it has.
 *
 * `undefined` means "no such object". Thrown errors become errno through `ERRORS`; anything unknown becomes EIO.
 */
export interface ServedTree {
  /** `slow`: somebody with more time should be asked. */
  lookup(parent: number, name: ByteString): ServedNode | 'slow' | undefined;
  getattr(nodeId: number): ServedNode | undefined;
  /** All entries without `.` and `..`, always in the same order: an entry's position is the kernel's cookie. */
  readdir(nodeId: number): readonly ServedDirent[] | undefined;
  readlink(nodeId: number): Buffer | undefined;
  /**
   * Copies file bytes from `offset` into `out` and returns how many; fewer than `out.length` only at the end of the file.
   * `slow`: they are not at hand, and somebody with more time should be asked.
   */
  read(nodeId: number, offset: number, out: Buffer): number | 'slow';
  xattrs(nodeId: number): Xattrs | undefined;
  /** Of the checkpoint in which an object is. */
  statfs(nodeId: number): ServedTotals;
}
