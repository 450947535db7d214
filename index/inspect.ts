import { closeSync, existsSync, openSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';

import { SCHEMA_VERSION } from './schema.ts';

const HEADER_BYTES = 100;

/** What can be seen of an index from outside. */
export interface IndexState {
  path: string;
  /**
   * - `none`: not made yet
   * - `usable`: as far as its header tells
   * - `other-version`: of another schema: made anew by who opens it
   * - `damaged`: no SQLite file, or cut off: made anew, too
   */
  state: 'none' | 'usable' | 'other-version' | 'damaged';
  version: number | undefined;
  /** With its log. */
  sizeBytes: number;
}

/**
 * Looks at an index without opening it as a database, which would make files, and without making one.
 *
 * @throws what reading the file throws
 * @see https://www.sqlite.org/fileformat.html 1.3, offsets 16 (page size), 28 (size in pages) and 60 (user version)
 */
export function inspectIndex(cacheDir: string): IndexState {
  const path = join(cacheDir, 'index.db');
  if (!existsSync(path)) return { path, state: 'none', version: undefined, sizeBytes: 0 };
  const header = readHeader(path);
  const logBytes = statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
  const sizeBytes = statSync(path).size;
  const seen = { path, sizeBytes: sizeBytes + logBytes };
  if (header.length < HEADER_BYTES || header.toString('latin1', 0, 15) !== 'SQLite format 3') {
    return { ...seen, state: 'damaged', version: undefined };
  }
  const pageBytes = header.readUInt16BE(16) === 1 ? 65_536 : header.readUInt16BE(16);
  const version = header.readUInt32BE(60);
  const isWhole = sizeBytes >= pageBytes * header.readUInt32BE(28);
  // what is in the log may not have reached the file: somebody is using it just now
  const isCurrent = version === SCHEMA_VERSION || logBytes > 0;
  return { ...seen, version, state: !isWhole ? 'damaged' : isCurrent ? 'usable' : 'other-version' };
}

function readHeader(path: string): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  const fd = openSync(path, 'r');
  try {
    return header.subarray(0, readSync(fd, header, 0, HEADER_BYTES, 0));
  } finally {
    closeSync(fd);
  }
}
