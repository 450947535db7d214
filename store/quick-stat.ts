import { endianness } from 'node:os';
import { createRequire } from 'node:module';

import type koffiModule from 'koffi';

import { isAscii, toBytes, type ByteString } from './byte-string.ts';

/**
 * `lstat` for those who look at tens of thousands of files: one system call into one buffer, without the objects that
 * Node makes of every answer (which takes about as long as the call itself).
 *
 * @see statx(2), struct statx in linux/stat.h: the same on all architectures
 */
const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
// Type, mode, links, uid, gid, mtime, ctime, inode and size.
const STATX_WANTED = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200;

const STATX_BYTES = 256;
const NLINK = 0x10; // u32
const UID = 0x14; // u32
const GID = 0x18; // u32
const MODE = 0x1c; // u16
const INO = 0x20; // u64
const SIZE = 0x28; // u64
const CTIME_SEC = 0x60; // i64, then u32 nanoseconds
const CTIME_NSEC = 0x68;
const MTIME_SEC = 0x70;
const MTIME_NSEC = 0x78;
const DEV_MAJOR = 0x88; // u32
const DEV_MINOR = 0x8c; // u32

const HIGH = 2 ** 32;

type StatxCall = (dirFd: number, path: string | Buffer, flags: number, mask: number, out: Buffer) => number;

/** What `stat` says of the last file looked at; the next look overwrites it. */
export class QuickStat {
  readonly #text: StatxCall;
  readonly #bytes: StatxCall;
  readonly #out = Buffer.alloc(STATX_BYTES);
  readonly #view = new DataView(this.#out.buffer, this.#out.byteOffset, STATX_BYTES);

  private constructor(text: StatxCall, bytes: StatxCall) {
    this.#text = text;
    this.#bytes = bytes;
  }

  /** Undefined where the system has no such call. */
  static load(): QuickStat | undefined {
    if (process.platform !== 'linux' || endianness() !== 'LE') return undefined;
    try {
      const koffi = createRequire(import.meta.url)('koffi') as typeof koffiModule;
      const libc = koffi.load(null);
      const declare = (path: string): StatxCall =>
        libc.func('statx', 'int', ['int', path, 'int', 'uint', 'void*']) as StatxCall;
      const quick = new QuickStat(declare('str'), declare('void*'));
      return quick.look('/') ? quick : undefined; // a sandbox may forbid the call
    } catch {
      return undefined;
    }
  }

  /** Looks at an object itself, not through a symlink. @returns false for every error; `lstat` says which */
  look(path: ByteString): boolean {
    const mask = STATX_WANTED;
    const result = isAscii(path)
      ? this.#text(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, mask, this.#out)
      : this.#bytes(AT_FDCWD, toBytes(`${path}\0`), AT_SYMLINK_NOFOLLOW, mask, this.#out);
    return result === 0;
  }

  get mode(): number {
    return this.#view.getUint16(MODE, true);
  }

  get nlink(): number {
    return this.#view.getUint32(NLINK, true);
  }

  get uid(): number {
    return this.#view.getUint32(UID, true);
  }

  get gid(): number {
    return this.#view.getUint32(GID, true);
  }

  get ino(): number {
    return this.#u64(INO);
  }

  get sizeBytes(): number {
    return this.#u64(SIZE);
  }

  get mtimeSec(): number {
    return this.#i64(MTIME_SEC);
  }

  get mtimeNsec(): number {
    return this.#view.getUint32(MTIME_NSEC, true);
  }

  get ctimeSec(): number {
    return this.#i64(CTIME_SEC);
  }

  get ctimeNsec(): number {
    return this.#view.getUint32(CTIME_NSEC, true);
  }

  /** In the form of `st_dev`. @see makedev(3) */
  get dev(): number {
    const major = this.#view.getUint32(DEV_MAJOR, true);
    const minor = this.#view.getUint32(DEV_MINOR, true);
    const low = ((major & 0xfff) << 8) | (minor & 0xff);
    return low + (minor >>> 8) * 2 ** 20 + (major >>> 12) * 2 ** 44;
  }

  #u64(at: number): number {
    return this.#view.getUint32(at + 4, true) * HIGH + this.#view.getUint32(at, true);
  }

  #i64(at: number): number {
    return this.#view.getInt32(at + 4, true) * HIGH + this.#view.getUint32(at, true);
  }
}
