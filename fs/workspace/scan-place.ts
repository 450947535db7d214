import { join } from 'node:path';

import { digestOf, hexOf } from '../../store/digest.ts';

/** Where the scan of a directory is kept. @param dir - absolute */
export function scanFile(cacheDir: string, dir: string): string {
  return join(cacheDir, 'scans', hexOf(digestOf(dir)).slice(0, 32));
}
