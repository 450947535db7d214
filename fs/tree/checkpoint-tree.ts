import type { Entries, IndexedLayer } from '../../index/entries.ts';
import type { EntryRow } from '../../index/rows.ts';
import { entryId, positionOf } from '../../index/rows.ts';
import type { ByteString } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import { byName, type Tree, type TreeNode } from './tree.ts';

/** More names than this are cheaper to list than to look up one by one. */
const LOOKED_UP_MAX = 1000;

/** A directory's row in one layer. */
export interface DirPart {
  /** Position of the layer in the stack; 0 is the lowest. */
  depth: number;
  row: EntryRow;
}

/** One object of a checkpoint. */
export interface CheckpointNode extends TreeNode {
  /** Id of the row that provides it (a directory: its topmost row; a hard link: the entry it names). */
  id: number;
  depth: number;
  nlink: number;
  /** A directory's rows, topmost first; undefined for everything else. */
  parts: readonly DirPart[] | undefined;
}

/** A file that is worth being read in another way than through the server. */
export interface LargeFile {
  /** The row that provides it. */
  id: number;
  /** Where it shows. */
  path: ByteString;
  sizeBytes: number;
  /** SHA-256 of its content; undefined where nobody hashed it. */
  digest: Digest | undefined;
}

/**
 * A checkpoint's layers merged into one read-only tree, as OCI prescribes it: upper entries win, directories merge, a
 * whiteout or an opaque directory hides what is lower. Merging happens one directory at a time, when it is asked for, so
 * opening costs nothing however many files there are.
 *
 * @see OCI image-spec v1.1, layer.md, "Whiteouts"
 */
export class CheckpointTree implements Tree<CheckpointNode> {
  readonly layers: readonly IndexedLayer[];
  readonly root: CheckpointNode;
  readonly #entries: Entries;

  /** @param layers - lowest first */
  constructor(entries: Entries, layers: readonly IndexedLayer[]) {
    this.#entries = entries;
    this.layers = layers;
    let merge: Merge | undefined;
    for (let depth = layers.length - 1; depth >= 0; depth -= 1) {
      const layer = layers[depth];
      if (layer === undefined) continue;
      const row = entries.root(layer);
      if (merge === undefined) merge = beginMerge(depth, row);
      else continueMerge(merge, depth, row);
    }
    if (merge === undefined) throw new RangeError('a tree has at least one layer');
    this.root = this.#dirNode(merge);
  }

