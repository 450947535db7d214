import test from 'ava';

import { digestOf } from '../../../store/digest.ts';
import { MEDIA_TYPES, type Descriptor } from '../../../store/manifest.ts';
import {
  addToFallbackTag,
  fallbackTag,
  parseReferrers,
  removeFromFallbackTag,
} from '../../../store/registry/referrers.ts';
import { MemoryRepository } from '../../fixtures/memory-registry.ts';

const SUBJECT = digestOf('subject');
const TAG = fallbackTag(SUBJECT);

function referrer(name: string): Descriptor {
  return { mediaType: MEDIA_TYPES.manifest, digest: digestOf(name), size: name.length, artifactType: 'a/b' };
}

interface Index {
  manifests: Record<string, unknown>[];
  annotations?: unknown;
}

function listed(repository: MemoryRepository): Index {
  const digest = repository.named.get(TAG);
  const bytes = digest && repository.manifests.get(digest)?.bytes;
  return JSON.parse(bytes?.toString() ?? '{"manifests":[]}') as Index;
}

async function putIndex(repository: MemoryRepository, index: Record<string, unknown>): Promise<void> {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.index, ...index }));
  await repository.putManifest(TAG, { mediaType: MEDIA_TYPES.index, bytes });
}

test('parseReferrers() keeps the artifact type', (t) => {
  const bytes = Buffer.from(JSON.stringify({ manifests: [referrer('one')] }));
  t.deepEqual(parseReferrers(bytes, undefined, 'x'), [referrer('one')]);
});

test('addToFallbackTag() makes the list, adds to it, and writes nothing when all are there', async (t) => {
  const repository = new MemoryRepository();
  await addToFallbackTag(repository, SUBJECT, { referrers: [referrer('one')] });
  await addToFallbackTag(repository, SUBJECT, { referrers: [referrer('one'), referrer('two')] });
  t.deepEqual(listed(repository) as unknown, {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.index,
    manifests: [referrer('one'), referrer('two')],
  });
  repository.forgetCounts();
  await addToFallbackTag(repository, SUBJECT, { referrers: [referrer('two')] });
  t.deepEqual(repository.puts, []);
});

test('addToFallbackTag() keeps what others have listed to the last field', async (t) => {
  const repository = new MemoryRepository();
  const theirs = { ...referrer('theirs'), digest: 'sha512:whatever', urls: ['https://x.test'], data: 'e30=' };
  await putIndex(repository, { manifests: [theirs], annotations: { a: 'b' } });
  await addToFallbackTag(repository, SUBJECT, { referrers: [referrer('ours')] });
  t.deepEqual(listed(repository).manifests, [theirs, { ...referrer('ours') }]);
  t.deepEqual(listed(repository).annotations, { a: 'b' });
});

/** Somebody else writes the list between our reading and our writing. */
class RacyRepository extends MemoryRepository {
  overwrites = 0;

  override async putManifest(
    reference: string,
    manifest: { mediaType: string; bytes: Uint8Array },
  ): Promise<{ keepsReferrers: boolean }> {
    const result = await super.putManifest(reference, manifest);
    if (reference === TAG && this.overwrites-- > 0) {
      const bytes = Buffer.from(
        JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests: [referrer('theirs')] }),
      );
      await super.putManifest(TAG, { mediaType: MEDIA_TYPES.index, bytes });
    }
    return result;
  }
}

test('addToFallbackTag() does it again when somebody undid it, and says so when that does not end', async (t) => {
  const repository = new RacyRepository();
  repository.overwrites = 2;
  await addToFallbackTag(repository, SUBJECT, { referrers: [referrer('ours')] });
  t.deepEqual(
    listed(repository).manifests.map(({ digest }) => digest),
    [digestOf('theirs'), digestOf('ours')],
  );
  repository.overwrites = Infinity;
  await t.throwsAsync(addToFallbackTag(repository, SUBJECT, { referrers: [referrer('more')] }), {
    code: 'REMOTE_REFUSED',
    message: /at the same time/,
  });
});

test('a tag that is no index is left alone', async (t) => {
  const repository = new MemoryRepository();
  const bytes = Buffer.from('{"schemaVersion":2,"layers":[]}');
  await repository.putManifest(TAG, { mediaType: MEDIA_TYPES.manifest, bytes });
  const before = repository.named.get(TAG);
  await t.throwsAsync(addToFallbackTag(repository, SUBJECT, { referrers: [referrer('one')] }), {
    code: 'REMOTE_INVALID',
    message: /is not an index/,
  });
  t.is(repository.named.get(TAG), before);
});

test('removeFromFallbackTag() takes away what is named, and nothing where there is no list', async (t) => {
  const repository = new MemoryRepository();
  await removeFromFallbackTag(repository, SUBJECT, { digests: new Set([digestOf('one')]) });
  t.false(repository.named.has(TAG));
  await addToFallbackTag(repository, SUBJECT, { referrers: [referrer('one'), referrer('two')] });
  await removeFromFallbackTag(repository, SUBJECT, { digests: new Set([digestOf('one')]) });
  t.deepEqual(listed(repository).manifests, [{ ...referrer('two') }]);
});
