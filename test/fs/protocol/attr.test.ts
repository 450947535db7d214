import test from 'ava';

import {
  type Attr,
  decodeAttr,
  decodeAttrOut,
  decodeEntryOut,
  decodeRdev,
  encodeAttr,
  encodeAttrOut,
  encodeEntryOut,
  encodeNegativeEntry,
  encodeRdev,
} from '../../../fs/protocol/attr.ts';

const ATTR: Attr = {
  ino: 2 ** 40 + 3,
  sizeBytes: 2 ** 33 + 1,
  blocks: 2 ** 24 + 1,
  atimeSec: 1,
  atimeNsec: 2,
  mtimeSec: -1,
  mtimeNsec: 999_999_999,
  ctimeSec: -(2 ** 32) - 2,
  ctimeNsec: 0,
  mode: 0o100644,
  nlink: 2,
  uid: 1000,
  gid: 2 ** 32 - 2,
  rdev: 0,
  blksizeBytes: 4096,
};

const ATTR_HEX =
  '0300000000010000' + // ino
  '0100000002000000' + // size
  '0100000100000000' + // blocks
  '0100000000000000' + // atime
  'ffffffffffffffff' + // mtime
  'fefffffffeffffff' + // ctime
  '02000000' + // atimensec
  'ffc99a3b' + // mtimensec
  '00000000' + // ctimensec
  'a4810000' + // mode
  '02000000' + // nlink
  'e8030000' + // uid
  'feffffff' + // gid
  '00000000' + // rdev
  '00100000' + // blksize
  '00000000'; // flags

test('encodeAttr() and decodeAttr() agree with the golden, dates before 1970 too', (t) => {
  const out = Buffer.alloc(88, 0xee);
  t.is(encodeAttr(out, 0, ATTR), 88);
  t.is(out.toString('hex'), ATTR_HEX);
  t.deepEqual(decodeAttr(out), ATTR);
});

test('encodeEntryOut() and decodeEntryOut() agree with the golden', (t) => {
  const entry = { nodeId: 7, entryValidSec: 31_536_000, attrValidSec: 60, attr: ATTR };
  const out = Buffer.alloc(128, 0xee);
  t.is(encodeEntryOut(out, 0, entry), 128);
  const head = '0700000000000000' + '0000000000000000' + '8033e10100000000' + '3c00000000000000' + '0000000000000000';
  t.is(out.toString('hex'), head + ATTR_HEX);
  t.deepEqual(decodeEntryOut(out), entry);
  encodeEntryOut(out, 0, { ...entry, generation: 2 ** 32 + 9 });
  t.is(out.toString('hex', 0, 16), '0700000000000000' + '0900000001000000');
});

test('encodeNegativeEntry() is all zero but for how long it holds', (t) => {
  const out = Buffer.alloc(128, 0xee);
  t.is(encodeNegativeEntry(out, 0, 5), 128);
  t.is(out.toString('hex'), '00'.repeat(16) + '0500000000000000' + '00'.repeat(104));
});

test('encodeAttrOut() and decodeAttrOut() agree with the golden', (t) => {
  const out = Buffer.alloc(104, 0xee);
  t.is(encodeAttrOut(out, 0, { attrValidSec: 60, attr: ATTR }), 104);
  t.is(out.toString('hex'), '3c00000000000000' + '0000000000000000' + ATTR_HEX);
  t.deepEqual(decodeAttrOut(out), { attrValidSec: 60, attr: ATTR });
});

test('encodeRdev() packs device numbers as the kernel does', (t) => {
  t.is(encodeRdev(8, 1), 0x801);
  t.is(encodeRdev(300, 70_000), 0x1111_2c70);
  t.deepEqual(decodeRdev(0x1111_2c70), { major: 300, minor: 70_000 });
  t.deepEqual(decodeRdev(encodeRdev(4095, 1_048_575)), { major: 4095, minor: 1_048_575 });
});
