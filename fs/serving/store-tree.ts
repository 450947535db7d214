import type { Entries } from '../../index/entries.ts';
import { ENTRY_TYPES, numberOf, POSITION_SPAN, positionOf, type EntryRow, type ShownRow } from '../../index/rows.ts';
import type { Trees } from '../../index/trees.ts';
import { toBytes, type ByteString } from '../../store/byte-string.ts';
import { hexOf, isDigest, type Digest } from '../../store/digest.ts';
import type { Xattrs } from '../../store/entry.ts';
import { BoundedCache } from '../contents/bounded-cache.ts';
import { CheckpointTree, type CheckpointNode } from '../tree/checkpoint-tree.ts';
import type { ContentReader } from '../contents/content-reader.ts';
import { countLinks } from './link-counts.ts';
import { entryOfNode, fileNodeId, namesOfNode } from './node-ids.ts';
import type { ServedDirent, ServedNode, ServedTotals, ServedTree } from './served-tree.ts';
import { nodeOfRow, nodeOfTree, type Ownership } from './shown-nodes.ts';
import { StoreTime } from './store-time.ts';

const ROOT_NODE_ID = 1;
/** Directories kept in mind; any other is found again by its number. */
const DIRECTORY_COUNT_MAX = 100_000;

/** A merged tree being served, with the numbers its directories go by. */
interface Served extends ServedTotals {
  tree: CheckpointTree;
  firstNumber: number;
}

/** A directory of a merged tree. */
interface Directory {
  served: Served;
  shown: ServedNode;
  /** Its topmost row, and the layer of that. */
  row: number;
  depth: number;
  /** Undefined where that row is all there is to it, as it is everywhere below a directory that one layer alone has. */
  merged: CheckpointNode | undefined;
}

export interface StoreTreeOptions extends Ownership {
  /** Serve this checkpoint alone; without it, every checkpoint as a folder named by its manifest's hex digest. */
  manifest?: Digest;
  /** Told at each read of a file, by its entry in the index, before it is answered. */
  onRead?: ((id: number) => void) | undefined;
}

/**
 * The checkpoints of a store as the kernel sees them. A file's node id is its entry's id in the index, so every checkpoint
 * and every fork shares its cached pages; a directory's is its checkpoint's number for the layer that lists it, and its
 * position there. Nothing depends on memory: a successor knows every object the kernel knows.
 */
export class StoreTree implements ServedTree {
  readonly #entries: Entries;
  readonly #trees: Trees;
  readonly #reader: ContentReader;
  readonly #options: StoreTreeOptions;
  readonly #storeTime: StoreTime;
  readonly #served = new Map<Digest, Served>();
  readonly #directories = new BoundedCache<number, Directory>({ weightMax: DIRECTORY_COUNT_MAX, weigh: () => 1 });

  constructor(entries: Entries, trees: Trees, reader: ContentReader, options: StoreTreeOptions) {
    this.#entries = entries;
    this.#trees = trees;
    this.#reader = reader;
    this.#options = options;
    this.#storeTime = new StoreTime(trees);
  }

