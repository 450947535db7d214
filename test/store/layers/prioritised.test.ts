import { chmodSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import type { PackedEntry } from '../../../store/entry.ts';
import { collectLayer } from '../../../store/layers/layer-contents.ts';
import { readToc, streamForeignLayer } from '../../../store/layers/layer-reader.ts';
import { LARGE_BYTES, LayerWriter } from '../../../store/layers/layer-writer.ts';
import type { PackPool } from '../../../store/layers/pack-pool.ts';
import { prefetchLength, prioritisedFiles } from '../../../store/layers/prefetch.ts';
import { CHUNK_BYTES } from '../../../store/layers/toc.ts';
import {
  entryOf,
  fileOf,
  hasTool,
  INLINE,
  inPieces,
  MemorySink,
  noise,
  readerOf,
  readSync,
  run,
  sourceOf,
  threads,
  type Sample,
  type Written,
} from './layer-fixtures.ts';

const MTIME_SEC = 1_000_000_000;
const dirOf = (path: string, mode: number): Sample => ({
  entry: entryOf(path, 'dir', { mode, mtimeSec: MTIME_SEC }),
});

const FIRST: readonly Sample[] = [
  fileOf('src/z.js', 'wanted first'),
  fileOf('cache/read-only/m.go', 'in a directory that nobody may write to'),
  fileOf('src/large', noise(LARGE_BYTES + 7)),
  fileOf('a', 'from the root'),
  fileOf('src/huge', noise(2 * CHUNK_BYTES + 5, 9)),
];
const REST: readonly Sample[] = [
  dirOf('', 0o755),
  dirOf('cache', 0o750),
  dirOf('cache/read-only', 0o555),
  fileOf('cache/read-only/n.go', 'its neighbour'),
  dirOf('src', 0o755),
  { entry: entryOf('src/link', 'hardlink', { link: 'src/z.js' }) },
  fileOf('src/y.js', 'not wanted'),
];

async function write(first: readonly Sample[], rest: readonly Sample[], pool: PackPool = INLINE): Promise<Written> {
  const entries: PackedEntry[] = [];
  const sink = new MemorySink();
  const options = { pool, hasPrioritised: true, onEntry: (entry: PackedEntry) => void entries.push(entry) };
  await using writer = await LayerWriter.create(sink, options);
  for (const { entry, content } of first) await writer.add(entry, content && sourceOf(content));
  await writer.endPrioritised();
  for (const { entry, content } of rest) await writer.add(entry, content && sourceOf(content));
  const layer = await writer.finish();
  return { blob: sink.blob, layer, entries };
}

const pathsOf = (entries: readonly { path: string }[]): string[] => entries.map(({ path }) => path);
const sampled = (samples: readonly Sample[]): string[] => pathsOf(samples.map(({ entry }) => entry));

test('LayerWriter puts what is wanted first before the landmark, in its order', async (t) => {
  const { blob, layer, entries } = await write(FIRST, REST);
  const toc = await readToc(readerOf(blob), layer.tocDigest);
  if (toc === undefined) return t.fail('no table of contents');
  t.deepEqual(pathsOf(toc.entries), [...sampled(FIRST), ...sampled(REST)]);
  t.deepEqual(pathsOf(entries), pathsOf(toc.entries));
  t.deepEqual(pathsOf(prioritisedFiles(toc)), sampled(FIRST));
  const length = prefetchLength(toc) ?? 0;
  const ahead = blob.subarray(0, length);
  for (const [at, { content }] of FIRST.entries()) {
    const read = toc.entries[at]?.chunks.map((chunk) => readSync(ahead, chunk)) ?? [];
    t.true(content !== undefined && Buffer.concat(read).equals(content), 'from the bytes up to there alone');
  }
  const behind = toc.entries.slice(FIRST.length).flatMap(({ chunks }) => chunks);
  t.true(behind.length > 0 && behind.every(({ blobOffset }) => blobOffset > length));
});

test('small files that are wanted first share a member, and nobody else is in it', async (t) => {
  const small = [fileOf('b', 'b'), fileOf('a', 'a')];
  const { entries } = await write(small, [dirOf('', 0o755), fileOf('c', 'c')]);
  const [b, a, , c] = entries.map(({ chunks }) => chunks[0]?.blobOffset);
  t.is(b, 0);
  t.is(a, 0);
  t.true((c ?? 0) > 0);
});

test('the same order gives the same bytes, on any number of threads', async (t) => {
  const { layer } = await write(FIRST, REST);
  t.deepEqual((await write(FIRST, REST, threads(t))).layer, layer);
  const other = await write([...FIRST].reverse(), REST);
  t.not(other.layer.digest, layer.digest);
});

test('streamForeignLayer() reads the same entries from the tar headers alone', async (t) => {
  const { blob, layer } = await write(FIRST, REST);
  const { entries } = await collectLayer(streamForeignLayer(inPieces(blob), 'tar+gzip'));
  const toc = await readToc(readerOf(blob), layer.tocDigest);
  const plain = (packed: readonly PackedEntry[]): unknown[] => packed.map(({ chunks: _chunks, ...entry }) => entry);
  t.deepEqual(plain(entries), plain(toc?.entries ?? []));
});

test('endPrioritised() is for layers in which something is wanted first, and once', async (t) => {
  await using plain = await LayerWriter.create(new MemorySink(), { pool: INLINE });
  await t.throwsAsync(plain.endPrioritised(), { instanceOf: RangeError });
  await using writer = await LayerWriter.create(new MemorySink(), { pool: INLINE, hasPrioritised: true });
  await writer.endPrioritised();
  await t.throwsAsync(writer.endPrioritised(), { instanceOf: RangeError });
});

test('a layer of nothing but files that are wanted first has its landmark, too', async (t) => {
  const sink = new MemorySink();
  await using writer = await LayerWriter.create(sink, { pool: INLINE, hasPrioritised: true });
  await writer.add(entryOf('a', 'file', { sizeBytes: 1 }), sourceOf(Buffer.from('a')));
  const { tocDigest } = await writer.finish();
  const toc = await readToc(readerOf(sink.blob), tocDigest);
  t.deepEqual(pathsOf(prioritisedFiles(toc ?? { entries: [] })), ['a']);
});

test('GNU tar unpacks it with the modes and times of all directories, for an ordinary user too', async (t) => {
  if (!hasTool(t, 'tar')) return;
  const { blob } = await write(FIRST, REST);
  const dir = unpackedBy(t, blob);
  for (const { entry, content } of [...FIRST, ...REST]) {
    const stat = lstatSync(join(dir, entry.path));
    if (entry.type === 'dir') t.is(stat.mode & 0o7777, entry.mode, entry.path);
    if (entry.type === 'dir') t.is(stat.mtimeMs, MTIME_SEC * 1000, entry.path);
    if (content !== undefined) t.true(content.equals(readFileSync(join(dir, entry.path))), entry.path);
  }
  t.is(lstatSync(join(dir, 'src/link')).ino, lstatSync(join(dir, 'src/z.js')).ino);
});

/** Root may write to any directory; as an ordinary user, `tar` may not. */
function unpackedBy(t: ExecutionContext, blob: Buffer): string {
  const dir = mkdtempSync(join(tmpdir(), 'bento-first-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const target = join(dir, 'target');
  writeFileSync(join(dir, 'layer.tar.gz'), blob);
  mkdirSync(target);
  chmodSync(dir, 0o755);
  chmodSync(target, 0o777);
  const tar = ['tar', '-xzf', join(dir, 'layer.tar.gz'), '-C', target] as const;
  const isRoot = process.getuid?.() === 0;
  // The folder itself is root's, so that its own mode and time cannot be set by others.
  if (isRoot) run(t, ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', 'mkdir', join(target, 'own')]);
  const own = isRoot ? join(target, 'own') : target;
  if (isRoot) run(t, ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', ...tar.slice(0, -1), own]);
  else run(t, tar);
  return own;
}
