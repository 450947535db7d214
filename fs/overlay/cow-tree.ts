import { constants } from 'node:fs';

import type { ByteString } from '../../store/byte-string.ts';
import { statOf, xattrOf, type FileStat } from '../../store/file-calls.ts';
import { ERRNO } from '../protocol/constants.ts';
import { CowNode, generationOf, ROOT_ID, upperIdOf } from './cow-node.ts';
import { ErrnoError } from './errno-error.ts';
import { cookieOf, type Listed } from './listed.ts';
import type { LowerObject, LowerTree } from './lower-tree.ts';
import { decodeOrigin, isWhiteout, TRUSTED_MARKS, USER_MARKS, type MarkNames } from './marks.ts';
import { PartialFile } from './partial-file.ts';
import { withUpper } from './upper-file.ts';
import { readUpperNames, type UpperName } from './upper-names.ts';
import type { ScratchFolder } from './scratch-folder.ts';
import type { OpenNode } from './session-log.ts';

export interface CowTreeOptions {
  /** Absolute path of the upper directory. */
  upper: ByteString;
  scratch: ScratchFolder;
  lower: LowerTree;
  /** Marks are `user.` attributes. */
  userxattr: boolean;
  /** To whom belongs what this process makes. */
  owner: { uid: number; gid: number };
  /** Files that are open since before this process, by their nodes. */
  openBefore: ReadonlyMap<number, OpenNode>;
}

/** What is under a name. */
interface RawObject {
  stat: FileStat;
  isUpper: boolean;
  below: number | undefined;
  isMoved: boolean;
}

const { S_IFMT, S_IFDIR } = constants;

/**
 * A workspace as its processes see it: an upper directory over a checkpoint, in the format of the kernel's overlayfs. Objects
 * that come from the checkpoint keep their ids when they are copied up or moved; others go by their inode numbers in the
 * upper directory. So a successor finds every object again that the kernel knows (`recovery.ts`).
 *
 * This class knows what is where; who changes things are the files beside it.
 */
export class CowTree {
  readonly upper: ByteString;
  readonly scratch: ScratchFolder;
  readonly marks: MarkNames;
  /** The kernel's overlayfs finds a directory that was renamed, too. */
  readonly followsRedirects: boolean;
  lower: LowerTree;
  root: CowNode;
  readonly #nodes = new Map<number, CowNode>();
  /** Directories of the checkpoint that were moved, by their ids there: what is below them is not where its path says. */
  readonly moved = new Map<number, CowNode>();
  /** All of them: somebody went through the upper directory. */
  knowsMoved = false;

  readonly owner: CowTreeOptions['owner'];
  readonly #openBefore: Map<number, OpenNode>;

  constructor({ upper, scratch, lower, userxattr, owner, openBefore }: CowTreeOptions) {
    this.owner = owner;
    this.#openBefore = new Map(openBefore);
    this.upper = upper;
    this.scratch = scratch;
    this.lower = lower;
    this.marks = userxattr ? USER_MARKS : TRUSTED_MARKS;
    this.followsRedirects = !userxattr;
    this.root = this.#makeRoot();
  }

