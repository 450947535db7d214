import Database from 'better-sqlite3';

/**
 * A process that uses a database others use too: `make`, `write <name> <rows>`, `read <rows>` until there are so many, and
 * `check`. It ends with an error when the database is not what it must be.
 */
const [action = '', file = '', ...rest] = process.argv.slice(2);
const BUSY_MS = 60_000;
const ROWS_PER_COMMIT = 3;

function open(): Database.Database {
  const db = new Database(file, { timeout: BUSY_MS });
  useWal(db);
  db.pragma('synchronous = FULL');
  db.exec('CREATE TABLE IF NOT EXISTS rows (name TEXT, number INTEGER, filler BLOB, PRIMARY KEY (name, number))');
  return db;
}

/** Of several that open a new database at once, SQLite refuses all but one without waiting. */
function useWal(db: Database.Database): void {
  for (const endMs = Date.now() + BUSY_MS; ;) {
    try {
      const mode = db.pragma('journal_mode = WAL', { simple: true });
      if (mode !== 'wal') throw new Error(`journal_mode is ${String(mode)}`);
      return;
    } catch (error) {
      if ((error as { code?: string }).code !== 'SQLITE_BUSY' || Date.now() > endMs) throw error;
    }
  }
}

/** Adds rows, some at a time, and changes what is there. */
function write(db: Database.Database, name: string, rowCount: number): void {
  const insert = db.prepare('INSERT INTO rows VALUES (?, ?, zeroblob(?))');
  const change = db.prepare('UPDATE rows SET filler = zeroblob(?) WHERE name = ? AND number = ?');
  for (let number = 0; number < rowCount; number += ROWS_PER_COMMIT) {
    db.transaction(() => {
      for (let at = number; at < Math.min(number + ROWS_PER_COMMIT, rowCount); at++)
        insert.run(name, at, (at * 37) % 3000);
      change.run((number * 11) % 5000, name, number >> 1);
    }).immediate();
    console.log(`committed ${Math.min(number + ROWS_PER_COMMIT, rowCount)}`);
  }
}

/** Rows only ever become more, and each writer's are there without a gap. */
function read(db: Database.Database, rowCount: number): void {
  const look = db.prepare('SELECT count(*) AS count, max(number) + 1 AS end FROM rows WHERE name LIKE ? GROUP BY name');
  for (let before = 0; before < rowCount;) {
    const writers = look.all('writer-%') as { count: number; end: number }[];
    for (const { count, end } of writers) if (count !== end) throw new Error(`${count} rows up to number ${end}`);
    const now = writers.reduce((sum, { count }) => sum + count, 0);
    if (now < before) throw new Error(`${now} rows, where there were ${before}`);
    before = now;
  }
}

function check(db: Database.Database): void {
  const result = db.pragma('integrity_check', { simple: true });
  if (result !== 'ok') throw new Error(String(result));
  const rows = db.prepare('SELECT name, count(*) AS count, sum(length(filler)) AS bytes FROM rows GROUP BY name').all();
  console.log(JSON.stringify(rows));
  db.pragma('wal_checkpoint(TRUNCATE)');
}

const db = open();
if (action === 'write') write(db, rest[0] ?? '', Number(rest[1]));
else if (action === 'read') read(db, Number(rest[0]));
else if (action === 'check') check(db);
db.close();
