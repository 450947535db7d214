import test, { type ExecutionContext } from 'ava';

import { decodeOpenIn, encodeOpenIn } from '../../../fs/protocol/open.ts';
import { decodeSetattrIn, encodeSetattrIn, SETATTR } from '../../../fs/protocol/setattr.ts';
import { ProtocolError } from '../../../fs/protocol/wire.ts';
import {
  decodeCopyFileRangeIn,
  decodeFallocateIn,
  decodeFsyncIn,
  decodeLseekIn,
  decodeWriteIn,
  encodeCopyFileRangeIn,
  encodeFallocateIn,
  encodeLseekIn,
  encodeLseekOut,
  encodeWriteIn,
  encodeWriteOut,
} from '../../../fs/protocol/write.ts';
import { decodeSetxattrIn, encodeSetxattrIn } from '../../../fs/protocol/xattr.ts';

const HEADER = Buffer.alloc(40);

function request(bodyHex: string): Buffer {
  return Buffer.concat([HEADER, Buffer.from(bodyHex, 'hex')]);
}

/** That a structure looks like `golden`, and that nothing shorter or longer is taken for it. */
function agree<In>(
  t: ExecutionContext,
  golden: string,
  value: In,
  { decode, encode }: { decode: (request: Buffer) => In; encode?: (out: Buffer, at: number, value: In) => number },
): void {
  t.deepEqual(decode(request(golden)), value);
  if (encode !== undefined) {
    const out = Buffer.alloc(golden.length / 2 + 8, 0xee);
    t.is(encode(out, 4, value), golden.length / 2);
    t.is(out.toString('hex'), `eeeeeeee${golden}eeeeeeee`);
  }
  const whole = request(golden);
  for (let sizeBytes = 0; sizeBytes < whole.length; sizeBytes += 1)
    t.throws(() => decode(whole.subarray(0, sizeBytes)), { instanceOf: ProtocolError }, `cut off at ${sizeBytes}`);
  t.throws(() => decode(request(`${golden}00`)), { instanceOf: ProtocolError });
}

test('setattr_in agrees with the golden, times before 1970 among it', (t) => {
  const golden =
    '79000000' +
    '00000000' +
    '0000000000000000' + // valid; fh
    '0500000001000000' +
    '0000000000000000' + // size; lock owner
    'feffffffffffffff' +
    '0000000001000000' +
    '0000000000000000' + // atime, mtime, ctime
    '01000000' +
    'ffc99a3b' +
    '00000000' + // their nanoseconds
    'ed810000' +
    '00000000' +
    'e8030000' +
    '64000000' +
    '00000000'; // mode, uid, gid
  const setattr = {
    valid: SETATTR.MODE | SETATTR.SIZE | SETATTR.ATIME | SETATTR.MTIME | (1 << 6),
    sizeBytes: 2 ** 32 + 5,
    atimeSec: -2,
    atimeNsec: 1,
    mtimeSec: 2 ** 32,
    mtimeNsec: 999_999_999,
    mode: 0o100755,
    uid: 1000,
    gid: 100,
  };
  agree(t, golden, setattr, { decode: decodeSetattrIn, encode: encodeSetattrIn });
  t.is(SETATTR.KILL_SUIDGID, 2048);
});

test('write_in agrees with the golden, and has as much data as it says', (t) => {
  const golden = '0000000000000000' + '0000000002000000' + '03000000' + '04000000' + '00'.repeat(16) + '00ff61';
  const write = { offset: 2 ** 33, killsSetuid: true, data: Buffer.from('00ff61', 'hex') };
  agree(t, golden, write, { decode: decodeWriteIn, encode: encodeWriteIn });
  const fromCache = request(golden.replace('0300000004000000', '0300000003000000'));
  t.false(decodeWriteIn(fromCache).killsSetuid); // from the page cache, with a lock owner
  const out = Buffer.alloc(8, 0xee);
  t.is(encodeWriteOut(out, 0, 2 ** 20), 8);
  t.is(out.toString('hex'), '0000100000000000');
});

