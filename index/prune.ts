import type { Digest } from '../store/digest.ts';
import { faultPoint } from '../store/fault-point.ts';
import type { IndexDatabase } from './database.ts';
import { entryId, numberOf, POSITION_SPAN } from './rows.ts';

/** Rows deleted in one transaction: other processes get their turn in between. */
const ROWS_PER_STEP = 20_000;

export interface PrunedIndex {
  layerCount: number;
  treeCount: number;
}

/**
 * Forgets the layers and trees of blobs that are gone. A layer's own row goes before its entries, so that one which comes
 * back is indexed anew however early this was interrupted; entries left that way are found by the next run.
 */
export function pruneIndex(index: IndexDatabase, isAlive: (digest: Digest) => boolean): PrunedIndex {
  const pruned = { layerCount: forgetLayers(index, isAlive), treeCount: forgetTrees(index, isAlive) };
  faultPoint('gc.index-forgotten');
  for (const table of ['entries', 'chunks'] as const) {
    for (const number of orphanNumbers(index, table)) deleteRows(index, table, number);
  }
  return pruned;
}

function forgetLayers(index: IndexDatabase, isAlive: (digest: Digest) => boolean): number {
  const dead = layerDigests(index).filter((digest) => !isAlive(digest));
  const remove = index.db.prepare('DELETE FROM layers WHERE digest = ?');
  index.db.transaction(() => dead.forEach((digest) => remove.run(digest))).immediate();
  return dead.length;
}

function forgetTrees(index: IndexDatabase, isAlive: (digest: Digest) => boolean): number {
  const dead = treeManifests(index).filter((digest) => !isAlive(digest));
  const remove = index.db.prepare('DELETE FROM trees WHERE manifest = ?');
  index.db.transaction(() => dead.forEach((digest) => remove.run(digest))).immediate();
  return dead.length;
}

function layerDigests(index: IndexDatabase): Digest[] {
  return (index.db.prepare('SELECT digest FROM layers').all() as { digest: Digest }[]).map(({ digest }) => digest);
}

function treeManifests(index: IndexDatabase): Digest[] {
  const rows = index.db.prepare('SELECT DISTINCT manifest FROM trees').all() as { manifest: Digest }[];
  return rows.map(({ manifest }) => manifest);
}

const KEY_COLUMN = { entries: 'id', chunks: 'entry' } as const;

/** Numbers that have rows but no layer. Jumps from one number to the next: a lookup for each layer, not for each row. */
function orphanNumbers(index: IndexDatabase, table: 'entries' | 'chunks'): number[] {
  const key = KEY_COLUMN[table];
  const next = index.db.prepare(`SELECT ${key} AS id FROM ${table} WHERE ${key} >= ? ORDER BY ${key} LIMIT 1`);
  const isKnown = index.db.prepare('SELECT 1 FROM layers WHERE number = ?');
  const orphans: number[] = [];
  for (let from = 0; ;) {
    const row = next.get(from) as { id: number } | undefined;
    if (row === undefined) return orphans;
    const number = numberOf(row.id);
    if (isKnown.get(number) === undefined) orphans.push(number);
    from = entryId(number + 1, 0);
  }
}

function deleteRows(index: IndexDatabase, table: 'entries' | 'chunks', number: number): void {
  const key = KEY_COLUMN[table];
  const range = [entryId(number, 0), entryId(number, 0) + POSITION_SPAN] as const;
  const last = index.db.prepare(
    `SELECT max(id) AS id FROM (SELECT ${key} AS id FROM ${table} WHERE ${key} >= ? AND ${key} < ? ORDER BY ${key} LIMIT ?)`,
  );
  const remove = index.db.prepare(`DELETE FROM ${table} WHERE ${key} >= ? AND ${key} <= ?`);
  for (;;) {
    const { id } = last.get(...range, ROWS_PER_STEP) as { id: number | null };
    if (id === null) return;
    index.db.transaction(() => remove.run(range[0], id)).immediate();
    faultPoint('gc.index-pruned');
  }
}
