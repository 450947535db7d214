import test from 'ava';

import {
  decodeOrigin,
  encodeOrigin,
  isMark,
  isWhiteout,
  TRUSTED_MARKS,
  USER_MARKS,
} from '../../../fs/overlay/marks.ts';
import { FileStat } from '../../../store/file-calls.ts';

const LAYER = Buffer.from(Array.from({ length: 32 }, (_, i) => i));
const WHOLE = '01' + '00' + '0000' + '07000001' + '0000000000000000' + LAYER.toString('hex');
const PARTIAL = '01' + '10' + '0000' + '07000001' + '0100080000000000' + LAYER.toString('hex') + 'ff01';
const MAP = { granuleShift: 16, limitBytes: 8 * 65_536 + 1, bits: Buffer.from([0xff, 1]) };
const POSITION = 0x0100_0007;

function decoded(hex: string): ReturnType<typeof decodeOrigin> {
  return decodeOrigin(Buffer.from(hex, 'hex'));
}

test('encodeOrigin() and decodeOrigin() agree with the goldens', (t) => {
  const whole = { layer: LAYER, position: POSITION, partial: undefined };
  t.is(encodeOrigin(whole).toString('hex'), WHOLE);
  t.deepEqual(decoded(WHOLE), whole);
  const partial = { ...whole, partial: MAP };
  t.is(encodeOrigin(partial).toString('hex'), PARTIAL);
  t.deepEqual(decoded(PARTIAL), partial);
});

test('what decodeOrigin() returns is no view of what it was given', (t) => {
  const value = Buffer.from(PARTIAL, 'hex');
  const origin = decodeOrigin(value);
  value.fill(0xee);
  t.deepEqual(origin, { layer: LAYER, position: POSITION, partial: MAP });
});

test('decodeOrigin() refuses what is cut off, of a later version, or no map at all', (t) => {
  const whole = Buffer.from(WHOLE, 'hex');
  for (let sizeBytes = 0; sizeBytes < whole.length; sizeBytes += 1)
    t.is(decodeOrigin(whole.subarray(0, sizeBytes)), undefined, `${sizeBytes} bytes`);
  t.is(decoded(`02${WHOLE.slice(2)}`), undefined);
  t.is(decoded(`00${WHOLE.slice(2)}`), undefined);
  t.is(decoded(PARTIAL.replace('0110', '0129')), undefined, 'granules of 2^41 bytes');
  t.is(decoded(PARTIAL.replace('0100080000000000', '0000000000002000')), undefined, 'a limit beyond 2^53');
});

test('decodeOrigin() refuses a map with fewer bits than granules, and one with more than anybody can count', (t) => {
  t.is(decoded(PARTIAL.slice(0, -2)), undefined);
  t.is(decoded(PARTIAL.replace('0110', '0101').replace('0100080000000000', 'ffffffffffff1f00')), undefined);
  t.not(decoded(PARTIAL.replace('0100080000000000', '0000000000000000')), undefined, 'it was cut to nothing');
});

test('isMark() knows the marks of both kinds, and nothing else', (t) => {
  for (const marks of [TRUSTED_MARKS, USER_MARKS])
    for (const name of Object.values(marks)) t.true(isMark(String(name)));
  t.true(isMark('trusted.overlay.anything'));
  for (const name of ['user.overlay', 'trusted.overlays.opaque', 'user.x', 'security.overlay.opaque', ''])
    t.false(isMark(name), name);
});

test('isWhiteout() knows a character device 0/0, and nothing else', (t) => {
  const whiteout = Object.assign(new FileStat(), { mode: 0o020000 });
  t.true(isWhiteout(whiteout));
  t.true(isWhiteout(Object.assign(new FileStat(), { mode: 0o020644 })));
  for (const other of [{ mode: 0o060000 }, { mode: 0o100000 }, { rdevMajor: 1 }, { rdevMinor: 3 }])
    t.false(isWhiteout(Object.assign(new FileStat(), whiteout, other)));
});
