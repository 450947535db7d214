import { entryId } from '../../index/rows.ts';
import type { ByteString } from '../../store/byte-string.ts';
import type { Checkpoint, CheckpointLayer } from '../../store/checkpoint.ts';
import { parseDigest } from '../../store/digest.ts';
import type { PackedEntry } from '../../store/entry.ts';
import { BentoError } from '../../store/errors.ts';
import { readToc, type LayerToc } from '../../store/layers/layer-reader.ts';
import { prioritisedFiles } from '../../store/layers/prefetch.ts';
import { encodeTarHeader } from '../../store/layers/tar-header.ts';
import { KEYS } from '../../store/manifest.ts';
import type { Store } from '../../store/store.ts';
import { loadFirstReads } from '../contents/first-reads.ts';
import type { CheckpointNode } from '../tree/checkpoint-tree.ts';
import type { Change } from '../tree/diff-trees.ts';
import type { TreeSource } from '../tree/index-checkpoint.ts';
import { usualRank, type RankOf } from './first-files.ts';
import type { LayerPlan, PlannedEntry } from './plan-layers.ts';
import type { WorkNode } from './work-tree.ts';

/** Above any position in a list of what was read or written first. */
const LATER = 2 ** 32;

interface Head {
  checkpoint: Checkpoint;
}

export interface FirstOrderOptions {
  head: Head | undefined;
  changes: readonly Change<CheckpointNode, WorkNode>[];
  /** The layers are written anew, not put on those of the head. */
  isRepack: boolean;
}

/**
 * In which order the files of new layers are wanted: first what was read first of the head's layers while they were mounted,
 * then, where layers are written anew, what they had first, then what tools usually read first.
 *
 * Only an order: it never makes a new layer. A layer that would be written anew as it is keeps the order it has, so that it
 * comes out the same.
 */
export class FirstOrder {
  readonly #read = new Map<number, number>();
  readonly #before = new Map<ByteString, number>();
  readonly #written = new Map<ByteString, number>();
  /** Layers of the head that are their title's only one. */
  readonly #alone = new Map<string, LayerToc>();

  static async of(source: TreeSource, { head, changes, isRepack }: FirstOrderOptions): Promise<FirstOrder> {
    const order = new FirstOrder();
    // What lies on top changed last, and is what is seen.
    const layers = [...(head?.checkpoint.layers ?? [])].reverse();
    for (const layer of layers) order.#addRead(source, layer);
    if (!isRepack) return order;
    for (const { path, before } of changes) if (before !== undefined) order.#before.set(path, before.id);
    for (const layer of layers) {
      const toc = await tocOf(source.store, layer);
      if (toc === undefined) continue;
      for (const { path } of prioritisedFiles(toc)) addLast(order.#written, path);
      if (layers.filter(({ title }) => title === layer.title).length === 1) order.#alone.set(layer.title, toc);
    }
    return order;
  }

  /** What tells how early a file of a planned layer is wanted. */
  ranksOf(plan: LayerPlan<WorkNode>): RankOf<WorkNode> {
    const same = this.#alone.get(plan.title);
    if (same !== undefined && isAsBefore(plan.entries, same.entries)) {
      const kept = new Map<ByteString, number>();
      for (const { path } of prioritisedFiles(same)) addLast(kept, path);
      return ({ entry }) => kept.get(entry.path);
    }
    return (planned) => this.#rankOf(planned);
  }

  #addRead({ store, entries }: TreeSource, { descriptor }: CheckpointLayer): void {
    const positions = loadFirstReads(store.cacheDir, descriptor.digest);
    const number = positions.length === 0 ? undefined : entries.layer(descriptor.digest)?.number;
    if (number === undefined) return;
    for (const position of positions) addLast(this.#read, entryId(number, position));
  }

  #rankOf({ entry, stored, earlier }: PlannedEntry<WorkNode>): number | undefined {
    const id = stored?.id ?? earlier?.id ?? this.#before.get(entry.path);
    const read = id === undefined ? undefined : this.#read.get(id);
    if (read !== undefined) return read;
    const written = this.#written.get(entry.path);
    if (written !== undefined) return LATER + written;
    const usual = usualRank(entry.path);
    return usual === undefined ? undefined : 2 * LATER + usual;
  }
}

function addLast<Key>(ranks: Map<Key, number>, key: Key): void {
  if (!ranks.has(key)) ranks.set(key, ranks.size);
}

/** Undefined for a layer that has none, or none that can be read: then there is nothing to learn from it. */
async function tocOf({ blobs }: Store, { descriptor }: CheckpointLayer): Promise<LayerToc | undefined> {
  const { digest, annotations } = descriptor;
  const tocDigest = annotations?.[KEYS.tocDigest];
  if (tocDigest === undefined) return undefined;
  try {
    const blob = blobs.open(digest);
    try {
      return await readToc(blob, parseDigest(tocDigest, KEYS.tocDigest));
    } finally {
      blob.close();
    }
  } catch (error) {
    if (error instanceof BentoError) return undefined;
    throw error;
  }
}

/** Whether a layer would say the same again. */
function isAsBefore(planned: readonly PlannedEntry<WorkNode>[], before: readonly PackedEntry[]): boolean {
  if (planned.length !== before.length) return false;
  const byPath = new Map(before.map((entry) => [entry.path, entry]));
  return planned.every(({ entry, stored }) => {
    const old = byPath.get(entry.path);
    if (old === undefined || !encodeTarHeader(entry).equals(encodeTarHeader(old))) return false;
    return entry.type !== 'file' || entry.sizeBytes === 0 || stored?.digest === old.digest;
  });
}
