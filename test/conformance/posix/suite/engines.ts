/** What the checks run on besides the disk's own file system. */
export interface Engine {
  readonly name: string;
  /** What `bento fork` is told. */
  readonly forkOptions: readonly string[];
  /** Whether a change of one name of a checkpoint's file leaves the others behind (overlayfs without `index`). */
  readonly breaksHardLinks?: boolean;
}

export const ENGINES: readonly Engine[] = [
  { name: 'overlay', forkOptions: ['--engine', 'overlay'], breaksHardLinks: true },
  { name: 'cow', forkOptions: ['--engine', 'cow'] },
];
