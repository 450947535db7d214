import { closeSync, existsSync, mkdirSync, openSync, readSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

import type Sqlite from 'better-sqlite3';

import { BentoError, describeSystemError } from '../store/errors.ts';
import { lockFile, lockFileNow } from '../store/lock.ts';
import { SCHEMA, SCHEMA_VERSION } from './schema.ts';

/** How long a writer waits for another process's transaction, in milliseconds. */
const BUSY_TIMEOUT_MS = 30_000;

let loaded: typeof Sqlite | undefined;

/** Loaded when the first index is opened: a workspace in which nothing changed needs none. */
function sqlite(): typeof Sqlite {
  return (loaded ??= createRequire(import.meta.url)('better-sqlite3') as typeof Sqlite);
}

function isSqliteError(error: unknown): error is InstanceType<typeof Sqlite.SqliteError> {
  return loaded !== undefined && error instanceof loaded.SqliteError;
}

/** Whether an error says that the database file itself is damaged, not that the query was wrong. */
export function isDamage(error: unknown): boolean {
  if (!isSqliteError(error)) return false;
  return error.code.startsWith('SQLITE_CORRUPT') || error.code === 'SQLITE_NOTADB';
}

/** A full disk or a locked file, said clearly; anything else as it came. */
export function describeIndexError(error: unknown, path: string): unknown {
  if (!isSqliteError(error)) return describeSystemError(error, `using the index ${path}`);
  if (error.code === 'SQLITE_FULL') {
    return new BentoError('NO_SPACE', `no space left while writing the index ${path}`, {
      hint: 'free some space and run the command again; nothing was changed',
      cause: error,
    });
  }
  if (error.code.startsWith('SQLITE_READONLY') || error.code.startsWith('SQLITE_CANTOPEN')) {
    return new BentoError('PERMISSION_DENIED', `the index ${path} cannot be written`, {
      hint: 'the store must be writable for the user who runs the command',
      cause: error,
    });
  }
  return new BentoError('INDEX_BROKEN', `index ${path}: ${error.message}`, {
    hint: 'it is a cache: delete it and run the command again',
    cause: error,
  });
}

/**
 * The index of a store: one SQLite file that says which layer holds which path. It is a cache. Deleted, damaged or of
 * another version, it is made anew, and filled again from the layers as they are needed.
 */
export class IndexDatabase {
  readonly path: string;
  #db: Sqlite.Database | undefined;
  #replaced: boolean;

  /** @param db - absent: opened when it is first used */
  private constructor(path: string, db: Sqlite.Database | undefined, replaced: boolean) {
    this.path = path;
    this.#db = db;
    this.#replaced = replaced;
  }

  get db(): Sqlite.Database {
    return (this.#db ??= tryOpen(this.path) ?? this.#replace());
  }

  /** Set when an unusable file was replaced; people are told. */
  get replaced(): boolean {
    return this.#replaced;
  }

  /** The header promised more than the file keeps. */
  #replace(): Sqlite.Database {
    using _lock = lockFileNow(join(dirname(this.path), 'index.lock'));
    const found = tryOpen(this.path);
    this.#replaced = found === undefined;
    return found ?? create(this.path);
  }

  static async open(cacheDir: string): Promise<IndexDatabase> {
    makeFolder(cacheDir);
    const path = join(cacheDir, 'index.db');
    if (isWhole(path, SCHEMA_VERSION)) return new IndexDatabase(path, undefined, false);
    const usable = tryOpen(path);
    if (usable !== undefined) return new IndexDatabase(path, usable, false);
    using _lock = await lockFile(join(cacheDir, 'index.lock')); // one process makes the new file, the others find it
    const existed = existsSync(path);
    const found = existed ? await retryOpen(path) : undefined;
    return new IndexDatabase(path, found ?? create(path), existed && found === undefined);
  }

  /** An empty one of the caller's own, which is gone when it is closed. */
  static scratch(): IndexDatabase {
    const db = new (sqlite())(''); // SQLite keeps it in memory, and in an unnamed file what does not fit
    db.exec(SCHEMA);
    return new IndexDatabase('', db, false);
  }

  /** Deletes the files; processes that have them open keep what they see. */
  static remove(cacheDir: string): void {
    for (const suffix of ['', '-wal', '-shm']) rmSync(join(cacheDir, `index.db${suffix}`), { force: true });
  }

  close(): void {
    this.#db?.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function makeFolder(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o755 });
  } catch (error) {
    throw describeSystemError(error, `making ${dir}`);
  }
}

function tryOpen(path: string): Sqlite.Database | undefined {
  if (!isWhole(path)) return undefined;
  let db: Sqlite.Database | undefined;
  try {
    db = new (sqlite())(path, { fileMustExist: true, timeout: BUSY_TIMEOUT_MS });
    configure(db);
    if (db.pragma('user_version', { simple: true }) === SCHEMA_VERSION) return db;
  } catch (error) {
    if (!isDamage(error)) throw describeIndexError(error, path);
  }
  db?.close();
  return undefined;
}

/** Another process's checkpoint writes the header before the pages it counts: look again before calling a file cut off. */
async function retryOpen(path: string): Promise<Sqlite.Database | undefined> {
  for (let tries = 0; tries < 10; tries += 1) {
    const db = tryOpen(path);
    if (db !== undefined) return db;
    await setTimeout(50);
  }
  return undefined;
}

function create(path: string): Sqlite.Database {
  for (const suffix of ['', '-wal', '-shm']) rmSync(`${path}${suffix}`, { force: true });
  try {
    const db = new (sqlite())(path, { timeout: BUSY_TIMEOUT_MS });
    configure(db);
    db.exec(SCHEMA);
    db.pragma(`user_version = ${SCHEMA_VERSION}`);
    return db;
  } catch (error) {
    throw describeIndexError(error, path);
  }
}

/** `synchronous = NORMAL` may lose the newest transactions in a power cut but never tears: right for a cache. */
function configure(db: Sqlite.Database): void {
  db.pragma(`busy_timeout = ${BUSY_TIMEOUT_MS}`);
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = NORMAL');
  db.pragma('foreign_keys = OFF');
}

/**
 * Compares the page count in the header with the file's length, which SQLite itself does not do before it meets the
 * missing page.
 *
 * @param version - the user version it must have in the file itself; a newer one may still be in the log beside it
 * @see https://www.sqlite.org/fileformat.html 1.3, offsets 16 (page size), 28 (size in pages) and 60 (user version)
 */
function isWhole(path: string, version?: number): boolean {
  if (!existsSync(path)) return false;
  const header = Buffer.alloc(100);
  const fd = openSync(path, 'r');
  try {
    if (readSync(fd, header, 0, 100, 0) < 100) return false;
  } finally {
    closeSync(fd);
  }
  if (header.toString('latin1', 0, 15) !== 'SQLite format 3') return false;
  if (version !== undefined && header.readUInt32BE(60) !== version) return false;
  const pageBytes = header.readUInt16BE(16) === 1 ? 65536 : header.readUInt16BE(16);
  return statSync(path).size >= pageBytes * header.readUInt32BE(28);
}
