import { constants } from 'node:fs';

import type { ByteString } from '../../store/byte-string.ts';
import {
  changeMode,
  changeOwner,
  closeFile,
  ftruncateFile,
  link,
  makeDir,
  makeNode,
  makeSymlink,
  openFile,
  rename,
  setTimes,
  setXattr,
  statOf,
  syncFile,
  unlink,
  UTIME_OMIT,
  writeAt,
  type FileStat,
} from '../../store/file-calls.ts';
import { ERRNO } from '../protocol/constants.ts';
import { encodeRdev } from '../protocol/attr.ts';
import type { CowNode, NodeName } from './cow-node.ts';
import { isRegular, type CowTree } from './cow-tree.ts';
import { ErrnoError, need, succeed } from './errno-error.ts';
import { encodeOrigin, isMark, type OriginMark } from './marks.ts';
import { emptyMap, PARTIAL_BYTES_MIN, PartialFile } from './partial-file.ts';
import { Recovery } from './recovery.ts';

const { S_IFMT, S_IFLNK } = constants;

/** A directory has to be in the upper one before anything in it is changed. @throws ErrnoError */
export function copyUpDir(tree: CowTree, dir: CowNode): void {
  if (dir.inUpper) {
    if (dir.isGone) throw new ErrnoError('ENOENT');
    return;
  }
  const [where] = dir.names;
  if (where === undefined) throw new ErrnoError('ENOENT');
  copyUpDir(tree, where.parent);
  const stat = tree.stat(dir);
  const made = tree.scratch.newPath();
  succeed(makeDir(made, 0o700));
  dressUp(tree, dir, made, stat);
  showAt(tree, made, where);
  dir.inUpper = true;
}

/**
 * Makes the upper directory have an object, as it is below. A file with several names stays one: all of them lead to the
 * copy.
 *
 * @param keepsContent - false when it is cut to nothing at once
 * @throws ErrnoError
 */
export function copyUp(tree: CowTree, node: CowNode, keepsContent = true): void {
  if (node.isDir) {
    copyUpDir(tree, node);
    return;
  }
  if (node.inUpper) return;
  const names = node.names.length === 0 ? [] : allNames(tree, node);
  for (const { parent } of names) copyUpDir(tree, parent);
  const made = tree.scratch.newPath();
  try {
    copyObject(tree, node, made, keepsContent);
  } catch (error) {
    unlink(made); // it may be tried again, when what is below was fetched or there is room
    throw error;
  }
  const [first, ...others] = names;
  if (first === undefined) {
    const orphan = tree.scratch.orphanPath(node.id); // removed, and open still
    succeed(rename(made, orphan));
    node.orphan = orphan;
  } else {
    for (const where of others) showAt(tree, linked(tree, made), where);
    showAt(tree, made, first);
  }
  node.inUpper = true;
}

function linked(tree: CowTree, path: ByteString): ByteString {
  const other = tree.scratch.newPath();
  succeed(link(path, other));
  return other;
}

/** Every place at which a file of the checkpoint is to be seen in the workspace. */
function allNames(tree: CowTree, node: CowNode): readonly NodeName[] {
  const { lower } = node;
  const { nlink } = tree.stat(node);
  if (lower === undefined || nlink < 2) return node.names;
  for (const path of tree.lower.paths(lower)) tree.findByLowerPath(path);
  if (node.names.length < nlink && !tree.knowsMoved) {
    new Recovery(tree).walkUpper(); // some are in a directory that was moved, and that nobody looked at yet
    for (const path of tree.lower.paths(lower)) tree.findByLowerPath(path);
  }
  return [...node.names];
}

function copyObject(tree: CowTree, node: CowNode, to: ByteString, keepsContent: boolean): void {
  const stat = tree.stat(node);
  const lower = lowerIdOf(node);
  if (isRegular(stat)) copyFile(tree, node, to, keepsContent ? stat.sizeBytes : 0);
  else if ((stat.mode & S_IFMT) === S_IFLNK) succeed(makeSymlink(tree.lower.link(lower).toString('latin1'), to));
  else succeed(makeNode(to, stat.mode, encodeRdev(stat.rdevMajor, stat.rdevMinor)));
  if (!isRegular(stat)) markOrigin(tree, lower, to);
  dressUp(tree, node, to, stat);
}

