import { gzipSync } from 'node:zlib';

import test from 'ava';

import { digestOf } from '../../../store/digest.ts';
import { BentoError } from '../../../store/errors.ts';
import { encodeFooter, FOOTER_BYTES } from '../../../store/layers/footer.ts';
import { collectLayer } from '../../../store/layers/layer-contents.ts';
import {
  readChunk,
  readFooter,
  readToc,
  readTocJson,
  streamForeignLayer,
  streamToc,
} from '../../../store/layers/layer-reader.ts';
import { TOC_HEAD } from '../../../store/layers/toc.ts';
import { decodeToc, TocDecoder } from '../../../store/layers/toc-decode.ts';
import { LARGE_BYTES } from '../../../store/layers/layer-writer.ts';
import { fileOf, entryOf, inPieces, noise, readerOf, readSync, writeLayer } from './layer-fixtures.ts';

const TOC_OFFSET = 1000;
const DIGEST = digestOf('x');

type Json = Record<string, unknown>;

function decode(...entries: Json[]): Promise<unknown> {
  const json = Buffer.from(JSON.stringify({ version: 1, entries }));
  return Promise.resolve().then(() => decodeToc(json, { tocOffset: TOC_OFFSET }));
}

/** The same as our own documents are written. */
function decodeLines(...entries: Json[]): Promise<unknown> {
  const lines = [...entries, regOf({ name: 'last' })].map((entry) => JSON.stringify(entry));
  const json = Buffer.from(`${TOC_HEAD}${lines.join(',\n')}\n]}\n`);
  return Promise.resolve().then(() => decodeToc(json, { tocOffset: TOC_OFFSET }));
}

function regOf(fields: Json = {}): Json {
  return { name: 'f', type: 'reg', size: 1, offset: 10, digest: DIGEST, chunkDigest: DIGEST, ...fields };
}

test('encodeFooter() writes the golden bytes', (t) => {
  t.is(
    encodeFooter(0x1234_abcd).toString('hex'),
    '1f8b08040000000000ff' + // gzip, FEXTRA, no time, unknown system
      '1a00' + // XLEN 26
      '53471600' + // SG, 22 bytes
      '30303030303030303132333461626364' + // 000000001234abcd
      '53544152475a' + // STARGZ
      '010000ffff' + // empty deflate
      '0000000000000000',
  );
});

test('readFooter() recognises the three footers and nothing else', async (t) => {
  const blob = (hex: string): ReturnType<typeof readerOf> =>
    readerOf(Buffer.concat([noise(5000), Buffer.from(hex, 'hex')]));
  const text = Buffer.from('0000000000000010STARGZ').toString('hex');
  const tail = '010000ffff' + '00'.repeat(8);
  const legacy = `1f8b08040000000000ff1600${text}${tail}`;
  const external = `1f8b08040000000000ff150053471100${Buffer.from('STARGZEXTERNALTOC').toString('hex')}${tail}`;
  t.like(await readFooter(blob(encodeFooter(16).toString('hex'))), { kind: 'estargz', tocOffset: 16 });
  t.like(await readFooter(blob(legacy)), { kind: 'legacy', tocOffset: 16 });
  t.like(await readFooter(blob(external)), { kind: 'external' });
  t.is(await readToc(blob(external)), undefined);
  for (const plain of ['', legacy.slice(2), `${external}00`]) t.is(await readFooter(blob(plain)), undefined);
  t.is(await readFooter(readerOf(Buffer.alloc(0))), undefined);
});

test('readFooter() refuses a footer that points outside the blob', async (t) => {
  for (const offset of [5000, 2 ** 40, 2 ** 53]) {
    const blob = Buffer.concat([noise(5000), encodeFooter(offset)]);
    await t.throwsAsync(readFooter(readerOf(blob)), { code: 'FORMAT_INVALID' });
  }
});

