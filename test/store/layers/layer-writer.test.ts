import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { lstat, readdir, readFile, readlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';

import test from 'ava';

import { fromBytes, fromText, toFsPath } from '../../../store/byte-string.ts';
import { digestOf } from '../../../store/digest.ts';
import type { Chunk, PackedEntry } from '../../../store/entry.ts';
import { gzipMemberSync } from '../../../store/layers/gzip-member.ts';
import { collectLayer } from '../../../store/layers/layer-contents.ts';
import { readChunk, readToc, streamForeignLayer } from '../../../store/layers/layer-reader.ts';
import { GROUP_BYTES, LARGE_BYTES, LayerWriter } from '../../../store/layers/layer-writer.ts';
import type { ChangedFile } from '../../../store/layers/steady-read.ts';
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
} from './layer-fixtures.ts';
import { tempDir, threads, writeLayer, type Sample, type Written } from './layer-fixtures.ts';

const LATIN1 = 'caf\xe9'; // not UTF-8
const DEEP = Array.from({ length: 30 }, () => 'd'.repeat(99)).join('/');

const PLAIN: readonly Sample[] = [
  { entry: entryOf('', 'dir', { mode: 0o700 }) },
  fileOf('a file', 'with a space in its name'),
  fileOf('empty', ''),
  fileOf('new\nline', 'x', { mtimeSec: -2, mtimeNsec: 500_000_000 }),
  fileOf('nanoseconds', 'x', { mtimeNsec: 123_456_789 }),
  fileOf(fromText('übergrößenträger'), 'utf-8'),
  fileOf(LATIN1, 'not utf-8'),
  fileOf('n'.repeat(255), 'long name', { mode: 0o4755 }),
  fileOf(`${DEEP}/deep`, 'deep'),
  { entry: entryOf('dir', 'dir', { mode: 0o1777, mtimeSec: 0 }) },
  { entry: entryOf('dir/absolute', 'symlink', { link: '/etc/passwd' }) },
  { entry: entryOf('dir/dangling', 'symlink', { link: `${'t'.repeat(200)}/${LATIN1}` }) },
  { entry: entryOf('dir/hard', 'hardlink', { link: LATIN1 }) },
  { entry: entryOf('dir/hard2', 'hardlink', { link: `${DEEP}/deep` }) },
  { entry: entryOf('dir/pipe', 'fifo') },
];

const ODD: readonly Sample[] = [
  fileOf('.bento-name.x', 'ours'),
  fileOf('.wh..wh..opq', 'a user may call a file so'),
  fileOf('.wh.hidden', 'this too'),
  { entry: entryOf('.wh.d', 'dir') },
  fileOf('.wh.d/inside', 'x'),
  fileOf(`.wh.${'y'.repeat(251)}`, 'hashed'),
  fileOf('.prefetch.landmark', 'a user may call a file so'),
  fileOf('__external__', 'x'),
  { entry: entryOf('block', 'block', { rdev: { major: 8, minor: 1_048_575 } }) },
  { entry: entryOf('char', 'char', { rdev: { major: 4095, minor: 0 } }) },
  { entry: entryOf('hard', 'hardlink', { link: '.wh.hidden' }) },
  fileOf('owner', 'x', { uid: 4_294_967_294, gid: 3_000_000 }),
  { entry: entryOf('opaque', 'dir', { opaque: true }) },
  fileOf('stargz.index.json', '{}'),
  fileOf('year10000', 'x', { mtimeSec: 253_402_300_800, mtimeNsec: 7 }),
  fileOf('year-5000', 'x', { mtimeSec: -200_000_000_000 }),
  fileOf('xattrs', 'x', {
    xattrs: new Map([
      ['user.=\xff%', Buffer.from([0, 255])],
      ['user.b', Buffer.alloc(0)],
    ]),
  }),
  fileOf('xattrs2', 'x', { xattrs: new Map([[fromText('user.ü'), Buffer.from('v\n')]]) }),
];

