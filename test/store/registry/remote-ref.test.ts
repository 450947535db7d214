import test from 'ava';

import { BentoError } from '../../../store/errors.ts';
import { formatRemoteRef, isRemoteRef, parseRemoteRef } from '../../../store/registry/remote-ref.ts';

const DIGEST = `sha256:${'a'.repeat(64)}` as const;

test('a reference to a registry has a host, a path, and a tag, a digest or both', (t) => {
  const none = { tag: undefined, digest: undefined };
  t.deepEqual(parseRemoteRef('ghcr.io/me/ws'), { registry: 'ghcr.io', repository: 'me/ws', ...none });
  t.deepEqual(parseRemoteRef('localhost:5000/ws:cp-3'), {
    registry: 'localhost:5000',
    repository: 'ws',
    tag: 'cp-3',
    digest: undefined,
  });
  t.deepEqual(parseRemoteRef(`docker://[::1]:5000/a/b__c:x@${DIGEST}`), {
    registry: '[::1]:5000',
    repository: 'a/b__c',
    tag: 'x',
    digest: DIGEST,
  });
  t.is(formatRemoteRef(parseRemoteRef(`h.io/a:x@${DIGEST}`)), `h.io/a:x@${DIGEST}`);
});

for (const written of [
  'me/ws',
  'ghcr.io/',
  '/ws',
  'ghcr.io/Me',
  'ghcr.io/a//b',
  'ghcr.io/a:',
  'ghcr.io/a@sha256:12',
  'a b.io/x',
  'ghcr.io/../x',
]) {
  test(`"${written}" is refused`, (t) => {
    t.is(t.throws(() => parseRemoteRef(written), { instanceOf: BentoError }).code, 'REF_INVALID');
  });
}

test('a path is no reference to a registry, and a tag neither', (t) => {
  for (const written of ['./a/b', '../a', '/a/b', '~/a', 'cp-3', 'name:tag', 's3://a/b', 'latest'])
    t.false(isRemoteRef(written), written);
  for (const written of ['ghcr.io/me/ws:cp-3', 'docker://h.io/x', 'oci://h.io/x'])
    t.true(isRemoteRef(written), written);
});
