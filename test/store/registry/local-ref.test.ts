import test from 'ava';

import { BentoError } from '../../../store/errors.ts';
import {
  isLocalRef,
  nameOfPath,
  parseLocalPlace,
  pathOfName,
  tagOfRefName,
} from '../../../store/registry/local-ref.ts';
import { formatRemoteRef, isRemoteRef, parseRemoteRef } from '../../../store/registry/remote-ref.ts';

const DIGEST = `sha256:${'a'.repeat(64)}` as const;

test('parseLocalPlace() reads addresses and the spelling of other tools, with tag and digest', (t) => {
  const place = (written: string): unknown => {
    const found = parseLocalPlace(written, '/base');
    return found && [found.path, found.kind, found.tag, found.digest];
  };
  t.deepEqual(place('file:///x/lay:cp-1'), ['/x/lay', undefined, 'cp-1', undefined]);
  t.deepEqual(place('file:///x/a%3Ab%20c:v1'), ['/x/a:b c', undefined, 'v1', undefined]);
  t.deepEqual(place('file:///x:y/lay'), ['/x:y/lay', undefined, undefined, undefined]);
  t.deepEqual(place(`file:///x/lay:v1@${DIGEST}`), ['/x/lay', undefined, 'v1', DIGEST]);
  t.deepEqual(place(`oci:///x/lay@${DIGEST}`), ['/x/lay', 'folder', undefined, DIGEST]);
  t.deepEqual(place('oci://./lay:v1'), ['/base/lay', 'folder', 'v1', undefined]);
  t.deepEqual(place('oci://../lay'), ['/lay', 'folder', undefined, undefined]);
  t.deepEqual(place('oci:lay:v1'), ['/base/lay', 'folder', 'v1', undefined]);
  t.deepEqual(place('oci-archive:x.tar:localhost:5000/name:v1'), ['/base/x.tar', 'archive', 'v1', undefined]);
  t.is(place('oci://ghcr.io/me/ws'), undefined, 'a registry');
  t.is(place('docker:///x'), undefined);
  t.is(place('x/y'), undefined);
});

test('parseLocalPlace() refuses what names nothing, naming it', (t) => {
  for (const written of [
    'oci:',
    'oci::v1',
    'oci:x:',
    'oci:x:a b',
    'file://host/x',
    'file:x',
    'file:///x?y',
    'file:///%00',
    'oci:///x@sha256:12',
  ])
    t.is(
      t.throws(() => parseLocalPlace(written, '/base'), { instanceOf: BentoError }, written).code,
      'REF_INVALID',
      written,
    );
});

test('a reference to a folder is a remote one; one that could be a store and a tag is not', (t) => {
  for (const written of [
    'file:///x:v1',
    'oci:///x',
    'oci://./x',
    'oci:x/y:v1',
    'oci-archive:./x.tar',
    'docker-archive:/x:v1',
  ]) {
    t.true(isLocalRef(written), written);
    t.true(isRemoteRef(written), written);
  }
  for (const written of ['oci:v1', 'file:v1', 'oci-archive:v1', 'x:v1', 'oci://ghcr.io/x', './oci:x'])
    t.false(isLocalRef(written), written);
  t.is(parseRemoteRef('oci://ghcr.io/me/ws:v1').registry, 'ghcr.io');
});

test('the name of a folder is its address, and reads back whatever is in it', (t) => {
  for (const path of ['/x/y', '/with space/a:b@c', '/100%/ü?#\\', '/a\tb']) {
    const name = nameOfPath(path);
    t.is(pathOfName(name), path);
    const written = formatRemoteRef({ ...name, tag: 'v1', digest: DIGEST });
    t.true(written.startsWith('file:///'), written);
    const again = parseRemoteRef(written);
    t.deepEqual([pathOfName(again), again.tag, again.digest], [path, 'v1', DIGEST]);
  }
  t.is(pathOfName({ registry: 'ghcr.io', repository: 'x/y' }), undefined);
});

test('tagOfRefName() finds the tag in names as other programs write them', (t) => {
  t.is(tagOfRefName('v1'), 'v1');
  t.is(tagOfRefName('docker.io/library/name:v1'), 'v1');
  t.is(tagOfRefName('localhost:5000/name:v1'), 'v1');
  t.is(tagOfRefName('localhost:5000/name'), undefined);
  t.is(tagOfRefName('name:'), undefined);
});
