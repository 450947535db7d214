import { execFile } from 'node:child_process';
import { readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import test from 'ava';
import Database from 'better-sqlite3';

import { IndexDatabase } from '../../index/database.ts';
import { indexLayer, layerNumber } from '../../index/layer-index.ts';
import { SCHEMA_VERSION } from '../../index/schema.ts';
import { digestOf } from '../../store/digest.ts';
import { entryOf } from '../store/layers/layer-fixtures.ts';
import { newFolder } from '../fixtures/workspaces.ts';

const CHILD = fileURLToPath(new URL('./open-child.js', import.meta.url));
const LAYER = digestOf('a layer');

/** An index with some rows, closed again; returns the path of its file. */
async function makeIndex(cacheDir: string): Promise<string> {
  using index = await IndexDatabase.open(cacheDir);
  const entries = Array.from({ length: 2000 }, (_, i) => ({
    ...entryOf(`file-${i}`, 'symlink', { link: 'x' }),
    chunks: [],
  }));
  indexLayer(index, { digest: LAYER, kind: 'estargz', entries, opaqueDirs: [] });
  return index.path;
}

/** Opens it and asks for the layer: still there, or replaced by an empty index that works. */
async function reopen(cacheDir: string): Promise<{ replaced: boolean; hasLayer: boolean }> {
  using index = await IndexDatabase.open(cacheDir);
  const hasLayer = layerNumber(index, LAYER) !== undefined;
  indexLayer(index, { digest: digestOf('another'), kind: 'tar', entries: [], opaqueDirs: [] });
  return { replaced: index.replaced, hasLayer };
}

test('open() makes an index where there is none, and that replaces nothing', async (t) => {
  const cacheDir = join(newFolder(t), 'store', 'cache');
  t.deepEqual(await reopen(cacheDir), { replaced: false, hasLayer: false });
  using index = await IndexDatabase.open(cacheDir);
  t.is(index.db.pragma('user_version', { simple: true }), SCHEMA_VERSION);
  t.is(index.db.pragma('journal_mode', { simple: true }), 'wal');
});

test('open() finds what was there', async (t) => {
  const dir = newFolder(t);
  await makeIndex(dir);
  t.deepEqual(await reopen(dir), { replaced: false, hasLayer: true });
});

const UNUSABLE: Record<string, (path: string) => void> = {
  'garbage shorter than a header': (path) => writeFileSync(path, 'no database'),
  empty: (path) => writeFileSync(path, ''),
  garbage: (path) => writeFileSync(path, Buffer.alloc(50_000, 'garbage')),
  'a header with garbage behind it': (path) => {
    const bytes = readFileSync(path);
    bytes.fill(0xa5, 100, 4096);
    writeFileSync(path, bytes);
  },
  'cut off in the middle of a page': (path) => truncateSync(path, statSync(path).size - 1000),
  'cut off after its first page': (path) => truncateSync(path, 4096),
  'of an older version': (path) => setVersion(path, SCHEMA_VERSION - 1),
  'of a newer version': (path) => setVersion(path, SCHEMA_VERSION + 1),
};

function setVersion(path: string, version: number): void {
  const db = new Database(path);
  db.pragma(`user_version = ${version}`);
  db.close();
}

for (const [what, spoil] of Object.entries(UNUSABLE)) {
  test(`open() replaces a file that is ${what}, and says so once`, async (t) => {
    const dir = newFolder(t);
    spoil(await makeIndex(dir));
    t.deepEqual(await reopen(dir), { replaced: true, hasLayer: false });
    t.deepEqual(await reopen(dir), { replaced: false, hasLayer: false });
    t.deepEqual(readdirSync(dir).sort(), ['index.db', 'index.lock']);
  });
}

test('remove() deletes the index and the next open() makes a new one', async (t) => {
  const dir = newFolder(t);
  await makeIndex(dir);
  IndexDatabase.remove(dir);
  t.deepEqual(readdirSync(dir), ['index.lock']);
  t.deepEqual(await reopen(dir), { replaced: false, hasLayer: false });
});

interface Taken {
  replaced: boolean;
  numbers: number[];
}

async function openInProcesses(cacheDir: string, count: number): Promise<Taken[]> {
  const run = promisify(execFile);
  const children = Array.from({ length: count }, () =>
    run(process.execPath, [CHILD, cacheDir, '25'], { timeout: 60_000 }),
  );
  return (await Promise.all(children)).map(({ stdout }) => JSON.parse(stdout) as Taken);
}

test('several processes that open a missing index at once share one, and no number goes to two', async (t) => {
  const taken = await openInProcesses(newFolder(t), 5);
  t.deepEqual(
    taken.map(({ replaced }) => replaced),
    [false, false, false, false, false],
  );
  t.is(new Set(taken.flatMap(({ numbers }) => numbers)).size, 125);
});

test('several processes that open a damaged index at once replace it once', async (t) => {
  const dir = newFolder(t);
  writeFileSync(join(dir, 'index.db'), Buffer.alloc(50_000, 'garbage'));
  const taken = await openInProcesses(dir, 4);
  t.is(taken.filter(({ replaced }) => replaced).length, 1);
  t.is(new Set(taken.flatMap(({ numbers }) => numbers)).size, 100);
});
