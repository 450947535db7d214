import { openSync } from 'node:fs';

import { errnoOf } from './errors.ts';

/** @returns a descriptor, which the caller closes; undefined when there is no such file */
export function openIfThere(path: string, mode: 'r' | 'r+' = 'r'): number | undefined {
  try {
    return openSync(path, mode);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
