import type { ByteString } from './byte-string.ts';
import type { Digest } from './digest.ts';

/** What a layer can hold. `hardlink` points at an earlier entry of the same tree; `whiteout` hides a lower name. */
export type EntryType = 'file' | 'dir' | 'symlink' | 'hardlink' | 'char' | 'block' | 'fifo' | 'whiteout';

/** Extended attributes: name -> raw value, names as byte strings. Never empty when present. */
export type Xattrs = ReadonlyMap<ByteString, Buffer>;

/** Everything about a file but its place in the tree and its bytes. */
export interface Metadata {
  type: EntryType;
  /** Permission bits with setuid, setgid and sticky: `mode & 0o7777`. Symlinks have 0o777. */
  mode: number;
  /** 0 is "whoever owns the workspace"; anything else is a numeric owner. */
  uid: number;
  gid: number;
  /** Whole seconds since 1970, negative before; never a fraction. */
  mtimeSec: number;
  /** 0 to 999,999,999. */
  mtimeNsec: number;
  /** Length of a file's content; 0 for everything else. */
  sizeBytes: number;
  /** Target of a symlink (as written) or path of the entry a hardlink names. */
  link?: ByteString;
  /** Device number of a char or block entry. */
  rdev?: { major: number; minor: number };
  xattrs?: Xattrs;
}

/** One entry of a layer, as archived. */
export interface Entry extends Metadata {
  /** Relative path without leading or trailing slash; the empty string is the root directory. */
  path: ByteString;
  /** A directory whose lower namesakes are hidden (OCI `.wh..wh..opq`). */
  opaque?: boolean;
  /** SHA-256 of a file's content; absent for other types. */
  digest?: Digest;
}

/** A piece of a file's content inside a layer blob. */
export interface Chunk {
  /** Where in the file the piece begins. */
  fileOffset: number;
  sizeBytes: number;
  digest: Digest;
  /**
   * Where in the blob the gzip member that holds it begins (for a bare tar: the bytes themselves;
   * for a foreign compressed layer: the bytes in the tar that it inflates to).
   */
  blobOffset: number;
  /** How long that member is. */
  blobBytes: number;
  /** How many inflated bytes of the member precede the piece. */
  innerOffset: number;
}

/** An entry together with where its bytes lie: what a packed layer is made of, and what the index stores. */
export interface PackedEntry extends Entry {
  chunks: readonly Chunk[];
}
