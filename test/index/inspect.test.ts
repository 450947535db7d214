import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { IndexDatabase } from '../../index/database.ts';
import { inspectIndex } from '../../index/inspect.ts';
import { SCHEMA_VERSION } from '../../index/schema.ts';
import { newFolder } from '../fixtures/workspaces.ts';

test('inspectIndex() tells what an index is without touching it', async (t) => {
  const folder = newFolder(t);
  const path = join(folder, 'index.db');
  t.deepEqual(inspectIndex(folder), { path, state: 'none', version: undefined, sizeBytes: 0 });
  t.deepEqual(readdirSync(folder), []);

  const open = await IndexDatabase.open(folder);
  t.is(inspectIndex(folder).state, 'usable', 'while it is in use');
  open.db.exec(`CREATE TABLE more (text); INSERT INTO more VALUES ('${'x'.repeat(100_000)}')`);
  open.close();
  const whole = inspectIndex(folder);
  t.like(whole, { state: 'usable', version: SCHEMA_VERSION });
  t.true(whole.sizeBytes > 100_000);
  const names = readdirSync(folder).sort();

  const bytes = readFileSync(path);
  const older = Buffer.from(bytes);
  older.writeUInt32BE(SCHEMA_VERSION - 1, 60);
  writeFileSync(path, older);
  t.like(inspectIndex(folder), { state: 'other-version', version: SCHEMA_VERSION - 1 });
  writeFileSync(path, bytes);
  truncateSync(path, bytes.length - 4096);
  t.is(inspectIndex(folder).state, 'damaged', 'cut off');
  writeFileSync(path, 'SQLite format 3');
  t.is(inspectIndex(folder).state, 'damaged', 'no header');
  writeFileSync(path, Buffer.alloc(8192, 'x'));
  t.is(inspectIndex(folder).state, 'damaged');
  t.deepEqual(readdirSync(folder).sort(), names);
});
