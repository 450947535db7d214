import { constants } from 'node:fs';

import type { ByteString } from '../../store/byte-string.ts';
import {
  changeMode,
  changeOwner,
  ftruncateFile,
  removeXattr,
  setTimes,
  setXattr,
  UTIME_NOW,
  UTIME_OMIT,
  xattrNamesOf,
  xattrOf,
  type FileStat,
} from '../../store/file-calls.ts';
import { ERRNO } from '../protocol/constants.ts';
import { SETATTR, type SetattrIn } from '../protocol/setattr.ts';
import { copyUp } from './copy-up.ts';
import type { CowNode } from './cow-node.ts';
import type { CowTree } from './cow-tree.ts';
import { ErrnoError, succeed } from './errno-error.ts';
import { isMark } from './marks.ts';
import { PARTIAL_BYTES_MIN } from './partial-file.ts';
import { withUpper } from './upper-file.ts';

const { S_IFLNK, S_IFMT, S_IFREG, S_IXGRP } = constants;
const [S_ISUID, S_ISGID] = [0o4000, 0o2000];
const KEEP = -1;
const ACL_PREFIX = 'system.posix_acl_';
const DEFAULT_ACL = `${ACL_PREFIX}default`;

/** chmod, chown, truncate and utimens, as many of them as a request asks for. @throws ErrnoError */
export function setattr(tree: CowTree, node: CowNode, wanted: SetattrIn): void {
  const { valid } = wanted;
  const cuts = (valid & SETATTR.SIZE) !== 0;
  copyUp(tree, node, !(cuts && wanted.sizeBytes === 0));
  if (cuts) truncate(tree, node, wanted.sizeBytes);
  if ((valid & SETATTR.KILL_SUIDGID) !== 0 && cuts) killSetuid(tree, node);
  const path = tree.path(node);
  if ((valid & (SETATTR.UID | SETATTR.GID)) !== 0) {
    const [uid, gid] = [
      (valid & SETATTR.UID) !== 0 ? wanted.uid : KEEP,
      (valid & SETATTR.GID) !== 0 ? wanted.gid : KEEP,
    ];
    succeed(changeOwner(path, uid, gid));
  }
  if ((valid & SETATTR.MODE) !== 0) {
    if ((tree.stat(node).mode & S_IFMT) === S_IFLNK) throw new ErrnoError('EOPNOTSUPP'); // it would go where that leads
    succeed(changeMode(path, wanted.mode & 0o7777));
  }
  if ((valid & (SETATTR.ATIME | SETATTR.MTIME)) !== 0)
    succeed(setTimes(path, timeOf(valid, wanted, 'atime'), timeOf(valid, wanted, 'mtime')));
}

function timeOf(valid: number, wanted: SetattrIn, which: 'atime' | 'mtime'): [sec: number, nsec: number] {
  const [isSet, isNow] = which === 'atime' ? [SETATTR.ATIME, SETATTR.ATIME_NOW] : [SETATTR.MTIME, SETATTR.MTIME_NOW];
  if ((valid & isSet) === 0) return [0, UTIME_OMIT];
  if ((valid & isNow) !== 0) return [0, UTIME_NOW];
  return which === 'atime' ? [wanted.atimeSec, wanted.atimeNsec] : [wanted.mtimeSec, wanted.mtimeNsec];
}

/** Of a file that is in the upper directory. @throws ErrnoError */
export function truncate(tree: CowTree, node: CowNode, sizeBytes: number): void {
  withUpper(tree, node, (fd) => {
    succeed(ftruncateFile(fd, sizeBytes));
    node.partial?.cut(fd, sizeBytes);
    if (node.partial === undefined || sizeBytes >= PARTIAL_BYTES_MIN) return;
    node.partial.complete(fd);
    node.partial = undefined;
  });
}

/**
 * Takes from a file what makes it run as somebody else, when somebody who may not give that changed it.
 *
 * @see Linux fs/attr.c, setattr_should_drop_suidgid
 */
export function killSetuid(tree: CowTree, node: CowNode): void {
  const { mode } = tree.stat(node);
  if ((mode & S_IFMT) !== S_IFREG) return;
  const killed = (mode & S_ISUID) | ((mode & S_IXGRP) === 0 ? 0 : mode & S_ISGID);
  const path = tree.path(node);
  if (killed !== 0) succeed(changeMode(path, mode & 0o7777 & ~killed));
  if (!node.hasNoXattrs) removeXattr(path, 'security.capability');
}

// Extended attributes

/** @returns the value; a negated errno, ENODATA when there is none */
export function getXattr(tree: CowTree, node: CowNode, name: ByteString): Buffer | number {
  if (node.hasNoXattrs || isMark(name)) return -ERRNO.ENODATA;
  if (node.inUpper && !node.isGone) return xattrOf(tree.path(node), name);
  return (node.lower === undefined ? undefined : tree.lower.xattrs(node.lower)?.get(name)) ?? -ERRNO.ENODATA;
}

/** @param options.withTrusted - only root sees the names of trusted attributes @returns the names, each with a NUL @throws ErrnoError */
export function listXattrs(tree: CowTree, node: CowNode, { withTrusted }: { withTrusted: boolean }): Buffer {
  const names = node.inUpper && !node.isGone ? upperNames(tree.path(node)) : lowerNames(tree, node);
  const isShown = (name: ByteString): boolean => !isMark(name) && (withTrusted || !name.startsWith('trusted.'));
  const shown = names.filter(isShown).map((name) => `${name}\0`);
  return Buffer.from(shown.join(''), 'latin1');
}

function upperNames(path: ByteString): ByteString[] {
  const found = xattrNamesOf(path);
  if (typeof found === 'number') {
    if (found === -ERRNO.EOPNOTSUPP) return [];
    throw new ErrnoError(-found);
  }
  return found.toString('latin1').split('\0').slice(0, -1);
}

function lowerNames(tree: CowTree, { lower }: CowNode): ByteString[] {
  return lower === undefined ? [] : [...(tree.lower.xattrs(lower)?.keys() ?? [])];
}

export interface NewXattr {
  name: ByteString;
  value: Buffer;
  /** XATTR_CREATE or XATTR_REPLACE. */
  flags: number;
  killsSetgid: boolean;
}

/** @throws ErrnoError EPERM for what only an overlay may set; EEXIST, ENODATA */
export function setXattrOf(tree: CowTree, node: CowNode, { name, value, flags, killsSetgid }: NewXattr): void {
  if (isMark(name)) throw new ErrnoError('EPERM');
  copyUp(tree, node);
  const path = tree.path(node);
  node.hasNoXattrs = false;
  succeed(setXattr(path, name, value, flags));
  if (name === DEFAULT_ACL) node.hasDefaultAcl = undefined;
  if (killsSetgid) takeSetgid(path, tree.stat(node));
}

function takeSetgid(path: ByteString, { mode }: FileStat): void {
  if ((mode & S_ISGID) !== 0) succeed(changeMode(path, mode & 0o7777 & ~S_ISGID));
}

/** @throws ErrnoError ENODATA when there is none */
export function removeXattrOf(tree: CowTree, node: CowNode, name: ByteString): void {
  if (isMark(name)) throw new ErrnoError('EPERM');
  const has = getXattr(tree, node, name);
  if (typeof has === 'number' && name.startsWith(ACL_PREFIX) && has === -ERRNO.ENODATA) return; // as ext4 has it
  if (typeof has === 'number') throw new ErrnoError(-has);
  copyUp(tree, node);
  succeed(removeXattr(tree.path(node), name));
  if (name === DEFAULT_ACL) node.hasDefaultAcl = undefined;
}
