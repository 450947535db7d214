import type { ByteString } from '../../../store/byte-string.ts';
import type { Chunk, Xattrs } from '../../../store/entry.ts';
import type { LayerFile } from '../../contents/content-reader.ts';
import type { Owner } from '../../tree/disk-node.ts';

/** A file to be written, in a form that goes from thread to thread. */
export interface FileJob {
  /** Absolute; nothing is there yet. */
  place: ByteString;
  /** As the checkpoint calls it: for messages. */
  path: ByteString;
  mode: number;
  uid: number;
  gid: number;
  mtimeSec: number;
  mtimeNsec: number;
  sizeBytes: number;
  xattrs: Xattrs | undefined;
  chunks: readonly Chunk[];
}

/** Files whose bytes lie near one another in one layer. */
export interface FileBatch {
  layer: LayerFile;
  jobs: FileJob[];
}

/** What objects look like that are made in the place being restored to, before anything is set on them. */
export interface FreshObjects {
  uid: number;
  gid: number;
  umask: number;
  /** Neither a default ACL nor anything else has a say in modes and attributes. */
  isPlain: boolean;
}

/** What every file of one restore has in common. */
export interface WriteContext {
  /** Gets what the checkpoint says belongs to the owner of the workspace. */
  owner: Owner;
  fresh: FreshObjects;
  isRoot: boolean;
}

/** An attribute that could not be set: path and what was refused. */
export type Refusal = [path: ByteString, what: string];