test('readToc() refuses a table of contents with another digest', async (t) => {
  const { blob } = await writeLayer([fileOf('a', 'a')]);
  await t.throwsAsync(readToc(readerOf(blob), DIGEST), { code: 'DIGEST_MISMATCH' });
});

const BAD_TOCS: readonly [string, readonly Json[]][] = [
  ['a path with ..', [regOf({ name: 'a/../../b' })]],
  ['an empty component', [regOf({ name: 'a//b' })]],
  ['a NUL', [regOf({ name: 'a\0b' })]],
  ['no name', [regOf({ name: undefined })]],
  ['a name of 256 bytes', [regOf({ name: 'x'.repeat(256) })]],
  ['a hard link that leaves the tree', [{ name: 'l', type: 'hardlink', linkName: '../x' }]],
  ['a true path that leaves the tree', [regOf({ bento: { path: Buffer.from('../x').toString('base64') } })]],
  ['a symlink to nowhere', [{ name: 'l', type: 'symlink' }]],
  ['an unknown type', [{ name: 'l', type: 'socket' }]],
  ['an offset behind the table of contents', [regOf({ offset: TOC_OFFSET })]],
  ['an absurd offset', [regOf({ offset: 1e300 })]],
  ['a negative offset', [regOf({ offset: -1 })]],
  ['a fractional size', [regOf({ size: 1.5 })]],
  ['a size as text', [regOf({ size: '1' })]],
  ['a chunk before any file', [{ name: 'f', type: 'chunk', offset: 10 }]],
  [
    'a chunk of a directory',
    [
      { name: 'd', type: 'dir' },
      { type: 'chunk', offset: 10, chunkSize: 1, chunkDigest: DIGEST },
    ],
  ],
  [
    'chunks with a gap',
    [regOf({ size: 9, chunkSize: 4 }), { type: 'chunk', offset: 20, chunkOffset: 5, chunkDigest: DIGEST }],
  ],
  ['chunks that are too short', [regOf({ size: 9, chunkSize: 4 })]],
  [
    'chunks that are too long',
    [regOf({ size: 4, chunkSize: 4 }), { type: 'chunk', offset: 20, chunkOffset: 4, chunkSize: 9 }],
  ],
  ['a digest that is none', [regOf({ chunkDigest: 'sha256:0' })]],
  ['a file below a symlink', [{ name: 'l', type: 'symlink', linkName: '/etc' }, regOf({ name: 'l/passwd' })]],
  ['a root that is a file', [regOf({ name: './' })]],
  ['a date that is none', [regOf({ modtime: '2024-13-01T00:00:00Z' })]],
  ['a value that is not base64', [regOf({ xattrs: { 'user.a': '%%' } })]],
  ['an entry that is no object', [[] as unknown as Json]],
];

for (const [what, entries] of BAD_TOCS) {
  test(`decodeToc() refuses ${what}`, async (t) => {
    await t.throwsAsync(decode(...entries), { instanceOf: BentoError, code: 'FORMAT_INVALID' });
    await t.throwsAsync(decodeLines(...entries), { instanceOf: BentoError, code: 'FORMAT_INVALID' });
  });
}

test('TocDecoder says the same of a document in whatever pieces and lines it comes', async (t) => {
  const samples = Array.from({ length: 40 }, (_, i) => fileOf(`d/f${i}\u00fc`, noise(3000 + i, i)));
  const { blob } = await writeLayer([...samples, fileOf('large', noise(3_000_000))]);
  const stored = await readTocJson(readerOf(blob));
  if (stored === undefined) return t.fail();
  const { json, tocOffset } = stored;
  const expected = decodeToc(json, { tocOffset });
  t.is(expected.entries.length, 41);
  const document: unknown = JSON.parse(json.toString());
  const [first = '', ...others] = json.toString().slice(TOC_HEAD.length).split('\n');
  const forms = {
    ours: json,
    'one line': Buffer.from(JSON.stringify(document)),
    indented: Buffer.from(JSON.stringify(document, undefined, '\t')),
    'two entries in a line': Buffer.from(`${TOC_HEAD}${first}${others.join('\n')}`),
    'an entry in two lines': Buffer.from(`${TOC_HEAD}${first.replace(',', ',\n')}\n${others.join('\n')}`),
  };
  for (const [form, text] of Object.entries(forms)) {
    for (const pieceBytes of [1, 7, 1000, text.length]) {
      const decoder = new TocDecoder();
      for (let at = 0; at < text.length; at += pieceBytes) decoder.push(text.subarray(at, at + pieceBytes));
      t.deepEqual(decoder.finish({ tocOffset }), expected, `${form}, ${pieceBytes}`);
    }
  }
});

