import test, { type ExecutionContext } from 'ava';

import { countWrongRows } from '../../index/compare-layer.ts';
import { Entries } from '../../index/entries.ts';
import {
  indexLayer,
  layerNumber,
  reindexLayer,
  StreamedLayer,
  takeNumbers,
  type LayerToIndex,
} from '../../index/layer-index.ts';
import {
  ENTRY_TYPES,
  entryId,
  LARGE_BYTES_MIN,
  NUMBER_MAX,
  numberOf,
  positionOf,
  type EntryRow,
} from '../../index/rows.ts';
import { Trees } from '../../index/trees.ts';
import { fromText, type ByteString } from '../../store/byte-string.ts';
import { digestOf, type Digest } from '../../store/digest.ts';
import type { Chunk, Entry, EntryType, PackedEntry } from '../../store/entry.ts';
import type { TreeSource } from '../../fs/tree/index-checkpoint.ts';
import { entryOf } from '../store/layers/layer-fixtures.ts';
import { newSource } from '../fixtures/workspaces.ts';

const DIGEST = digestOf('the layer');

function packed(path: ByteString, type: EntryType, fields: Partial<Entry> = {}, chunks: Chunk[] = []): PackedEntry {
  return { ...entryOf(path, type, fields), chunks };
}

function chunkAt(fileOffset: number, sizeBytes: number): Chunk {
  const digest = digestOf(String(fileOffset));
  return { fileOffset, sizeBytes, digest, blobOffset: fileOffset + 5e9, blobBytes: 17, innerOffset: 3 };
}

interface Indexed extends TreeSource {
  at: (path: ByteString) => EntryRow | undefined;
}

async function indexed(t: ExecutionContext, list: PackedEntry[], opaqueDirs: string[] = []): Promise<Indexed> {
  const source = await newSource(t);
  indexLayer(source.index, { digest: DIGEST, kind: 'estargz', entries: list, opaqueDirs });
  const layer = source.entries.layer(DIGEST);
  const root = layer && source.entries.root(layer);
  const at = (path: ByteString): EntryRow | undefined =>
    path.split('/').reduce((row, name) => row && source.entries.child(row.id, name), root);
  return { ...source, at };
}

test('indexLayer() keeps every fact about every type of entry', async (t) => {
  const xattrs = new Map([
    ['user.a', Buffer.from([0, 255, 10])],
    [fromText('user.é'), Buffer.alloc(0)],
    ['__proto__', Buffer.from('odd')],
  ]);
  const odd = { mode: 0o7751, uid: 4_294_967_294, gid: 12, mtimeSec: -5_000_000_000, mtimeNsec: 999_999_999 };
  const content = { sizeBytes: 10, digest: digestOf('content') };
  const list = [
    packed('', 'dir', { mode: 0o700 }),
    packed('block', 'block', { rdev: { major: 8, minor: 1_048_575 } }),
    packed('char', 'char', { rdev: { major: 0, minor: 0 } }),
    packed('dir', 'dir', { ...odd, xattrs }),
    packed('empty', 'file', { digest: digestOf('') }),
    packed('fifo', 'fifo'),
    packed('file', 'file', { ...content, ...odd, xattrs }, [{ ...chunkAt(0, 10), digest: content.digest }]),
    packed('link', 'symlink', { link: fromText('../é'), mode: 0o777 }),
    packed('lower', 'hardlink', { link: 'somewhere/below' }),
    packed('\xff\xfe"\n', 'file', { digest: digestOf('') }),
    packed('gone', 'whiteout'),
  ];
  const { at, entries } = await indexed(t, list);
  for (const { path, chunks, ...expected } of list.slice(1)) {
    const row = at(path);
    t.like(row, { ...expected, name: path, implicit: false, opaque: false, target: undefined } as never, path);
    t.is(row?.nlink, expected.type === 'dir' ? 2 : 1, path);
    t.deepEqual(row?.xattrs, expected.xattrs, path);
    t.deepEqual(row && entries.chunks(row.id), [...chunks], path);
  }
  const layer = entries.layer(DIGEST);
  t.like(layer, { digest: DIGEST, kind: 'estargz', entryCount: 11, contentBytes: 20 - 10 });
  t.is(layer && entries.root(layer).mode, 0o700);
  t.deepEqual(
    ENTRY_TYPES.filter((type) => !list.some((entry) => entry.type === type)),
    [],
  );
});