const WHITEOUTS: readonly Sample[] = [
  { entry: entryOf('gone', 'whiteout') },
  { entry: entryOf('.wh.gone', 'whiteout') },
  { entry: entryOf(`dir/${LATIN1}`, 'whiteout') },
  { entry: entryOf(`dir/${'z'.repeat(255)}`, 'whiteout') },
];

/** Writes a file over and over, a little longer and shorter each time. */
const BUSY_WRITER = `
  const { writeFileSync, renameSync } = require('node:fs');
  for (let i = 0; ; i++) {
    writeFileSync(process.argv[1], Buffer.alloc((8 << 20) + (i % 7) * 4096, i));
    if (i === 0) process.stdout.write('ready');
  }`;

const LARGE: readonly Sample[] = [
  fileOf('exact', noise(CHUNK_BYTES)),
  fileOf('nine', noise(9 * 1024 * 1024, 7)),
  fileOf('plus', noise(CHUNK_BYTES + 1, 3)),
  fileOf('zeros', Buffer.alloc(3 * CHUNK_BYTES)),
];

const EVERYTHING = [...PLAIN, ...ODD, ...WHITEOUTS, ...LARGE];

const written = writeLayer(EVERYTHING);

/** What must be the same however an entry was read; where its bytes lie differs. */
function facts(entries: readonly PackedEntry[]): unknown[] {
  return entries
    .map(({ chunks, ...rest }) => ({
      ...rest,
      chunks: chunks.map(({ digest, fileOffset }) => ({ digest, fileOffset })),
    }))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}

async function contentOf(blob: Buffer, entry: PackedEntry): Promise<Buffer> {
  return Buffer.concat(await Promise.all(entry.chunks.map((chunk) => readChunk(readerOf(blob), chunk))));
}

test('LayerWriter reports a layer that is what it says', async (t) => {
  const { blob, layer, entries } = await written;
  const tar = gunzipSync(blob);
  t.is(layer.digest, digestOf(blob));
  t.is(layer.sizeBytes, blob.length);
  t.is(layer.diffId, digestOf(tar));
  t.is(layer.uncompressedBytes, tar.length);
  t.deepEqual(
    entries.map(({ path }) => path),
    EVERYTHING.map(({ entry }) => entry.path),
  );
  t.is(layer.fileCount, entries.filter(({ type }) => type !== 'dir' && type !== 'whiteout').length);
});

test('readToc() gives back every entry that was written', async (t) => {
  const { blob, layer, entries } = await written;
  const toc = await readToc(readerOf(blob), layer.tocDigest);
  t.deepEqual(facts(toc?.entries ?? []), facts(entries));
  t.deepEqual(toc?.opaqueDirs, ['opaque']);
  t.is(toc?.tocDigest, layer.tocDigest);
});

test('streamForeignLayer() reads the same entries from the tar headers alone', async (t) => {
  const { blob, layer, entries } = await written;
  const tar: Buffer[] = [];
  const contents = await collectLayer(streamForeignLayer(inPieces(blob, 70_001), 'tar+gzip', (b) => void tar.push(b)));
  t.deepEqual(facts(contents.entries), facts(entries));
  t.deepEqual(contents.opaqueDirs, ['opaque']);
  const whole = Buffer.concat(tar);
  t.is(digestOf(whole), layer.diffId);
  for (const entry of contents.entries) {
    for (const chunk of entry.chunks) t.is((await readChunk(readerOf(whole), chunk, 'bare')).length, chunk.sizeBytes);
  }
});

test('every file reads back, whether one can wait or not', async (t) => {
  const { blob, entries } = await written;
  const toc = await readToc(readerOf(blob));
  for (const entry of [...entries, ...(toc?.entries ?? [])]) {
    const sample = EVERYTHING.find((one) => one.entry.path === entry.path && one.entry.type === entry.type);
    if (!sample?.content) continue;
    t.true(sample.content.equals(await contentOf(blob, entry)), entry.path);
    t.true(sample.content.equals(Buffer.concat(entry.chunks.map((chunk) => readSync(blob, chunk)))), entry.path);
  }
});

