/**
 * Every error a user can meet: code -> shell exit status and FUSE errno.
 * Codes and exit statuses are public (README, "Exit codes"): add new ones, never reuse an old one.
 */
export const ERRORS = {
  /** Something failed that has no better name. */
  FAILED: { exitCode: 1, errno: 'EIO' },
  /** The command line itself is wrong: unknown command, flag or number of arguments. */
  USAGE: { exitCode: 2, errno: 'EINVAL' },
  CONFIG_MISSING: { exitCode: 3, errno: 'ENOENT' },
  CONFIG_INVALID: { exitCode: 4, errno: 'EINVAL' },
  REF_NOT_FOUND: { exitCode: 10, errno: 'ENOENT' },
  REF_INVALID: { exitCode: 11, errno: 'EINVAL' },
  /** Bytes are not what their digest says. */
  DIGEST_MISMATCH: { exitCode: 12, errno: 'EIO' },
  BLOB_MISSING: { exitCode: 13, errno: 'EIO' },
  /** A blob, manifest or index that cannot be understood. */
  FORMAT_INVALID: { exitCode: 14, errno: 'EIO' },
  FORMAT_UNSUPPORTED: { exitCode: 15, errno: 'EOPNOTSUPP' },
  /** Bytes of a blob that were not fetched yet. */
  BLOB_REMOTE: { exitCode: 16, errno: 'EIO' },
  TARGET_NOT_EMPTY: { exitCode: 20, errno: 'ENOTEMPTY' },
  TARGET_INVALID: { exitCode: 21, errno: 'ENOTDIR' },
  /** Going on would destroy something that nothing else holds. */
  UNSAVED_CHANGES: { exitCode: 22, errno: 'EBUSY' },
  MOUNT_POINT_MISSING: { exitCode: 30, errno: 'ENOENT' },
  MOUNT_POINT_BUSY: { exitCode: 31, errno: 'EBUSY' },
  NOT_MOUNTED: { exitCode: 32, errno: 'EINVAL' },
  FUSE_UNAVAILABLE: { exitCode: 33, errno: 'ENODEV' },
  MOUNT_FAILED: { exitCode: 34, errno: 'EIO' },
  DAEMON_FAILED: { exitCode: 35, errno: 'EIO' },
  NO_SPACE: { exitCode: 40, errno: 'ENOSPC' },
  PERMISSION_DENIED: { exitCode: 41, errno: 'EACCES' },
  INDEX_BROKEN: { exitCode: 42, errno: 'EIO' },
  LOCKED: { exitCode: 43, errno: 'EAGAIN' },
  /** Nobody answers, or not in time; asking again later may help. */
  REMOTE_UNREACHABLE: { exitCode: 50, errno: 'EIO' },
  /** The registry wants other credentials, or none will do. */
  REMOTE_DENIED: { exitCode: 51, errno: 'EACCES' },
  /** The registry has no such repository, tag, manifest or blob. */
  REMOTE_NOT_FOUND: { exitCode: 52, errno: 'ENOENT' },
  /** The registry answers what the specification does not allow: wrong bytes, wrong ranges, endless bodies, redirects in a circle. */
  REMOTE_INVALID: { exitCode: 53, errno: 'EIO' },
  /** The registry understood and does not want to: a name it does not take, a quota, a read-only mirror. */
  REMOTE_REFUSED: { exitCode: 54, errno: 'EIO' },
  /** Here and there have checkpoints that the other does not, under one name. */
  DIVERGED: { exitCode: 55, errno: 'EBUSY' },
} as const;

export type ErrorCode = keyof typeof ERRORS;

export interface BentoErrorOptions {
  /** The next step for the person who reads it: one short line. */
  hint?: string;
  cause?: unknown;
}

/** The one error class: a stable code, a message that names the thing, and a hint that names the next step. */
export class BentoError extends Error {
  override readonly name = 'BentoError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: BentoErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
  }

  get exitCode(): number {
    return ERRORS[this.code].exitCode;
  }
}

/** The `code` of a Node system error (`ENOENT`, `EEXIST`, …), or undefined for anything else. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code } = error as NodeJS.ErrnoException;
  return typeof code === 'string' ? code : undefined;
}

/**
 * Turns a system error into one clear line about `what`; anything that is not one is returned as it came.
 *
 * @param what - names the thing being worked on, as in "writing /store/blobs"
 */
export function describeSystemError(error: unknown, what: string): unknown {
  switch (errnoOf(error)) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new BentoError('NO_SPACE', `no space left while ${what}`, {
        hint: 'free some space and run the command again; nothing was changed',
        cause: error,
      });
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new BentoError('PERMISSION_DENIED', `not allowed while ${what}: ${(error as Error).message}`, {
        hint: 'check the owner and the mode, or run as a user who may',
        cause: error,
      });
    default:
      return error;
  }
}
