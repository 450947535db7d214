import test from 'ava';

import { digestOf } from '../../../store/digest.ts';
import { PREFETCH_BYTES_MAX, prefetchLength, prioritisedFiles } from '../../../store/layers/prefetch.ts';
import { decodeToc, type TocContents } from '../../../store/layers/toc-decode.ts';

type Json = Record<string, unknown>;

const TOC_OFFSET = 10 * PREFETCH_BYTES_MAX;
const DIGEST = digestOf('x');
const LANDMARK = '.prefetch.landmark';

function toc(...entries: Json[]): TocContents {
  return decodeToc(Buffer.from(JSON.stringify({ version: 1, entries })), { tocOffset: TOC_OFFSET });
}

function file(name: string, offset: number, fields: Json = {}): Json {
  return { name, type: 'reg', size: 1, offset, digest: DIGEST, chunkDigest: DIGEST, ...fields };
}

test('prefetchLength() is where the landmark lies', (t) => {
  const layer = toc(file('b', 10), file('a', 60), file(`./${LANDMARK}`, 200), file('c', 300));
  t.is(layer.prefetchEnd, 200);
  t.is(prefetchLength(layer), 200);
  t.deepEqual(
    prioritisedFiles(layer).map(({ path }) => path),
    ['b', 'a'],
  );
  t.deepEqual(
    layer.entries.map(({ path }) => path),
    ['b', 'a', 'c'],
  );
});

test('a layer in which no files are wanted first has nothing to prefetch', (t) => {
  for (const layer of [
    toc(file('a', 10)),
    toc(file('.no.prefetch.landmark', 10), file('a', 60)),
    toc(file('a', 10), file(`dir/${LANDMARK}`, 60)), // not in the root: somebody's file
    toc(file(LANDMARK, 0), file('a', 60)),
  ]) {
    t.is(prefetchLength(layer), undefined);
    t.deepEqual(prioritisedFiles(layer), []);
  }
});

test('a landmark in an odd place says nothing, or no more than it can', (t) => {
  t.is(prefetchLength(toc(file('a', 10), file('.no.prefetch.landmark', 60), file(LANDMARK, 100))), undefined);
  t.is(prefetchLength(toc(file('a', 10), file(LANDMARK, 60), file(LANDMARK, 100))), 60);
  t.is(prefetchLength(toc(file('a', 10), { name: LANDMARK, type: 'dir' })), undefined);
  t.is(prefetchLength(toc(file('a', 10), { name: LANDMARK, type: 'reg', digest: digestOf('') })), undefined);
  t.is(prefetchLength(toc(file('a', 10), { name: LANDMARK, type: 'symlink', linkName: 'a' })), undefined);
  // It shares a member with files before and behind it.
  t.is(prefetchLength(toc(file('a', 10), file(LANDMARK, 10, { innerOffset: 1536 }), file('b', 70))), 70);
  for (const offset of [-1, 1.5, TOC_OFFSET, 'x']) t.throws(() => toc(file(LANDMARK, offset as number)));
});

test('prefetchLength() ends with the last member that is whole within the limit', (t) => {
  const far = file(LANDMARK, PREFETCH_BYTES_MAX + 100);
  const layer = toc(file('a', 10), file('b', 50), file('c', PREFETCH_BYTES_MAX - 1), far);
  t.is(prefetchLength(layer), PREFETCH_BYTES_MAX - 1);
  t.is(prefetchLength(layer, 60), 50);
  t.is(prefetchLength(layer, 49), undefined);
  t.is(prefetchLength(toc(file('a', 10), far)), undefined);
});
