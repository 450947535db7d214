import type { BenchOptions } from './run.ts';

/** How much is written. */
export interface WritingSize {
  untarFiles: number;
  /** Of the project that `npm ci` installs, at least. */
  npmFiles: number;
  repoFiles: number;
  sequentialMib: number;
  /** Files of the checkpoints that are forked against the clock. */
  few: number;
  many: number;
  openFiles: number;
  changedMib: number;
  forkCount: number;
}

/** Trees of this many files and more are the real thing; with smaller ones all is small, to see that it runs. */
const FULL_FILES = 30_000;

export function writingSize([few, many]: BenchOptions['fileCounts']): WritingSize {
  if (many >= FULL_FILES) {
    return {
      untarFiles: 10_000,
      npmFiles: FULL_FILES,
      repoFiles: 4_000,
      sequentialMib: 500,
      few: 100,
      many: 100_000,
      openFiles: FULL_FILES,
      changedMib: 50,
      forkCount: 100,
    };
  }
  return {
    untarFiles: many,
    npmFiles: many,
    repoFiles: few,
    sequentialMib: 20,
    few,
    many,
    openFiles: many,
    changedMib: 5,
    forkCount: 5,
  };
}
