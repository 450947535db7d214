import { indexLayer, StreamedLayer } from '../../index/layer-index.ts';
import { BlobIngest } from '../../store/blob-ingest.ts';
import type { ByteString } from '../../store/byte-string.ts';
import { layerDescriptor, type CheckpointLayer } from '../../store/checkpoint.ts';
import type { PackedEntry } from '../../store/entry.ts';
import { faultPoint } from '../../store/fault-point.ts';
import { collectLayer, type LayerItem } from '../../store/layers/layer-contents.ts';
import { LayerWriter } from '../../store/layers/layer-writer.ts';
import type { PackPool } from '../../store/layers/pack-pool.ts';
import type { Layout } from '../../store/layout.ts';
import type { ContentReader } from '../contents/content-reader.ts';
import type { TreeSource } from '../tree/index-checkpoint.ts';
import { MemberCopier } from './copy-members.ts';
import { EarlierFiles } from './earlier-files.ts';
import { arrange, type RankOf } from './first-files.ts';
import type { LayerPlan, PlannedEntry } from './plan-layers.ts';
import { PresentFiles } from './present-files.ts';
import type { WorkNode, WorkTree } from './work-tree.ts';

/** Something worth telling while a long command runs. */
export type SaveEvent =
  | { kind: 'packing'; title: string; entriesDone: number; entryCount: number; bytesDone: number; sizeBytes: number }
  | { kind: 'packed'; title: string; sizeBytes: number };

export interface PackedLayer {
  layer: CheckpointLayer;
  /** What the layer takes in the store. */
  storedBytes: number;
  entries: readonly PackedEntry[];
  /** Files that disappeared before they were packed. */
  gone: readonly ByteString[];
  /** Files that were being written all the while; what was packed need not be of one moment. */
  unsteady: readonly ByteString[];
}

export interface PackOptions {
  tree: WorkTree;
  reader: ContentReader;
  pool: PackPool;
  /** Whether a layer may be stored as a recipe, with what did not change left where it is. */
  mayBeThin: boolean;
  /** How early each file is wanted. */
  rankOf: RankOf<WorkNode>;
  onEvent: (event: SaveEvent) => void;
}

/** How often progress is told, in entries. */
const EVENT_EVERY = 256;

/** Writes one planned layer into the store and into the index, in this order, each durable before the next. */
export async function packLayer(
  source: TreeSource,
  layout: Layout,
  plan: LayerPlan<WorkNode>,
  { tree, reader, pool, mayBeThin, rankOf, onEvent }: PackOptions,
): Promise<PackedLayer> {
  const { title } = plan;
  await using ingest = await BlobIngest.create(source.store.blobs, layout.ingestDir, { mayBeThin });
  const entries: PackedEntry[] = [];
  const unsteady: ByteString[] = [];
  using earlier = new EarlierFiles(source);
  const files = new PresentFiles(tree, reader, earlier);
  const canCopy = plan.entries.some(({ stored }) => stored !== undefined);
  const tell = progressTeller(plan, onEvent);
  using rows = plan.entries.some(({ replaces }) => replaces) ? undefined : new StreamedLayer(source.index);
  const { first, rest } = arrange(plan.entries, rankOf);
  await using writer = await LayerWriter.create(ingest, {
    pool,
    hasPrioritised: first.length > 0,
    onEntry: (entry) => {
      entries.push(entry);
      rows?.add(entry);
      tell(entry);
    },
    onGone: (path) => void files.gone.push(path),
    onChanged: (path, { isUnsteady }) => isUnsteady && void unsteady.push(path),
  });
  using copier = new MemberCopier(source);
  const writeAll = async (planned: readonly PlannedEntry<WorkNode>[]): Promise<void> => {
    for (let i = 0; i < planned.length;) {
      const copied = canCopy ? await copier.copy(writer, planned, i) : 0;
      i += copied;
      const next = copied > 0 ? undefined : planned[i++];
      const present = next && files.take(next);
      if (present !== undefined) await writer.add(present.entry, present.content, present.ifGone);
    }
  };
  await writeAll(first);
  if (first.length > 0) await writer.endPrioritised();
  await writeAll(rest);
  const packed = await writer.finish();
  faultPoint('save.layer-written');
  const storedBytes = await ingest.commit(packed.digest);
  faultPoint('save.layer-stored');
  const indexed = { digest: packed.digest, kind: 'estargz' } as const;
  if (rows !== undefined) rows.finish(indexed);
  else indexLayer(source.index, { ...indexed, ...(await collectLayer(entries.map(asItem))) });
  faultPoint('save.layer-indexed');
  onEvent({ kind: 'packed', title, sizeBytes: packed.sizeBytes });
  const descriptor = layerDescriptor(title, packed);
  const layer = { title, descriptor, diffId: packed.diffId, fileCount: packed.fileCount };
  return { layer, storedBytes, entries, gone: files.gone, unsteady };
}

function asItem(entry: PackedEntry): LayerItem {
  return { kind: 'entry', entry };
}

/** Counts entries and bytes as they are written. */
function progressTeller(
  { title, entries }: LayerPlan<WorkNode>,
  onEvent: (event: SaveEvent) => void,
): (entry: PackedEntry) => void {
  const sizeBytes = entries.reduce((sum, { entry }) => sum + entry.sizeBytes, 0);
  let entriesDone = 0;
  let bytesDone = 0;
  return (entry) => {
    entriesDone += 1;
    bytesDone += entry.sizeBytes;
    if (entriesDone % EVENT_EVERY !== 0 && entry.sizeBytes < 1 << 20) return;
    onEvent({ kind: 'packing', title, entriesDone, entryCount: entries.length, bytesDone, sizeBytes });
  };
}