test('decodeToc() refuses lines that are no such document as a whole', (t) => {
  const line = JSON.stringify(regOf());
  const last = JSON.stringify(regOf({ name: 'last' }));
  for (const rest of [
    ']}\n', // a comma too many
    `${last}],"entries":[${last}]}`,
    `${last}],"version":2}`,
    `${last}]`,
    '',
  ])
    t.throws(() => decodeToc(Buffer.from(`${TOC_HEAD}${line},\n${rest}`), { tocOffset: TOC_OFFSET }), {
      code: 'FORMAT_INVALID',
    });
});

test('streamToc() reads a table of contents as it comes, and refuses one that is another or cut off', async (t) => {
  const { blob } = await writeLayer([fileOf('a', 'a'), fileOf('b', noise(200_000))]);
  const toc = await readToc(readerOf(blob));
  if (toc === undefined) return t.fail();
  const { tocOffset, tocDigest: expected, entries } = toc;
  const member = blob.subarray(tocOffset, blob.length - FOOTER_BYTES);
  for (const pieceBytes of [1, 100, member.length])
    t.deepEqual((await streamToc(inPieces(member, pieceBytes), { expected, tocOffset })).entries, entries);
  await t.throwsAsync(streamToc(inPieces(member), { expected: DIGEST, tocOffset }), { code: 'DIGEST_MISMATCH' });
  for (const length of [0, 20, member.length >> 1])
    await t.throwsAsync(streamToc(inPieces(member.subarray(0, length)), { expected, tocOffset }), {
      code: 'FORMAT_INVALID',
    });
});

test('decodeToc() leaves to others what it cannot read in pieces', async (t) => {
  await t.throwsAsync(decode(regOf({ size: 2 ** 50 })), { code: 'FORMAT_UNSUPPORTED' });
  await t.throwsAsync(decode(regOf({ digest: undefined, chunkDigest: undefined })), { code: 'FORMAT_UNSUPPORTED' });
});

test('decodeToc() refuses another version, and what is no document', (t) => {
  for (const text of ['', '[]', 'null', '{"version":2,"entries":[]}', '{"version":1}', '{'.repeat(100_000)]) {
    t.throws(() => decodeToc(Buffer.from(text), { tocOffset: 1 }), { code: 'FORMAT_INVALID' });
  }
});

test('decodeToc() reads what the reference writer writes', async (t) => {
  const contents = await decode(
    { name: '.prefetch.landmark', type: 'reg', size: 1, offset: 5, digest: DIGEST, chunkDigest: DIGEST },
    { name: './dir/', type: 'dir', mode: 0o40755, modtime: '2024-01-02T03:04:05Z', userName: 'root', NumLink: 2 },
    { ...regOf({ name: './dir/f', size: 7, chunkSize: 4, offset: 100 }) },
    { name: 'dir/f', type: 'chunk', offset: 100, innerOffset: 4, chunkOffset: 4, chunkDigest: DIGEST },
    { name: 'dir/.wh.gone', type: 'reg', digest: DIGEST },
    { name: 'other/.wh..wh..opq', type: 'reg' },
    { name: '.wh..wh.plnk', type: 'dir' },
  );
  const place = { digest: DIGEST, blobOffset: 100, blobBytes: TOC_OFFSET - 100 };
  t.deepEqual(contents, {
    entries: [
      { ...entryOf('dir/gone', 'whiteout', { mode: 0, mtimeSec: 0 }), chunks: [] },
      { ...entryOf('dir', 'dir', { mtimeSec: 1_704_164_645 }), chunks: [] },
      {
        ...entryOf('dir/f', 'file', { mode: 0, mtimeSec: 0, sizeBytes: 7, digest: DIGEST }),
        chunks: [
          { fileOffset: 0, sizeBytes: 4, innerOffset: 0, ...place },
          { fileOffset: 4, sizeBytes: 3, innerOffset: 4, ...place },
        ],
      },
    ],
    opaqueDirs: ['other'],
    prefetchEnd: 5,
  });
});

