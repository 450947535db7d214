/**
 * libc, called through koffi (prebuilt, no compiler needed): how functions are declared, and what their errors become.
 *
 * Nothing is loaded before the first call.
 */
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';

import type koffiModule from 'koffi';

import { type ByteString, fromBytes, toBytes, toText } from './byte-string.ts';

export type RawPath = ByteString | Buffer;

// Loading libc

type NativeArgument = number | bigint | Buffer | null;
export type NativeCall = (...args: NativeArgument[]) => number;
/** C types as koffi spells them; `void*` takes a Buffer or null, `long` is also size_t's signed twin. */
type NativeType = 'int' | 'uint' | 'long' | 'ulong' | 'void*';

interface Libc {
  koffi: typeof koffiModule;
  library: ReturnType<typeof koffiModule.load>;
}

let loaded: Libc | undefined;

export function libc(): Libc {
  if (loaded === undefined) {
    const koffi = createRequire(import.meta.url)('koffi') as typeof koffiModule;
    loaded = { koffi, library: koffi.load(null) }; // null: the running program, which has libc in it
  }
  return loaded;
}

/** Declares a libc function; it is looked up when first called, so one that is missing harms nobody else. */
export function declare(name: string, result: 'int' | 'long', parameters: readonly NativeType[]): NativeCall {
  let call: NativeCall | undefined;
  return (...args) => {
    call ??= libc().library.func(name, result, [...parameters]) as NativeCall;
    return call(...args);
  };
}

// Arguments and results

const NUL = Buffer.alloc(1);

export function toCString(text: RawPath): Buffer {
  if (text.includes('\0')) throw new TypeError(`a NUL byte inside ${printable(text)}`);
  return typeof text === 'string' ? toBytes(`${text}\0`) : Buffer.concat([text, NUL]);
}

export function printable(path: RawPath): string {
  return toText(typeof path === 'string' ? path : fromBytes(path));
}

// Where two names share a number (EAGAIN and EWOULDBLOCK, ENOTSUP and EOPNOTSUPP), the one Node uses wins.
const ERRNO_NAMES = new Map(Object.entries(constants.errno).map(([name, errno]) => [errno, name]));
ERRNO_NAMES.set(constants.errno.EAGAIN, 'EAGAIN');
ERRNO_NAMES.set(constants.errno.ENOTSUP, 'ENOTSUP');

export function systemError(errno: number, syscall: string, path?: RawPath): NodeJS.ErrnoException {
  const code = ERRNO_NAMES.get(errno) ?? `E${errno}`;
  const meaning = getSystemErrorMap().get(-errno)?.[1] ?? 'system error';
  const place = path === undefined ? {} : { path: printable(path) };
  const suffix = path === undefined ? '' : ` '${printable(path)}'`;
  return Object.assign(new Error(`${code}: ${meaning}, ${syscall}${suffix}`), {
    errno: -errno,
    code,
    syscall,
    ...place,
  });
}

export function lastErrno(): number {
  return libc().koffi.errno();
}

/** Passes a result on, or throws what `errno` says; to be called right after the system call. */
export function check(result: number, syscall: string, path?: RawPath): number {
  if (result >= 0) return result;
  throw systemError(lastErrno(), syscall, path);
}
