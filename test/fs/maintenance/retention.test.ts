import test from 'ava';
import {
  isUserTag,
  newestFirst,
  selectKept,
  type Candidate,
  type RetentionPolicy,
} from '../../../fs/maintenance/retention.ts';
import { isUndoTag } from '../../../fs/workspace/heads.ts';
import { digestOf } from '../../../store/digest.ts';

const HOUR_MS = 3_600_000;
const NOW = new Date('2026-03-10T12:30:00Z');
const TIERS = [
  { maxAgeMs: HOUR_MS, resolutionMs: 0 },
  { maxAgeMs: 24 * HOUR_MS, resolutionMs: HOUR_MS },
];

function candidate(sequence: number, created: string, tags = [`cp-${sequence}`]): Candidate {
  return { digest: digestOf(String(sequence)), sequence, created, tags };
}

/** Sequence numbers of what stays. */
function kept(candidates: readonly Candidate[], policy: RetentionPolicy, now = NOW): number[] {
  const digests = selectKept(candidates, policy, now);
  return candidates.filter(({ digest }) => digests.has(digest)).map(({ sequence }) => sequence);
}

const SAME_SECOND = [3, 1, 4, 2].map((sequence) => candidate(sequence, '2026-03-10T12:00:00Z'));

// D7: the original kept the oldest of the same second
test('selectKept() takes checkpoints of the same second in the order of their numbers', (t) => {
  t.deepEqual(kept(SAME_SECOND, { keepLast: 1, keepTagged: false }), [4]);
  t.deepEqual(
    [...SAME_SECOND].sort(newestFirst).map(({ sequence }) => sequence),
    [4, 3, 2, 1],
  );
});

// U13: in the original, `latest` and `cp-4` used up both places
test('selectKept() counts checkpoints, not tags', (t) => {
  const many = [
    candidate(1, '2026-03-10T12:00:01Z'),
    candidate(2, '2026-03-10T12:00:02Z'),
    candidate(3, '2026-03-10T12:00:03Z', ['cp-3', 'latest', 'x', 'y']),
  ];
  t.deepEqual(kept(many, { keepLast: 2, keepTagged: false }), [2, 3]);
});

test('selectKept() deletes nothing without a rule', (t) => {
  t.deepEqual(kept(SAME_SECOND, { keepTagged: false }), [3, 1, 4, 2]);
});

test('selectKept() with keepTagged keeps what a person tagged, and only that', (t) => {
  const many = [
    candidate(1, '2026-03-10T12:00:01Z', ['cp-1', 'release']),
    candidate(2, '2026-03-10T12:00:02Z'),
    candidate(3, '2026-03-10T12:00:03Z'),
  ];
  t.deepEqual(kept(many, { keepLast: 1, keepTagged: true }), [1, 3]);
  t.deepEqual(kept(many, { keepLast: 1, keepTagged: false }), [3]);
});

test('selectKept() neither counts nor drops undo slots', (t) => {
  const many = [
    candidate(1, '2026-03-10T12:00:01Z'),
    candidate(2, '2026-03-10T12:00:02Z'),
    candidate(3, '2026-03-10T12:00:03Z', ['pre-open-0123abcd']),
    candidate(4, '2026-03-10T12:00:04Z', ['pre-open']),
  ];
  t.deepEqual(kept(many, { keepLast: 1, keepTagged: false }), [2, 3, 4]);
});

test('selectKept() keeps a checkpoint whose time is not known', (t) => {
  t.deepEqual(
    kept([candidate(1, 'yesterday'), candidate(2, NOW.toISOString())], { keepLast: 1, keepTagged: false }),
    [1, 2],
  );
});

test('selectKept() by tiers keeps all of the last hour, then the newest of each hour, and what is older than every tier', (t) => {
  const many = [
    candidate(1, '2026-03-01T00:00:00Z'),
    candidate(2, '2026-03-01T00:00:01Z'),
    candidate(3, '2026-03-10T09:10:00Z'),
    candidate(4, '2026-03-10T09:50:00Z'),
    candidate(5, '2026-03-10T10:01:00Z'),
    candidate(6, '2026-03-10T12:00:00Z'),
    candidate(7, '2026-03-10T12:00:01Z'),
  ];
  t.deepEqual(kept(many, { tiers: TIERS, keepTagged: false }), [1, 2, 4, 5, 6, 7]);
});

// The original's buckets moved with the clock, so later runs thinned out what earlier ones had kept.
test('selectKept() by tiers agrees with itself later: what one run kept of a closed hour, all later runs keep', (t) => {
  let left = Array.from({ length: 120 }, (_, minute) =>
    candidate(minute + 1, new Date(NOW.getTime() - 4 * HOUR_MS + minute * 60_000).toISOString()),
  );
  const run = (now: Date): void => {
    const digests = selectKept(left, { tiers: TIERS, keepTagged: false }, now);
    left = left.filter(({ digest }) => digests.has(digest));
  };
  run(NOW);
  const first = left.map(({ sequence }) => sequence);
  t.deepEqual(first, [30, 90, 120]); // 08:59, 09:59 and 10:29
  for (let minutes = 1; minutes < 600; minutes += 7) {
    run(new Date(NOW.getTime() + minutes * 60_000));
    t.deepEqual(
      left.map(({ sequence }) => sequence),
      first,
    );
  }
});

test('selectKept() with keepLast and tiers keeps what either keeps', (t) => {
  const many = [
    candidate(1, '2026-03-10T09:10:00Z'),
    candidate(2, '2026-03-10T09:20:00Z'),
    candidate(3, '2026-03-10T09:30:00Z'),
  ];
  t.deepEqual(kept(many, { tiers: TIERS, keepTagged: false }), [3]);
  t.deepEqual(kept(many, { tiers: TIERS, keepLast: 2, keepTagged: false }), [2, 3]);
});

test('isUserTag() and isUndoTag() know the names bento gives itself', (t) => {
  for (const tag of ['release', 'cp-3b', 'cp-', 'pre-open-mine', 'latest2']) t.true(isUserTag(tag), tag);
  for (const tag of ['latest', 'cp-1', 'cp-12', 'pre-open', 'pre-open-0123abcd']) t.false(isUserTag(tag), tag);
  t.deepEqual(['pre-open', 'pre-open-0123abcd', 'cp-1'].map(isUndoTag), [true, true, false]);
});
