import type { ByteString } from '../../store/byte-string.ts';
import {
  rename,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  RENAME_WHITEOUT,
  setXattr,
  unlink,
} from '../../store/file-calls.ts';
import { copyUp, copyUpDir } from './copy-up.ts';
import type { CowNode } from './cow-node.ts';
import { isDirectory, type CowTree } from './cow-tree.ts';
import { ErrnoError, succeed } from './errno-error.ts';
import type { Place } from './make-entries.ts';
import { isWhiteoutAt } from './marks.ts';
import { clearWhiteouts, keepAside, loseName } from './remove-entries.ts';

const YES = Buffer.from('y');

/**
 * renameat2(2). A directory of the checkpoint is not copied: the upper directory gets one that says where the lower one is.
 *
 * @throws ErrnoError ENOENT, EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, EINVAL
 */
export function renameEntry(tree: CowTree, from: Place, to: Place, flags: number): void {
  if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) !== 0) throw new ErrnoError('EINVAL');
  const source = tree.lookup(from.parent, from.name);
  if (source === undefined) throw new ErrnoError('ENOENT');
  const target = tree.lookup(to.parent, to.name);
  if ((flags & RENAME_NOREPLACE) !== 0 && target !== undefined) throw new ErrnoError('EEXIST');
  if (source.isDir && tree.isInside(to.parent, source)) throw new ErrnoError('EINVAL');
  if ((flags & RENAME_EXCHANGE) !== 0) exchange(tree, { ...from, node: source }, to, target);
  else if (source !== target) move(tree, { ...from, node: source }, to, target);
}

type Moved = Place & { node: CowNode };

function move(tree: CowTree, from: Moved, to: Place, target: CowNode | undefined): void {
  if (target !== undefined) refuseToReplace(tree, from.node, target);
  prepare(tree, from, to);
  const targetStat = target && tree.stat(target);
  if (target?.inUpper === false && !target.isDir && (targetStat?.nlink ?? 0) > 1) copyUp(tree, target); // as unlink does
  const [oldPath, newPath] = [tree.pathIn(from.parent, from.name), tree.pathIn(to.parent, to.name)];
  if (target?.isDir === true && target.inUpper) clearWhiteouts(tree, target);
  else if (target?.inUpper === true) keepAside(tree, target, newPath);
  const hides = tree.lowerOf(from.parent, from.name) !== undefined;
  if (from.node.isDir && target === undefined && isWhiteoutAt(newPath)) swapWithWhiteout(oldPath, newPath, hides);
  else moveTo(tree, oldPath, newPath, hides);
  if (target !== undefined && targetStat !== undefined) {
    if (target.isDir) tree.countSubdir(to.parent, -1);
    loseName(tree, target, to, targetStat);
  }
  tree.detach(from.parent, from.name);
  settle(tree, from, to);
}

function refuseToReplace(tree: CowTree, source: CowNode, target: CowNode): void {
  if (source.isDir && !target.isDir) throw new ErrnoError('ENOTDIR');
  if (!source.isDir && target.isDir) throw new ErrnoError('EISDIR');
  if (target.isDir && !tree.isEmpty(target)) throw new ErrnoError('ENOTEMPTY');
}

function exchange(tree: CowTree, from: Moved, to: Place, target: CowNode | undefined): void {
  if (target === undefined) throw new ErrnoError('ENOENT');
  if (target === from.node) return;
  if (target.isDir && tree.isInside(from.parent, target)) throw new ErrnoError('EINVAL');
  prepare(tree, from, to);
  prepare(tree, { ...to, node: target }, from);
  succeed(rename(tree.pathIn(from.parent, from.name), tree.pathIn(to.parent, to.name), RENAME_EXCHANGE));
  tree.detach(from.parent, from.name);
  tree.detach(to.parent, to.name);
  settle(tree, from, to);
  settle(tree, { ...to, node: target }, from);
}

/** Everything has to be in the upper directory, and a directory has to say what shows through it in its new place. */
function prepare(tree: CowTree, from: Moved, to: Place): void {
  const { node } = from;
  copyUp(tree, node);
  copyUpDir(tree, from.parent);
  copyUpDir(tree, to.parent);
  if (!node.isDir) return;
  const path = tree.pathIn(from.parent, from.name);
  if (node.lower !== undefined) {
    const [lowerPath] = tree.lower.paths(node.lower);
    if (lowerPath === undefined) throw new ErrnoError('EXDEV');
    if (!tree.followsRedirects) tree.scratch.noteParts(); // the kernel's overlayfs would not find what is in it
    succeed(setXattr(path, tree.marks.redirect, Buffer.from(`/${lowerPath}`, 'latin1')));
    return;
  }
  const below = tree.lowerOf(to.parent, to.name);
  if (below !== undefined && isDirectory(below.stat)) succeed(setXattr(path, tree.marks.opaque, YES));
}

/** @param hides - the checkpoint has something under the old name, which must not show again */
function moveTo(tree: CowTree, oldPath: ByteString, newPath: ByteString, hides: boolean): void {
  if (!hides) succeed(rename(oldPath, newPath));
  else if (tree.scratch.canLeaveWhiteouts) succeed(rename(oldPath, newPath, RENAME_WHITEOUT));
  else {
    const whiteout = tree.scratch.newWhiteout();
    succeed(rename(oldPath, newPath));
    succeed(rename(whiteout, oldPath));
  }
}

/** A directory cannot be moved over the whiteout of a name, but it can change places with it. */
function swapWithWhiteout(oldPath: ByteString, newPath: ByteString, hides: boolean): void {
  succeed(rename(oldPath, newPath, RENAME_EXCHANGE));
  if (!hides) succeed(unlink(oldPath));
}

function settle(tree: CowTree, { node, parent }: Moved, to: Place): void {
  tree.attach(node, to.parent, to.name);
  parent.listing = undefined;
  to.parent.listing = undefined;
  if (!node.isDir) return;
  if (node.lower !== undefined) tree.moved.set(node.lower, node);
  tree.countSubdir(parent, -1);
  tree.countSubdir(to.parent, 1);
}
