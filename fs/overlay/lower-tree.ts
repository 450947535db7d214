import type { ByteString } from '../../store/byte-string.ts';
import type { FileStat } from '../../store/file-calls.ts';
import type { LayerEntry } from './marks.ts';

/** An object of the checkpoint below a workspace. */
export interface LowerObject {
  /** Equal for equal objects, also after a restart; below 2^52. */
  id: number;
  /** `ino` is the id. */
  stat: FileStat;
}

export interface LowerEntry extends LowerObject {
  name: ByteString;
}

/** A checkpoint as the workspace above it reads it. Objects go by their ids; nothing in it ever changes. */
export interface LowerTree {
  readonly root: LowerObject;
  lookup(dir: number, name: ByteString): LowerObject | undefined;
  /** Undefined for an id that means nothing. */
  stat(id: number): FileStat | undefined;
  /** Sorted by name, bytewise. */
  list(dir: number): readonly LowerEntry[];
  /** Where a symlink leads. */
  link(id: number): Buffer;
  /** Copies bytes of a file, verified, however long that takes. @returns fewer than there is room for only at its end */
  read(id: number, offset: number, out: Buffer): number;
  /** As `read`, but 'slow' when that would take long. */
  readNow(id: number, offset: number, out: Buffer): number | 'slow';
  xattrs(id: number): ReadonlyMap<ByteString, Buffer> | undefined;
  /** Where in the checkpoint an object is to be seen: several paths for a file with several names, none when it is hidden. */
  paths(id: number): readonly ByteString[];
  /** Names a file so that `find` finds it in an index that was made anew. */
  entry(id: number): LayerEntry;
  find(entry: LayerEntry): number | undefined;
}
