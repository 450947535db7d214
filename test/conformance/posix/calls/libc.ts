import { createRequire } from 'node:module';
import { constants } from 'node:os';

import type koffiModule from 'koffi';

import { toBytes, type ByteString } from '../../../../store/byte-string.ts';

/** What a call returned, or the name of its errno: an observation, so nothing is thrown. */
export type Outcome = number | string;

/** Relative to the directory of the check that runs. */
export type Path = ByteString;

type Argument = number | bigint | Buffer | null;
type NativeType = 'int' | 'uint' | 'long' | 'ulong' | 'void*';
type NativeCall = (...args: Argument[]) => number;

const koffi = createRequire(import.meta.url)('koffi') as typeof koffiModule;
const library = koffi.load(null); // null: the running program, which has libc in it

// Where two names share a number, one of them wins.
const ERRNO_NAMES = new Map(Object.entries(constants.errno).map(([name, errno]) => [errno, name]));
ERRNO_NAMES.set(constants.errno.EAGAIN, 'EAGAIN');
ERRNO_NAMES.set(constants.errno.ENOTSUP, 'ENOTSUP');

/** A libc function as it is, but for its -1, which becomes the name of the errno. Looked up when first called. */
export function declare(
  name: string,
  result: 'int' | 'long',
  parameters: readonly NativeType[],
): (...args: Argument[]) => Outcome {
  let call: NativeCall | undefined;
  return (...args) => {
    call ??= library.func(name, result, [...parameters]) as NativeCall;
    const returned = call(...args);
    return returned === -1 ? (ERRNO_NAMES.get(koffi.errno()) ?? `E${koffi.errno()}`) : returned;
  };
}

export function cString(text: ByteString): Buffer {
  return toBytes(`${text}\0`);
}

/** A descriptor as a number: a failed open stays a failure in every call made on it. */
export function asFd(fd: Outcome): number {
  return typeof fd === 'number' ? fd : -1;
}

/** Each file's name of the errno that Node's own call threw. */
export function attempt<T>(call: () => T): T | string {
  try {
    return call();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    return code;
  }
}