test('fsync_in agrees with the golden', (t) => {
  agree(t, '0000000000000000' + '01000000' + '00000000', true, { decode: decodeFsyncIn });
  agree(t, '0000000000000000' + '00000000' + '00000000', false, { decode: decodeFsyncIn });
});

test('fallocate_in agrees with the golden', (t) => {
  const golden = '0000000000000000' + '0000000001000000' + '0010000000000000' + '03000000' + '00000000';
  const fallocate = { offset: 2 ** 32, lengthBytes: 4096, mode: 3 };
  agree(t, golden, fallocate, { decode: decodeFallocateIn, encode: encodeFallocateIn });
});

test('lseek_in and lseek_out agree with their goldens', (t) => {
  const golden = '0000000000000000' + '0000000001000000' + '03000000' + '00000000';
  agree(t, golden, { offset: 2 ** 32, whence: 3 }, { decode: decodeLseekIn, encode: encodeLseekIn });
  const out = Buffer.alloc(8, 0xee);
  t.is(encodeLseekOut(out, 0, 2 ** 32 + 1), 8);
  t.is(out.toString('hex'), '0100000001000000');
});

test('copy_file_range_in agrees with the golden', (t) => {
  const golden =
    '0000000000000000' +
    '0100000000000000' + // from
    '0700000000001000' +
    '0000000000000000' +
    '0200000001000000' + // to
    '00f0ff7f00000000' +
    '0000000000000000'; // how much
  const copy = { offset: 1, toNodeId: 2 ** 52 + 7, toOffset: 2 ** 32 + 2, lengthBytes: 0x7ffff000 };
  agree(t, golden, copy, { decode: decodeCopyFileRangeIn, encode: encodeCopyFileRangeIn });
});

test('numbers that would lose digits are refused', (t) => {
  const far = '0000000000000000' + 'ffffffffffffffff' + '03000000' + '00000000';
  t.throws(() => decodeLseekIn(request(far)), { instanceOf: ProtocolError, message: /beyond 2\^53/ });
});

test('open_in agrees with the golden', (t) => {
  const open = { flags: 0o101001, killsSetuid: true };
  agree(t, '01820000' + '01000000', open, { decode: decodeOpenIn, encode: encodeOpenIn });
  t.false(decodeOpenIn(request('0182000000000000')).killsSetuid);
});

test('setxattr_in agrees with its goldens, the long and the short one', (t) => {
  const named = '757365722e6100' + '00ff'; // user.a
  const golden = '02000000' + '01000000' + '01000000' + '00000000' + named;
  const setxattr = { flags: 1, killsSetgid: true, name: 'user.a', value: Buffer.from('00ff', 'hex') };
  t.deepEqual(decodeSetxattrIn(request(golden), true), setxattr);
  const out = Buffer.alloc(golden.length / 2, 0xee);
  t.is(encodeSetxattrIn(out, 0, setxattr), out.length);
  t.is(out.toString('hex'), golden);
  t.deepEqual(decodeSetxattrIn(request('02000000' + '02000000' + named), false), {
    ...setxattr,
    flags: 2,
    killsSetgid: false,
  });
});

test('setxattr_in is refused where name and value do not fit its length', (t) => {
  const start = '01000000' + '00000000' + '00000000' + '00000000';
  const bodies = {
    'no name': `${start}00ff`,
    'no NUL': `${start}616262`,
    'two names': `${start}6100620061`,
    'more value than there is': `ff0000000000000000000000000000006100`,
    'less value than there is': `${start}6100616161`,
    'no value': `${start}6100`,
    'cut off': start.slice(0, -2),
  };
  for (const [what, body] of Object.entries(bodies))
    t.throws(() => decodeSetxattrIn(request(body), true), { instanceOf: ProtocolError }, what);
  t.is(decodeSetxattrIn(request('00'.repeat(16) + '6100'), true).value.length, 0);
});
