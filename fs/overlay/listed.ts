import type { ByteString } from '../../store/byte-string.ts';
import type { LowerObject } from './lower-tree.ts';

/** An entry of a directory as it shows. */
export interface Listed {
  name: ByteString;
  /** Where a listing goes on after it; below 2^53, never 0. */
  cookie: number;
  /** Set when it is as the checkpoint has it. */
  below: LowerObject | undefined;
}

/** 51 bits of a name (FNV-1a, twice), above all positions in a directory of a checkpoint. */
export function cookieOf(name: ByteString): number {
  let [low, high] = [0x811c9dc5, 0x01000193];
  for (let i = 0; i < name.length; i += 1) {
    low = Math.imul(low ^ name.charCodeAt(i), 0x01000193);
    high = Math.imul(high ^ name.charCodeAt(i) ^ (i << 8), 0x85ebca6b);
  }
  return 2 ** 52 + (low >>> 0) * 2 ** 19 + (high >>> 13);
}