test('children() come sorted by their bytes', async (t) => {
  const names = ['b', 'B', 'a.', 'a', 'a-', '\xff', '\x7f', '\xc3\xa9', '10', '9'];
  const { entries } = await indexed(
    t,
    names.map((name) => packed(name, 'fifo')),
  );
  const layer = entries.layer(DIGEST);
  const found = layer && entries.children(entries.root(layer).id).map(({ name }) => name);
  t.deepEqual(
    found,
    names.sort((a, b) => Buffer.compare(Buffer.from(a, 'latin1'), Buffer.from(b, 'latin1'))),
  );
});

test('chunks() of a file come in order, wherever in the blob they lie', async (t) => {
  const chunks = [chunkAt(8 << 20, 5), chunkAt(0, 4 << 20), chunkAt(4 << 20, 4 << 20)];
  const { at, entries } = await indexed(t, [packed('big', 'file', { sizeBytes: (8 << 20) + 5 }, chunks)]);
  t.deepEqual(entries.chunks(at('big')?.id ?? 0), [chunks[1], chunks[2], chunks[0]] as Chunk[]);
});

test('hard links name one entry, which counts them, through links to links too', async (t) => {
  const { at } = await indexed(t, [
    packed('a', 'file', { digest: digestOf('') }),
    packed('b', 'hardlink', { link: 'a' }),
    packed('d/c', 'hardlink', { link: 'b' }),
    packed('other', 'hardlink', { link: 'lower' }),
  ]);
  t.is(at('a')?.nlink, 3);
  t.is(at('b')?.target, at('a')?.id);
  t.is(at('d/c')?.target, at('a')?.id);
  t.like(at('other'), { target: undefined, link: 'lower' });
});

test('a directory has 2 links and one for each directory in it, listed or made up', async (t) => {
  const { at, entries } = await indexed(t, [
    packed('a/b/file', 'fifo'),
    packed('a/c', 'dir'),
    packed('a', 'dir'),
    packed('a/link', 'symlink', { link: 'b' }),
    packed('a/gone', 'whiteout'),
  ]);
  t.is(at('a')?.nlink, 4);
  t.is(at('a/b')?.nlink, 2);
  const layer = entries.layer(DIGEST);
  t.is(layer && entries.root(layer).nlink, 3);
});

/** A layer in the index by each of the ways that lead there. */
async function indexedEachWay(t: ExecutionContext, list: PackedEntry[]): Promise<Indexed[]> {
  const streamed = await newSource(t);
  using rows = new StreamedLayer(streamed.index);
  for (const entry of list) rows.add(entry);
  rows.finish({ digest: DIGEST, kind: 'estargz' });
  const again = await indexed(t, []);
  reindexLayer(again.index, { digest: DIGEST, kind: 'estargz', entries: list, opaqueDirs: [] });
  return [await indexed(t, list), { ...streamed, at: () => undefined }, again];
}

test('a layer that is streamed, or indexed again, gets the rows that it gets otherwise', async (t) => {
  const files = Array.from({ length: 3000 }, (_, i) => packed(`a/${String(i).padStart(4, '0')}/x`, 'fifo'));
  const list = [packed('', 'dir'), packed('a', 'dir'), ...files, packed('b', 'hardlink', { link: 'a/0000/x' })];
  const layer = { digest: DIGEST, kind: 'estargz', entries: list, opaqueDirs: [] } as const;
  const nlinks = (await indexedEachWay(t, list)).map(({ index, entries }) => {
    t.is(
      countWrongRows(index, layer, () => false),
      0,
    );
    const indexedLayer = entries.layer(DIGEST);
    const a = indexedLayer && entries.child(entries.root(indexedLayer).id, 'a');
    return a?.nlink;
  });
  t.deepEqual(nlinks, [3002, 3002, 3002]);
});

test('a layer says whether anything in it has extended attributes or another owner', async (t) => {
  const xattrs = new Map([['user.a', Buffer.from('x')]]);
  const cases: [PackedEntry[], { hasXattrs: boolean; hasOwners: boolean }][] = [
    [[packed('a', 'fifo')], { hasXattrs: false, hasOwners: false }],
    [[packed('', 'dir', { xattrs }), packed('a', 'fifo')], { hasXattrs: true, hasOwners: false }],
    [[packed('a/b', 'symlink', { link: 'x', xattrs })], { hasXattrs: true, hasOwners: false }],
    [[packed('a/b', 'fifo', { gid: 5 })], { hasXattrs: false, hasOwners: true }],
    [[packed('', 'dir', { uid: 1000 })], { hasXattrs: false, hasOwners: true }],
    [[packed('a', 'whiteout', { uid: 1000, xattrs })], { hasXattrs: false, hasOwners: false }],
  ];
  for (const [list, expected] of cases) {
    for (const { entries } of await indexedEachWay(t, list)) t.like(entries.layer(DIGEST), expected);
  }
});