test('the same tree gives the same bytes, whatever the pieces its files arrive in', async (t) => {
  const { layer } = await written;
  for (const pieceBytes of [7919, 1024 * 1024, 64 * 1024 * 1024]) {
    t.deepEqual((await writeLayer(EVERYTHING, pieceBytes)).layer, layer);
  }
});

test('threads give the same bytes as packing right here', async (t) => {
  t.deepEqual((await writeLayer(EVERYTHING, undefined, threads(t))).layer, (await written).layer);
});

test('the members of a large file depend on its content alone, small files share theirs', async (t) => {
  const large = noise(LARGE_BYTES);
  const [a, b] = await Promise.all([
    writeLayer([fileOf('one', '1'), fileOf('two', '2'), fileOf('x', large), fileOf('y', 'between')]),
    writeLayer([{ entry: entryOf('d', 'dir') }, fileOf('d/other', large, { mtimeNsec: 5 })]),
  ]);
  const chunkOf = ({ entries }: Written, path: string): Chunk | undefined =>
    entries.find((entry) => entry.path === path)?.chunks[0];
  const member = (layer: Written, path: string): Buffer | undefined => {
    const chunk = chunkOf(layer, path);
    return chunk && layer.blob.subarray(chunk.blobOffset, chunk.blobOffset + chunk.blobBytes);
  };
  t.deepEqual(member(a, 'x'), gzipMemberSync(large));
  t.deepEqual(member(a, 'x'), member(b, 'd/other'));
  t.is(chunkOf(a, 'one')?.blobOffset, chunkOf(a, 'two')?.blobOffset);
  t.not(chunkOf(a, 'one')?.innerOffset, chunkOf(a, 'two')?.innerOffset);
});

test('a shared member is not longer than its limit, and every file in it reads back', async (t) => {
  const files = Array.from({ length: 300 }, (_, i) => fileOf(`f${String(i).padStart(3, '0')}`, noise(i * 37, i + 1)));
  const { blob, entries } = await writeLayer(files);
  const starts = new Set(entries.flatMap(({ chunks }) => chunks.map((chunk) => chunk.blobOffset)));
  t.true(starts.size > 5 && starts.size < 40, `${starts.size} members`);
  for (const { chunks } of entries)
    for (const { innerOffset } of chunks) t.true(innerOffset < GROUP_BYTES + LARGE_BYTES);
  for (const [i, entry] of entries.entries())
    t.true(files[i]?.content?.equals(await contentOf(blob, entry)), entry.path);
});

test('a layer of nothing is still a whole layer', async (t) => {
  const { blob, layer } = await writeLayer([]);
  t.deepEqual((await readToc(readerOf(blob)))?.entries, []);
  t.is(layer.fileCount, 0);
  run(t, ['gzip', '-t'], blob);
});

test('gzip and GNU tar accept the blob, and extract the same names, bytes, links and times', async (t) => {
  const { blob } = await writeLayer([...PLAIN, ...LARGE]);
  run(t, ['gzip', '-t'], blob);
  run(t, ['tar', '-tvzf', '-'], blob);
  const dir = await tempDir(t);
  run(t, ['tar', '-xzf', '-', '-C', dir, '--no-same-owner'], blob);
  for (const { entry, content } of [...PLAIN, ...LARGE]) {
    const path = toFsPath(join(dir, 'x').slice(0, -1) + entry.path);
    if (content) t.true(content.equals(await readFile(path)), entry.path);
    if (entry.type === 'symlink') t.is(fromBytes(await readlink(path, 'buffer')), entry.link ?? '');
    const { mtimeNs, mode } = await lstat(path, { bigint: true });
    if (entry.type !== 'hardlink') t.is(mtimeNs, BigInt(entry.mtimeSec) * 1_000_000_000n + BigInt(entry.mtimeNsec));
    if (entry.type === 'dir') t.is(Number(mode & 0o7777n), entry.mode);
  }
});

test('GNU tar lists a layer with every odd entry there is', async (t) => {
  const names = run(t, ['tar', '-tzf', '-', '--quoting-style=literal', '--null'], (await written).blob).toString(
    'latin1',
  );
  for (const name of ['.bento-name..wh.hidden', '.wh..bento-name..wh.gone', 'opaque/.wh..wh..opq', 'year-5000']) {
    t.true(names.includes(`${name}\n`) || names.includes(`${name}\0`), name);
  }
});