  lookup(parent: number, name: ByteString): ServedNode | undefined {
    if (this.#isStoreRoot(parent)) return this.#checkpointRoot(name);
    const directory = this.#directory(parent);
    if (directory === undefined) return undefined;
    const { served, merged } = directory;
    if (merged === undefined || isOfOneLayer(served, merged)) {
      const row = this.#entries.shownChild(directory.row, name);
      return row && this.#describeRow(directory, row);
    }
    const node = served.tree.child(merged, name);
    return node && this.#describe(served, node);
  }

  getattr(nodeId: number): ServedNode | undefined {
    if (this.#isStoreRoot(nodeId)) return this.#storeRoot();
    const shown = this.#directory(nodeId)?.shown;
    if (shown !== undefined) return shown.nodeId === nodeId ? shown : { ...shown, nodeId };
    const row = this.#fileRow(nodeId);
    if (row === undefined) return undefined;
    const node = this.#ofRow(row);
    node.nodeId = nodeId;
    node.nlink = namesOfNode(nodeId) ?? node.nlink;
    return node;
  }

  readdir(nodeId: number): readonly ServedDirent[] | undefined {
    if (this.#isStoreRoot(nodeId)) return this.#listStore();
    const directory = this.#directory(nodeId);
    if (directory === undefined) return undefined;
    const { served, merged } = directory;
    if (merged === undefined || isOfOneLayer(served, merged)) return this.#listLayer(directory);
    return served.tree.children(merged).map((node) => ({ name: node.name, node: this.#describe(served, node) }));
  }

  /** Where in the checkpoint an object is to be seen; none for one that does not show in it. */
  paths(nodeId: number): ByteString[] {
    const directory = this.#directory(nodeId);
    if (directory !== undefined) return [this.#entries.path(this.#entries.get(directory.row))];
    const row = this.#entries.find(entryOfNode(nodeId));
    const named = row === undefined ? [] : row.nlink > 1 ? this.#entries.namesOf(row.id) : [row];
    return named.map((name) => this.#entries.path(name)).filter((path) => this.#at(path)?.nodeId === nodeId);
  }

  #at(path: ByteString): ServedNode | undefined {
    let node: ServedNode | undefined;
    for (const name of path.split('/')) {
      node = this.lookup(node?.nodeId ?? ROOT_NODE_ID, name);
      if (node === undefined) return undefined;
    }
    return node;
  }

  readlink(nodeId: number): Buffer | undefined {
    const link = this.#entries.find(entryOfNode(nodeId))?.link;
    return link === undefined ? undefined : toBytes(link);
  }

  /** As `read`, however long it takes. */
  readWaiting(nodeId: number, offset: number, out: Buffer): number {
    const id = entryOfNode(nodeId);
    this.#options.onRead?.(id);
    return this.#reader.read(id, offset, out);
  }

  /** Names a file in a way that does not depend on the index. */
  layerEntry(nodeId: number): { digest: Digest; position: number } | undefined {
    const layer = this.#entries.layerOf(numberOf(nodeId));
    return layer && { digest: layer.digest, position: positionOf(nodeId) };
  }

  /** The node id of what `layerEntry` named. */
  ofLayerEntry(layer: Digest, position: number): number | undefined {
    const number = this.#entries.layer(layer)?.number;
    return number === undefined ? undefined : number * POSITION_SPAN + position;
  }

  read(nodeId: number, offset: number, out: Buffer): number | 'slow' {
    const id = entryOfNode(nodeId);
    this.#options.onRead?.(id);
    return this.#reader.readNow(id, offset, out);
  }

  xattrs(nodeId: number): Xattrs | undefined {
    if (this.#isStoreRoot(nodeId)) return undefined;
    const directory = this.#directory(nodeId);
    if (directory === undefined) return this.#entries.find(entryOfNode(nodeId))?.xattrs;
    return (directory.merged ?? this.#entries.find(directory.row))?.xattrs;
  }

  statfs(nodeId: number): ServedTotals {
    const owning = this.#directory(nodeId)?.served ?? this.#servedWith(numberOf(nodeId));
    if (owning !== undefined) return owning;
    const all = [...this.#served.values()];
    return {
      totalBytes: all.reduce((sum, { totalBytes }) => sum + totalBytes, 0),
      fileCount: all.reduce((sum, { fileCount }) => sum + fileCount, 0),
    };
  }

  #isStoreRoot(nodeId: number): boolean {
    return nodeId === ROOT_NODE_ID && this.#options.manifest === undefined;
  }

  #checkpointRoot(name: ByteString): ServedNode | undefined {
    const digest = `sha256:${name}`;
    const served = isDigest(digest) ? this.#serve(digest) : undefined;
    return served && this.#describe(served, served.tree.root);
  }

  #serve(manifest: Digest): Served | undefined {
    const known = this.#served.get(manifest);
    if (known !== undefined) return known;
    const indexed = this.#trees.find(manifest);
    if (indexed === undefined) return undefined;
    const { layers, firstNumber } = indexed;
    const served = {
      tree: new CheckpointTree(this.#entries, layers),
      firstNumber,
      totalBytes: layers.reduce((sum, layer) => sum + layer.contentBytes, 0),
      fileCount: layers.reduce((sum, layer) => sum + layer.entryCount, 0),
    };
    this.#served.set(manifest, served);
    return served;
  }

  /** Some checkpoint that has this layer: files are shared by all that do. */
  #servedWith(layer: number): Served | undefined {
    for (const served of this.#served.values()) {
      if (served.tree.layers.some(({ number }) => number === layer)) return served;
    }
    return undefined;
  }

  #directory(nodeId: number): Directory | undefined {
    const known = this.#directories.get(nodeId);
    if (known !== undefined) return known;
    const found = nodeId === ROOT_NODE_ID ? this.#onlyRoot() : this.#findDirectory(nodeId);
    if (found !== undefined) this.#directories.add(nodeId, found);
    return found;
  }

  #onlyRoot(): Directory | undefined {
    const served = this.#options.manifest && this.#serve(this.#options.manifest);
    return served && this.#merge(served, served.tree.root);
  }

  /** From the number alone: what a restarted server does with an id that its predecessor handed out. */
  #findDirectory(nodeId: number): Directory | undefined {
    const owner = this.#trees.owner(numberOf(nodeId));
    const served = owner && this.#serve(owner.manifest);
    const node = owner && served?.tree.directoryAt(owner.depth, positionOf(nodeId));
    return served && node && this.#merge(served, node);
  }

  #merge(served: Served, node: CheckpointNode): Directory {
    const nodeId = directoryNodeId(served, node.depth, node.id);
    const nlink = countLinks(this.#entries, served.tree, node);
    const shown = { ...nodeOfTree(node, this.#options), nodeId, ino: nodeId, nlink };
    return { served, shown, row: node.id, depth: node.depth, merged: node };
  }

  #listLayer(directory: Directory): ServedDirent[] {
    const listing: ServedDirent[] = [];
    for (const row of this.#entries.shownChildren(directory.row)) {
      const node = this.#describeRow(directory, row);
      if (node !== undefined) listing.push({ name: row[1], node });
    }
    return listing;
  }

  #listStore(): ServedDirent[] {
    return this.#trees.manifests().flatMap((manifest) => {
      const node = this.#checkpointRoot(hexOf(manifest));
      return node === undefined ? [] : [{ name: hexOf(manifest), node }];
    });
  }

  /** A row of a directory that one layer alone has. */
  #describeRow({ served, depth }: Directory, row: ShownRow): ServedNode | undefined {
    const [id, , type, , , , , , , nlink] = row;
    switch (ENTRY_TYPES[type]) {
      case 'whiteout':
        return undefined;
      case 'dir':
        return this.#describeLayerDirectory(served, depth, row);
      case 'hardlink': {
        const target = this.#entries.get(id).target;
        const named = target === undefined ? undefined : this.#entries.shown(target);
        return named && this.#named(served, depth, this.#ofRow(named));
      }
      default:
        return nlink === 1 ? this.#ofRow(row) : this.#named(served, depth, this.#ofRow(row));
    }
  }

  #describeLayerDirectory(served: Served, depth: number, row: ShownRow): ServedNode {
    const nodeId = directoryNodeId(served, depth, row[0]);
    const known = this.#directories.get(nodeId);
    if (known !== undefined) return known.shown;
    const shown = this.#ofRow(row);
    shown.nodeId = nodeId;
    shown.ino = nodeId;
    this.#directories.add(nodeId, { served, shown, row: row[0], depth, merged: undefined });
    return shown;
  }

