import { createHash } from 'node:crypto';

import test from 'ava';

import { OPEN_FLAG } from '../../../fs/protocol/constants.ts';
import { decodeDirents, decodeDirentsPlus } from '../../../fs/protocol/dirent.ts';
import { decodeRequest } from '../../../fs/protocol/header.ts';
import { decodeInitIn } from '../../../fs/protocol/init.ts';
import {
  decodeBatchForgetIn,
  decodeCreateIn,
  decodeForgetIn,
  decodeLinkIn,
  decodeMkdirIn,
  decodeMknodIn,
  decodeOnlyName,
  decodeRename2In,
  decodeRenameIn,
  decodeSymlink,
  decodeTmpfileIn,
} from '../../../fs/protocol/names.ts';
import { decodeOpenIn, decodeOpenOut, encodeOpenOut } from '../../../fs/protocol/open.ts';
import { decodeReadIn, encodeReadIn } from '../../../fs/protocol/read.ts';
import { decodeSetattrIn } from '../../../fs/protocol/setattr.ts';
import { decodeStatfs, encodeStatfs } from '../../../fs/protocol/statfs.ts';
import { decodeName, ProtocolError, readI64, readU64, writeI64, writeU64 } from '../../../fs/protocol/wire.ts';
import {
  decodeCopyFileRangeIn,
  decodeFallocateIn,
  decodeFsyncIn,
  decodeLseekIn,
  decodeWriteIn,
} from '../../../fs/protocol/write.ts';
import {
  decodeGetxattrIn,
  decodeGetxattrOut,
  decodeListxattrIn,
  decodeSetxattrIn,
  encodeGetxattrIn,
  encodeGetxattrOut,
} from '../../../fs/protocol/xattr.ts';

const HEADER = Buffer.alloc(40);

function request(bodyHex: string): Buffer {
  return Buffer.concat([HEADER, Buffer.from(bodyHex, 'hex')]);
}

test('read_in agrees with the golden', (t) => {
  const golden = '0500000000000000' + '0000000002000000' + '00001000' + '00'.repeat(20);
  const read = { fh: 5, offset: 2 ** 33, sizeBytes: 1_048_576 };
  t.deepEqual(decodeReadIn(request(golden)), read);
  const out = Buffer.alloc(40, 0xee);
  t.is(encodeReadIn(out, 0, read), 40);
  t.is(out.toString('hex'), golden);
  t.throws(() => decodeReadIn(request(golden).subarray(0, 79)), { instanceOf: ProtocolError });
  t.throws(() => decodeReadIn(request(`${golden}00`)), { instanceOf: ProtocolError });
});

test('open_out agrees with the golden', (t) => {
  const open = { fh: 3, openFlags: OPEN_FLAG.KEEP_CACHE | OPEN_FLAG.CACHE_DIR, backingId: -1 };
  const out = Buffer.alloc(16, 0xee);
  t.is(encodeOpenOut(out, 0, open), 16);
  t.is(out.toString('hex'), '0300000000000000' + '0a000000' + 'ffffffff');
  t.deepEqual(decodeOpenOut(out), open);
});

test('statfs_out agrees with the golden', (t) => {
  const statfs = {
    blocks: 2 ** 32 + 1,
    blocksFree: 2,
    blocksAvailable: 3,
    files: 4,
    filesFree: 5,
    blockBytes: 4096,
    nameMaxBytes: 255,
    fragmentBytes: 4096,
  };
  const out = Buffer.alloc(80, 0xee);
  t.is(encodeStatfs(out, 0, statfs), 80);
  t.is(
    out.toString('hex'),
    '0100000001000000' +
      '0200000000000000' +
      '0300000000000000' +
      '0400000000000000' +
      '0500000000000000' +
      '00100000' +
      'ff000000' +
      '00100000' +
      '00'.repeat(28),
  );
  t.deepEqual(decodeStatfs(out), statfs);
});

test('getxattr_in and getxattr_out agree with their goldens', (t) => {
  const golden = '0001000000000000' + '757365722e6100';
  t.deepEqual(decodeGetxattrIn(request(golden)), { sizeBytes: 256, name: 'user.a' });
  const out = Buffer.alloc(15, 0xee);
  t.is(encodeGetxattrIn(out, 0, { sizeBytes: 256, name: 'user.a' }), 15);
  t.is(out.toString('hex'), golden);
  t.is(decodeListxattrIn(request('0001000000000000')), 256);
  t.is(encodeGetxattrOut(out, 0, 7), 8);
  t.is(out.toString('hex', 0, 8), '0700000000000000');
  t.is(decodeGetxattrOut(out.subarray(0, 8)), 7);
  t.throws(() => decodeGetxattrIn(request('0001000000000000' + '7573')), { instanceOf: ProtocolError });
});

test('64-bit numbers keep their sign and refuse to lose digits', (t) => {
  const out = Buffer.alloc(8);
  for (const value of [0, 1, -1, 2 ** 32, -(2 ** 32), -(2 ** 32) - 1, 2 ** 53 - 1, -(2 ** 53) + 1]) {
    writeI64(out, 0, value);
    t.is(out.readBigInt64LE(), BigInt(value));
    t.is(readI64(out, 0), value);
  }
  for (const value of [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1]) {
    writeU64(out, 0, value);
    t.is(out.readBigUInt64LE(), BigInt(value));
    t.is(readU64(out, 0), value);
  }
  out.writeBigUInt64LE(2n ** 53n);
  t.throws(() => readU64(out, 0), { instanceOf: ProtocolError });
});

const DECODERS: readonly ((bytes: Buffer) => unknown)[] = [
  decodeRequest,
  decodeReadIn,
  decodeInitIn,
  decodeGetxattrIn,
  decodeListxattrIn,
  decodeDirents,
  decodeDirentsPlus,
  decodeOpenOut,
  decodeStatfs,
  decodeOnlyName,
  decodeSymlink,
  decodeMknodIn,
  decodeMkdirIn,
  decodeLinkIn,
  decodeRenameIn,
  decodeRename2In,
  decodeCreateIn,
  decodeTmpfileIn,
  decodeForgetIn,
  decodeBatchForgetIn,
  decodeOpenIn,
  decodeSetattrIn,
  decodeWriteIn,
  decodeFsyncIn,
  decodeFallocateIn,
  decodeLseekIn,
  decodeCopyFileRangeIn,
  (bytes) => decodeSetxattrIn(bytes, true),
  (bytes) => decodeSetxattrIn(bytes, false),
  (bytes) => decodeName(bytes, 40),
];

/** Bytes that look random and are the same in every run. */
function noise(seed: number): Buffer {
  const bytes = createHash('sha512').update(String(seed)).digest();
  const sizeBytes = bytes.readUInt16LE(0) % 129;
  const out = Buffer.concat([bytes, bytes]).subarray(0, sizeBytes);
  if (seed % 2 === 0 && sizeBytes >= 4) out.writeUInt32LE(sizeBytes, 0); // so that half of them get past the length
  if (seed % 3 === 0) out.fill(0, 20); // and some past the numbers
  return out;
}

test('ten thousand random buffers are decoded or refused, never anything else', (t) => {
  const refusals = new Set<number>();
  for (let seed = 0; seed < 10_000; seed += 1) {
    for (const decode of DECODERS) {
      try {
        decode(noise(seed));
      } catch (error) {
        if (!(error instanceof ProtocolError)) t.fail(`seed ${seed}: ${String(error)}`);
        refusals.add(seed);
      }
    }
  }
  t.true(refusals.size > 1000);
});