test('readChunk() drops what precedes and follows a piece in its member', async (t) => {
  const member = gzipSync(Buffer.concat([Buffer.from('before'), Buffer.from('piece'), Buffer.alloc(100_000)]));
  const chunk = {
    fileOffset: 0,
    sizeBytes: 5,
    digest: digestOf('piece'),
    blobOffset: 3,
    blobBytes: member.length,
    innerOffset: 6,
  };
  const blob = Buffer.concat([noise(3), member]);
  t.is((await readChunk(readerOf(blob), chunk)).toString(), 'piece');
  t.is(readSync(blob, chunk).toString(), 'piece');
});

test('readChunk() names the offset of a chunk that was changed', async (t) => {
  const { blob, entries } = await writeLayer([fileOf('a', noise(LARGE_BYTES))]);
  const [chunk] = entries[0]?.chunks ?? [];
  if (!chunk) return t.fail();
  // From the first byte of content: the five before it hold bits that mean nothing.
  for (let at = chunk.blobOffset + 15; at < chunk.blobOffset + chunk.blobBytes - 8; at += 997) {
    const changed = Buffer.from(blob);
    changed[at] = (changed[at] ?? 0) ^ 0x10;
    await t.throwsAsync(readChunk(readerOf(changed), chunk), { instanceOf: BentoError });
    t.throws(() => readSync(changed, chunk), { instanceOf: BentoError });
  }
  await t.throwsAsync(readChunk(readerOf(blob), { ...chunk, digest: DIGEST }), {
    code: 'DIGEST_MISMATCH',
    message: new RegExp(`offset ${chunk.blobOffset} `),
  });
  await t.throwsAsync(readChunk(readerOf(blob.subarray(0, 50)), chunk), { code: 'FORMAT_INVALID' });
  return undefined;
});

test('a layer that is cut off anywhere is refused', async (t) => {
  const { blob } = await writeLayer([fileOf('a', noise(50_000)), { entry: entryOf('d', 'dir') }, fileOf('d/b', 'b')]);
  for (let part = 0; part < 16; part++) {
    const cut = blob.subarray(0, Math.floor((blob.length * part) / 16));
    t.is(await readToc(readerOf(cut)), undefined);
    await t.throwsAsync(collectLayer(streamForeignLayer(inPieces(cut), 'tar+gzip')), { code: 'FORMAT_INVALID' });
  }
});

test('a layer with a flipped byte is refused or reads the same, and never hangs', async (t) => {
  const samples = [fileOf('a', noise(2000)), { entry: entryOf('d', 'dir') }, fileOf('d/b', 'b')];
  const { blob, layer } = await writeLayer(samples);
  const expected = await collectLayer(streamForeignLayer(inPieces(blob), 'tar+gzip'));
  for (let at = 0; at < blob.length; at += 11) {
    const changed = Buffer.from(blob);
    changed[at] = (changed[at] ?? 0) ^ 0xff;
    await readToc(readerOf(changed), layer.tocDigest).catch((error: unknown) => t.true(error instanceof BentoError));
    try {
      t.deepEqual(await collectLayer(streamForeignLayer(inPieces(changed), 'tar+gzip')), expected, `byte ${at}`);
    } catch (error) {
      t.true(error instanceof BentoError, String(error));
    }
  }
});