  /** All layers' views of a directory's entries, merged. */
  children(dir: CheckpointNode): readonly CheckpointNode[] {
    const parts = dir.parts ?? [];
    const merged = new Map<ByteString, Merge>();
    for (const { depth, row } of parts) {
      for (const child of this.#entries.children(row.id)) {
        const merge = merged.get(child.name);
        if (merge === undefined) merged.set(child.name, beginMerge(depth, child));
        else continueMerge(merge, depth, child);
      }
    }
    const nodes = [...merged.values()].flatMap((merge) => this.#nodeOf(merge) ?? []);
    return parts.length > 1 ? nodes.sort(byName) : nodes;
  }

  child(dir: CheckpointNode, name: ByteString): CheckpointNode | undefined {
    let merge: Merge | undefined;
    for (const { depth, row } of dir.parts ?? []) {
      const child = this.#entries.child(row.id, name);
      if (child === undefined) continue;
      if (merge === undefined) merge = beginMerge(depth, child);
      else continueMerge(merge, depth, child);
      if (merge.closed && merge.listed !== undefined) break;
    }
    return merge && this.#nodeOf(merge);
  }

  /** Of two directories that rest on the same rows, only what the rows above those list can differ. */
  differingNames(dir: CheckpointNode, other: TreeNode): readonly ByteString[] | undefined {
    const mine = dir.parts ?? [];
    const theirs = (other as Partial<CheckpointNode>).parts ?? [];
    const sharedCount = sharedBelow(mine, theirs);
    const isRelative = mine.slice(-sharedCount).some(({ depth }) => this.layers[depth]?.hasLowerLinks === true);
    if (sharedCount === 0 || isRelative) return undefined;
    const above = [...mine.slice(0, -sharedCount), ...theirs.slice(0, -sharedCount)];
    const names = new Set(above.flatMap(({ row }) => this.#entries.children(row.id).map(({ name }) => name)));
    return names.size > LOOKED_UP_MAX ? undefined : [...names].sort();
  }

  /** The node at a path, or undefined. The empty path is the root. */
  find(path: ByteString): CheckpointNode | undefined {
    let node: CheckpointNode | undefined = this.root;
    for (const name of path === '' ? [] : path.split('/')) {
      node = node && this.child(node, name);
    }
    return node;
  }

  /** Looks at each name the layer gives the file, whether it still is the one that shows there. */
  namesOf(node: CheckpointNode): readonly ByteString[] {
    if (node.linkKey === undefined) return [];
    const paths = this.#entries.namesOf(node.id).map((row) => this.#entries.path(row));
    return paths.filter((path) => this.find(path)?.id === node.id);
  }

  /** The large files that show, each under every name that its own layer gives it. Looks at no others. */
  largeFiles(): LargeFile[] {
    return this.#entries.largeFiles(this.layers).flatMap((row) => {
      const { id, sizeBytes, digest } = row;
      const names = row.nlink > 1 ? this.#entries.namesOf(id) : [row];
      const paths = names.map((name) => this.#entries.path(name)).filter((path) => this.find(path)?.id === id);
      return paths.map((path) => ({ id, path, sizeBytes, digest }));
    });
  }

  /** The directory whose row in the layer at `depth` has this position, if it still is part of the merged tree. */
  directoryAt(depth: number, position: number): CheckpointNode | undefined {
    const layer = this.layers[depth];
    if (layer === undefined) return undefined;
    const row = this.#entries.find(entryId(layer.number, position));
    const node = row && this.find(this.#entries.path(row));
    return node?.parts?.some((part) => part.depth === depth && positionOf(part.row.id) === position) ? node : undefined;
  }

  #nodeOf(merge: Merge): CheckpointNode | undefined {
    const { parts, leaf } = merge;
    if (parts.length > 0) return this.#dirNode(merge);
    if (leaf === undefined || leaf.row.type === 'whiteout') return undefined;
    return leaf.row.type === 'hardlink'
      ? this.#hardlink(leaf.row, leaf.depth)
      : leafNode(leaf.row.name, leaf.row, leaf.depth);
  }

  /** A directory takes its metadata from the topmost layer that really lists it. */
  #dirNode({ name, parts, listed }: Merge): CheckpointNode {
    const [top] = parts;
    if (top === undefined) throw new RangeError('a directory has at least one row');
    const row = listed?.type === 'dir' ? listed : top.row;
    return {
      ...metadataOf(row),
      name,
      id: top.row.id,
      depth: top.depth,
      nlink: 1,
      parts,
      identity: [...parts.map((part) => this.#identityOf(part)), row.id].join(),
    };
  }

  /** Of a layer whose hard links name files of the layers below, a row means what those make of it. */
  #identityOf({ depth, row }: DirPart): string {
    if (this.layers[depth]?.hasLowerLinks !== true) return String(row.id);
    const below = this.layers.slice(0, depth).map((layer) => layer.number);
    return `${row.id} on ${below.join(' ')}`;
  }

  /** The file a hard link names: in its own layer, or as the layers below show it. */
  #hardlink(row: EntryRow, depth: number): CheckpointNode | undefined {
    const named = row.target === undefined ? undefined : this.#entries.get(row.target);
    if (named !== undefined && named.type !== 'hardlink') return leafNode(row.name, named, depth);
    const { link } = named ?? row; // a name for a link that itself leads into a lower layer
    if (link === undefined || depth === 0) return undefined;
    const below = new CheckpointTree(this.#entries, this.layers.slice(0, depth)).find(link);
    return below === undefined || below.type === 'dir' ? undefined : { ...below, name: row.name, depth };
  }
}

/** How many of the lowest rows two directories share. */
function sharedBelow(mine: readonly DirPart[], theirs: readonly DirPart[]): number {
  let count = 0;
  while (count < mine.length && count < theirs.length) {
    if (mine[mine.length - 1 - count]?.row.id !== theirs[theirs.length - 1 - count]?.row.id) break;
    count += 1;
  }
  return count;
}

/** What is known so far about one name while the layers are gone through from the top. */
interface Merge {
  name: ByteString;
  /** The topmost row when it is no directory. */
  leaf: DirPart | undefined;
  parts: DirPart[];
  /** The topmost row that is not made up for a missing parent: where the metadata is. */
  listed: EntryRow | undefined;
  /** Nothing lower shows through any more. */
  closed: boolean;
}

function beginMerge(depth: number, row: EntryRow): Merge {
  const part = { depth, row };
  const listed = row.implicit ? undefined : row;
  if (row.type === 'dir') return { name: row.name, leaf: undefined, parts: [part], listed, closed: row.opaque };
  return { name: row.name, leaf: part, parts: [], listed, closed: true };
}

/** An opaque marker hides what a lower directory holds, not the mode and owner it has. */
function continueMerge(merge: Merge, depth: number, row: EntryRow): void {
  if (!row.implicit) merge.listed ??= row;
  if (merge.closed) return;
  if (row.type === 'dir') merge.parts.push({ depth, row });
  merge.closed = row.type !== 'dir' || row.opaque;
}

function leafNode(name: ByteString, row: EntryRow, depth: number): CheckpointNode {
  const node: CheckpointNode = Object.assign(metadataOf(row), {
    name,
    id: row.id,
    depth,
    nlink: row.nlink,
    parts: undefined,
  });
  if (row.digest !== undefined) node.digest = row.digest;
  if (row.nlink > 1) node.linkKey = String(row.id);
  return node;
}

function metadataOf(row: EntryRow): Omit<TreeNode, 'name' | 'digest'> {
  const { type, mode, uid, gid, mtimeSec, mtimeNsec, sizeBytes, link, rdev, xattrs } = row;
  const metadata: Omit<TreeNode, 'name' | 'digest'> = { type, mode, uid, gid, mtimeSec, mtimeNsec, sizeBytes };
  if (link !== undefined && type === 'symlink') metadata.link = link;
  if (rdev !== undefined) metadata.rdev = rdev;
  if (xattrs !== undefined) metadata.xattrs = xattrs;
  return metadata;
}
