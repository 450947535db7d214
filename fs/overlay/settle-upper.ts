import { removeXattr, setXattr, xattrOf } from '../../store/file-calls.ts';
import { copyUp } from './copy-up.ts';
import type { CowNode } from './cow-node.ts';
import type { CowTree } from './cow-tree.ts';
import { succeed } from './errno-error.ts';

const YES = Buffer.from('y');

/**
 * Makes an upper directory one that the kernel's overlayfs understands without us: files that are there in parts become whole,
 * and where overlayfs does not follow a directory to where it was renamed from, all that is in it is copied. Nobody may be
 * using the workspace.
 *
 * @param followsRedirects - false of an overlay whose marks are `user.` attributes
 * @throws ErrnoError, BentoError: what was not reached can be settled later
 */
export function settleUpper(tree: CowTree, { followsRedirects }: { followsRedirects: boolean }): void {
  const dirs = [tree.root];
  for (let dir = dirs.pop(); dir !== undefined; dir = dirs.pop()) {
    if (!followsRedirects && isRedirected(tree, dir)) copyAll(tree, dir);
    for (const { name, isWhiteout } of tree.upperNames(dir)) {
      const node = isWhiteout ? undefined : tree.lookup(dir, name);
      if (node?.isDir === true) dirs.push(node);
      else if (node !== undefined) tree.complete(node);
    }
  }
  tree.scratch.forgetParts();
}

function isRedirected(tree: CowTree, dir: CowNode): boolean {
  return dir !== tree.root && typeof xattrOf(tree.path(dir), tree.marks.redirect) !== 'number';
}

/** Only when all is there does the directory stop to say where the rest can be had. */
function copyAll(tree: CowTree, top: CowNode): void {
  const dirs = [top];
  for (let dir = dirs.pop(); dir !== undefined; dir = dirs.pop()) {
    for (const entry of tree.list(dir)) {
      const node = tree.listed(dir, entry);
      if (node === undefined) continue;
      copyUp(tree, node);
      if (node.isDir) dirs.push(node);
      else tree.complete(node);
    }
  }
  const path = tree.path(top);
  succeed(setXattr(path, tree.marks.opaque, YES));
  succeed(removeXattr(path, tree.marks.redirect));
}