/** So that a successor finds it by its id. Only root may mark what is neither file nor directory. */
function markOrigin(tree: CowTree, lower: number, path: ByteString): void {
  const mark = encodeOrigin({ ...tree.lower.entry(lower), partial: undefined });
  const done = setXattr(path, tree.marks.origin, mark);
  if (done !== -ERRNO.EPERM && done !== -ERRNO.EOPNOTSUPP) succeed(done);
}

function copyFile(tree: CowTree, node: CowNode, to: ByteString, sizeBytes: number): void {
  const { O_RDWR, O_CREAT, O_EXCL } = constants;
  const lower = lowerIdOf(node);
  const fd = succeed(openFile(to, O_RDWR | O_CREAT | O_EXCL, 0o600));
  const isPartial = sizeBytes >= PARTIAL_BYTES_MIN && tree.scratch.keepsHoles;
  const mark: OriginMark = { ...tree.lower.entry(lower), partial: isPartial ? emptyMap(sizeBytes) : undefined };
  try {
    succeed(setXattr(to, tree.marks.origin, encodeOrigin(mark)));
    if (isPartial) tree.scratch.noteParts();
    if (isPartial) succeed(ftruncateFile(fd, sizeBytes));
    else copyContent(tree, lower, fd, sizeBytes);
  } finally {
    closeFile(fd);
  }
  if (mark.partial !== undefined)
    node.partial = new PartialFile(tree.lower, lower, { ...mark, partial: mark.partial }, tree.marks);
}

const COPY_BYTES = 1 << 20;

/** Durable before it takes the place of what was durable. */
function copyContent(tree: CowTree, lower: number, fd: number, sizeBytes: number): void {
  if (sizeBytes === 0) return;
  const buffer = Buffer.allocUnsafe(Math.min(sizeBytes, COPY_BYTES));
  for (let done = 0; done < sizeBytes;) {
    const piece = buffer.subarray(0, Math.min(buffer.length, sizeBytes - done));
    if (tree.lower.read(lower, done, piece) < piece.length) throw new ErrnoError('EIO');
    if (succeed(writeAt(fd, piece, done)) < piece.length) throw new ErrnoError('ENOSPC');
    done += piece.length;
  }
  succeed(syncFile(fd, true));
}

/** Owner, permissions, attributes and time, in the order in which none undoes another. */
function dressUp(tree: CowTree, node: CowNode, path: ByteString, stat: FileStat): void {
  const isLink = (stat.mode & S_IFMT) === S_IFLNK;
  const owner = need(statOf(path));
  if (owner.uid !== stat.uid || owner.gid !== stat.gid) succeed(changeOwner(path, stat.uid, stat.gid));
  if (!isLink) succeed(changeMode(path, stat.mode & 0o7777));
  for (const [name, value] of tree.lower.xattrs(lowerIdOf(node)) ?? []) {
    if (isMark(name)) continue;
    const done = setXattr(path, name, value);
    // What an ordinary user may not set was not shown to have a meaning for one either.
    if (done < 0 && done !== -ERRNO.EPERM && done !== -ERRNO.EOPNOTSUPP) throw new ErrnoError(-done);
  }
  succeed(setTimes(path, [stat.atimeSec, stat.atimeNsec], [stat.mtimeSec, stat.mtimeNsec]));
}

/** Moves a copy to where it is to be seen. The directory is what it was before, its time included. */
function showAt(tree: CowTree, made: ByteString, { parent, name }: NodeName): void {
  const dir = tree.path(parent);
  const { mtimeSec, mtimeNsec } = need(statOf(dir));
  succeed(rename(made, `${dir}/${name}`));
  parent.listing = undefined; // it says what the checkpoint has
  setTimes(dir, [0, UTIME_OMIT], [mtimeSec, mtimeNsec]);
}

function lowerIdOf({ lower }: CowNode): number {
  if (lower === undefined) throw new ErrnoError('ESTALE');
  return lower;
}
