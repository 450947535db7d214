import type { ByteString } from '../../store/byte-string.ts';
import {
  link,
  makeWhiteout,
  removeDir,
  rename,
  RENAME_EXCHANGE,
  RENAME_WHITEOUT,
  setXattr,
  unlink,
} from '../../store/file-calls.ts';
import { ERRNO } from '../protocol/constants.ts';
import { copyUp, copyUpDir } from './copy-up.ts';
import type { CowNode } from './cow-node.ts';
import { removed, type CowTree } from './cow-tree.ts';
import { ErrnoError, succeed } from './errno-error.ts';
import type { Place } from './make-entries.ts';

const YES = Buffer.from('y');

/** @throws ErrnoError ENOENT, EISDIR */
export function unlinkEntry(tree: CowTree, place: Place): void {
  const node = nodeAt(tree, place);
  if (node.isDir) throw new ErrnoError('EISDIR');
  const stat = tree.stat(node);
  if (!node.inUpper && stat.nlink > 1) copyUp(tree, node); // so that the others know that there is one less
  copyUpDir(tree, place.parent);
  const path = tree.pathIn(place.parent, place.name);
  const hides = tree.lowerOf(place.parent, place.name) !== undefined;
  if (!node.inUpper) succeed(makeWhiteout(path));
  else if (mustStay(node)) putAside(tree, node, path, hides);
  else if (hides) succeed(rename(tree.scratch.newWhiteout(), path));
  else succeed(unlink(path));
  loseName(tree, node, place, stat);
}

/** @throws ErrnoError ENOENT, ENOTDIR, ENOTEMPTY */
export function rmdirEntry(tree: CowTree, place: Place): void {
  const node = nodeAt(tree, place);
  if (!node.isDir) throw new ErrnoError('ENOTDIR');
  if (!tree.isEmpty(node)) throw new ErrnoError('ENOTEMPTY');
  const stat = tree.stat(node);
  copyUpDir(tree, place.parent);
  const path = tree.pathIn(place.parent, place.name);
  const hides = tree.lowerOf(place.parent, place.name) !== undefined;
  if (!node.inUpper) succeed(makeWhiteout(path));
  else {
    clearWhiteouts(tree, node);
    if (hides) {
      const whiteout = tree.scratch.newWhiteout();
      succeed(rename(whiteout, path, RENAME_EXCHANGE));
      succeed(removeDir(whiteout)); // the directory, which is there now
    } else succeed(removeDir(path));
  }
  tree.countSubdir(place.parent, -1);
  loseName(tree, node, place, stat);
}

/** A directory in which nothing shows is made one in which nothing is; until it is gone, nothing shows through either. */
export function clearWhiteouts(tree: CowTree, dir: CowNode): void {
  const path = tree.path(dir);
  const names = tree.upperNames(dir);
  if (dir.lower !== undefined) succeed(setXattr(path, tree.marks.opaque, YES));
  for (const { name } of names) succeed(unlink(`${path}/${name}`));
}

/** Somebody has it open, so that it has to be found when its name is gone. */
function mustStay({ opens, orphan }: CowNode): boolean {
  return opens > 0 && orphan === undefined;
}

function putAside(tree: CowTree, node: CowNode, path: ByteString, hides: boolean): void {
  const orphan = tree.scratch.orphanPath(node.id);
  if (hides && !tree.scratch.canLeaveWhiteouts) {
    keepAside(tree, node, path);
    succeed(rename(tree.scratch.newWhiteout(), path));
    return;
  }
  succeed(rename(path, orphan, hides ? RENAME_WHITEOUT : 0));
  node.orphan = orphan;
}

/** Gives a file that is about to be replaced a place where whoever has it open finds it. */
export function keepAside(tree: CowTree, node: CowNode, path: ByteString): void {
  if (!mustStay(node)) return;
  const orphan = tree.scratch.orphanPath(node.id);
  const done = link(path, orphan);
  if (done !== -ERRNO.EEXIST) succeed(done); // it is there since before a restart
  node.orphan = orphan;
}

/** @param stat - what it was before */
export function loseName(
  tree: CowTree,
  node: CowNode,
  { parent, name }: Place,
  stat: ReturnType<CowTree['stat']>,
): void {
  tree.detach(parent, name);
  parent.listing = undefined;
  if (node.names.length > 0) return;
  if (node.lower !== undefined && tree.moved.get(node.lower) === node) tree.moved.delete(node.lower);
  stat.nlink = Math.max(0, node.isDir ? 0 : stat.nlink - 1);
  node.lastStat = stat.nlink === 0 ? removed(stat) : stat;
}

function nodeAt(tree: CowTree, { parent, name }: Place): CowNode {
  const node = tree.lookup(parent, name);
  if (node === undefined) throw new ErrnoError('ENOENT');
  return node;
}