test('largeFiles() are found by a search, whichever of many entries they are', async (t) => {
  const small = Array.from({ length: 5000 }, (_, i) => packed(`s/${i}`, 'file', { sizeBytes: LARGE_BYTES_MIN - 1 }));
  const large = ['a', 'z/1', 'z/2'].map((path) => packed(path, 'file', { sizeBytes: LARGE_BYTES_MIN }));
  const { entries, index } = await indexed(t, [...small, ...large]);
  const other = [packed('x', 'file', { sizeBytes: 5 * LARGE_BYTES_MIN })];
  indexLayer(index, { digest: digestOf('other'), kind: 'tar', entries: other, opaqueDirs: [] });
  const layer = entries.layer(DIGEST);
  if (layer === undefined) return t.fail();
  t.deepEqual(
    entries.largeFiles([layer, layer]).map(({ name }) => name),
    ['a', '1', '2'],
  );
  t.deepEqual(entries.largeFiles([]), []);
  const plan = index.db
    .prepare(
      `EXPLAIN QUERY PLAN SELECT id FROM entries INDEXED BY entry_large WHERE size >= ${LARGE_BYTES_MIN} AND id > 5`,
    )
    .all() as { detail: string }[];
  t.regex(plan[0]?.detail ?? '', /SEARCH entries USING (COVERING )?INDEX entry_large/);
});

test('parents that a layer does not list are made up, and stop being so when it lists them later', async (t) => {
  const { at } = await indexed(t, [
    packed('a/b/gone', 'whiteout'),
    packed('a', 'dir', { mode: 0o711 }),
    packed('x/y/file', 'fifo'),
  ]);
  t.like(at('a'), { type: 'dir', implicit: false, mode: 0o711 });
  t.like(at('a/b'), { type: 'dir', implicit: true, opaque: false });
  t.like(at('a/b/gone'), { type: 'whiteout' });
  t.like(at('x'), { type: 'dir', implicit: true });
  t.like(at('x/y'), { type: 'dir', implicit: true });
});

test('opaque directories are marked with and without an entry of their own', async (t) => {
  const list = [packed('listed', 'dir', { opaque: true }), packed('plain', 'dir'), packed('b/inner', 'fifo')];
  const { at, entries } = await indexed(t, list, ['listed', 'b', 'c/d', '']);
  t.like(at('listed'), { opaque: true, implicit: false });
  t.like(at('plain'), { opaque: false });
  t.like(at('b'), { opaque: true, implicit: true });
  t.like(at('c'), { opaque: false, implicit: true });
  t.like(at('c/d'), { opaque: true, implicit: true });
  const layer = entries.layer(DIGEST);
  t.true(layer && entries.root(layer).opaque);
});

test('indexLayer() of a layer that is indexed does nothing', async (t) => {
  const source = await indexed(t, [packed('a', 'fifo')]);
  const count = (): unknown => source.index.db.prepare('SELECT count(*) AS rows FROM entries').get();
  const before = count();
  const number = layerNumber(source.index, DIGEST);
  const again = { digest: DIGEST, kind: 'estargz', entries: [packed('b', 'fifo')], opaqueDirs: [] } as const;
  t.is(indexLayer(source.index, again), number ?? -1);
  t.deepEqual(count(), before);
  t.is(source.at('b'), undefined);
});

test('indexLayer() gives rows that were claimed by another table of contents, and those alone, up', async (t) => {
  const { index, entries } = await newSource(t);
  const layerOf = (claimedToc: Digest | undefined): LayerToIndex => ({
    digest: DIGEST,
    kind: 'estargz',
    entries: [packed('a', 'fifo')],
    opaqueDirs: [],
    claimedToc,
  });
  const [one, other] = [layerOf(digestOf('one')), layerOf(digestOf('other'))];
  const number = indexLayer(index, one);
  t.is(indexLayer(index, one), number, 'whoever comes at the same time finds the same rows');
  const next = indexLayer(index, other);
  t.true(next > number);
  const whole = indexLayer(index, layerOf(undefined));
  t.true(whole > next);
  t.is(indexLayer(index, one), whole, 'what was seen is not replaced by what is claimed');
  t.is(entries.layer(DIGEST)?.claimedToc, undefined);
});

