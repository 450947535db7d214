import test from 'ava';

import { piecesOf, planRequests, ReadAhead } from '../../../store/lazy/request-plan.ts';

const KIB = 1 << 10;
const MIB = 1 << 20;

test('planRequests() asks for neighbours together, and for nothing larger than 1 MiB', (t) => {
  const near = { offset: 128 * KIB, end: 144 * KIB };
  const far = { offset: 10 * MIB, end: 12 * MIB + 16 * KIB };
  t.deepEqual(planRequests([far, near, { offset: 0, end: 64 * KIB }]), [
    { offset: 0, end: 144 * KIB },
    { offset: 10 * MIB, end: 11 * MIB },
    { offset: 11 * MIB, end: 12 * MIB },
    { offset: 12 * MIB, end: 12 * MIB + 16 * KIB },
  ]);
  t.deepEqual(planRequests([]), []);
});

test('planRequests() leaves gaps of more than 64 KiB alone, and takes overlapping spans for one', (t) => {
  const spans = [
    { offset: 0, end: 100 },
    { offset: 50, end: 200 },
    { offset: 200 + 65 * KIB, end: 300 + 65 * KIB },
  ];
  t.deepEqual(planRequests(spans), [
    { offset: 0, end: 200 },
    { offset: 200 + 65 * KIB, end: 300 + 65 * KIB },
  ]);
  t.deepEqual(piecesOf({ offset: 5, end: 5 }, 10), []);
});

test('ReadAhead fetches four times as much each time that somebody reads on, up to 1 MiB, and then more after it', (t) => {
  const ahead = new ReadAhead();
  const windows = [];
  let at = 0;
  for (let i = 0; i < 4; i += 1) {
    const next = ahead.next({ offset: at, end: at + 16 * KIB });
    windows.push([next.now.end - next.now.offset, next.ahead === undefined ? 0 : next.ahead.end - next.ahead.offset]);
    at = next.ahead?.end ?? next.now.end;
  }
  t.deepEqual(windows, [
    [128 * KIB, 0],
    [512 * KIB, 0],
    [MIB, 3 * MIB],
    [MIB, 3 * MIB],
  ]);
});

test('ReadAhead takes who catches up with what is fetched ahead for one that reads on', (t) => {
  const ahead = new ReadAhead();
  for (const at of [0, 128 * KIB, 640 * KIB]) ahead.next({ offset: at, end: at + 1 });
  const { now } = ahead.next({ offset: 2 * MIB, end: 2 * MIB + 1 });
  t.is(now.end, 3 * MIB);
});

test('ReadAhead keeps apart who reads at different places', (t) => {
  const ahead = new ReadAhead();
  t.is(ahead.next({ offset: 0, end: 1 }).now.end, 128 * KIB);
  t.is(ahead.next({ offset: 100 * MIB, end: 100 * MIB + 1 }).now.end, 100 * MIB + 128 * KIB);
  t.is(ahead.next({ offset: 128 * KIB, end: 129 * KIB }).now.end, 640 * KIB);
  t.is(ahead.next({ offset: 50 * MIB, end: 60 * MIB }).now.end, 60 * MIB, 'what is wanted is never cut');
});
