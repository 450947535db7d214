import type { ByteString } from '../../store/byte-string.ts';
import type { FileStat } from '../../store/file-calls.ts';
import type { Listed } from './listed.ts';
import type { PartialFile } from './partial-file.ts';

/** Objects that the upper directory alone has go by their inode numbers there, above all ids of the index. */
export const UPPER_ID = 2 ** 52;
export const ROOT_ID = 1;

/** A name that an object has. */
export interface NodeName {
  parent: CowNode;
  name: ByteString;
}

/** One object of a workspace that the kernel may know. */
export class CowNode {
  /** The name between us and the kernel. */
  readonly id: number;
  /** Tells apart objects that have had the same inode number one after the other. */
  readonly generation: number;
  readonly isDir: boolean;
  /** The object below: what is read of a file that is not in the upper directory, what shows through a directory. */
  lower: number | undefined;
  inUpper: boolean;
  /** The names it is known by; none once it was removed. The root has none either. */
  names: NodeName[] = [];
  /** Known entries of a directory. */
  readonly children: Map<ByteString, CowNode> | undefined;
  /** How often the kernel was told of it and has not given it back. */
  lookups = 0;
  /** The kernel may know it from the process before this one, nobody can tell how often: it is never forgotten. */
  isRecovered = false;
  /** How many open files lead to it. */
  opens = 0;
  /** Where it lies while it is open or referred to without having a name. */
  orphan: ByteString | undefined;
  /** Our own descriptor of the file in the upper directory; -1 for none. */
  fd = -1;
  /** The kernel reads and writes the file itself under this number while it is open; 0: through us. */
  backingId = 0;
  /** It was open in that way once: what the kernel kept of its pages before is out of date. */
  wasPassedThrough = false;
  /** Set for a file of which only parts are in the upper directory; undefined when all is, or nothing. */
  partial: PartialFile | undefined;
  /** Of a directory with something below: how many directories are in it; undefined when nobody counted. */
  subdirCount: number | undefined;
  /** Of a directory: its default ACL decides about the permissions of what is made in it; undefined when nobody looked. */
  hasDefaultAcl: boolean | undefined;
  /** It has no extended attributes; false: nobody looked, or it has some. */
  hasNoXattrs = false;
  /** Of a directory: what shows in it, while somebody lists it and nothing changes. */
  listing: readonly Listed[] | undefined;
  /** What it was when it was removed. */
  lastStat: FileStat | undefined;

  constructor(id: number, options: { isDir: boolean; generation?: number; lower?: number | undefined }) {
    this.id = id;
    this.generation = options.generation ?? 0;
    this.isDir = options.isDir;
    this.lower = options.lower;
    this.inUpper = false;
    this.children = options.isDir ? new Map() : undefined;
  }

  /** It has no name any more, and nothing keeps it but the kernel's memory. */
  get isGone(): boolean {
    return this.id !== ROOT_ID && this.names.length === 0 && this.orphan === undefined;
  }
}

export function upperIdOf({ ino }: FileStat): number {
  return UPPER_ID + (ino % UPPER_ID);
}

/** When it was made, to the nanosecond, cut to what a number holds. */
export function generationOf({ btimeSec, btimeNsec }: FileStat): number {
  return (Math.abs(btimeSec) % 2 ** 21) * 2 ** 30 + btimeNsec;
}
