import { IndexDatabase, isDamage } from './database.ts';
import { indexLayer, layerNumber, type LayerToIndex } from './layer-index.ts';
import { entryId, POSITION_SPAN } from './rows.ts';

type Row = Record<string, unknown>;

/** Columns that hold an id: compared by the position in the layer. */
const ID_COLUMNS = ['id', 'parent', 'target', 'entry'];

/**
 * Compares what the index says about a layer with what it should say. How long a gzip member is, a table of contents does
 * not tell: it gives the offset of the next one that holds a file. Whoever wrote the layer knew better.
 *
 * @param isMemberStart - whether a gzip member begins at this offset of the blob
 * @returns how many rows differ, are missing or too many; 0 for a layer that is not indexed
 */
export function countWrongRows(
  index: IndexDatabase,
  layer: LayerToIndex,
  isMemberStart: (offset: number) => boolean,
): number {
  const number = layerNumber(index, layer.digest);
  if (number === undefined) return 0;
  using scratch = IndexDatabase.scratch();
  const expected = indexLayer(scratch, layer);
  let wrong = isSameRow(layerRow(index, number), layerRow(scratch, expected)) ? 0 : 1;
  for (const query of [
    'SELECT * FROM entries WHERE id >= ? AND id < ? ORDER BY id',
    'SELECT * FROM chunks WHERE entry >= ? AND entry < ? ORDER BY entry, file_offset',
  ]) {
    wrong += countDifferent(rowsOf(index, query, number), rowsOf(scratch, query, expected), isMemberStart);
  }
  return wrong;
}

/** What SQLite itself finds wrong with the file; empty when nothing is. */
export function checkIntegrity(index: IndexDatabase): string[] {
  try {
    const rows = index.db.pragma('integrity_check(10)') as { integrity_check: string }[];
    return rows.map((row) => row.integrity_check).filter((text) => text !== 'ok');
  } catch (error) {
    if (!isDamage(error)) throw error;
    return [(error as Error).message];
  }
}

/** Without what was claimed of the layer before it was here: that is looked at when it is mounted the next time. */
function layerRow(index: IndexDatabase, number: number): Row {
  const {
    number: _number,
    claimed_toc: _claimedToc,
    ...row
  } = index.db.prepare('SELECT * FROM layers WHERE number = ?').get(number) as Row;
  return row;
}

function* rowsOf(index: IndexDatabase, query: string, number: number): Generator<Row> {
  const range = [entryId(number, 0), entryId(number + 1, 0)];
  for (const row of index.db.prepare(query).iterate(...range) as IterableIterator<Row>) {
    for (const column of ID_COLUMNS) {
      const id = row[column];
      if (typeof id === 'number' && id !== 0) row[column] = id - number * POSITION_SPAN;
    }
    yield row;
  }
}

function countDifferent(
  actual: Iterator<Row>,
  expected: Iterator<Row>,
  isMemberStart: (offset: number) => boolean,
): number {
  let different = 0;
  for (;;) {
    const [a, b] = [actual.next(), expected.next()];
    if (a.done === true && b.done === true) return different;
    if (a.done === true || b.done === true || !isSameRow(a.value, b.value, isMemberStart)) different += 1;
  }
}

function isSameRow(a: Row, b: Row, isMemberStart?: (offset: number) => boolean): boolean {
  return Object.keys(b).every((column) => {
    const [left, right] = [a[column], b[column]];
    if (column === 'blob_bytes' && typeof left === 'number' && typeof right === 'number' && left < right) {
      return isMemberStart?.(Number(a['blob_offset']) + left) === true;
    }
    return Buffer.isBuffer(left) && Buffer.isBuffer(right) ? left.equals(right) : left === right;
  });
}
