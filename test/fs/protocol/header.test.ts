import test from 'ava';

import { INIT_FLAG_BITS, NOTIFY, OPCODE, operationName } from '../../../fs/protocol/constants.ts';
import {
  decodeReplyHeader,
  decodeRequest,
  encodeErrorReply,
  encodeNotification,
  encodeReplyHeader,
  encodeRequestHeader,
  isResent,
  plainUniqueOf,
  uniqueOf,
} from '../../../fs/protocol/header.ts';
import { encodeInvalEntry, encodeInvalInode, encodeResend } from '../../../fs/protocol/notify.ts';
import { decodeName, ProtocolError } from '../../../fs/protocol/wire.ts';

const UNIQUE = Buffer.from('0a00000000000080', 'hex'); // 10, resent

// A LOOKUP of "a" in node 2^32 + 2 by user 1000, group 100, process 77.
const LOOKUP =
  '2a00000001000000' + '0a00000000000080' + '0200000001000000' + 'e803000064000000' + '4d00000000000000' + '6100';

test('decodeRequest() and encodeRequestHeader() agree with the golden', (t) => {
  const request = decodeRequest(Buffer.from(LOOKUP, 'hex'));
  t.like(request, { opcode: OPCODE.LOOKUP, nodeId: 2 ** 32 + 2, uid: 1000, gid: 100, pid: 77 });
  t.is(decodeName(request.bytes, 40), 'a');
  const copy = Buffer.alloc(42);
  copy.write('a\0', 40);
  encodeRequestHeader({ ...request, bytes: copy }, UNIQUE);
  t.is(copy.toString('hex'), LOOKUP);
});

test('decodeRequest() refuses a request that is shorter or longer than it says', (t) => {
  const bytes = Buffer.from(LOOKUP, 'hex');
  for (const sizeBytes of [0, 1, 39, 40, 41]) {
    t.throws(() => decodeRequest(bytes.subarray(0, sizeBytes)), { instanceOf: ProtocolError });
  }
  t.throws(() => decodeRequest(Buffer.concat([bytes, Buffer.alloc(1)])), { instanceOf: ProtocolError });
});

test('decodeName() wants one NUL, at the very end', (t) => {
  t.is(decodeName(Buffer.from('..\xffé\0', 'latin1'), 2), '\xffé');
  for (const bytes of ['', '\0', 'a', 'a\0b\0', 'a\0\0', '\0a\0']) {
    t.throws(() => decodeName(Buffer.from(bytes), 0), { instanceOf: ProtocolError });
  }
});

test('encodeReplyHeader() copies the id untouched, bit 63 too', (t) => {
  const out = Buffer.alloc(20, 0xee);
  t.is(encodeReplyHeader(out, Buffer.from(LOOKUP, 'hex'), 4, 0), 20);
  t.is(out.toString('hex'), '1400000000000000' + '0a00000000000080' + 'eeeeeeee');
  t.deepEqual(decodeReplyHeader(out), { sizeBytes: 20, error: 0, unique: UNIQUE });
  t.is(encodeReplyHeader(out, Buffer.from(LOOKUP, 'hex'), 0, -5), 16);
  t.is(out.toString('hex', 0, 16), '10000000fbffffff' + '0a00000000000080');
  t.throws(() => decodeReplyHeader(out), { instanceOf: ProtocolError });
});

test('notifications agree with their goldens', (t) => {
  t.is(encodeResend().toString('hex'), '1000000007000000' + '0000000000000000');
  t.is(encodeNotification(NOTIFY.INC_EPOCH).toString('hex'), '1000000008000000' + '0000000000000000');
  t.is(
    encodeInvalInode(5).toString('hex'),
    '2800000002000000' + '0000000000000000' + '0500000000000000' + '0000000000000000' + '0000000000000000',
  );
  t.is(
    encodeInvalEntry(1, 'a\xff').toString('hex'),
    '2300000003000000' + '0000000000000000' + '0100000000000000' + '0200000000000000' + '61ff00',
  );
});

test('operationName() names what it knows', (t) => {
  t.is(operationName(15), 'READ');
  t.is(operationName(99), 'opcode 99');
  t.is(new Set(Object.values(INIT_FLAG_BITS)).size, Object.keys(INIT_FLAG_BITS).length);
});

test('plainUniqueOf() is the same for a request that comes again', (t) => {
  const again = Buffer.from(LOOKUP, 'hex');
  const first = Buffer.from(again);
  first[15] = 0;
  t.true(isResent(again));
  t.false(isResent(first));
  t.is(uniqueOf(again), 10n + (1n << 63n));
  t.is(plainUniqueOf(again), 10n);
  t.is(plainUniqueOf(first), 10n);
  first[15] = 0x7f;
  t.false(isResent(first), 'the highest bit alone says so');
});

test('encodeErrorReply() agrees with the golden', (t) => {
  t.is(encodeErrorReply((1n << 63n) + 10n, 4).toString('hex'), '10000000fcffffff' + '0a00000000000080');
});
