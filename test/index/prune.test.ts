import test from 'ava';
import { countWrongRows } from '../../index/compare-layer.ts';
import { IndexDatabase } from '../../index/database.ts';
import { indexLayer, layerNumber, reindexLayer, type LayerToIndex } from '../../index/layer-index.ts';
import { pruneIndex } from '../../index/prune.ts';
import { digestOf, type Digest } from '../../store/digest.ts';
import type { PackedEntry } from '../../store/entry.ts';

const METADATA = { mode: 0o644, uid: 0, gid: 0, mtimeSec: 1, mtimeNsec: 2 };

function layer(name: string, fileCount: number): LayerToIndex {
  const entries = Array.from({ length: fileCount }, (_, i): PackedEntry => {
    const chunk = { sizeBytes: 4, digest: digestOf(name), blobOffset: i * 100, blobBytes: 100, innerOffset: 0 };
    const chunks = [0, 4].map((fileOffset) => ({ ...chunk, fileOffset }));
    return { ...METADATA, path: `file-${i}`, type: 'file', sizeBytes: 8, digest: digestOf(name), chunks };
  });
  return { digest: digestOf(name), kind: 'estargz', entries, opaqueDirs: [] };
}

function newIndex(t: { teardown: (fn: () => void) => void }): IndexDatabase {
  const index = IndexDatabase.scratch();
  t.teardown(() => index.close());
  return index;
}

function count(index: IndexDatabase, table: string): number {
  return (index.db.prepare(`SELECT count(*) AS n FROM ${table}`).get() as { n: number }).n;
}

const never = (): boolean => false;

test('pruneIndex() takes all rows of a layer that is gone, and none of its neighbours', (t) => {
  const index = newIndex(t);
  const [before, dead, after] = [layer('before', 3), layer('dead', 25_000), layer('after', 2)] as const;
  for (const one of [before, dead, after]) indexLayer(index, one);
  t.is(pruneIndex(index, (digest) => digest !== dead.digest).layerCount, 1);
  t.deepEqual([count(index, 'layers'), count(index, 'entries'), count(index, 'chunks')], [2, 4 + 3, 10]);
  t.is(layerNumber(index, dead.digest), undefined);
  for (const one of [before, after]) t.is(countWrongRows(index, one, never), 0);
  t.is(indexLayer(index, dead), 4, 'numbers are never used again');
  t.is(countWrongRows(index, dead, never), 0);
});

test('pruneIndex() finishes what an interrupted one began', (t) => {
  const index = newIndex(t);
  const [dead, kept] = [layer('dead', 3), layer('kept', 3)] as const;
  for (const one of [dead, kept]) indexLayer(index, one);
  index.db.prepare('DELETE FROM layers WHERE digest = ?').run(dead.digest); // as far as it got
  pruneIndex(index, () => true);
  t.deepEqual([count(index, 'entries'), count(index, 'chunks')], [4, 6]);
  t.is(countWrongRows(index, kept, never), 0);
});

test('pruneIndex() forgets trees of manifests that are gone', (t) => {
  const index = newIndex(t);
  const insert = index.db.prepare('INSERT INTO trees VALUES (?, ?, ?, ?)');
  const [dead, kept] = ['dead', 'kept'].map(digestOf) as [Digest, Digest];
  [dead, dead, kept].forEach((manifest, at) => insert.run(at + 1, manifest, at % 2, digestOf('layer')));
  t.is(pruneIndex(index, (digest) => digest === kept).treeCount, 1);
  t.is(count(index, 'trees'), 1);
});

test('countWrongRows() sees every changed, missing and additional row; reindexLayer() mends them in place', (t) => {
  const index = newIndex(t);
  const [one, other] = [layer('one', 3), layer('other', 3)] as const;
  const number = indexLayer(index, one);
  indexLayer(index, other);
  for (const statement of [
    "UPDATE entries SET mtime_nsec = 3 WHERE name = 'file-1'",
    "UPDATE entries SET parent = 0 WHERE name = 'file-1'",
    "DELETE FROM entries WHERE name = 'file-2'",
    'UPDATE chunks SET digest = zeroblob(32) WHERE file_offset = 4',
    'DELETE FROM chunks WHERE file_offset = 0',
    'UPDATE chunks SET blob_bytes = blob_bytes - 1',
    "UPDATE layers SET kind = 'tar'",
  ]) {
    index.db.exec(statement);
    t.true(countWrongRows(index, one, never) > 0, statement);
    t.is(reindexLayer(index, one), number);
    t.is(reindexLayer(index, other), number + 1);
    t.is(countWrongRows(index, one, never), 0, statement);
  }
});

test('countWrongRows() takes an exact length of a member for right, where one begins behind it', (t) => {
  const index = newIndex(t);
  const one = layer('one', 1);
  indexLayer(index, one);
  index.db.exec('UPDATE chunks SET blob_bytes = 60');
  t.is(
    countWrongRows(index, one, (offset) => offset === 60),
    0,
  );
  t.is(
    countWrongRows(index, one, (offset) => offset === 61),
    2,
  );
});

test('countWrongRows() of a layer that is not indexed is 0', (t) => {
  t.is(countWrongRows(newIndex(t), layer('one', 1), never), 0);
});