test("Python's tarfile sees the same names", async (t) => {
  if (!hasTool(t, 'python3')) return;
  const { blob } = await writeLayer([...PLAIN, ...WHITEOUTS]);
  const script =
    'import io, sys, tarfile\n' +
    'for m in tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read()), mode="r:gz", encoding="utf-8", errors="surrogateescape"):\n' +
    '  sys.stdout.buffer.write(m.name.encode("utf-8", "surrogateescape") + b"\\0")\n';
  const names = fromBytes(run(t, ['python3', '-c', script], blob))
    .split('\0')
    .slice(0, -1);
  t.deepEqual(names, [
    '.no.prefetch.landmark',
    ...PLAIN.map(({ entry }) => entry.path || '.'),
    '.wh.gone',
    '.wh..bento-name..wh.gone',
    `dir/.wh.${LATIN1}`,
    `dir/.wh.${'z'.repeat(255)}`,
    'stargz.index.json',
  ]);
});

test('add() archives the size that was read when a file changed meanwhile', async (t) => {
  const shorter = fileOf('shorter', 'abc');
  const longer = fileOf('longer', noise(2 * CHUNK_BYTES));
  shorter.entry = { ...shorter.entry, sizeBytes: 1000 };
  longer.entry = { ...longer.entry, sizeBytes: 5 };
  const { blob, entries } = await writeLayer([longer, shorter]);
  t.deepEqual(
    entries.map(({ sizeBytes }) => sizeBytes),
    [2 * CHUNK_BYTES, 3],
  );
  run(t, ['gzip', '-t'], blob);
  t.deepEqual(facts((await readToc(readerOf(blob)))?.entries ?? []), facts(entries));
});

