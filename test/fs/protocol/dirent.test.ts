import test from 'ava';

import type { EntryOut } from '../../../fs/protocol/attr.ts';
import { decodeDirents, decodeDirentsPlus, encodeDirent, encodeDirentPlus } from '../../../fs/protocol/dirent.ts';
import { ProtocolError } from '../../../fs/protocol/wire.ts';

const FILE = { ino: 9, nextOffset: 3, mode: 0o100644, name: 'ab\xff' };
const FILE_HEX = '0900000000000000' + '0300000000000000' + '03000000' + '08000000' + '6162ff0000000000';

test('encodeDirent() and decodeDirents() agree with the golden', (t) => {
  const out = Buffer.alloc(64, 0xee);
  t.is(encodeDirent(out, 0, FILE), 32);
  t.is(encodeDirent(out, 32, { ...FILE, mode: 0o040755, name: 'eight888' }), 32);
  t.is(out.toString('hex', 0, 32), FILE_HEX);
  t.like(decodeDirents(out), [
    { ...FILE, mode: 0o100000 },
    { mode: 0o040000, name: 'eight888' },
  ]);
});

test('encodeDirent() writes nothing when the record does not fit', (t) => {
  const out = Buffer.alloc(40, 0xee);
  t.is(encodeDirent(out, 9, FILE), 0);
  t.is(out.toString('hex'), 'ee'.repeat(40));
  t.is(encodeDirent(out, 8, FILE), 32);
});

test('encodeDirentPlus() sends no attributes without an entry, and never half a record', (t) => {
  const out = Buffer.alloc(160, 0xee);
  t.is(encodeDirentPlus(out, 1, undefined, FILE), 0);
  t.is(out.toString('hex'), 'ee'.repeat(160));
  t.is(encodeDirentPlus(out, 0, undefined, FILE), 160);
  t.is(out.toString('hex'), '00'.repeat(128) + FILE_HEX);
});

test('decodeDirentsPlus() gives back entry and name', (t) => {
  const times = { atimeSec: 1, atimeNsec: 2, mtimeSec: 3, mtimeNsec: 4, ctimeSec: 5, ctimeNsec: 6 };
  const attr = {
    ino: 9,
    sizeBytes: 1,
    blocks: 1,
    ...times,
    mode: 0o100644,
    nlink: 1,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksizeBytes: 4096,
  };
  const entry: EntryOut = { nodeId: 9, entryValidSec: 1, attrValidSec: 1, attr };
  const out = Buffer.alloc(160);
  encodeDirentPlus(out, 0, entry, FILE);
  t.like(decodeDirentsPlus(out), [{ entry, dirent: { name: 'ab\xff' }, sizeBytes: 160 }]);
});

test('decoding a record that is cut off fails', (t) => {
  const body = Buffer.from(FILE_HEX, 'hex');
  t.throws(() => decodeDirents(body.subarray(0, 31)), { instanceOf: ProtocolError });
  t.throws(() => decodeDirents(body.subarray(0, 23)), { instanceOf: ProtocolError });
  t.throws(() => decodeDirentsPlus(body), { instanceOf: ProtocolError });
});
