import type { Entries } from '../../index/entries.ts';
import { numberOf, POSITION_SPAN, positionOf } from '../../index/rows.ts';
import type { Trees } from '../../index/trees.ts';
import { toBytes, type ByteString } from '../../store/byte-string.ts';
import { hexOf, isDigest, type Digest } from '../../store/digest.ts';
import type { Metadata, Xattrs } from '../../store/entry.ts';
import { BoundedCache } from '../tree/bounded-cache.ts';
import { CheckpointTree, type CheckpointNode } from '../tree/checkpoint-tree.ts';
import type { ContentReader } from '../tree/content-reader.ts';
import type { ServedDirent, ServedNode, ServedTree } from './served-tree.ts';

const ROOT_NODE_ID = 1;
/** Listings kept so that a directory read in several calls is merged once; in entries. */
const LISTED_ENTRIES_MAX = 200_000;

/** A merged tree being served, with the numbers its directories go by. */
interface Served {
  tree: CheckpointTree;
  firstNumber: number;
}

interface Directory {
  served: Served;
  node: CheckpointNode;
}

export interface StoreTreeOptions {
  /** Serve this checkpoint alone; without it, every checkpoint as a folder named by its manifest's hex digest. */
  manifest?: Digest;
  /** Who owns what the checkpoint says belongs to the owner of the workspace. */
  owner: { uid: number; gid: number };
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
  readonly #served = new Map<Digest, Served>();
  readonly #directories = new Map<number, Directory>();
  readonly #listings = new BoundedCache<number, readonly ServedDirent[]>({
    weightMax: LISTED_ENTRIES_MAX,
    weigh: (listing) => listing.length,
  });

  constructor(entries: Entries, trees: Trees, reader: ContentReader, options: StoreTreeOptions) {
    this.#entries = entries;
    this.#trees = trees;
    this.#reader = reader;
    this.#options = options;
  }

  lookup(parent: number, name: ByteString): ServedNode | undefined {
    if (this.#isStoreRoot(parent)) return this.#checkpointRoot(name);
    const directory = this.#directory(parent);
    const node = directory?.served.tree.child(directory.node, name);
    return directory && node && this.#describe(directory.served, node);
  }

  getattr(nodeId: number): ServedNode | undefined {
    if (this.#isStoreRoot(nodeId)) return this.#storeRoot();
    const directory = this.#directory(nodeId);
    if (directory !== undefined) return { ...this.#describe(directory.served, directory.node), nodeId };
    const row = this.#entries.find(nodeId);
    return row && this.#describeFile(row);
  }

  readdir(nodeId: number): readonly ServedDirent[] | undefined {
    if (this.#isStoreRoot(nodeId)) return this.#listStore(); // never kept: checkpoints come and go
    const listed = this.#listings.get(nodeId);
    if (listed !== undefined) return listed;
    const listing = this.#list(nodeId);
    if (listing !== undefined) this.#listings.add(nodeId, listing);
    return listing;
  }

  readlink(nodeId: number): Buffer | undefined {
    const link = this.#entries.find(nodeId)?.link;
    return link === undefined ? undefined : toBytes(link);
  }

  read(nodeId: number, offset: number, out: Buffer): number {
    return this.#reader.read(nodeId, offset, out);
  }

  xattrs(nodeId: number): Xattrs | undefined {
    if (this.#isStoreRoot(nodeId)) return undefined;
    return this.#directory(nodeId)?.node.xattrs ?? this.#entries.find(nodeId)?.xattrs;
  }

  statfs(): { totalBytes: number; fileCount: number } {
    const layers = [...this.#served.values()].flatMap(({ tree }) => tree.layers);
    return {
      totalBytes: layers.reduce((sum, layer) => sum + layer.contentBytes, 0),
      fileCount: layers.reduce((sum, layer) => sum + layer.entryCount, 0),
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
    const served = { tree: new CheckpointTree(this.#entries, indexed.layers), firstNumber: indexed.firstNumber };
    this.#served.set(manifest, served);
    return served;
  }

  #directory(nodeId: number): Directory | undefined {
    const known = this.#directories.get(nodeId);
    if (known !== undefined) return known;
    const found = nodeId === ROOT_NODE_ID ? this.#onlyRoot() : this.#findDirectory(nodeId);
    if (found !== undefined) this.#directories.set(nodeId, found);
    return found;
  }

  #onlyRoot(): Directory | undefined {
    const served = this.#options.manifest && this.#serve(this.#options.manifest);
    return served && { served, node: served.tree.root };
  }

  /** From the number alone: what a restarted server does with an id that its predecessor handed out. */
  #findDirectory(nodeId: number): Directory | undefined {
    const owner = this.#trees.owner(numberOf(nodeId));
    const served = owner && this.#serve(owner.manifest);
    const node = owner && served?.tree.directoryAt(owner.depth, positionOf(nodeId));
    return served && node && { served, node };
  }

  #list(nodeId: number): ServedDirent[] | undefined {
    const directory = this.#directory(nodeId);
    return directory?.served.tree
      .children(directory.node)
      .map((node) => ({ name: node.name, node: this.#describe(directory.served, node) }));
  }

  #listStore(): ServedDirent[] {
    return this.#trees.manifests().flatMap((manifest) => {
      const node = this.#checkpointRoot(hexOf(manifest));
      return node === undefined ? [] : [{ name: hexOf(manifest), node }];
    });
  }

  #describe(served: Served, node: CheckpointNode): ServedNode {
    if (node.type !== 'dir') return this.#describeFile(node);
    const nodeId = (served.firstNumber + node.depth) * POSITION_SPAN + positionOf(node.id);
    if (!this.#directories.has(nodeId)) this.#directories.set(nodeId, { served, node });
    return { ...this.#owned(node), nodeId, ino: nodeId, nlink: 1 };
  }

  #describeFile(node: Metadata & { id: number; nlink: number }): ServedNode {
    return { ...this.#owned(node), nodeId: node.id, ino: node.id, nlink: node.nlink };
  }

  #owned(node: Metadata): Omit<ServedNode, 'nodeId' | 'ino' | 'nlink'> {
    const { type, mode, uid, gid, mtimeSec, mtimeNsec, rdev, link } = node;
    const sizeBytes = type === 'symlink' ? (link?.length ?? 0) : node.sizeBytes; // lstat(2): the length of the target
    const { owner } = this.#options;
    return {
      type,
      mode,
      uid: uid === 0 ? owner.uid : uid,
      gid: gid === 0 ? owner.gid : gid,
      mtimeSec,
      mtimeNsec,
      sizeBytes,
      ...(rdev && { rdev }),
    };
  }

  #storeRoot(): ServedNode {
    const base = { type: 'dir', mode: 0o755, mtimeSec: 0, mtimeNsec: 0, sizeBytes: 0 } as const;
    return { ...base, ...this.#options.owner, nodeId: ROOT_NODE_ID, ino: ROOT_NODE_ID, nlink: 1 };
  }
}
