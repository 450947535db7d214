import { numberOf } from '../../index/rows.ts';
import type { Chunk } from '../../store/entry.ts';
import { BentoError } from '../../store/errors.ts';
import type { EarlierChunk, EarlierContent } from '../../store/layers/earlier-chunk.ts';
import { LazyFile } from '../../store/lazy-file.ts';
import { memberBytesMax } from '../../store/layers/gzip-member.ts';
import { CHUNK_BYTES } from '../../store/layers/toc.ts';
import { layerFile, openLayer, type LayerFile, type OpenLayer } from '../contents/content-reader.ts';
import type { CheckpointNode } from '../tree/checkpoint-tree.ts';
import type { TreeSource } from '../tree/index-checkpoint.ts';

/**
 * What large files were in the head, chunk by chunk, for writing them anew: what did not change is neither compressed again
 * nor kept twice. Only a shortcut: whatever of the head cannot be read is done without.
 */
export class EarlierFiles {
  readonly #source: TreeSource;
  readonly #layers = new Map<number, OpenLayer | undefined>();

  constructor(source: TreeSource) {
    this.#source = source;
  }

  of(node: CheckpointNode): EarlierContent | undefined {
    const layer = this.#open(numberOf(node.id));
    if (layer?.packing !== 'gzip') return undefined;
    const isOurs = ({ innerOffset, sizeBytes }: Chunk): boolean => innerOffset === 0 && sizeBytes <= CHUNK_BYTES;
    const chunks = this.#source.entries.chunks(node.id).filter(isOurs);
    const byOffset = new Map(chunks.map((chunk) => [chunk.fileOffset, chunk]));
    return { chunkAt: (fileOffset) => earlierChunk(layer, byOffset.get(fileOffset)) };
  }

  close(): void {
    for (const layer of this.#layers.values()) layer?.blob.close();
    this.#layers.clear();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #open(number: number): OpenLayer | undefined {
    if (this.#layers.has(number)) return this.#layers.get(number);
    const layer = orNothing(() => openWhole(layerFile(this.#source.store, this.#source.entries, number)));
    this.#layers.set(number, layer);
    return layer;
  }
}

/** No recipe may be of bytes that have to be fetched, or may turn out to be wrong. */
function openWhole(file: LayerFile): OpenLayer | undefined {
  const layer = openLayer(file);
  if (!(layer.blob instanceof LazyFile)) return layer;
  layer.blob.close();
  return undefined;
}

/** A member that is said to be longer than it can be ends with others. */
function earlierChunk({ blob }: OpenLayer, chunk: Chunk | undefined): EarlierChunk | undefined {
  if (chunk === undefined) return undefined;
  const { digest, sizeBytes, blobOffset, blobBytes } = chunk;
  return orNothing(() => {
    const ranges = blob.ranges(blobOffset, Math.min(blobBytes, memberBytesMax(sizeBytes)));
    return { digest, sizeBytes, ranges };
  });
}

function orNothing<Result>(make: () => Result): Result | undefined {
  try {
    return make();
  } catch (error) {
    if (error instanceof BentoError) return undefined;
    throw error;
  }
}
