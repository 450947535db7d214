import { countOf, type Checkpoint, type CheckpointLayer } from '../../store/checkpoint.ts';

/** Number of files in a title's whole stack, on each of its deltas; a base says it with its own file count. */
export const STACK_FILE_COUNT = 'dev.bento.layer.stack-file-count';

/** What a save did to one title. */
export interface TitleReport {
  title: string;
  fileCount: number;
  /** Compressed bytes of the title's layers. */
  sizeBytes: number;
  layerCount: number;
  status: 'empty' | 'changed' | 'unchanged';
}

/** How many files the layers of one title show together. */
export function stackFileCount(stack: readonly CheckpointLayer[]): number {
  const top = stack.at(-1);
  const counted = top?.descriptor.annotations?.[STACK_FILE_COUNT];
  return counted === undefined ? (top?.fileCount ?? 0) : countOf(counted);
}

export function reportTitles(layers: readonly CheckpointLayer[], written: readonly CheckpointLayer[]): TitleReport[] {
  return [...new Set(layers.map((layer) => layer.title))].map((title) => {
    const stack = layers.filter((layer) => layer.title === title);
    const fileCount = stackFileCount(stack);
    const isChanged = written.some((layer) => layer.title === title);
    const status = fileCount === 0 && stack.length === 1 ? 'empty' : isChanged ? 'changed' : 'unchanged';
    return {
      title,
      fileCount,
      sizeBytes: sum(stack.map((layer) => layer.descriptor.size)),
      layerCount: stack.length,
      status,
    };
  });
}

/** Of the highest stack. */
export function heightOf({ layers }: Checkpoint): number {
  return Math.max(...layers.map(({ title }) => layers.filter((other) => other.title === title).length), 0);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
