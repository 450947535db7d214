import { deflateRawSync, gzipSync } from 'node:zlib';

import test from 'ava';

import {
  gunzipMember,
  gunzipMemberSync,
  gzipChunkSync,
  gzipMember,
  gzipMemberSync,
  GZIP_HEADER,
  inflateMember,
  SEGMENT_BYTES,
  SEGMENT_END,
} from '../../../store/layers/gzip-member.ts';
import { noise, run } from './layer-fixtures.ts';

test('gzipMember() writes the fixed header, and the same bytes on a thread and without', async (t) => {
  const bytes = noise(100_000);
  const member = await gzipMember(bytes);
  t.deepEqual(member, gzipMemberSync(bytes));
  t.is(member.subarray(0, 10).toString('hex'), '1f8b08000000000000ff');
  t.deepEqual(run(t, ['gzip', '-dc'], member), bytes);
});

test('gunzipMember() takes the first member and leaves the rest', async (t) => {
  const first = gzipMemberSync(Buffer.from('first'));
  const both = Buffer.concat([first, gzipMemberSync(Buffer.from('second'))]);
  const { bytes, memberBytes } = await inflateMember(both, { sizeMax: 5 });
  t.is(bytes.toString(), 'first');
  t.is(memberBytes, first.length);
  t.is(gunzipMemberSync(both, { sizeMax: 100 }).toString(), 'first');
});

test('gunzipMember() reads an empty member, and headers with a name, a comment and a checksum', async (t) => {
  t.is((await gunzipMember(gzipMemberSync(Buffer.alloc(0)), { sizeMax: 0 })).length, 0);
  const plain = gzipSync('hello');
  const flags = Buffer.from('1f8b081e0000000000ff' + '0200abcd' + '6e616d6500' + '636f6d6d656e7400' + '1234', 'hex');
  t.is(gunzipMemberSync(Buffer.concat([flags, plain.subarray(10)]), { sizeMax: 5 }).toString(), 'hello');
});

test('gunzipMember() refuses a bomb without inflating it', async (t) => {
  const bomb = gzipMemberSync(Buffer.alloc(64 * 1024 * 1024));
  await t.throwsAsync(gunzipMember(bomb, { sizeMax: 1024 }), { code: 'FORMAT_INVALID' });
  t.throws(() => gunzipMemberSync(bomb, { sizeMax: 1024 }), {
    code: 'FORMAT_INVALID',
    message: /more than 1024 bytes/,
  });
});

test('gunzipMember() refuses every cut-off member', (t) => {
  const member = gzipMemberSync(Buffer.from('some text, some more text, some text'));
  for (let length = 0; length < member.length; length++) {
    t.throws(() => gunzipMemberSync(member.subarray(0, length), { sizeMax: 1000 }), { code: 'FORMAT_INVALID' });
  }
});

test('gunzipMember() says DIGEST_MISMATCH when the bytes do not match the checksum', async (t) => {
  const wrong = Buffer.concat([
    GZIP_HEADER,
    deflateRawSync('other'),
    gzipMemberSync(Buffer.from('bytes')).subarray(-8),
  ]);
  await t.throwsAsync(gunzipMember(wrong, { sizeMax: 100 }), { code: 'DIGEST_MISMATCH' });
  t.throws(() => gunzipMemberSync(wrong, { sizeMax: 100 }), { code: 'DIGEST_MISMATCH' });
});

test('gzipChunkSync() compresses each segment as if it were alone, and inflates as one member', (t) => {
  const bytes = Buffer.from(Array.from({ length: 2.5 * SEGMENT_BYTES }, (_, i) => (i * i) >> 8));
  const member = gzipChunkSync(bytes);
  t.deepEqual(gunzipMemberSync(member, { sizeMax: bytes.length }), bytes);
  const changed = Buffer.from(bytes).fill('changed', 2 * SEGMENT_BYTES);
  const firstTwo = member.lastIndexOf(SEGMENT_END) + SEGMENT_END.length;
  t.deepEqual(gzipChunkSync(changed).subarray(0, firstTwo), member.subarray(0, firstTwo));
  t.deepEqual(gzipChunkSync(bytes.subarray(0, SEGMENT_BYTES)), gzipMemberSync(bytes.subarray(0, SEGMENT_BYTES)));
});
