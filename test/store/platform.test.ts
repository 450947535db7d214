import test from 'ava';

import { BentoError } from '../../store/errors.ts';
import { chooseImage, formatPlatform, parsePlatform, thisPlatform } from '../../store/platform.ts';

function entry(letter: string, platform?: string): Record<string, unknown> {
  const [os, architecture, variant] = platform?.split('/') ?? [];
  return {
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    digest: `sha256:${letter.repeat(64)}`,
    size: 1,
    ...(platform !== undefined && { platform: { os, architecture, ...(variant !== undefined && { variant }) } }),
  };
}

/** The letter of the digest that is chosen. */
function chosen(entries: unknown[], platform: string): string {
  return chooseImage(entries, parsePlatform(platform), 'the index').digest.slice(-1);
}

test('chooseImage() takes the highest variant that a machine runs, and an image without one for the common one', (t) => {
  const arm = [entry('5', 'linux/arm/v5'), entry('7', 'linux/arm/v7'), entry('6', 'linux/arm/v6')];
  t.is(chosen(arm, 'linux/arm'), '7');
  t.is(chosen(arm, 'linux/arm/v6'), '6');
  t.is(chosen(arm.slice(1), 'linux/arm/v6'), '6');
  t.throws(() => chosen(arm.slice(1, 2), 'linux/arm/v6'), {
    message: /has no image for linux\/arm\/v6: it has linux\/arm\/v7/,
  });
  const amd64 = [entry('3', 'linux/amd64/v3'), entry('1', 'linux/amd64'), entry('a', 'linux/arm64/v8')];
  t.is(chosen(amd64, 'linux/amd64'), '1');
  t.is(chosen(amd64, 'linux/amd64/v3'), '3');
  t.is(chosen(amd64, 'linux/x64'), '1', "Node's word for it");
  t.is(chosen(amd64, 'linux/arm64'), 'a');
  t.is(chosen([entry('b', 'linux/arm64'), entry('w', 'windows/arm64')].slice(0, 1), 'linux/arm64/v8'), 'b');
});

test('chooseImage() passes over attestations, and says what there is when nothing fits', (t) => {
  const attestation = entry('e', 'unknown/unknown');
  const marked = { ...entry('f', 'linux/amd64'), annotations: { 'vnd.docker.reference.type': 'attestation-manifest' } };
  t.is(chosen([marked, attestation, entry('1', 'linux/amd64')], 'linux/amd64'), '1');
  const error = t.throws(
    () => chosen([attestation, entry('1', 'linux/s390x'), entry('2', 'windows/amd64')], 'linux/amd64'),
    {
      instanceOf: BentoError,
    },
  );
  t.is(error.code, 'FORMAT_UNSUPPORTED');
  t.is(error.message, 'the index has no image for linux/amd64: it has linux/s390x, windows/amd64');
  t.regex(error.hint ?? '', /--platform/);
  t.is(chosen([entry('1')], 'linux/amd64'), '1', 'the only one');
  t.is(chosen([entry('1'), attestation], 'linux/amd64'), '1', 'the only image');
  for (const entries of [[], [attestation], [entry('1'), entry('2')], [null], ['x']])
    t.throws(() => chosen(entries, 'linux/amd64'), { instanceOf: BentoError }, JSON.stringify(entries));
});

test('parsePlatform() reads what formatPlatform() writes, and refuses the rest', (t) => {
  for (const written of ['linux/amd64', 'linux/arm/v7', 'windows/arm64', formatPlatform(thisPlatform())])
    t.is(formatPlatform(parsePlatform(written)), written);
  for (const written of ['', 'linux', 'linux/', '/amd64', 'linux/arm/v7/x', 'linux/a b', 'linux/\u001b[2J'])
    t.is(t.throws(() => parsePlatform(written), { instanceOf: BentoError }).code, 'USAGE', written);
});
