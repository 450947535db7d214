import test from 'ava';

import { negotiate, type Wishes } from '../../../fs/serving/negotiate.ts';
import { INIT_FLAG_BITS, type InitFlag, OPCODE } from '../../../fs/protocol/constants.ts';
import { decodeReplyHeader, encodeRequestHeader, REPLY_HEADER_BYTES } from '../../../fs/protocol/header.ts';
import { decodeInitOut, encodeInitIn, INIT_IN_BYTES, type InitIn, type InitOut } from '../../../fs/protocol/init.ts';
import { ProtocolError } from '../../../fs/protocol/wire.ts';

const EVERYTHING = Object.keys(INIT_FLAG_BITS) as InitFlag[];
const OFFER: InitIn = { major: 7, minor: 45, maxReadaheadBytes: 131_072, flags: EVERYTHING };
const UNIQUE = '0200000000000080';
const PLAIN: Wishes = { passthrough: false, openless: true };

function initRequest(offer: Partial<InitIn> = {}, opcode: number = OPCODE.INIT): Buffer {
  const bytes = Buffer.alloc(40 + INIT_IN_BYTES);
  encodeInitIn(bytes, 40, { ...OFFER, ...offer });
  encodeRequestHeader({ bytes, opcode, nodeId: 0, uid: 0, gid: 0, pid: 0 }, Buffer.from(UNIQUE, 'hex'));
  return bytes;
}

function agreed(offer: Partial<InitIn>, wishes: Wishes): InitOut {
  return decodeInitOut(negotiate(initRequest(offer), wishes).reply.subarray(REPLY_HEADER_BYTES));
}

test('negotiate() answers INIT with a whole reply, and says the same as plain data', (t) => {
  const { negotiated, reply } = negotiate(initRequest(), PLAIN);
  const header = decodeReplyHeader(reply);
  t.like(header, { sizeBytes: 80, error: 0 });
  t.is(header.unique.toString('hex'), UNIQUE);
  const out = decodeInitOut(reply.subarray(REPLY_HEADER_BYTES));
  t.like(out, { major: 7, minor: 45, maxReadaheadBytes: 131_072, timeGranNsec: 1, maxPages: 256, maxStackDepth: 0 });
  t.deepEqual(negotiated, { minor: 45, maxWriteBytes: 1_048_576, flags: out.flags });
  t.deepEqual(JSON.parse(JSON.stringify(negotiated)), negotiated);
});

test('negotiate() asks for what a connection is for, and for nothing that was not offered', (t) => {
  const plain = agreed({}, PLAIN);
  t.true(plain.flags.includes('NO_OPEN_SUPPORT'));
  t.false(plain.flags.includes('PASSTHROUGH'));
  const passed = agreed({}, { passthrough: true, openless: false });
  t.false(passed.flags.includes('NO_OPEN_SUPPORT'));
  t.true(passed.flags.includes('PASSTHROUGH'));
  t.is(passed.maxStackDepth, 2);
  const old = agreed({ flags: ['ASYNC_READ', 'INIT_EXT'], minor: 31 }, { passthrough: true, openless: true });
  t.like(old, { minor: 31, flags: ['ASYNC_READ', 'INIT_EXT'], maxStackDepth: 0 });
  for (const flag of ['WRITEBACK_CACHE', 'AUTO_INVAL_DATA', 'POSIX_ACL', 'READDIRPLUS_AUTO'] as const) {
    t.false(plain.flags.includes(flag), flag);
  }
});

test('negotiate() tells a kernel of a later major version ours, and waits for it to ask again', (t) => {
  const { negotiated, reply } = negotiate(initRequest({ major: 8, minor: 0 }), PLAIN);
  t.is(negotiated, undefined);
  t.is(decodeInitOut(reply.subarray(REPLY_HEADER_BYTES)).major, 7);
});

test('negotiate() refuses what it cannot speak with', (t) => {
  const refuse = (bytes: Buffer, errno: string): void => {
    t.like(
      t.throws(() => negotiate(bytes, PLAIN), { instanceOf: ProtocolError }),
      { errno },
    );
  };
  refuse(initRequest({ major: 6, minor: 99 }), 'EPROTO');
  refuse(initRequest({ minor: 22 }), 'EPROTO');
  refuse(initRequest({}, OPCODE.LOOKUP), 'EPROTO');
  refuse(initRequest().subarray(0, 50), 'EINVAL');
  refuse(Buffer.alloc(0), 'EINVAL');
});
