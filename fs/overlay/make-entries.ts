import { constants } from 'node:fs';

import type { ByteString } from '../../store/byte-string.ts';
import {
  changeMode,
  changeOwner,
  closeFile,
  link,
  makeDir,
  makeNode,
  makeSymlink,
  openFile,
  rename,
  RENAME_EXCHANGE,
  setXattr,
  statOf,
  unlink,
  xattrOf,
  type FileStat,
} from '../../store/file-calls.ts';
import { decodeRdev } from '../protocol/attr.ts';
import { ERRNO } from '../protocol/constants.ts';
import { copyUp, copyUpDir } from './copy-up.ts';
import type { CowNode } from './cow-node.ts';
import type { CowTree } from './cow-tree.ts';
import { ErrnoError, need, succeed } from './errno-error.ts';
import { isWhiteoutAt } from './marks.ts';

const { S_IFMT, S_IFCHR, S_ISGID, S_ISUID } = { ...constants, S_ISGID: 0o2000, S_ISUID: 0o4000 };
const DEFAULT_ACL = 'system.posix_acl_default';
const YES = Buffer.from('y');

/** Who makes something, and with which permissions. */
export interface Making {
  uid: number;
  gid: number;
  /** With the type's bits, where the request has them. */
  mode: number;
  umask: number;
}

/** Something new, and what is to be said of it. */
export interface Made {
  node: CowNode;
  stat: FileStat;
}

/** A name that something gets. */
export interface Place {
  parent: CowNode;
  name: ByteString;
}

/** @throws ErrnoError EEXIST, or what the file system says */
export function mkdirEntry(tree: CowTree, place: Place, making: Making): Made {
  return makeEntry(tree, place, making, { isDir: true, make: (path, mode) => makeDir(path, mode) });
}

/** @throws ErrnoError EEXIST; EPERM for the device that stands for a name that is gone */
export function mknodEntry(tree: CowTree, place: Place, making: Making, rdev: number): Made {
  const { major, minor } = decodeRdev(rdev);
  if ((making.mode & S_IFMT) === S_IFCHR && major === 0 && minor === 0) throw new ErrnoError('EPERM');
  return makeEntry(tree, place, making, { make: (path, mode) => makeNode(path, mode, rdev) });
}

/** @throws ErrnoError EEXIST, or what the file system says */
export function symlinkEntry(
  tree: CowTree,
  place: Place,
  caller: Omit<Making, 'mode' | 'umask'>,
  to: ByteString,
): Made {
  const making = { ...caller, mode: constants.S_IFLNK | 0o777, umask: 0 };
  return makeEntry(tree, place, making, { make: (path) => makeSymlink(to, path) });
}

/** Makes a file and leaves it open: the node's own descriptor. @throws ErrnoError EEXIST, or what the file system says */
export function createEntry(tree: CowTree, place: Place, making: Making): Made {
  const { O_RDWR, O_CREAT, O_EXCL } = constants;
  let fd = -1;
  try {
    const made = makeEntry(tree, place, making, {
      make: (path, mode) => (fd = openFile(path, O_RDWR | O_CREAT | O_EXCL, mode & 0o7777)),
    });
    made.node.fd = fd;
    return made;
  } catch (error) {
    if (fd >= 0) closeFile(fd);
    throw error;
  }
}

/** A file without a name, kept aside as long as it is open. @throws ErrnoError what the file system says */
export function tmpfileEntry(tree: CowTree, parent: CowNode, making: Making): Made {
  copyUpDir(tree, parent);
  const { O_RDWR, O_CREAT, O_EXCL } = constants;
  const made = tree.scratch.newPath();
  const fd = succeed(openFile(made, O_RDWR | O_CREAT | O_EXCL, permissions(tree, parent, making) & 0o7777));
  inheritAcl(tree, parent, made);
  giveAway(tree, parent, made, making);
  const stat = need(statOf(made));
  const node = tree.adoptNameless(stat);
  const orphan = tree.scratch.orphanPath(node.id);
  succeed(rename(made, orphan));
  node.orphan = orphan;
  node.fd = fd;
  stat.nlink = 0;
  return { node, stat };
}

/** Another name for a file. @throws ErrnoError EEXIST; ENOENT for one that has none any more */
export function linkEntry(tree: CowTree, node: CowNode, place: Place): void {
  copyUp(tree, node);
  copyUpDir(tree, place.parent);
  const from = tree.path(node);
  const path = tree.pathIn(place.parent, place.name);
  const done = link(from, path);
  if (done === -ERRNO.EEXIST && isWhiteoutAt(path)) {
    const made = tree.scratch.newPath();
    succeed(link(from, made));
    succeed(rename(made, path));
  } else succeed(done);
  tree.attach(node, place.parent, place.name);
  place.parent.listing = undefined;
  tree.scratch.release(node);
}

interface Maker {
  isDir?: boolean;
  /** @returns a negated errno when it failed */
  make: (path: ByteString, mode: number) => number;
}

