import type { ByteString } from '../../store/byte-string.ts';
import { digestFromBytes, digestToBytes } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { FileStat } from '../../store/file-calls.ts';
import type { LowerEntry, LowerObject, LowerTree } from '../overlay/lower-tree.ts';
import type { LayerEntry } from '../overlay/marks.ts';
import { attrOf } from './attributes.ts';
import type { ServedNode } from './served-tree.ts';
import type { StoreTree } from './store-tree.ts';

const ROOT_NODE_ID = 1;

/** A checkpoint as what lies below a workspace. */
export class CheckpointBelow implements LowerTree {
  readonly root: LowerObject;
  readonly #tree: StoreTree;

  /** @param tree - one that shows this checkpoint alone */
  constructor(tree: StoreTree) {
    this.#tree = tree;
    const stat = this.stat(ROOT_NODE_ID);
    if (stat === undefined) throw new BentoError('INDEX_BROKEN', 'the index has no root for the checkpoint of a fork');
    this.root = { id: ROOT_NODE_ID, stat };
  }

  lookup(dir: number, name: ByteString): LowerObject | undefined {
    const node = this.#tree.lookup(dir, name);
    return node && { id: node.nodeId, stat: statOfNode(node) };
  }

  stat(id: number): FileStat | undefined {
    const node = this.#tree.getattr(id);
    return node && statOfNode(node);
  }

  list(dir: number): readonly LowerEntry[] {
    const entries = this.#tree.readdir(dir) ?? [];
    return entries.map(({ name, node }) => ({ name, id: node.nodeId, stat: statOfNode(node) }));
  }

  link(id: number): Buffer {
    return this.#tree.readlink(id) ?? Buffer.alloc(0);
  }

  read(id: number, offset: number, out: Buffer): number {
    return this.#tree.readWaiting(id, offset, out);
  }

  readNow(id: number, offset: number, out: Buffer): number | 'slow' {
    return this.#tree.read(id, offset, out);
  }

  xattrs(id: number): ReadonlyMap<ByteString, Buffer> | undefined {
    return this.#tree.xattrs(id);
  }

  paths(id: number): readonly ByteString[] {
    return this.#tree.paths(id);
  }

  entry(id: number): LayerEntry {
    const found = this.#tree.layerEntry(id);
    if (found === undefined) throw new BentoError('INDEX_BROKEN', `the index has no layer for object ${id}`);
    return { layer: digestToBytes(found.digest), position: found.position };
  }

  find({ layer, position }: LayerEntry): number | undefined {
    return this.#tree.ofLayerEntry(digestFromBytes(layer), position);
  }
}

function statOfNode(node: ServedNode): FileStat {
  const { rdev: _rdev, ...attr } = attrOf(node);
  const stat = Object.assign(new FileStat(), attr);
  if (node.rdev !== undefined) {
    stat.rdevMajor = node.rdev.major;
    stat.rdevMinor = node.rdev.minor;
  }
  return stat;
}
