import { StringDecoder } from 'node:string_decoder';

import type { Digest } from '../../../store/digest.ts';
import { BentoError, ERRORS, type ErrorCode } from '../../../store/errors.ts';

/** Which mount of the daemon's a read-only view comes from. */
export interface TreeWish {
  manifest: Digest;
  /** Show the owners that the checkpoint records; false: everything belongs to the user who mounts. */
  keepOwners: boolean;
}

/** A writable view: what it changes is kept in the folder of a fork. */
export interface WorkspaceWish extends TreeWish {
  /** Id of the fork's record, which names its folder. */
  fork: string;
  /** Its marks are `user.` attributes. */
  userxattr: boolean;
}

/** What a FUSE connection of its own shows: one checkpoint, a fork of one, or every workspace and tag as folders. */
export type ServeWish = ({ kind: 'checkpoint' } & TreeWish) | ({ kind: 'workspace' } & WorkspaceWish) | { kind: 'all' };

/**
 * What is said on the daemon's control socket: one JSON object a line, each request answered by one line.
 *
 * - `hello`: how is it going
 * - `ready`: somebody is about to mount one, and most appear in the same tree: make that
 * - `prepare`: make a checkpoint appear in one of the daemon's trees; answered with the folder to mount from
 * - `mounted`: a view of it was mounted at `target`, where large files may now be given a faster way
 * - `unmounting`: it is about to be unmounted; answered when nothing is mounted inside it any more
 * - `serve`: mount at `target` with a connection of its own, for users who may not bind, and for `mount --all`
 * - `switch`: put another checkpoint below a fork, as the plan in its folder says
 * - `settle`: make a fork's upper directory one that the kernel's overlayfs understands; nobody may be using it
 * - `release`: take such a mount away
 * - `upgrade`: hand everything over to the daemon at `program`, without unmounting
 * - `stop`: end as soon as nothing uses the daemon's mounts any more
 */
export type ControlRequest =
  | { op: 'hello' }
  | { op: 'ready' }
  | ({ op: 'prepare' } & TreeWish)
  | { op: 'mounted'; target: string }
  | { op: 'unmounting'; target: string }
  | { op: 'serve'; target: string; allowOther: boolean; wish: ServeWish }
  | { op: 'switch'; target: string; manifest: Digest }
  | ({ op: 'settle' } & WorkspaceWish)
  | { op: 'release'; target: string; lazy: boolean }
  | { op: 'upgrade'; program: string }
  | { op: 'stop' };

/** How a daemon is doing. */
export interface DaemonHealth {
  /** The supervisor, which holds the mounts. */
  pid: number;
  version: string;
  /** The process that answers requests; undefined while it is being replaced. */
  serverPid: number | undefined;
  /** `failing`: it died again and again, and is given longer and longer pauses. */
  state: 'serving' | 'restarting' | 'failing';
  /** How often it died since the daemon was started, and the last time's reason. */
  restartCount: number;
  lastDeath: string | undefined;
}

export type ControlReply =
  | { ok: true; health: DaemonHealth; /** The answer to `prepare`: mount from here. */ folder?: string }
  | { ok: false; code: ErrorCode; message: string; hint: string | undefined };

/** The longest line either side reads; beyond it the other is not one of us. */
export const LINE_BYTES_MAX = 64 << 10;

export function encodeError(error: unknown): ControlReply {
  if (error instanceof BentoError) return { ok: false, code: error.code, message: error.message, hint: error.hint };
  return {
    ok: false,
    code: 'DAEMON_FAILED',
    message: error instanceof Error ? error.message : String(error),
    hint: undefined,
  };
}

/** The error a reply carries, as if it had happened here. */
export function decodeError(reply: Extract<ControlReply, { ok: false }>): BentoError {
  const code = Object.hasOwn(ERRORS, reply.code) ? reply.code : 'DAEMON_FAILED';
  return new BentoError(code, reply.message, reply.hint === undefined ? {} : { hint: reply.hint });
}

/** Splits what a socket delivers into lines; the callback throws or the stream ends when a line is too long. */
export function lineReader(onLine: (line: string) => void): (piece: Buffer) => void {
  const decoder = new StringDecoder('utf8'); // a piece may end in the middle of a character
  let rest = '';
  return (piece) => {
    const lines = (rest + decoder.write(piece)).split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > LINE_BYTES_MAX) throw new BentoError('DAEMON_FAILED', 'control message too long');
    for (const line of lines) onLine(line);
  };
}
