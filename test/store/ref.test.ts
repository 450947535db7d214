import test from 'ava';

import { BentoError } from '../../store/errors.ts';
import { isTag, parseRef, type Ref } from '../../store/ref.ts';

const HEX = '0123456789abcdef'.repeat(4);
const DIGEST = `sha256:${HEX}` as const;
const NO_STORE = { store: undefined };

const VALID: [string, Ref][] = [
  ['', { kind: 'tag', ...NO_STORE, tag: 'latest' }],
  ['   ', { kind: 'tag', ...NO_STORE, tag: 'latest' }],
  ['head', { kind: 'head' }],
  ['undo', { kind: 'undo' }],
  ['HEAD', { kind: 'tag', ...NO_STORE, tag: 'HEAD' }],
  ['cp-3', { kind: 'tag', ...NO_STORE, tag: 'cp-3' }],
  [' cp-3\n', { kind: 'tag', ...NO_STORE, tag: 'cp-3' }],
  ['_a.b-c', { kind: 'tag', ...NO_STORE, tag: '_a.b-c' }],
  ['t'.repeat(128), { kind: 'tag', ...NO_STORE, tag: 't'.repeat(128) }],
  [DIGEST, { kind: 'digest', ...NO_STORE, digest: DIGEST }],
  ['sha256:012345', { kind: 'prefix', ...NO_STORE, prefix: 'sha256:012345' }],
  [DIGEST.slice(0, -1), { kind: 'prefix', ...NO_STORE, prefix: DIGEST.slice(0, -1) }],
  ['ws-1:cp-3', { kind: 'tag', store: 'ws-1', tag: 'cp-3' }],
  ['ws-1:head', { kind: 'tag', store: 'ws-1', tag: 'head' }],
  [`ws-1@${DIGEST}`, { kind: 'digest', store: 'ws-1', digest: DIGEST }],
  ['ws-1@sha256:abcdef', { kind: 'prefix', store: 'ws-1', prefix: 'sha256:abcdef' }],
];

for (const [written, expected] of VALID) {
  test(`parseRef() understands ${JSON.stringify(written)}`, (t) => t.deepEqual(parseRef(written), expected));
}

const INVALID = [
  ':',
  'ws:',
  ':cp-1',
  '@',
  'ws@',
  `@${DIGEST}`,
  'sha256:',
  'sha256:01234',
  'sha256:012345G',
  `${DIGEST}0`,
  'sha256:ABCDEF',
  'sha512:abcdef:x',
  'registry.example/ws:cp-1',
  './dir',
  '../../etc/passwd',
  '..:cp-1',
  '.hidden:cp-1',
  'a:b:c',
  `a@b@${DIGEST}`,
  '-flag',
  '.tag',
  'two words',
  't'.repeat(129),
  'naïve',
  'a\0b',
];

for (const written of INVALID) {
  test(`parseRef() refuses ${JSON.stringify(written.slice(0, 80))}`, (t) => {
    const error = t.throws(() => parseRef(written), { instanceOf: BentoError });
    t.is(error.code, 'REF_INVALID');
    t.true(error.message.includes(written), error.message);
  });
}

test('isTag() takes what a registry would take', (t) => {
  t.true(isTag('v1.0_rc-2'));
  for (const tag of ['', '-a', '.a', 'a/b', 'a:b', 'a b', 'é', 'a\n', 't'.repeat(129)]) t.false(isTag(tag), tag);
});
