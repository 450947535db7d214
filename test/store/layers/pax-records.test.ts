import test from 'ava';

import {
  addXattrRecords,
  encodePaxRecords,
  encodePaxTime,
  parsePaxRecords,
  parsePaxTime,
  xattrsOf,
  type PaxRecords,
} from '../../../store/layers/pax-records.ts';

const TIMES = [
  ['0', 0, 0],
  ['1.5', 1, 500_000_000],
  ['-1.5', -2, 500_000_000],
  ['-0.000000001', -1, 999_999_999],
  ['-1', -1, 0],
  ['12345678901.000000001', 12_345_678_901, 1],
] as const;

for (const [text, sec, nsec] of TIMES) {
  test(`encodePaxTime() and parsePaxTime() agree on ${text}`, (t) => {
    t.is(encodePaxTime({ sec, nsec }), text);
    t.deepEqual(parsePaxTime(text), { sec, nsec });
  });
}

test('parsePaxTime() drops digits beyond nanoseconds and refuses what is no number', (t) => {
  t.deepEqual(parsePaxTime('1.0000000019'), { sec: 1, nsec: 1 });
  for (const text of ['1e9', 'x', '--1', '1.5.5', ' 1', '99999999999999999999']) {
    t.throws(() => parsePaxTime(text), { code: 'FORMAT_INVALID' });
  }
});

test('encodePaxRecords() counts the digits of the length into the length', (t) => {
  for (let length = 0; length < 1200; length++) {
    const records: PaxRecords = new Map([['path', 'x'.repeat(length)]]);
    t.deepEqual(parsePaxRecords(encodePaxRecords(records)), records);
  }
  t.is(encodePaxRecords(new Map([['a', 'b']])).toString(), '6 a=b\n');
});

test('parsePaxRecords() refuses lengths that do not add up', (t) => {
  for (const text of [
    '5 a=b\n',
    '7 a=b\n',
    '06 a=b\n',
    '6 ab\n',
    '-6 a=b\n',
    '6a=b\n',
    '99999999 a=b\n',
    '6 a=b\n\0',
  ]) {
    t.throws(() => parsePaxRecords(Buffer.from(text)), { code: 'FORMAT_INVALID' }, text);
  }
});

test('parsePaxRecords() refuses a header of ten thousand records', (t) => {
  const bomb = Buffer.from(
    Array.from({ length: 10_000 }, (_, i) => `13 k${String(i).padStart(5, '0')}=v\n`).join('\n'),
  );
  t.throws(() => parsePaxRecords(bomb), { code: 'FORMAT_INVALID' });
});

test('extended attributes keep raw values and names with = and %', (t) => {
  const xattrs = new Map([
    ['user.raw', Buffer.from([0, 255, 10, 61])],
    ['user.a=b%3D', Buffer.from('odd')],
  ]);
  const records: PaxRecords = new Map();
  addXattrRecords(records, xattrs);
  t.deepEqual(xattrsOf(parsePaxRecords(encodePaxRecords(records))), xattrs);
});
