import test from 'ava';
import { BentoError } from '../../../store/errors.ts';
import { parseImagePlace } from '../../../store/transfer/image-place.ts';

test('parseImagePlace() reads paths, the spelling of other OCI tools, and file addresses', (t) => {
  const place = (written: string): unknown[] => {
    const { path, kind, tag } = parseImagePlace(written, '/base');
    return [path, kind, tag];
  };
  t.deepEqual(place('out'), ['/base/out', undefined, undefined]);
  t.deepEqual(place('a:b.tar'), ['/base/a:b.tar', undefined, undefined], 'a plain path is taken whole');
  t.deepEqual(place('oci:dir'), ['/base/dir', 'folder', undefined]);
  t.deepEqual(place('oci:/x/dir:v1'), ['/x/dir', 'folder', 'v1']);
  t.deepEqual(place('oci-archive:../f.tar:cp-2'), ['/f.tar', 'archive', 'cp-2']);
  t.deepEqual(place('docker-archive:f.tar'), ['/base/f.tar', 'archive', undefined]);
  t.deepEqual(place('file:///x/a%20b.tar'), ['/x/a b.tar', undefined, undefined]);
});

test('parseImagePlace() refuses what names nothing, naming it', (t) => {
  for (const written of [
    '',
    'oci:',
    'oci::v1',
    'oci:dir:',
    'oci:dir:a b',
    'file://host/x',
    'oci:a\0b',
    'docker://h.io/x',
    'oci://h.io/x',
    's3://x/y',
    `oci:x@sha256:${'a'.repeat(64)}`,
  ]) {
    const error = t.throws(
      () => parseImagePlace(written, '/base'),
      { instanceOf: BentoError },
      JSON.stringify(written),
    );
    t.is(error.code, 'REF_INVALID', JSON.stringify(written));
  }
});
