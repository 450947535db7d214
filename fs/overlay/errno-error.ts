import { ERRNO, type Errno } from '../protocol/constants.ts';

/** A file operation that ends with an errno: the answer to its caller, and no fault of ours. */
export class ErrnoError extends Error {
  override readonly name = 'ErrnoError';
  /** Positive. */
  readonly errno: number;

  constructor(errno: number | Errno) {
    const number = typeof errno === 'number' ? errno : ERRNO[errno];
    super(`errno ${number}`);
    this.errno = number;
  }
}

/** Passes on what a call returned, unless that is a negated errno. @throws ErrnoError */
export function succeed<Value>(result: Value | number): Exclude<Value, number> | number {
  if (typeof result === 'number' && result < 0) throw new ErrnoError(-result);
  return result as Exclude<Value, number> | number;
}

/** As `succeed`, for calls that answer with something else than a number. @throws ErrnoError */
export function need<Value>(result: Value | number): Exclude<Value, number> {
  if (typeof result === 'number') throw new ErrnoError(-result);
  return result as Exclude<Value, number>;
}
