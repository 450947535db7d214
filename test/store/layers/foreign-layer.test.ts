import { linkSync, mkdirSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

import test, { type ExecutionContext } from 'ava';

import { toFsPath } from '../../../store/byte-string.ts';
import { digestOf } from '../../../store/digest.ts';
import type { PackedEntry } from '../../../store/entry.ts';
import { collectLayer, type LayerContents } from '../../../store/layers/layer-contents.ts';
import { streamForeignLayer } from '../../../store/layers/layer-reader.ts';
import { encodePaxRecords } from '../../../store/layers/pax-records.ts';
import { sealHeader } from '../../../store/layers/tar-fields.ts';
import { encodeTarHeader } from '../../../store/layers/tar-header.ts';
import { CHUNK_BYTES } from '../../../store/layers/toc.ts';
import { entryOf, hasTool, inPieces, noise, run, tempDir } from './layer-fixtures.ts';

const END = Buffer.alloc(1024);
const LONG = 'n'.repeat(120);

function read(tar: Buffer, kind: 'tar' | 'tar+gzip' = 'tar'): Promise<LayerContents> {
  return collectLayer(streamForeignLayer(inPieces(tar, 10_007), kind));
}

/** A header with another type flag, and content behind it. */
function member(typeFlag: string, content: Buffer | string = '', name = 'x'): Buffer {
  const bytes = Buffer.from(content);
  const header = encodeTarHeader(entryOf(name, 'file', { sizeBytes: bytes.length }));
  header.write(typeFlag, 156, 'latin1');
  return Buffer.concat([sealHeader(header), bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
}

async function makeTree(t: ExecutionContext, isShort: boolean): Promise<string> {
  const dir = await tempDir(t);
  mkdirSync(join(dir, 'dir'));
  writeFileSync(join(dir, 'dir/file'), 'hello');
  writeFileSync(join(dir, 'big'), noise(5 * 1024 * 1024));
  writeFileSync(join(dir, 'empty'), '');
  writeFileSync(toFsPath(join(dir, 'caf\xe9')), 'latin1');
  symlinkSync('../nowhere', join(dir, 'dir/link'));
  linkSync(join(dir, 'dir/file'), join(dir, 'hard'));
  if (!isShort) {
    writeFileSync(join(dir, LONG), 'long');
    symlinkSync(`/${LONG}/${LONG}`, join(dir, 'longlink'));
  }
  utimesSync(join(dir, 'empty'), 5, 1_234_567_890.5);
  return dir;
}

for (const format of ['gnu', 'pax', 'ustar', 'v7'] as const) {
  for (const packer of ['none', 'gzip', 'pigz'] as const) {
    test(`streamForeignLayer() reads what GNU tar writes as ${format}, packed by ${packer}`, async (t) => {
      if (packer !== 'none' && !hasTool(t, packer)) return t.pass();
      const isShort = format === 'ustar' || format === 'v7';
      const dir = await makeTree(t, isShort);
      const tar = run(t, ['tar', `--format=${format}`, '--sort=name', '-cf', '-', '-C', dir, '.']);
      const input = packer === 'none' ? tar : run(t, [packer, '-c'], tar);
      const { entries } = await read(input, packer === 'none' ? 'tar' : 'tar+gzip');
      checkTree(t, tar, entries, { isShort, mtimeNsec: format === 'pax' ? 500_000_000 : 0 });
      return undefined;
    });
  }
}

function checkTree(
  t: ExecutionContext,
  tar: Buffer,
  entries: readonly PackedEntry[],
  { isShort, mtimeNsec }: { isShort: boolean; mtimeNsec: number },
): void {
  const byPath = new Map(entries.map((entry) => [entry.path, entry]));
  const long = isShort ? [] : ['longlink', LONG];
  t.deepEqual(
    [...byPath.keys()].sort(),
    ['', 'big', 'caf\xe9', 'dir', 'dir/file', 'dir/link', 'empty', 'hard', ...long].sort(),
  );
  t.is(byPath.get('dir')?.type, 'dir');
  t.is(byPath.get('dir/link')?.link, '../nowhere');
  t.like(byPath.get('hard'), { type: 'hardlink', link: 'dir/file', sizeBytes: 0 });
  t.like(byPath.get('empty'), { mtimeSec: 1_234_567_890, mtimeNsec, sizeBytes: 0, digest: digestOf('') });
  if (!isShort) t.is(byPath.get('longlink')?.link, `/${LONG}/${LONG}`);
  t.is(byPath.get('big')?.chunks.length, (5 * 1024 * 1024) / CHUNK_BYTES);
  for (const { chunks } of entries) {
    for (const { blobOffset, sizeBytes, digest } of chunks) {
      t.is(digestOf(tar.subarray(blobOffset, blobOffset + sizeBytes)), digest);
    }
  }
}

test("streamForeignLayer() reads Python's GNU and pax tars with base-256 numbers", async (t) => {
  if (!hasTool(t, 'python3')) return t.pass();
  const script = `
import io, sys, tarfile
out = tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=getattr(tarfile, sys.argv[1]))
info = tarfile.TarInfo("f")
info.uid, info.mtime, info.size = 5000000, -7, 3
out.addfile(info, io.BytesIO(b"abc"))
out.close()`;
  for (const format of ['GNU_FORMAT', 'PAX_FORMAT']) {
    const { entries } = await read(run(t, ['python3', '-c', script, format]));
    t.like(entries[0], { path: 'f', uid: 5_000_000, mtimeSec: -7, mtimeNsec: 0, sizeBytes: 3 }, format);
  }
  return undefined;
});

test('streamForeignLayer() reads an empty layer, bare and as the original writes it', async (t) => {
  const empty = { entries: [], opaqueDirs: [] };
  t.deepEqual(await read(END), empty);
  const gzip = gzipSync(END);
  Buffer.from('00096e88', 'hex').copy(gzip, 4); // the original's MTIME: a zero Go time, truncated
  t.deepEqual(await read(gzip, 'tar+gzip'), empty);
});

test('streamForeignLayer() keeps user files with names of the eStargz format in a layer that is none', async (t) => {
  const names = ['.prefetch.landmark', 'stargz.index.json'];
  const { entries } = await read(Buffer.concat([...names.map(withRawName), END]));
  t.deepEqual(
    entries.map(({ path }) => path),
    names,
  );
});

test('streamForeignLayer() awaits its listener and hands it every byte', async (t) => {
  const tar = Buffer.concat([member('0', noise(3000)), END, Buffer.alloc(9000)]);
  const seen: Buffer[] = [];
  const listen = async (bytes: Buffer): Promise<void> => {
    await new Promise(setImmediate);
    seen.push(bytes);
  };
  await collectLayer(streamForeignLayer(inPieces(tar), 'tar', listen));
  t.deepEqual(Buffer.concat(seen), tar);
});

test('streamForeignLayer() closes its input when the reader stops early', async (t) => {
  let isClosed = false;
  async function* input(): AsyncGenerator<Buffer> {
    try {
      for (;;) yield await Promise.resolve(member('0', 'x'));
    } finally {
      isClosed = true;
    }
  }
  for await (const item of streamForeignLayer(input(), 'tar')) {
    t.is(item.kind, 'entry');
    break;
  }
  t.true(isClosed);
});

test('streamForeignLayer() refuses sparse files, and types nobody should put in a layer', async (t) => {
  for (const typeFlag of ['S', 'M', 'V', 'Z']) {
    await t.throwsAsync(read(Buffer.concat([member(typeFlag), END])), { code: 'FORMAT_UNSUPPORTED' });
  }
  const sparse = encodePaxRecords(new Map([['GNU.sparse.major', '1']]));
  await t.throwsAsync(read(Buffer.concat([member('x', sparse), member('0'), END])), { code: 'FORMAT_UNSUPPORTED' });
});

test('a global pax header counts until it is overruled', async (t) => {
  const global = member('g', encodePaxRecords(new Map([['mtime', '5']])));
  const local = member('x', encodePaxRecords(new Map([['mtime', '6.25']])));
  const { entries } = await read(Buffer.concat([global, member('0', '', 'a'), local, member('0', '', 'b'), END]));
  t.like(entries[0], { path: 'a', mtimeSec: 5 });
  t.like(entries[1], { path: 'b', mtimeSec: 6, mtimeNsec: 250_000_000 });
});

test('a later entry replaces an earlier one, and a whiteout beside a directory makes it opaque', async (t) => {
  const dir = encodeTarHeader(entryOf('d', 'dir'));
  const hidden = encodeTarHeader(entryOf('d', 'whiteout'));
  const { entries, opaqueDirs } = await read(Buffer.concat([member('0', 'old'), hidden, dir, member('0', 'new'), END]));
  t.deepEqual(opaqueDirs, ['d']);
  t.deepEqual(
    entries.map(({ path, opaque, digest }) => ({ path, opaque, digest })),
    [
      { path: 'd', opaque: true, digest: undefined },
      { path: 'x', opaque: undefined, digest: digestOf('new') },
    ],
  );
});

const HOSTILE: readonly [string, Buffer][] = [
  ['nothing at all', Buffer.alloc(0)],
  ['no end of the archive', member('0', 'x')],
  ['noise', noise(4096)],
  ['a name that climbs out', Buffer.concat([member('0', 'x', 'a'), withRawName('../../etc/passwd'), END])],
  ['a long name that climbs out', Buffer.concat([member('L', '../x\0'), member('0'), END])],
  [
    'ten thousand pax headers before one file',
    Buffer.concat([...Array<Buffer>(10_000).fill(member('x', '6 a=b\n')), END]),
  ],
  ['a pax header of two megabytes', Buffer.concat([member('x', Buffer.alloc(2 * 1024 * 1024)), member('0'), END])],
  [
    'a pax size beyond all reason',
    Buffer.concat([member('x', encodePaxRecords(new Map([['size', '9'.repeat(30)]]))), member('0'), END]),
  ],
  [
    'a size that is never delivered',
    Buffer.concat([member('x', encodePaxRecords(new Map([['size', '8000000000000']]))), member('0'), END]),
  ],
  ['a negative size', Buffer.concat([withNegativeSize(), END])],
  [
    'a NUL in a pax path',
    Buffer.concat([member('x', encodePaxRecords(new Map([['path', 'a\0b']]))), member('0'), END]),
  ],
  [
    'a file below a symlink',
    Buffer.concat([encodeTarHeader(entryOf('l', 'symlink', { link: '/' })), member('0', '', 'l/x'), END]),
  ],
];

function withRawName(name: string): Buffer {
  const header = member('0');
  header.write(`${name}\0`, 0, 'latin1');
  return sealHeader(header);
}

function withNegativeSize(): Buffer {
  const header = member('0');
  header.fill(0xff, 124, 136);
  return sealHeader(header);
}

for (const [what, tar] of HOSTILE) {
  test(`streamForeignLayer() refuses ${what}`, async (t) => {
    await t.throwsAsync(read(tar), { code: 'FORMAT_INVALID' });
    await t.throwsAsync(read(gzipSync(tar), 'tar+gzip'), { code: 'FORMAT_INVALID' });
  });
}
