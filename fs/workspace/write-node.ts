import {
  chmodSync,
  closeSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  mkdirSync,
  openSync,
  symlinkSync,
  writeSync,
} from 'node:fs';

import { toBytes, toFsPath, toText, type ByteString } from '../../store/byte-string.ts';
import type { Metadata } from '../../store/entry.ts';
import { describeSystemError, errnoOf } from '../../store/errors.ts';
import { llistxattr, lremovexattr, lsetxattr, mknod, utimensat } from '../../store/syscalls.ts';
import type { Owner } from '../tree/disk-node.ts';

/** A run of zeros at least this long becomes a hole, as it may have been one when it was saved. */
const HOLE_BYTES = 4096;
const ZEROS = Buffer.alloc(HOLE_BYTES);

const S_IFCHR = 0o020000;
const S_IFBLK = 0o060000;
const S_IFIFO = 0o010000;

/**
 * Makes an object where nothing is, with its content but without its attributes: those go on last, when nothing more is
 * written.
 *
 * @param content - the bytes of a file, ignored for everything else
 */
export function createNode(path: ByteString, node: Metadata, content: Iterable<Buffer>): void {
  try {
    switch (node.type) {
      case 'file':
        writeContent(path, content, node.sizeBytes);
        break;
      case 'dir':
        mkdirSync(toFsPath(path), 0o700);
        break;
      case 'symlink':
        symlinkSync(toBytes(node.link ?? ''), toFsPath(path));
        break;
      case 'fifo':
        mknod(path, S_IFIFO | 0o600, 0, 0);
        break;
      case 'char':
      case 'block':
        mknod(path, (node.type === 'char' ? S_IFCHR : S_IFBLK) | 0o600, node.rdev?.major ?? 0, node.rdev?.minor ?? 0);
        break;
      case 'hardlink':
      case 'whiteout':
        throw new TypeError(`a ${node.type} is no object of a tree`);
    }
  } catch (error) {
    throw describeSystemError(error, `writing ${toText(path)}`);
  }
}

export function linkNode(target: ByteString, path: ByteString): void {
  try {
    linkSync(toFsPath(target), toFsPath(path));
  } catch (error) {
    throw describeSystemError(error, `linking ${toText(path)}`);
  }
}

/** Exclusive: a file or a link that appeared in the meantime is never written through. */
function writeContent(path: ByteString, content: Iterable<Buffer>, sizeBytes: number): void {
  const fd = openSync(toFsPath(path), 'wx', 0o600);
  try {
    let offset = 0;
    let hasHole = false;
    for (const piece of content) {
      hasHole = writeSparsely(fd, piece, offset) || hasHole;
      offset += piece.length;
    }
    if (hasHole) ftruncateSync(fd, sizeBytes);
  } finally {
    closeSync(fd);
  }
}

/**
 * Writes a piece of a file where it belongs, but for long runs of zeros.
 *
 * @returns whether something was left out: the file's length must be set in the end
 */
export function writeSparsely(fd: number, piece: Buffer, offset: number): boolean {
  let from = 0;
  let hasHole = false;
  for (let at = 0; at + HOLE_BYTES <= piece.length; at += HOLE_BYTES) {
    if (piece[at] !== 0 || piece.compare(ZEROS, 0, HOLE_BYTES, at, at + HOLE_BYTES) !== 0) continue;
    writeAll(fd, piece.subarray(from, at), offset + from);
    from = at + HOLE_BYTES;
    hasHole = true;
  }
  writeAll(fd, piece.subarray(from), offset + from);
  return hasHole;
}

function writeAll(fd: number, bytes: Buffer, offset: number): void {
  for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, offset + done);
}

export interface AttributeOptions {
  /** Who gets what the checkpoint says belongs to the owner of the workspace. */
  owner: Owner;
  /** Told once for each attribute that could not be set, such as an owner without privilege. */
  onRefused: (path: ByteString, what: string) => void;
}

/** Sets owner, extended attributes, mode and time, in the order in which they do not undo one another. */
export function applyAttributes(path: ByteString, node: Metadata, options: AttributeOptions): void {
  const { owner } = options;
  const attempt = (what: string, run: () => void): void => {
    try {
      run();
    } catch (error) {
      if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'EACCES', 'EINVAL'].includes(errnoOf(error) ?? '')) throw error;
      options.onRefused(path, what);
    }
  };
  const uid = node.uid === 0 ? owner.uid : node.uid;
  const gid = node.gid === 0 ? owner.gid : node.gid;
  if (process.getuid?.() === 0) attempt('owner', () => lchownSync(toFsPath(path), uid, gid));
  else if (node.uid !== 0 || node.gid !== 0) options.onRefused(path, 'owner');
  // Attributes before the mode: on a file that is read-only by then, its owner may not set them.
  for (const name of otherXattrs(path, node)) attempt(toText(name), () => lremovexattr(path, name));
  for (const [name, value] of node.xattrs ?? []) attempt(toText(name), () => lsetxattr(path, name, value));
  if (node.type !== 'symlink') chmodSync(toFsPath(path), node.mode);
  utimensat(path, { mtime: { sec: node.mtimeSec, nsec: node.mtimeNsec } });
}

/** Only what a workspace can carry is taken away: security labels belong to the machine. */
function otherXattrs(path: ByteString, node: Metadata): ByteString[] {
  return llistxattr(path).filter((name) => name.startsWith('user.') && node.xattrs?.has(name) !== true);
}
