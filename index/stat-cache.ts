import type { ByteString } from '../store/byte-string.ts';
import { digestFromBytes, digestToBytes, type Digest } from '../store/digest.ts';
import type { IndexDatabase } from './database.ts';

/** Everything `stat` says that changes when a file's content might have. */
export interface FileStamp {
  dev: number;
  ino: number;
  sizeBytes: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
}

export interface HashedFile {
  path: ByteString;
  stamp: FileStamp;
  digest: Digest;
}

/**
 * A file that changed this shortly before it was hashed could change again without its time moving, so it is not
 * remembered (git calls such a file racily clean). Milliseconds; the kernel's clock ticks every 1 to 10.
 */
export const RACY_MS = 50;

interface StatRow {
  path: string;
  dev: number;
  ino: number;
  size: number;
  mtime_sec: number;
  mtime_nsec: number;
  ctime_sec: number;
  ctime_nsec: number;
  digest: Buffer;
}

/** What the files of one directory were when they were last hashed. */
export class StatCache {
  readonly #index: IndexDatabase;
  readonly #workspace: ByteString;
  #rows: Map<ByteString, StatRow> | undefined;

  /** @param workspace - absolute path of the directory that paths are relative to */
  constructor(index: IndexDatabase, workspace: ByteString) {
    this.#index = index;
    this.#workspace = workspace;
  }

  /** The digest of a file, if nothing `stat` tells has changed since it was hashed. */
  digestOf(path: ByteString, stamp: FileStamp): Digest | undefined {
    const row = this.#load().get(path);
    return row !== undefined && isSame(row, stamp) ? digestFromBytes(row.digest) : undefined;
  }

  /**
   * Remembers files hashed no earlier than `hashedAfterMs` (since 1970); those that changed just before are left out.
   * Rows of files that are no longer there stay until `forget`.
   */
  remember(files: Iterable<HashedFile>, hashedAfterMs: number): void {
    const { db } = this.#index;
    const insert = db.prepare('INSERT OR REPLACE INTO stat_cache VALUES (?,?,?,?,?,?,?,?,?,?)');
    const limitSec = (hashedAfterMs - RACY_MS) / 1000;
    db.transaction(() => {
      for (const { path, stamp: s, digest } of files) {
        if (Math.max(s.mtimeSec + s.mtimeNsec / 1e9, s.ctimeSec + s.ctimeNsec / 1e9) > limitSec) continue;
        insert.run(
          this.#workspace,
          path,
          s.dev,
          s.ino,
          s.sizeBytes,
          s.mtimeSec,
          s.mtimeNsec,
          s.ctimeSec,
          s.ctimeNsec,
          digestToBytes(digest),
        );
      }
    }).immediate();
    this.#rows = undefined;
  }

  /** Drops everything about this directory. */
  forget(): void {
    this.#index.db.prepare('DELETE FROM stat_cache WHERE workspace = ?').run(this.#workspace);
    this.#rows = undefined;
  }

  #load(): Map<ByteString, StatRow> {
    if (this.#rows === undefined) {
      const rows = this.#index.db
        .prepare('SELECT * FROM stat_cache WHERE workspace = ?')
        .all(this.#workspace) as StatRow[];
      this.#rows = new Map(rows.map((row) => [row.path, row]));
    }
    return this.#rows;
  }
}

function isSame(row: StatRow, stamp: FileStamp): boolean {
  return (
    row.size === stamp.sizeBytes &&
    row.mtime_nsec === stamp.mtimeNsec &&
    row.mtime_sec === stamp.mtimeSec &&
    row.ctime_nsec === stamp.ctimeNsec &&
    row.ctime_sec === stamp.ctimeSec &&
    row.ino === stamp.ino &&
    row.dev === stamp.dev
  );
}