test('files on disk give the same layer as their bytes, and are closed', async (t) => {
  const dir = await tempDir(t);
  const samples = [...PLAIN.filter(({ entry }) => entry.path !== 'empty'), ...LARGE];
  const pool = threads(t);
  const sink = new MemorySink();
  await using writer = await LayerWriter.create(sink, { pool });
  for (const [i, { entry, content }] of samples.entries()) {
    if (content === undefined) {
      await writer.add(entry);
      continue;
    }
    const path = join(dir, String(i));
    await writeFile(path, content);
    await writer.add(entry, i % 2 === 0 ? { path } : { fd: openSync(path, 'r') });
  }
  t.deepEqual(await writer.finish(), (await writeLayer(samples)).layer);
  const open = await Promise.all(
    (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
  );
  t.deepEqual(
    open.filter((path) => path.startsWith(dir)),
    [],
  );
});

test('a file that is gone is left out, or replaced by what was asked for, and told', async (t) => {
  const dir = await tempDir(t);
  const gone: string[] = [];
  const entries: PackedEntry[] = [];
  const sink = new MemorySink();
  const onEntry = (entry: PackedEntry): void => void entries.push(entry);
  const writer = await LayerWriter.create(sink, { pool: threads(t), onEntry, onGone: (path) => gone.push(path) });
  const path = join(dir, 'missing');
  await writer.add(entryOf('a', 'file', { sizeBytes: 5 }), { path });
  await writer.add(entryOf('b', 'file', { sizeBytes: 5 }), { path }, entryOf('b', 'whiteout'));
  await writer.add(entryOf('c', 'file', { sizeBytes: LARGE_BYTES }), { path });
  await writer.add(entryOf('d', 'file', { sizeBytes: LARGE_BYTES }), { path }, entryOf('d', 'whiteout'));
  await writer.add(entryOf('e', 'dir'));
  await writer.finish();
  t.deepEqual(gone, ['a', 'b', 'c', 'd']);
  t.deepEqual(
    entries.map((entry) => `${entry.path} ${entry.type}`),
    ['b whiteout', 'd whiteout', 'e dir'],
  );
  t.deepEqual(facts((await readToc(readerOf(sink.blob)))?.entries ?? []), facts(entries));
});

test('a file that is not as planned is recorded as it is when it is read, time and mode included', async (t) => {
  const dir = await tempDir(t);
  const changed: string[] = [];
  for (const [name, content] of [
    ['small', Buffer.from('longer than planned')],
    ['large', noise(2 * CHUNK_BYTES + 9)],
  ] as const) {
    const path = join(dir, name);
    await writeFile(path, content, { mode: 0o640 });
    await utimes(path, 1000, 2000);
    const entries: PackedEntry[] = [];
    const sink = new MemorySink();
    const pool = threads(t);
    const writer = await LayerWriter.create(sink, {
      pool,
      onEntry: (entry) => entries.push(entry),
      onChanged: (what, { isUnsteady }) => changed.push(`${what} ${isUnsteady}`),
    });
    const times = { sizeBytes: 7, mtimeSec: 1, mtimeNsec: 0, ctimeSec: 1, ctimeNsec: 0 };
    await writer.add(entryOf(name, 'file', { sizeBytes: name === 'small' ? 7 : LARGE_BYTES }), { path, times });
    await writer.finish();
    const [entry] = entries;
    t.like(entry, { sizeBytes: content.length, mode: 0o640, mtimeSec: 2000, digest: digestOf(content) });
    t.true(entry && content.equals(await contentOf(sink.blob, entry)));
  }
  t.deepEqual(changed, ['small false', 'large false']);
});

test('a large file that is rewritten again and again while it is read is saved whole, and told', async (t) => {
  const path = join(await tempDir(t), 'busy');
  const writer = spawn(process.execPath, ['-e', BUSY_WRITER, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(writer.stdout, 'data');
  try {
    const entries: PackedEntry[] = [];
    const sink = new MemorySink();
    const changed: ChangedFile[] = [];
    const layer = await LayerWriter.create(sink, {
      pool: threads(t),
      onEntry: (entry) => entries.push(entry),
      onChanged: (_, how) => changed.push(how),
    });
    await layer.add(entryOf('busy', 'file', { sizeBytes: 9 * 1024 * 1024 }), { path });
    const packed = await layer.finish();
    const [entry] = entries;
    t.true(changed.length <= 1, 'told once, if it was not the same from beginning to end');
    const content = entry ? await contentOf(sink.blob, entry) : Buffer.alloc(0);
    const isOfOneMoment = content.equals(Buffer.alloc(content.length, content[0] ?? 0));
    t.true(isOfOneMoment || changed[0]?.isUnsteady, 'torn, and not told');
    t.is(content.length, entry?.sizeBytes ?? -1);
    t.is(digestOf(gunzipSync(sink.blob)), packed.diffId);
    run(t, ['gzip', '-t'], sink.blob);
  } finally {
    writer.kill('SIGKILL');
  }
});

test('addCopied() takes members over and gives the same layer as packing them', async (t) => {
  const files = Array.from({ length: 100 }, (_, i) => fileOf(`f${String(i).padStart(3, '0')}`, noise(5000, i + 1)));
  const first = await writeLayer(files);
  const sink = new MemorySink();
  const writer = await LayerWriter.create(sink, { pool: INLINE });
  const offsets = new Set(first.entries.map((entry) => entry.chunks[0]?.blobOffset ?? -1));
  for (const offset of offsets) {
    const entries = first.entries.filter((entry) => entry.chunks[0]?.blobOffset === offset);
    const member = first.blob.subarray(offset, offset + (entries[0]?.chunks[0]?.blobBytes ?? 0));
    const places = entries.map((entry) => ({ entry, innerOffset: entry.chunks[0]?.innerOffset ?? 0 }));
    await writer.addCopied({ raw: gunzipSync(member), member, entries: places });
  }
  t.deepEqual(await writer.finish(), first.layer);
  t.true(sink.blob.equals(first.blob));
});

test('addCopiedFile() takes the chunks of a large file over, and refuses too few', async (t) => {
  const content = noise(2 * CHUNK_BYTES + 5);
  const first = await writeLayer([fileOf('large', content)]);
  const [entry] = first.entries;
  if (entry === undefined) return t.fail();
  const chunks = entry.chunks.map(({ fileOffset, sizeBytes, digest, blobOffset, blobBytes }) => ({
    raw: content.subarray(fileOffset, fileOffset + sizeBytes),
    member: first.blob.subarray(blobOffset, blobOffset + blobBytes),
    digest,
  }));
  const sink = new MemorySink();
  const writer = await LayerWriter.create(sink, { pool: INLINE });
  await writer.addCopiedFile(entry, () => chunks);
  t.deepEqual(await writer.finish(), first.layer);
  const short = await LayerWriter.create(new MemorySink(), { pool: INLINE });
  await short.addCopiedFile(entry, () => chunks.slice(1));
  await t.throwsAsync(short.finish(), { code: 'FAILED' });
});

test('a source that fails makes every later call reject with its error', async (t) => {
  const writer = await LayerWriter.create(new MemorySink(), { pool: INLINE });
  const failing = {
    *read(): Generator<Buffer> {
      yield Buffer.from('some');
      throw new Error('the disk is gone');
    },
  };
  await t.throwsAsync(
    async () => {
      await writer.add(entryOf('a', 'file', { sizeBytes: LARGE_BYTES }), failing);
      for (let i = 0; i < 100; i++) await writer.add(entryOf(`b${i}`, 'file'), sourceOf(Buffer.from('x')));
      await writer.finish();
    },
    { message: 'the disk is gone' },
  );
  await t.throwsAsync(writer.finish(), { message: 'the disk is gone' });
  await writer.close();
});

test('a sink that fails makes finish() reject', async (t) => {
  const sink = { write: () => Promise.reject(new Error('no room')), rewind: () => undefined };
  const writer = await LayerWriter.create(sink, { pool: INLINE });
  await writer.add(entryOf('a', 'file'), sourceOf(noise(CHUNK_BYTES)));
  await t.throwsAsync(writer.finish(), { message: 'no room' });
});

test('close() stops reading', async (t) => {
  const writer = await LayerWriter.create(new MemorySink(), { pool: INLINE });
  let isClosed = false;
  const endless = {
    *read(): Generator<Buffer> {
      try {
        for (;;) yield noise(CHUNK_BYTES);
      } finally {
        isClosed = true;
      }
    },
  };
  await writer.add(entryOf('a', 'file', { sizeBytes: LARGE_BYTES }), endless);
  await new Promise((resolve) => setTimeout(resolve, 200));
  await writer.close();
  t.true(isClosed);
  await writer.close();
});

test('add() refuses a path twice, a path that leaves the tree, and content where there can be none', async (t) => {
  const writer = await LayerWriter.create(new MemorySink(), { pool: INLINE });
  await writer.add(entryOf('a', 'dir'));
  await t.throwsAsync(writer.add(entryOf('a', 'dir')), { instanceOf: RangeError });
  await t.throwsAsync(writer.add(entryOf('../a', 'dir')), { code: 'FORMAT_INVALID' });
  await t.throwsAsync(writer.add(entryOf('b', 'hardlink', { link: '/etc' })), { code: 'FORMAT_INVALID' });
  await t.throwsAsync(writer.add(entryOf('c', 'dir'), sourceOf(Buffer.alloc(1))), { instanceOf: TypeError });
  await t.throwsAsync(writer.add(entryOf('d', 'file')), { instanceOf: TypeError });
  await writer.finish();
  await t.throwsAsync(writer.add(entryOf('e', 'dir')), { instanceOf: TypeError });
});

test('a thousand entries without content cost few members', async (t) => {
  const dirs = Array.from({ length: 1000 }, (_, i) => ({ entry: entryOf(`d${String(i).padStart(4, '0')}`, 'dir') }));
  const { blob } = await writeLayer(dirs);
  t.true(blob.length < 60_000, `${blob.length} bytes`);
  const path = join(await tempDir(t), 'layer.tar.gz');
  await writeFile(path, blob);
  t.is(run(t, ['tar', '-tzf', path]).toString().split('\n').length - 1, 1002);
});
