/** What a check saw: names of errnos, modes, sizes, texts. Never a time or an inode number, only how they relate. */
export type Observation =
  string | number | boolean | null | readonly Observation[] | { readonly [name: string]: Observation };

/**
 * One claim of POSIX or of a man page. It runs with its own fixture (fixture.ts) as working directory, so it uses relative
 * names; what it opens, maps or locks is taken back behind it.
 */
export interface Check {
  /** What the standard says. */
  readonly claim: string;
  readonly run: () => Observation;
  /** What ext4 must show; every other file system must show the same. */
  readonly expected: Observation;
  /** Whether the fixture shall have the large file. */
  readonly large: boolean;
}

export interface Group {
  readonly name: string;
  /** All checks share one fixture: they change nothing. */
  readonly shared?: boolean;
  readonly checks: readonly Check[];
}

export function check(claim: string, run: () => Observation, expected: Observation): Check {
  return { claim, run, expected, large: false };
}

/** A check whose fixture has `large`, a file of LARGE_BYTES. */
export function checkLarge(claim: string, run: () => Observation, expected: Observation): Check {
  return { claim, run, expected, large: true };
}
