import test from 'ava';

import { INIT_FLAG_BITS, type InitFlag } from '../../../fs/protocol/constants.ts';
import { decodeInitIn, decodeInitOut, encodeInitIn, encodeInitOut, type InitOut } from '../../../fs/protocol/init.ts';
import { ProtocolError } from '../../../fs/protocol/wire.ts';

// What Linux 6.18 sends: 7.45, 128 KiB read-ahead, flags 0x73fffffb, flags2 0x5fd.
const LINUX_6_18 = '07000000' + '2d000000' + '00000200' + 'fbffff73' + 'fd050000' + '00'.repeat(44);
const HEADER = Buffer.alloc(40);

test('decodeInitIn() understands what Linux 6.18 offers', (t) => {
  const offer = decodeInitIn(Buffer.concat([HEADER, Buffer.from(LINUX_6_18, 'hex')]));
  t.like(offer, { major: 7, minor: 45, maxReadaheadBytes: 131_072 });
  const missing = (Object.keys(INIT_FLAG_BITS) as InitFlag[]).filter((flag) => !offer.flags.includes(flag));
  t.deepEqual(missing, ['MAP_ALIGNMENT', 'SUBMOUNTS', 'HAS_INODE_DAX', 'OVER_IO_URING']);
});

test('decodeInitIn() takes the 16 bytes of old kernels, longer ones of new kernels, and nothing cut off', (t) => {
  const full = Buffer.from(LINUX_6_18, 'hex');
  t.false(decodeInitIn(Buffer.concat([HEADER, full.subarray(0, 16)])).flags.includes('HAS_RESEND'));
  t.true(decodeInitIn(Buffer.concat([HEADER, full, full])).flags.includes('HAS_RESEND'));
  t.throws(() => decodeInitIn(Buffer.concat([HEADER, full.subarray(0, 15)])), { instanceOf: ProtocolError });
});

test('encodeInitIn() agrees with the golden', (t) => {
  const out = Buffer.alloc(64, 0xee);
  encodeInitIn(out, 0, {
    major: 7,
    minor: 45,
    maxReadaheadBytes: 131_072,
    flags: ['ASYNC_READ', 'INIT_EXT', 'HAS_RESEND'],
  });
  t.is(out.toString('hex'), '07000000' + '2d000000' + '00000200' + '01000040' + '80000000' + '00'.repeat(44));
});

test('encodeInitOut() and decodeInitOut() agree with the golden', (t) => {
  const agreement: InitOut = {
    major: 7,
    minor: 45,
    maxReadaheadBytes: 131_072,
    flags: ['ASYNC_READ', 'MAX_PAGES', 'INIT_EXT', 'SECURITY_CTX', 'PASSTHROUGH', 'REQUEST_TIMEOUT'],
    maxBackground: 16,
    congestionThreshold: 12,
    maxWriteBytes: 1_048_576,
    timeGranNsec: 1,
    maxPages: 256,
    maxStackDepth: 2,
  };
  const out = Buffer.alloc(64, 0xee);
  t.is(encodeInitOut(out, 0, agreement), 64);
  t.is(
    out.toString('hex'),
    '07000000' +
      '2d000000' +
      '00000200' +
      '01004040' +
      '10000c00' +
      '00001000' +
      '01000000' +
      '00010000' +
      '21040000' +
      '02000000' +
      '00'.repeat(24),
  );
  t.deepEqual(decodeInitOut(out), agreement);
});