  #makeRoot(): CowNode {
    const root = new CowNode(ROOT_ID, { isDir: true, lower: this.lower.root.id });
    root.inUpper = true;
    this.#nodes.set(ROOT_ID, root);
    return root;
  }

  // Nodes

  known(id: number): CowNode | undefined {
    return this.#nodes.get(id);
  }

  get nodes(): IterableIterator<CowNode> {
    return this.#nodes.values();
  }

  add(node: CowNode): CowNode {
    const before = this.#nodes.get(node.id);
    if (before !== undefined) {
      node.lookups += before.lookups; // the kernel gives both back under one number
      node.isRecovered ||= before.isRecovered;
    }
    const open = this.#openBefore.get(node.id);
    if (open !== undefined) {
      this.#openBefore.delete(node.id);
      node.opens = open.count;
      node.backingId = open.backingId;
    }
    this.#nodes.set(node.id, node);
    return node;
  }

  /** An object that the kernel knows by another number, too. */
  alias(id: number, node: CowNode): void {
    this.#nodes.set(id, node);
  }

  /** The kernel gives lookups back; what it does not know any more is forgotten here, too. */
  forget(id: number, count: number): CowNode | undefined {
    const node = this.#nodes.get(id);
    if (node === undefined || node === this.root) return undefined;
    node.lookups = Math.max(0, node.lookups - count);
    return this.#dropIfUnused(node) ? node : undefined;
  }

  #dropIfUnused(node: CowNode): boolean {
    const isUsed = node.lookups > 0 || node.opens > 0 || (node.children !== undefined && node.children.size > 0);
    if (isUsed || node.isRecovered || node === this.root) return false;
    if (this.moved.get(node.lower ?? -1) === node && !node.isGone) return false;
    this.#nodes.delete(node.id);
    if (this.moved.get(node.lower ?? -1) === node) this.moved.delete(node.lower ?? -1);
    for (const { parent, name } of node.names) {
      parent.children?.delete(name);
      this.#dropIfUnused(parent);
    }
    return true;
  }

  /** Takes a name from a node, and the node from its directory. */
  detach(parent: CowNode, name: ByteString): void {
    const node = parent.children?.get(name);
    parent.children?.delete(name);
    if (node !== undefined) node.names = node.names.filter((known) => known.parent !== parent || known.name !== name);
  }

  attach(node: CowNode, parent: CowNode, name: ByteString): void {
    if (parent.children?.get(name) === node) return;
    parent.children?.set(name, node);
    node.names.push({ parent, name });
  }

  // Places

  /** Where an object lies, or would lie, in the upper directory. @throws ErrnoError ENOENT for what was removed */
  path(node: CowNode): ByteString {
    if (node === this.root) return this.upper;
    if (node.orphan !== undefined) return node.orphan;
    const [first] = node.names;
    if (first === undefined) throw new ErrnoError('ENOENT');
    return this.pathIn(first.parent, first.name);
  }

  pathIn(parent: CowNode, name: ByteString): ByteString {
    return `${this.path(parent)}/${name}`;
  }

  /** Where an object is to be seen, by all names that are known, as paths in the workspace. */
  visiblePaths(node: CowNode): ByteString[] {
    return node.names.map(({ parent, name }) => {
      const [above = ''] = parent === this.root ? [''] : this.visiblePaths(parent);
      return above === '' ? name : `${above}/${name}`;
    });
  }

  // Another checkpoint below

  /** Puts another checkpoint below, over a new upper directory; nothing that was known has a name then. */
  rebase(lower: LowerTree): void {
    this.lower = lower;
    this.moved.clear();
    for (const node of this.#nodes.values()) {
      node.children?.clear();
      node.names = [];
      node.listing = undefined;
      node.subdirCount = undefined;
      node.hasDefaultAcl = undefined;
    }
    this.root.lower = lower.root.id;
  }

  /** Makes a known object the one at a path, if that is of the same kind there. */
  reattach(node: CowNode, path: ByteString): void {
    const slash = path.lastIndexOf('/');
    const parent = this.#attachedAt(path.slice(0, Math.max(slash, 0)));
    const name = path.slice(slash + 1);
    if (parent === undefined || parent.children?.has(name) === true) return;
    const found = this.#raw(parent, name);
    if (found === undefined || isDirectory(found.stat) !== node.isDir) return;
    if (!node.isDir && found.isUpper && upperIdOf(found.stat) !== node.id && node.inUpper) return;
    node.inUpper = found.isUpper;
    node.lower = found.below;
    if (!node.isDir) node.partial = undefined;
    if (node.orphan !== undefined && found.isUpper) this.scratch.release(node);
    this.attach(node, parent, name);
    if (node.isDir && node.lower !== undefined && found.isMoved) this.moved.set(node.lower, node);
  }

  #attachedAt(path: ByteString): CowNode | undefined {
    let node: CowNode | undefined = this.root;
    for (const name of path === '' ? [] : path.split('/')) node = node?.children?.get(name);
    return node;
  }

  /** What is under a name, without making a node of it. */
  #raw(parent: CowNode, name: ByteString): RawObject | undefined {
    const path = this.pathIn(parent, name);
    const stat = parent.inUpper ? statOf(path) : -ERRNO.ENOENT;
    if (typeof stat !== 'number') {
      if (isWhiteout(stat)) return undefined;
      const through = isDirectory(stat) ? this.#belowDir(parent, name, path) : { below: undefined, isMoved: false };
      return { stat, isUpper: true, ...through };
    }
    const below = this.lowerOf(parent, name);
    return below && { stat: below.stat, isUpper: false, below: below.id, isMoved: false };
  }

  /** Gets all of a file that is in the upper directory in parts. @throws ErrnoError */
  complete(node: CowNode): void {
    const { partial } = node;
    if (partial !== undefined) withUpper(this, node, (fd) => partial.complete(fd));
    node.partial = undefined;
  }

  // Looking

  /** The object of a name; undefined when there is none. @throws ErrnoError */
  lookup(parent: CowNode, name: ByteString): CowNode | undefined {
    const known = parent.children?.get(name);
    if (known !== undefined) return known;
    if (!parent.isDir) throw new ErrnoError('ENOTDIR');
    if (parent.isGone) return undefined;
    if (parent.inUpper) {
      const path = this.pathIn(parent, name);
      const stat = statOf(path);
      if (typeof stat !== 'number') return this.adoptUpper(parent, name, stat);
      if (stat !== -ERRNO.ENOENT) throw new ErrnoError(-stat);
    }
    const below = this.lowerOf(parent, name);
    return below && this.adoptLower(parent, name, below);
  }

  /** What the checkpoint has under a name, whether it shows or not. */
  lowerOf(parent: CowNode, name: ByteString): LowerObject | undefined {
    return parent.lower === undefined ? undefined : this.lower.lookup(parent.lower, name);
  }

  /** An object that only the checkpoint has. */
  adoptLower(parent: CowNode, name: ByteString, { id, stat }: LowerObject): CowNode {
    const isDir = isDirectory(stat);
    const known = this.#nodes.get(id);
    const node =
      known !== undefined && known.isDir === isDir && !known.isGone
        ? known
        : this.add(new CowNode(id, { isDir, lower: id }));
    this.attach(node, parent, name);
    return node;
  }

  /** An object of the upper directory. @returns undefined for a whiteout */
  adoptUpper(parent: CowNode, name: ByteString, stat: FileStat): CowNode | undefined {
    if (isWhiteout(stat)) return undefined;
    const path = this.pathIn(parent, name);
    const node = isDirectory(stat) ? this.#upperDir(parent, name, path, stat) : this.#upperFile(path, stat);
    this.attach(node, parent, name);
    if (!node.isDir && node.opens > 0 && stat.nlink > 1) this.scratch.releaseId(node); // it has a name again
    return node;
  }

  #upperDir(parent: CowNode, name: ByteString, path: ByteString, stat: FileStat): CowNode {
    const { below, isMoved } = this.#belowDir(parent, name, path);
    const id = below ?? upperIdOf(stat);
    const known = this.#nodes.get(id);
    if (known?.isDir === true && !known.isGone) {
      known.inUpper = true;
      return known;
    }
    const generation = below === undefined ? generationOf(stat) : 0;
    const node = this.add(new CowNode(id, { isDir: true, generation, lower: below }));
    node.inUpper = true;
    if (below !== undefined && isMoved) this.moved.set(below, node);
    return node;
  }

  /** The directory of the checkpoint that shows through one of the upper directory. */
  #belowDir(parent: CowNode, name: ByteString, path: ByteString): { below: number | undefined; isMoved: boolean } {
    const opaque = xattrOf(path, this.marks.opaque);
    if (typeof opaque !== 'number' && opaque.toString('latin1') === 'y') return { below: undefined, isMoved: false };
    const redirect = xattrOf(path, this.marks.redirect);
    const isMoved = typeof redirect !== 'number';
    const below = isMoved ? this.#redirected(parent, redirect.toString('latin1')) : this.lowerOf(parent, name);
    return { below: below !== undefined && isDirectory(below.stat) ? below.id : undefined, isMoved };
  }

  #redirected(parent: CowNode, to: ByteString): LowerObject | undefined {
    if (!to.startsWith('/')) return this.lowerOf(parent, to);
    return this.lowerAt(to.slice(1));
  }

  /** What the checkpoint has at a path of its own. */
  lowerAt(path: ByteString): LowerObject | undefined {
    let found: LowerObject | undefined = this.lower.root;
    for (const name of path === '' ? [] : path.split('/')) found = found && this.lower.lookup(found.id, name);
    return found;
  }

  #upperFile(path: ByteString, stat: FileStat): CowNode {
    const mark = xattrOf(path, this.marks.origin);
    const origin = typeof mark === 'number' ? undefined : decodeOrigin(mark);
    const lower = origin && this.lower.find(origin);
    const id = lower ?? upperIdOf(stat);
    const known = this.#nodes.get(id);
    const isSame = known?.isDir === false && !known.isGone;
    const generation = lower === undefined ? generationOf(stat) : 0;
    const node = isSame ? known : this.add(new CowNode(id, { isDir: false, generation, lower }));
    if (!isSame && origin?.partial !== undefined) node.partial = PartialFile.open(this, node, { path, origin, stat });
    node.inUpper = true;
    return node;
  }

  /** Something that has no name any more and lies aside. */
  adoptOrphan(id: number, path: ByteString, stat: FileStat): CowNode {
    const node = this.#upperFile(path, stat);
    node.orphan = path;
    if (node.id === id) return node;
    throw new ErrnoError('ESTALE');
  }

  /** What was just made in the upper directory, where nothing shows through. */
  adoptNew(parent: CowNode, name: ByteString, stat: FileStat): CowNode {
    const isDir = isDirectory(stat);
    const node = this.add(new CowNode(upperIdOf(stat), { isDir, generation: generationOf(stat) }));
    node.inUpper = true;
    this.attach(node, parent, name);
    if (isDir) this.countSubdir(parent, 1);
    parent.listing = undefined;
    return node;
  }

  /** What was just made without a name. */
  adoptNameless(stat: FileStat): CowNode {
    const node = this.add(new CowNode(upperIdOf(stat), { isDir: false, generation: generationOf(stat) }));
    node.inUpper = true;
    return node;
  }

  countSubdir(parent: CowNode, delta: 1 | -1): void {
    if (parent.subdirCount !== undefined) parent.subdirCount += delta;
  }

  /**
   * The object at a path of the checkpoint, wherever it is now.
   *
   * @returns undefined when what is there now is something else, or nothing
   */
  findByLowerPath(path: ByteString): CowNode | undefined {
    let below: LowerObject | undefined = this.lower.root;
    let node: CowNode | undefined = this.root;
    for (const name of path === '' ? [] : path.split('/')) {
      below = below && this.lower.lookup(below.id, name);
      const moved = below && this.moved.get(below.id);
      node = moved ?? (node?.isDir === true ? this.lookup(node, name) : undefined);
    }
    return node?.lower === below?.id || isUnmarked(node, below) ? node : undefined;
  }

  // Attributes

  /** @throws ErrnoError ESTALE for what is gone without a trace */
  stat(node: CowNode): FileStat {
    if (node.isGone) {
      if (node.lastStat !== undefined) return node.lastStat;
      const below = !node.inUpper && node.lower !== undefined ? this.lower.stat(node.lower) : undefined;
      if (below === undefined) throw new ErrnoError('ESTALE');
      return removed(below);
    }
    return node.inUpper ? this.#upperStat(node) : this.#lowerStat(node);
  }

  #lowerStat(node: CowNode): FileStat {
    const stat = node.lower === undefined ? undefined : this.lower.stat(node.lower);
    if (stat === undefined) throw new ErrnoError('ESTALE');
    return stat;
  }

  #upperStat(node: CowNode): FileStat {
    const stat = statOf(this.path(node));
    if (typeof stat === 'number') throw new ErrnoError(stat === -ERRNO.ENOENT ? ERRNO.ESTALE : -stat);
    stat.ino = node.id;
    if (node.orphan !== undefined) stat.nlink -= 1; // the name we keep it by
    if (node.isDir && node.lower !== undefined) stat.nlink = 2 + this.subdirCount(node);
    if (node.partial !== undefined)
      stat.blocks = Math.ceil(stat.sizeBytes / stat.blksizeBytes) * (stat.blksizeBytes / 512);
    return stat;
  }

  /** How many directories are in one with something below it; of others the file system knows. */
  subdirCount(dir: CowNode): number {
    dir.subdirCount ??= this.#countSubdirs(dir);
    return dir.subdirCount;
  }

  #countSubdirs(dir: CowNode): number {
    const below = dir.lower === undefined ? [] : this.lower.list(dir.lower);
    const dirs = new Set(below.filter(({ stat }) => isDirectory(stat)).map(({ name }) => name));
    for (const { name, isDir } of this.upperNames(dir)) {
      if (isDir) dirs.add(name);
      else dirs.delete(name);
    }
    return dirs.size;
  }

  // Listing

  /** Names in the upper directory, whiteouts among them. */
  upperNames(dir: CowNode): UpperName[] {
    return dir.inUpper && !dir.isGone ? readUpperNames(this.path(dir)) : [];
  }

  /**
   * What shows in a directory, in an order that lasts while it changes: first what the checkpoint has, by name, then the rest
   * by a number that comes from the name. So a listing goes on where it was, whatever was added or removed meanwhile.
   */
  list(dir: CowNode): readonly Listed[] {
    return (dir.listing ??= this.#makeListing(dir));
  }

  #makeListing(dir: CowNode): Listed[] {
    const upper = new Map(this.upperNames(dir).map((entry) => [entry.name, entry]));
    const listed: Listed[] = [];
    const below = dir.lower === undefined || dir.isGone ? [] : this.lower.list(dir.lower);
    below.forEach((object, at) => {
      const entry = upper.get(object.name);
      upper.delete(object.name);
      if (entry === undefined) listed.push({ name: object.name, cookie: at + 1, below: object });
      else if (!entry.isWhiteout) listed.push({ name: object.name, cookie: at + 1, below: undefined });
    });
    const added = [...upper.values()].filter((entry) => !entry.isWhiteout);
    const numbered = added.map(({ name }) => ({ name, cookie: cookieOf(name), below: undefined }));
    return [...listed, ...numbered.sort((a, b) => a.cookie - b.cookie)];
  }

  /** The object of a listed name; undefined when it is gone by now. */
  listed(dir: CowNode, { name, below }: Listed): CowNode | undefined {
    const known = dir.children?.get(name);
    if (known !== undefined) return known;
    if (below !== undefined) return this.adoptLower(dir, name, below);
    return this.lookup(dir, name);
  }

  /** Whether nothing shows in a directory. */
  isEmpty(dir: CowNode): boolean {
    const upper = this.upperNames(dir);
    if (upper.some((entry) => !entry.isWhiteout)) return false;
    const hidden = new Set(upper.map(({ name }) => name));
    return dir.lower === undefined || this.lower.list(dir.lower).every(({ name }) => hidden.has(name));
  }

  /** Whether a directory is, or is in, another. */
  isInside(node: CowNode, dir: CowNode): boolean {
    for (let at: CowNode | undefined = node; at !== undefined; at = at.names[0]?.parent) if (at === dir) return true;
    return false;
  }
}

/** What is neither file nor directory only root may mark with where it comes from; a copy of it is like it. */
function isUnmarked(node: CowNode | undefined, below: LowerObject | undefined): boolean {
  if (node?.inUpper !== true || node.isDir || below === undefined) return false;
  return !isRegular(below.stat) && !isDirectory(below.stat) && node.lower === undefined;
}

export function isDirectory({ mode }: FileStat): boolean {
  return (mode & S_IFMT) === S_IFDIR;
}

export function isRegular({ mode }: FileStat): boolean {
  return (mode & S_IFMT) === constants.S_IFREG;
}

/** What is left to say of something that has no name any more. */
export function removed(stat: FileStat): FileStat {
  stat.nlink = 0;
  return stat;
}