/** What has no name is made right where it belongs: one call; where a lower name is hidden, aside, and moved over that. */
function makeEntry(tree: CowTree, place: Place, making: Making, { make, isDir = false }: Maker): Made {
  const { parent, name } = place;
  copyUpDir(tree, parent);
  const path = tree.pathIn(parent, name);
  const mode = permissions(tree, parent, making);
  const done = make(path, mode);
  if (done === -ERRNO.EEXIST && isWhiteoutAt(path)) makeOver(tree, place, { ...making, mode }, { make, isDir });
  else {
    succeed(done);
    giveAway(tree, parent, path, { ...making, mode });
  }
  const stat = need(statOf(path));
  const node = tree.adoptNew(parent, name, stat);
  node.hasNoXattrs = parent.hasDefaultAcl === false && !isDir;
  return { node, stat };
}

/** What a predecessor made and perhaps did not give to whom it belongs. */
export function finishEntry(tree: CowTree, { parent, name }: Place, making: Making): void {
  giveAway(tree, parent, tree.pathIn(parent, name), making);
}

function makeOver(tree: CowTree, { parent, name }: Place, making: Making, { make, isDir = false }: Maker): void {
  const made = tree.scratch.newPath();
  const path = tree.pathIn(parent, name);
  succeed(make(made, making.mode));
  inheritAcl(tree, parent, made);
  giveAway(tree, parent, made, making);
  if (!isDir) {
    succeed(rename(made, path));
    return;
  }
  succeed(setXattr(made, tree.marks.opaque, YES));
  succeed(rename(made, path, RENAME_EXCHANGE));
  unlink(made); // the whiteout
}

/** The umask counts unless the directory says what the permissions shall be. @see acl(5), "OBJECT CREATION AND DEFAULT ACLs" */
function permissions(tree: CowTree, parent: CowNode, { mode, umask }: Making): number {
  parent.hasDefaultAcl ??= typeof xattrOf(tree.path(parent), DEFAULT_ACL) !== 'number';
  return parent.hasDefaultAcl ? mode : mode & ~umask;
}

/** What is made aside gets the default ACL that it would have got in its place. */
function inheritAcl(tree: CowTree, parent: CowNode, made: ByteString): void {
  if (parent.hasDefaultAcl !== true) return;
  const acl = xattrOf(tree.path(parent), DEFAULT_ACL);
  if (typeof acl === 'number') return;
  const value = Buffer.from(acl);
  const stat = need(statOf(made));
  const kind = stat.mode & S_IFMT;
  if (kind === constants.S_IFLNK) return;
  if (kind === constants.S_IFDIR) succeed(setXattr(made, DEFAULT_ACL, value));
  succeed(setXattr(made, 'system.posix_acl_access', maskedAcl(value, stat.mode)));
}

const ACL_HEADER_BYTES = 4;
const ACL_ENTRY_BYTES = 8;
const ACL_TAG = { USER_OBJ: 1, GROUP_OBJ: 4, MASK: 16, OTHER: 32 } as const;

/** What of a default ACL the mode asked for leaves. @see linux/posix_acl_xattr.h, posix_acl_create_masq */
function maskedAcl(acl: Buffer, mode: number): Buffer {
  const out = Buffer.from(acl);
  const tags = Array.from({ length: (out.length - ACL_HEADER_BYTES) / ACL_ENTRY_BYTES }, (_, i) => {
    const at = ACL_HEADER_BYTES + i * ACL_ENTRY_BYTES;
    return { at, tag: out.readUInt16LE(at) };
  });
  const hasMask = tags.some(({ tag }) => tag === ACL_TAG.MASK);
  for (const { at, tag } of tags) {
    const shift = tag === ACL_TAG.USER_OBJ ? 6 : tag === ACL_TAG.OTHER ? 0 : 3;
    const isCut =
      tag === ACL_TAG.USER_OBJ || tag === ACL_TAG.OTHER || tag === (hasMask ? ACL_TAG.MASK : ACL_TAG.GROUP_OBJ);
    if (isCut) out.writeUInt16LE(out.readUInt16LE(at + 2) & ((mode >> shift) & 7), at + 2);
  }
  return out;
}

/** New things belong to who makes them, and in a setgid directory to its group. */
function giveAway(tree: CowTree, parent: CowNode, path: ByteString, { uid, gid, mode }: Making): void {
  const { owner } = tree;
  const dir =
    uid === owner.uid && gid === owner.gid && path.startsWith(tree.upper) ? undefined : parentStat(tree, parent);
  if (dir === undefined) return;
  const inherits = (dir.mode & S_ISGID) !== 0;
  const kind = mode & S_IFMT;
  const done = changeOwner(path, uid, inherits ? dir.gid : gid);
  if (done === -ERRNO.EPERM && owner.uid !== 0) return; // one user's mount: all is that user's
  succeed(done);
  const special = mode & (S_ISUID | S_ISGID);
  const isDir = (need(statOf(path)).mode & S_IFMT) === constants.S_IFDIR;
  if (isDir && inherits) succeed(changeMode(path, (need(statOf(path)).mode & 0o7777) | S_ISGID));
  else if (special !== 0 && kind !== constants.S_IFLNK)
    succeed(changeMode(path, (need(statOf(path)).mode & 0o7777) | special));
}

function parentStat(tree: CowTree, parent: CowNode): FileStat {
  return need(statOf(tree.path(parent)));
}