  #describe(served: Served, node: CheckpointNode): ServedNode {
    if (node.type !== 'dir') return this.#named(served, node.depth, nodeOfTree(node, this.#options));
    const nodeId = directoryNodeId(served, node.depth, node.id);
    const known = this.#directories.get(nodeId);
    if (known !== undefined) return known.shown;
    const directory = this.#merge(served, node);
    this.#directories.add(nodeId, directory);
    return directory.shown;
  }

  /** A file with as many names as show in this checkpoint: layers above its own may hide some. */
  #named(served: Served, depth: number, node: ServedNode): ServedNode {
    const { layers } = served.tree;
    const isAlone = node.nlink === 1 || depth === layers.length - 1 || numberOf(node.nodeId) !== layers[depth]?.number;
    if (isAlone) return node;
    const count = this.#entries.namesOf(node.nodeId).filter((row) => this.#shows(served, depth, row)).length;
    if (count === node.nlink || count === 0) return node;
    const nodeId = fileNodeId(node.nodeId, count);
    return { ...node, nodeId, nlink: namesOfNode(nodeId) ?? node.nlink };
  }

  #shows(served: Served, depth: number, row: EntryRow): boolean {
    const directory = this.#directory(directoryNodeId(served, depth, row.parent));
    if (directory === undefined) return false;
    const { merged } = directory;
    if (merged === undefined || isOfOneLayer(served, merged)) return true;
    return served.tree.child(merged, row.name)?.id === (row.target ?? row.id);
  }

  #fileRow(nodeId: number): ShownRow | undefined {
    const row = this.#entries.shown(entryOfNode(nodeId));
    const type = row && ENTRY_TYPES[row[2]];
    return type === 'dir' || type === 'hardlink' || type === 'whiteout' ? undefined : row;
  }

  #ofRow(row: ShownRow): ServedNode {
    const node = nodeOfRow(row, this.#options);
    if (node.type === 'char' || node.type === 'block') {
      node.rdev = this.#entries.find(node.nodeId)?.rdev ?? { major: 0, minor: 0 };
    }
    return node;
  }

  #storeRoot(): ServedNode {
    const base = { type: 'dir', mode: 0o755, sizeBytes: 0 } as const;
    return {
      ...base,
      ...this.#options.owner,
      ...this.#storeTime.now(),
      nodeId: ROOT_NODE_ID,
      ino: ROOT_NODE_ID,
      nlink: 1,
    };
  }
}

function directoryNodeId(served: Served, depth: number, row: number): number {
  return (served.firstNumber + depth) * POSITION_SPAN + positionOf(row);
}

/** No other layer's directory shows through, and no hard link in it leads into another layer. */
function isOfOneLayer({ tree }: Served, { parts, depth }: CheckpointNode): boolean {
  return parts?.length === 1 && tree.layers[depth]?.hasLowerLinks !== true;
}
