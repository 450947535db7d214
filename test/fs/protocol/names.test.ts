import test, { type ExecutionContext } from 'ava';

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
  encodeBatchForgetIn,
  encodeCreateIn,
  encodeLinkIn,
  encodeMkdirIn,
  encodeMknodIn,
  encodeOnlyName,
  encodeRename2In,
  encodeSymlink,
} from '../../../fs/protocol/names.ts';
import { ProtocolError } from '../../../fs/protocol/wire.ts';

const HEADER = Buffer.alloc(40);
/** `a`, a byte that is no UTF-8, and a NUL. */
const NAME = '61ff00';
const NAME_TEXT = 'a\xff';

function request(bodyHex: string): Buffer {
  return Buffer.concat([HEADER, Buffer.from(bodyHex, 'hex')]);
}

/** That a structure followed by names looks like `golden`, and that nothing else is taken for it. */
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
  for (const more of ['00', '62', '6200'])
    t.throws(() => decode(request(golden + more)), { instanceOf: ProtocolError });
}

test('a request that is a name alone agrees with the golden', (t) => {
  agree(t, NAME, NAME_TEXT, { decode: decodeOnlyName, encode: encodeOnlyName });
  t.throws(() => decodeOnlyName(request('00')), { instanceOf: ProtocolError });
  t.throws(() => decodeOnlyName(request('0000')), { instanceOf: ProtocolError });
});

test('SYMLINK agrees with the golden: the name, then where it leads', (t) => {
  const golden = `${NAME}2e2e2f7800`;
  agree(t, golden, { name: NAME_TEXT, target: '../x' }, { decode: decodeSymlink, encode: encodeSymlink });
  t.throws(() => decodeSymlink(request(`${NAME}00`)), { instanceOf: ProtocolError });
  t.throws(() => decodeSymlink(request(`00${NAME}`)), { instanceOf: ProtocolError });
});

test('mknod_in agrees with the golden', (t) => {
  const golden = 'a4210000' + '70122c11' + '12000000' + '00000000' + NAME;
  const mknod = { mode: 0o020644, rdev: 0x112c1270, umask: 0o022, name: NAME_TEXT };
  agree(t, golden, mknod, { decode: decodeMknodIn, encode: encodeMknodIn });
});

test('mkdir_in agrees with the golden', (t) => {
  const golden = 'ff010000' + '3f000000' + NAME;
  agree(t, golden, { mode: 0o777, umask: 0o077, name: NAME_TEXT }, { decode: decodeMkdirIn, encode: encodeMkdirIn });
});

test('link_in agrees with the golden', (t) => {
  const golden = '0300000001000000' + NAME;
  agree(t, golden, { nodeId: 2 ** 32 + 3, name: NAME_TEXT }, { decode: decodeLinkIn, encode: encodeLinkIn });
});

test('rename_in and rename2_in agree with their goldens', (t) => {
  const names = `${NAME}6200`;
  const rename = { newDir: 2 ** 52 + 7, flags: 0, name: NAME_TEXT, newName: 'b' };
  agree(t, '0700000000001000' + names, rename, { decode: decodeRenameIn });
  const golden = '0700000000001000' + '02000000' + '00000000' + names;
  agree(t, golden, { ...rename, flags: 2 }, { decode: decodeRename2In, encode: encodeRename2In });
});

test('create_in agrees with the golden, and needs no name for TMPFILE', (t) => {
  const golden = '42800000' + 'a4810000' + '12000000' + '00000000' + NAME;
  const create = { flags: 0o100102, mode: 0o100644, umask: 0o022, name: NAME_TEXT };
  agree(t, golden, create, { decode: decodeCreateIn, encode: encodeCreateIn });
  const { name: _name, ...nameless } = create;
  t.deepEqual(decodeTmpfileIn(request(golden)), nameless);
  t.deepEqual(decodeTmpfileIn(request(golden).subarray(0, 56)), nameless);
  t.throws(() => decodeTmpfileIn(request(golden).subarray(0, 55)), { instanceOf: ProtocolError });
});

test('forget_in and batch_forget_in agree with their goldens', (t) => {
  t.is(decodeForgetIn(request('0200000001000000')), 2 ** 32 + 2);
  t.throws(() => decodeForgetIn(request('02000000010000')), { instanceOf: ProtocolError });
  t.throws(() => decodeForgetIn(request('020000000100000000')), { instanceOf: ProtocolError });

  const golden = '0200000000000000' + '05000000000000000100000000000000' + '06000000010000000200000000000000';
  const forgets = [
    { nodeId: 5, count: 1 },
    { nodeId: 2 ** 32 + 6, count: 2 },
  ];
  t.deepEqual(decodeBatchForgetIn(request(golden)), forgets);
  const out = Buffer.alloc(40, 0xee);
  t.is(encodeBatchForgetIn(out, 0, forgets), 40);
  t.is(out.toString('hex'), golden);
  for (const sizeBytes of [0, 47, 48, 79]) {
    t.throws(() => decodeBatchForgetIn(request(golden).subarray(0, sizeBytes)), { instanceOf: ProtocolError });
  }
  const many = request('ffffffff00000000');
  t.throws(() => decodeBatchForgetIn(many), { instanceOf: ProtocolError }, 'as many as a u32 can say');
});
