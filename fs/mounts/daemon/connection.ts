import type { Digest } from '../../../store/digest.ts';
import type { ThreadError } from '../../../store/thread-error.ts';
import type { Negotiated } from '../../serving/negotiate.ts';

/**
 * What one FUSE connection shows. `tree` is every checkpoint of the store as a folder named by its manifest's hex digest;
 * `large` the large files of all of them, by their ids, with a way past us; `workspace` a checkpoint with the changes of a
 * fork; `all` the workspaces and tags as folders.
 */
export type ConnectionKind =
  | { kind: 'tree'; xattrs: boolean; keepOwners: boolean }
  | { kind: 'large' }
  | { kind: 'checkpoint'; manifest: Digest; xattrs: boolean; keepOwners: boolean }
  | { kind: 'workspace'; manifest: Digest; keepOwners: boolean; fork: string; userxattr: boolean }
  | { kind: 'all' };

/** A FUSE connection, as the supervisor tells the server of it; its descriptor comes beside. Plain data. */
export interface ConnectionSpec {
  /** Its mount point. */
  target: string;
  shows: ConnectionKind;
  negotiated: Negotiated;
}

/** What the supervisor asks of the server. */
export type ServerRequest =
  | { op: 'ping' }
  | { op: 'serve'; connection: ConnectionSpec }
  | { op: 'backings'; backings: readonly Backing[] }
  | { op: 'prepare'; id: number; manifest: Digest }
  | { op: 'settle'; id: number; shows: Extract<ConnectionKind, { kind: 'workspace' }> }
  | { op: 'switch'; id: number; target: string; manifest: Digest }
  | { op: 'large-files'; id: number; manifest: Digest };

/** What the server tells the supervisor. */
export type ServerEvent =
  | { event: 'pong' }
  | { event: 'ended'; target: string }
  | { event: 'backing'; backing: Backing }
  | { event: 'cached' }
  | { event: 'done'; id: number; result: unknown }
  | { event: 'failed'; id: number; error: ThreadError };

/** A file the kernel reads by itself: the connection's number for it outlives the process that registered it. */
export interface Backing {
  nodeId: number;
  backingId: number;
}

/** What `prepare` finds out about a checkpoint. */
export interface Prepared {
  /** Some entry has extended attributes. */
  hasXattrs: boolean;
  /** Some entry belongs to somebody else than the owner of the workspace. */
  hasOwners: boolean;
}

/** A large file of a checkpoint. */
export interface LargeFile {
  /** Its name in the `large` connection. */
  id: number;
  /** Path in the checkpoint, as bytes in a string. */
  path: string;
  /** Its content is in the cache. */
  isCached: boolean;
}
