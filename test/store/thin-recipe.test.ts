import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { digestOf, type Digest } from '../../store/digest.ts';
import { encodeRecipe, readRecipe, type Recipe, type ThinPiece } from '../../store/thin-recipe.ts';
import { newFolder } from '../fixtures/workspaces.ts';

const BLOB = digestOf('the blob');
const [BASE, OTHER]: Digest[] = [`sha256:${'aa'.repeat(32)}`, `sha256:${'bb'.repeat(32)}`];

const RECIPE: Recipe = {
  sizeBytes: 5 + 0x10000 + 2 + 7,
  literalBytes: 7,
  pieces: [
    { at: 0, lengthBytes: 5, base: undefined, offset: 0 },
    { at: 5, lengthBytes: 0x10000, base: BASE, offset: 0x123456789a },
    { at: 0x10005, lengthBytes: 2, base: undefined, offset: 5 },
    { at: 0x10007, lengthBytes: 7, base: OTHER, offset: 0 },
  ],
};

/** Two bases, four pieces, the footer; the checksum as sha256sum(1) prints it of what stands before it. */
const GOLDEN = [
  'aa'.repeat(32),
  'bb'.repeat(32),
  '00000000 00000000 0000000000000000 0500000000000000',
  '01000000 00000000 9a78563412000000 0000010000000000',
  '00000000 00000000 0500000000000000 0200000000000000',
  '02000000 00000000 0000000000000000 0700000000000000',
  '0e00010000000000 0700000000000000 02000000 04000000',
  'CHECKSUM',
  '424e545448494e01',
];

function readBytes(t: ExecutionContext, bytes: Buffer): Recipe {
  const path = join(newFolder(t), 'thin');
  writeFileSync(path, bytes);
  const fd = openSync(path, 'r');
  try {
    return readRecipe(fd, BLOB);
  } finally {
    closeSync(fd);
  }
}

/** As a program that means harm would write it: the checksum is right. */
function forge(recipe: Recipe, change: (table: Buffer) => void): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(recipe.literalBytes, 'literal'), encodeRecipe(recipe)]);
  const footerAt = bytes.length - 64;
  change(bytes);
  const digest = Buffer.from(digestOf(bytes.subarray(recipe.literalBytes, footerAt + 24)).slice(7), 'hex');
  digest.copy(bytes, footerAt + 24);
  return bytes;
}

test('encodeRecipe() and readRecipe() agree with the bytes that docs/format.md describes', (t) => {
  const encoded = encodeRecipe(RECIPE);
  const before = GOLDEN.slice(0, 7).join('').replaceAll(' ', '');
  const checksum = digestOf(Buffer.from(before, 'hex')).slice(7);
  t.is(encoded.toString('hex'), GOLDEN.join('').replaceAll(' ', '').replace('CHECKSUM', checksum));
  t.deepEqual(readBytes(t, Buffer.concat([Buffer.alloc(7), encoded])), RECIPE);
});

test('readRecipe() refuses every recipe that does not say the same thing twice', (t) => {
  const at = { piece: 7 + 64, footer: 7 + 64 + 96 };
  const forged: [string, (bytes: Buffer) => void, RegExp][] = [
    ['a base that is not there', (b) => b.writeUInt32LE(3, at.piece + 24), /no base 3/],
    ['an empty piece', (b) => b.writeBigUInt64LE(0n, at.piece + 24 + 16), /empty/],
    ['a size of its own', (b) => b.writeBigUInt64LE(99n, at.footer), /do not make up its size/],
    ['literals that overlap', (b) => b.writeBigUInt64LE(4n, at.piece + 48 + 8), /overlap or leave gaps/],
    ['literals with a gap', (b) => b.writeBigUInt64LE(6n, at.piece + 48 + 8), /overlap or leave gaps/],
    ['a number beyond all files', (b) => b.writeBigUInt64LE(2n ** 63n, at.piece + 24 + 8), /too large/],
    ['pieces that add up beyond all files', (b) => b.writeBigUInt64LE(2n ** 53n - 1n, at.piece + 24 + 16), /too large/],
    ['itself as a base', (b) => void Buffer.from(BLOB.slice(7), 'hex').copy(b, 7), /made of itself/],
    ['too many pieces', (b) => b.writeUInt32LE(65_537, at.footer + 20), /65537 pieces, limit 65536/],
    ['too many bases', (b) => b.writeUInt32LE(128, at.footer + 16), /128 bases, limit 127/],
    ['fewer pieces than there are', (b) => b.writeUInt32LE(3, at.footer + 20), /not as long as it says/],
    ['more literals than there are', (b) => b.writeBigUInt64LE(8n, at.footer + 8), /not as long as it says/],
    ['another end', (b) => b.writeUInt8(0, at.footer + 56), /does not end like one/],
  ];
  t.deepEqual(
    readBytes(
      t,
      forge(RECIPE, () => undefined),
    ),
    RECIPE,
  );
  for (const [title, change, says] of forged) {
    t.throws(() => readBytes(t, forge(RECIPE, change)), { code: 'FORMAT_INVALID', message: says }, title);
  }
  const newer = forge(RECIPE, (bytes) => bytes.writeUInt8(2, bytes.length - 1));
  t.throws(() => readBytes(t, newer), { code: 'FORMAT_UNSUPPORTED', message: /version 2/ });
});

test('readRecipe() notices a bit that flipped anywhere in it, and every cut', (t) => {
  const whole = forge(RECIPE, () => undefined);
  for (let at = RECIPE.literalBytes; at < whole.length; at += 5) {
    const flipped = Buffer.from(whole);
    flipped.writeUInt8(flipped.readUInt8(at) ^ 4, at);
    t.throws(() => readBytes(t, flipped), { message: /recipe of|version/ }, `byte ${at}`);
  }
  for (const length of [0, 63, 64, whole.length - 1]) {
    t.throws(() => readBytes(t, whole.subarray(0, length)), { code: 'FORMAT_INVALID' }, `${length} bytes`);
  }
});

test('encodeRecipe() refuses what readRecipe() would not take', (t) => {
  const piece = (i: number): ThinPiece => ({ at: i, lengthBytes: 1, base: digestOf(String(i)), offset: 0 });
  const pieces = Array.from({ length: 128 }, (_, i) => piece(i));
  t.throws(() => encodeRecipe({ sizeBytes: 128, literalBytes: 0, pieces }), { instanceOf: RangeError });
});
