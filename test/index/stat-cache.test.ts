import test from 'ava';

import { StatCache, type FileStamp } from '../../index/stat-cache.ts';
import { digestOf } from '../../store/digest.ts';
import { newSource } from '../fixtures/workspaces.ts';

const STAMP: FileStamp = {
  dev: 2049,
  ino: 1234,
  sizeBytes: 10,
  mtimeSec: 1_700_000_000,
  mtimeNsec: 123_456_789,
  ctimeSec: 1_700_000_000,
  ctimeNsec: 987_654_321,
};
const DIGEST = digestOf('content');
const LATER_MS = 1_700_000_100_000;

test('digestOf() knows a file as long as nothing that stat tells has changed', async (t) => {
  const { index } = await newSource(t);
  new StatCache(index, '/ws').remember([{ path: 'a', stamp: STAMP, digest: DIGEST }], LATER_MS);
  const cache = new StatCache(index, '/ws');
  t.is(cache.digestOf('a', { ...STAMP }), DIGEST);
  for (const field of Object.keys(STAMP) as (keyof FileStamp)[]) {
    t.is(cache.digestOf('a', { ...STAMP, [field]: STAMP[field] + 1 }), undefined, field);
  }
  t.is(cache.digestOf('b', STAMP), undefined);
  t.is(new StatCache(index, '/other').digestOf('a', STAMP), undefined);
});

test('remember() leaves out a file that changed less than 50 ms before it was hashed', async (t) => {
  const { index } = await newSource(t);
  const cache = new StatCache(index, '/ws');
  const at = (ms: number): number => 1_700_000_000_000 + ms;
  const quiet = { ...STAMP, mtimeNsec: 0, ctimeNsec: 0 };
  const files = [
    { path: 'mtime', stamp: { ...quiet, mtimeNsec: 60_000_000 }, digest: DIGEST },
    { path: 'ctime', stamp: { ...quiet, ctimeNsec: 60_000_000 }, digest: DIGEST },
    { path: 'quiet', stamp: { ...quiet, mtimeNsec: 40_000_000, ctimeNsec: 40_000_000 }, digest: DIGEST },
    { path: 'future', stamp: { ...quiet, mtimeSec: quiet.mtimeSec + 3600 }, digest: DIGEST },
  ];
  cache.remember(files, at(100));
  const known = files.filter(({ path, stamp }) => cache.digestOf(path, stamp) !== undefined);
  t.deepEqual(
    known.map(({ path }) => path),
    ['quiet'],
  );
});

test('remember() replaces what was known of a path and is seen at once', async (t) => {
  const { index } = await newSource(t);
  const cache = new StatCache(index, '/ws');
  const changed = { ...STAMP, sizeBytes: 11 };
  cache.remember([{ path: 'a', stamp: STAMP, digest: DIGEST }], LATER_MS);
  t.is(cache.digestOf('a', STAMP), DIGEST);
  cache.remember([{ path: 'a', stamp: changed, digest: digestOf('new') }], LATER_MS);
  t.is(cache.digestOf('a', STAMP), undefined);
  t.is(cache.digestOf('a', changed), digestOf('new'));
});

test('forget() drops one directory and no other', async (t) => {
  const { index } = await newSource(t);
  const [one, two] = [new StatCache(index, '/one'), new StatCache(index, '/two')];
  for (const cache of [one, two]) cache.remember([{ path: 'a', stamp: STAMP, digest: DIGEST }], LATER_MS);
  one.forget();
  t.is(one.digestOf('a', STAMP), undefined);
  t.is(new StatCache(index, '/two').digestOf('a', STAMP), DIGEST);
});