test('indexLayer() refuses what no tree can be, and leaves no rows', async (t) => {
  const { index, entries } = await newSource(t);
  const refused: [PackedEntry[], string][] = [
    [[packed('a', 'symlink', { link: '/etc' }), packed('a/b', 'fifo')], 'FORMAT_INVALID'],
    [[packed('a', 'dir'), packed('b', 'hardlink', { link: 'a' })], 'FORMAT_INVALID'],
    [[packed('a', 'whiteout'), packed('b', 'hardlink', { link: 'a' })], 'FORMAT_INVALID'],
  ];
  for (const [list, code] of refused) {
    t.throws(() => indexLayer(index, { digest: DIGEST, kind: 'tar', entries: list, opaqueDirs: [] }), { code });
  }
  const twice = [packed('a', 'fifo'), packed('a', 'fifo')];
  const layer = { digest: DIGEST, kind: 'tar', entries: twice, opaqueDirs: [] } as const;
  t.throws(() => indexLayer(index, layer), { instanceOf: RangeError });
  t.is(entries.layer(DIGEST), undefined);
  t.deepEqual(index.db.prepare('SELECT count(*) AS rows FROM entries').get(), { rows: 0 });
});

test('ids hold number and position, up to the last number', (t) => {
  const id = entryId(NUMBER_MAX, 2 ** 32 - 1);
  t.true(Number.isSafeInteger(id));
  t.is(numberOf(id), NUMBER_MAX);
  t.is(positionOf(id), 2 ** 32 - 1);
});

test('numbers are never handed out twice, not even after their rows are gone', async (t) => {
  const { index, trees } = await newSource(t);
  const add = (digest: Digest): number => indexLayer(index, { digest, kind: 'tar', entries: [], opaqueDirs: [] });
  const one = add(digestOf('1'));
  trees.register(digestOf('m'), [digestOf('1'), digestOf('1')]);
  index.db.exec('DELETE FROM layers; DELETE FROM trees; DELETE FROM entries');
  const two = add(digestOf('1'));
  t.is(two, one + 3);
});

test('takeNumbers() stops before an id would not be a safe integer', async (t) => {
  const { index } = await newSource(t);
  index.db.prepare('UPDATE numbers SET next = ?').run(NUMBER_MAX - 2);
  t.is(takeNumbers(index, 2), NUMBER_MAX - 2);
  t.throws(() => takeNumbers(index, 1), { code: 'INDEX_BROKEN', message: /no numbers left/ });
});

test('get() of an id that was never handed out says which index is broken', async (t) => {
  const { index } = await newSource(t);
  t.throws(() => new Entries(index).get(entryId(7, 7)), { code: 'INDEX_BROKEN', message: /index\.db has no entry/ });
});

test('register() numbers each layer of a checkpoint once; find() and owner() agree', async (t) => {
  const { index, entries, trees } = await newSource(t);
  const layers = ['a', 'b', 'a'].map((name) => digestOf(name)); // one layer twice in a stack: two sets of directories
  for (const digest of layers) indexLayer(index, { digest, kind: 'tar', entries: [], opaqueDirs: [] });
  const [m, n] = [digestOf('m'), digestOf('n')];
  t.is(trees.find(m), undefined);
  trees.register(m, layers);
  trees.register(n, layers.slice(0, 1));
  trees.register(m, layers);
  const found = trees.find(m);
  t.deepEqual(
    found?.layers.map(({ digest }) => digest),
    layers,
  );
  const first = found?.firstNumber ?? 0;
  for (const depth of [0, 1, 2]) t.deepEqual(trees.owner(first + depth), { manifest: m, depth });
  t.deepEqual(trees.owner(trees.find(n)?.firstNumber ?? 0), { manifest: n, depth: 0 });
  t.is(trees.owner(layerNumber(index, digestOf('a')) ?? 0), undefined, 'a layer number is no directory number');
  t.deepEqual(trees.manifests().sort(), [m, n].sort());
  t.deepEqual(new Trees(index, entries).find(m), found, 'another instance knows the same');
});

test('find() knows no tree of which a layer is not indexed', async (t) => {
  const { index, trees } = await newSource(t);
  indexLayer(index, { digest: digestOf('a'), kind: 'tar', entries: [], opaqueDirs: [] });
  trees.register(digestOf('m'), [digestOf('a'), digestOf('missing')]);
  t.is(trees.find(digestOf('m')), undefined);
});
