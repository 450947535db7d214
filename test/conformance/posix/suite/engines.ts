/** What the checks run on besides the disk's own file system. */
export interface Engine {
  readonly name: string;
  /** What `bento fork` is told. */
  readonly forkOptions: readonly string[];
}

export const ENGINES: readonly Engine[] = [{ name: 'overlay', forkOptions: [] }];
