import { POSITION_SPAN } from '../../index/rows.ts';
import { toBytes, type ByteString } from '../../store/byte-string.ts';
import { hexOf, type Digest } from '../../store/digest.ts';
import type { Xattrs } from '../../store/entry.ts';
import type { Store } from '../../store/store.ts';
import { openTree, type TreeSource } from '../tree/index-checkpoint.ts';
import { layOut, ROOT_NODE_ID, type AllView, type Folder, type Link, type Shown } from './all-view.ts';
import type { ServedDirent, ServedNode, ServedTree } from './served-tree.ts';
import { StoreFacts } from './store-facts.ts';
import type { StoreTree } from './store-tree.ts';

/** How long what was seen of the store stands without a second look, in milliseconds: far less than the kernel waits. */
const FRESH_MS = 100;
/** What a listing says for an ino that is not known yet; 0 would make C libraries skip the name. */
const UNKNOWN_INO = 0xffff_ffff;
const NSEC = 1_000_000_000n;

/**
 * A whole store as the kernel sees it: a folder for each workspace, in it one for each checkpoint and a link for each
 * further tag. It grows as checkpoints are made; what is below a checkpoint comes from a `StoreTree` and never changes.
 *
 * A name that is not found is looked for once more in what the store says at that moment: there are no wrong answers of
 * that kind. A name that is found may be 100 ms old.
 */
export class AllTree implements ServedTree {
  readonly #checkpoints: StoreTree;
  readonly #owner: Pick<ServedNode, 'uid' | 'gid'>;
  readonly #store: Store;
  readonly #nowMs: () => number;
  #facts: StoreFacts | undefined;
  #view: AllView | undefined;
  #lookedMs = 0;

  /** @param checkpoints - of the same store, every one by its hex digest; its owner owns the folders too */
  constructor(store: Store, checkpoints: StoreTree, nowMs: () => number = () => performance.now()) {
    const { uid = 0, gid = 0 } = checkpoints.getattr(ROOT_NODE_ID) ?? {};
    this.#checkpoints = checkpoints;
    this.#owner = { uid, gid };
    this.#store = store;
    this.#nowMs = nowMs;
  }

  /** Whether names may come, go and change in a directory, and its attributes with them. */
  mayGrow(nodeId: number): boolean {
    return isOurs(nodeId);
  }

  /**
   * @returns 'slow' for a checkpoint that the index does not know yet: `prepare` it, and ask again
   * @throws BentoError when the workspace's tags cannot be read
   */
  lookup(parent: number, name: ByteString): ServedNode | 'slow' | undefined {
    if (!isOurs(parent)) return this.#checkpoints.lookup(parent, name);
    const shown = this.#find(parent, name);
    if (shown?.kind !== 'checkpoint') return shown && this.#describe(shown);
    return this.#checkpointRoot(shown.manifest) ?? 'slow';
  }

  /** Does what a lookup had no time for: makes the checkpoint known to the index. @throws what reading it throws */
  async prepare(source: TreeSource, parent: number, name: ByteString): Promise<void> {
    const shown = isOurs(parent) ? this.#find(parent, name) : undefined;
    if (shown?.kind !== 'checkpoint' || this.#checkpointRoot(shown.manifest) !== undefined) return;
    await openTree(source, await source.store.loadCheckpoint(shown.manifest));
  }

  getattr(nodeId: number): ServedNode | undefined {
    if (!isOurs(nodeId)) return this.#checkpoints.getattr(nodeId);
    const node = this.#node(nodeId);
    return node && this.#describe(node);
  }

  /** A checkpoint that the index does not know yet has node id 0: the kernel looks it up when it is needed. */
  readdir(nodeId: number): readonly ServedDirent[] | undefined {
    if (!isOurs(nodeId)) return this.#checkpoints.readdir(nodeId);
    const folder = this.#folder(nodeId, this.#look());
    if (folder === undefined) return undefined;
    return [...folder.entries].map(([name, shown]) => ({ name, node: this.#listed(shown) }));
  }

  /** Undefined too for a link that has another target meanwhile: the kernel is to look its name up again. */
  readlink(nodeId: number): Buffer | undefined {
    if (!isOurs(nodeId)) return this.#checkpoints.readlink(nodeId);
    const node = this.#node(nodeId);
    return node?.kind === 'link' ? toBytes(node.target) : undefined;
  }

  read(nodeId: number, offset: number, out: Buffer): ReturnType<StoreTree['read']> {
    return this.#checkpoints.read(nodeId, offset, out);
  }

  xattrs(nodeId: number): Xattrs | undefined {
    return isOurs(nodeId) ? undefined : this.#checkpoints.xattrs(nodeId);
  }

  statfs(nodeId: number): ReturnType<StoreTree['statfs']> {
    return this.#checkpoints.statfs(isOurs(nodeId) ? ROOT_NODE_ID : nodeId);
  }

  #find(parent: number, name: ByteString): Shown | undefined {
    const known = this.#folder(parent, this.#recent())?.entries.get(name);
    return known ?? this.#folder(parent, this.#look())?.entries.get(name);
  }

  #node(nodeId: number): Folder | Link | undefined {
    return this.#recent().nodes.get(nodeId) ?? this.#look().nodes.get(nodeId);
  }

  /** @throws what was in the way of reading its entries */
  #folder(nodeId: number, view: AllView): Folder | undefined {
    const node = view.nodes.get(nodeId);
    if (node?.kind !== 'folder') return undefined;
    if (node.damage !== undefined) throw node.damage;
    return node;
  }

  #recent(): AllView {
    const view = this.#view;
    return view !== undefined && this.#nowMs() - this.#lookedMs < FRESH_MS ? view : this.#look();
  }

  /** @throws what reading the store throws; the next look tries again */
  #look(): AllView {
    const nowMs = this.#nowMs();
    this.#facts ??= new StoreFacts(this.#store.root);
    const isChanged = this.#facts.refresh();
    if (this.#view === undefined || isChanged) this.#view = layOut(this.#facts, this.#view);
    this.#lookedMs = nowMs;
    return this.#view;
  }

  #checkpointRoot(manifest: Digest): ServedNode | undefined {
    return this.#checkpoints.lookup(ROOT_NODE_ID, hexOf(manifest));
  }

  #listed(shown: Shown): ServedNode {
    if (shown.kind !== 'checkpoint') return this.#describe(shown);
    return this.#checkpointRoot(shown.manifest) ?? { ...this.#base(0n), type: 'dir', nodeId: 0, ino: UNKNOWN_INO };
  }

  #describe(node: Folder | Link): ServedNode {
    const { nodeId } = node;
    const base = { ...this.#base(node.mtimeNsec), nodeId, ino: nodeId };
    if (node.kind === 'folder') return { ...base, type: 'dir' };
    return { ...base, type: 'symlink', mode: 0o777, sizeBytes: node.target.length };
  }

  #base(mtimeNsec: bigint): Omit<ServedNode, 'type' | 'nodeId' | 'ino'> {
    const nsec = ((mtimeNsec % NSEC) + NSEC) % NSEC;
    const time = { mtimeSec: Number((mtimeNsec - nsec) / NSEC), mtimeNsec: Number(nsec) };
    return { ...this.#owner, ...time, mode: 0o755, sizeBytes: 0, nlink: 1 };
  }
}

/** Whether an id is of a folder or link above the checkpoints. */
function isOurs(nodeId: number): boolean {
  return nodeId < POSITION_SPAN;
}
