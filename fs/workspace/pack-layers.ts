import { indexLayer } from '../../index/layer-index.ts';
import type { ByteString } from '../../store/byte-string.ts';
import { BlobIngest } from '../../store/blobs.ts';
import { layerDescriptor, type CheckpointLayer } from '../../store/checkpoint.ts';
import type { PackedEntry } from '../../store/entry.ts';
import { collectLayer } from '../../store/layers/layer-contents.ts';
import { LayerWriter } from '../../store/layers/layer-writer.ts';
import type { Layout } from '../../store/layout.ts';
import type { TreeSource } from '../tree/index-checkpoint.ts';
import type { LayerPlan } from './plan-layers.ts';
import { PresentFiles } from './present-files.ts';
import type { OpenContent, WorkNode } from './work-tree.ts';

/** Something worth telling while a long command runs. */
export type SaveEvent =
  | { kind: 'packing'; title: string; entriesDone: number; entryCount: number }
  | { kind: 'packed'; title: string; sizeBytes: number };

export interface PackedLayer {
  layer: CheckpointLayer;
  entries: readonly PackedEntry[];
  /** Files that disappeared before they were packed. */
  gone: readonly ByteString[];
}

export interface PackOptions {
  /** Undefined when the file is gone. */
  openContent: (node: WorkNode) => OpenContent | undefined;
  onEvent: (event: SaveEvent) => void;
}

/** How often progress is told, in entries. */
const EVENT_EVERY = 512;

/** Writes one planned layer into the store and into the index, in this order, each durable before the next. */
export async function packLayer(
  source: TreeSource,
  layout: Layout,
  plan: LayerPlan<WorkNode>,
  options: PackOptions,
): Promise<PackedLayer> {
  await using ingest = await BlobIngest.create(source.store.blobs, layout.ingestDir);
  const entries: PackedEntry[] = [];
  using files = new PresentFiles(options.openContent);
  await using writer = await LayerWriter.create(ingest, {
    tempDir: layout.ingestDir,
    onEntry: (entry) => {
      entries.push(entry);
      if (entries.length % EVENT_EVERY !== 0) return;
      options.onEvent({
        kind: 'packing',
        title: plan.title,
        entriesDone: entries.length,
        entryCount: plan.entries.length,
      });
    },
  });
  for (const planned of plan.entries) {
    const present = files.take(planned);
    if (present === undefined) continue;
    const { entry, content } = present;
    await writer.add(entry, content && { read: () => files.read(content) });
  }
  const packed = await writer.finish();
  await ingest.commit(packed.digest);
  const contents = await collectLayer(entries.map((entry) => ({ kind: 'entry', entry })));
  indexLayer(source.index, { digest: packed.digest, kind: 'estargz', ...contents });
  options.onEvent({ kind: 'packed', title: plan.title, sizeBytes: packed.sizeBytes });
  const { title } = plan;
  const layer = {
    title,
    descriptor: layerDescriptor(title, packed),
    diffId: packed.diffId,
    fileCount: packed.fileCount,
  };
  return { layer, entries, gone: files.gone };
}
