import test from 'ava';

import { BentoError } from '../../store/errors.ts';
import { LAYER_COUNT_MAX, MEDIA_TYPES, parseManifest } from '../../store/manifest.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;
const DESCRIPTOR = { mediaType: MEDIA_TYPES.layer, digest: DIGEST, size: 7 };
const MANIFEST = {
  schemaVersion: 2,
  mediaType: MEDIA_TYPES.manifest,
  config: { ...DESCRIPTOR, mediaType: MEDIA_TYPES.config },
  layers: [DESCRIPTOR],
};

function parse(value: unknown): ReturnType<typeof parseManifest> {
  return parseManifest(Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)), 'manifest m');
}

test('parseManifest() takes a manifest and drops what it does not know', (t) => {
  const annotations = { 'dev.bento.task': 'é', ['__proto__']: 'mine' };
  const parsed = parse({ ...MANIFEST, artifactType: 'a/b', annotations, subject: DESCRIPTOR, extra: 1 });
  const expected = { ...MANIFEST, schemaVersion: 2, artifactType: 'a/b', annotations, subject: DESCRIPTOR };
  t.deepEqual(parsed, expected as typeof parsed);
});

test('parseManifest() takes null for annotations that are not there', (t) => {
  t.false('annotations' in parse({ ...MANIFEST, annotations: null }));
});

test('parseManifest() takes a manifest without media type, as Docker and old tools write them', (t) => {
  const { mediaType: _mediaType, ...rest } = MANIFEST;
  t.is(parse(rest).mediaType, MEDIA_TYPES.manifest);
});

const HOSTILE: Record<string, unknown> = {
  'no bytes': '',
  'not JSON': '{"schemaVersion":2',
  null: 'null',
  'a list': '[]',
  'a string': '"manifest"',
  'an image index': { schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests: [] },
  'schema version 1': { ...MANIFEST, schemaVersion: 1 },
  'schema version "2"': { ...MANIFEST, schemaVersion: '2' },
  'layers that are no list': { ...MANIFEST, layers: { length: 1, 0: DESCRIPTOR } },
  'no layers at all': { ...MANIFEST, layers: [] },
  'too many layers': { ...MANIFEST, layers: Array.from({ length: LAYER_COUNT_MAX + 1 }, () => DESCRIPTOR) },
  'no config': { ...MANIFEST, config: undefined },
  'a config that is a list': { ...MANIFEST, config: [] },
  'a layer that is null': { ...MANIFEST, layers: [null] },
  'a negative size': { ...MANIFEST, layers: [{ ...DESCRIPTOR, size: -1 }] },
  'half a byte': { ...MANIFEST, layers: [{ ...DESCRIPTOR, size: 0.5 }] },
  'a size beyond 2^53': { ...MANIFEST, layers: [{ ...DESCRIPTOR, size: 2 ** 60 }] },
  'a size in words': { ...MANIFEST, layers: [{ ...DESCRIPTOR, size: '7' }] },
  'a media type that is a number': { ...MANIFEST, layers: [{ ...DESCRIPTOR, mediaType: 7 }] },
  'a digest of another algorithm': { ...MANIFEST, layers: [{ ...DESCRIPTOR, digest: `sha512:${'a'.repeat(128)}` }] },
  'a digest in capitals': { ...MANIFEST, layers: [{ ...DESCRIPTOR, digest: DIGEST.toUpperCase() }] },
  'a digest that is a path': { ...MANIFEST, layers: [{ ...DESCRIPTOR, digest: `sha256:../../${'a'.repeat(58)}` }] },
  'a digest with a line break': { ...MANIFEST, layers: [{ ...DESCRIPTOR, digest: `${DIGEST}\n` }] },
  'a digest that cannot be made a string': { ...MANIFEST, layers: [{ ...DESCRIPTOR, digest: { toString: 1 } }] },
  'a digest that is 100,000 lists deep':
    `{"schemaVersion":2,"layers":[{"mediaType":"x","size":1,"digest":${'['.repeat(1e5)}${']'.repeat(1e5)}}],` +
    `"config":${JSON.stringify(DESCRIPTOR)}}`,
  'annotations that are a list': { ...MANIFEST, annotations: ['a'] },
  'an annotation that is a number': { ...MANIFEST, annotations: { a: 1 } },
  'a layer annotation that is an object': { ...MANIFEST, layers: [{ ...DESCRIPTOR, annotations: { a: {} } }] },
};

for (const [what, value] of Object.entries(HOSTILE)) {
  test(`parseManifest() refuses ${what}`, (t) => {
    const error = t.throws(() => parse(value), { instanceOf: BentoError });
    t.is(error.code, 'FORMAT_INVALID');
    t.regex(error.message, /^manifest m/);
    t.true(error.message.length < 300);
  });
}
