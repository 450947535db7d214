import { randomBytes } from 'node:crypto';

import { digestOf } from '../../../store/digest.ts';
import { MEDIA_TYPES } from '../../../store/manifest.ts';
import { RegistryClient } from '../../../store/registry/client.ts';
import { testNeeding } from '../../fixtures/external-tools.ts';
import { startDebianRegistry } from '../../fixtures/registry/debian-registry.ts';

testNeeding({ tools: ['docker-registry'] })(
  'a client pushes to the registry of Debian and reads it back',
  async (t) => {
    await using debian = await startDebianRegistry();
    const registry = debian.host;
    const client = new RegistryClient({ credentials: { find: async () => await Promise.resolve(undefined) } });
    t.teardown(async () => await client.close());
    t.deepEqual(await client.ping(registry), { wantsCredentials: false });
    const repository = client.repository({ registry, repository: 'me/ws' });
    t.deepEqual(await repository.tags(), []);

    const bytes = randomBytes(3 << 20);
    const blob = { digest: digestOf(bytes), sizeBytes: bytes.length };
    const sent: number[] = [];
    async function* source(offset: number): AsyncGenerator<Buffer> {
      for (let at = offset; at < bytes.length; at += 65536) yield await Promise.resolve(bytes.subarray(at, at + 65536));
    }
    const onProgress = (sentBytes: number): void => void sent.push(sentBytes);
    t.is(await repository.blobSize(blob.digest), undefined);
    t.is(await repository.uploadBlob(blob, source, { onProgress }), 'sent');
    t.is(sent.at(-1), bytes.length);
    t.is(await repository.uploadBlob(blob, source), 'there');
    t.is(await repository.blobSize(blob.digest), bytes.length);

    const descriptor = { mediaType: MEDIA_TYPES.layer, digest: blob.digest, size: bytes.length };
    const manifest = { schemaVersion: 2, mediaType: MEDIA_TYPES.manifest, config: descriptor, layers: [descriptor] };
    const written = Buffer.from(JSON.stringify(manifest));
    const put = { mediaType: MEDIA_TYPES.manifest, bytes: written };
    t.deepEqual(await repository.putManifest('cp-1', put), { keepsReferrers: false });
    const expected = { mediaType: MEDIA_TYPES.manifest, digest: digestOf(written), size: written.length };
    t.deepEqual(await repository.headManifest('cp-1'), expected);
    t.deepEqual(await repository.getManifest(expected.digest), { descriptor: expected, bytes: written });
    t.is(await repository.getManifest('cp-2'), undefined);
    t.deepEqual(await repository.tags(), ['cp-1']);
    t.deepEqual(await repository.referrers(expected.digest), []);

    const range = { offset: 1_000_000, length: 5000, sizeBytes: bytes.length };
    t.deepEqual(await repository.readRange(blob.digest, range), bytes.subarray(1_000_000, 1_005_000));
    const chunks: Buffer[] = [];
    for await (const chunk of repository.streamBlob(blob)) chunks.push(chunk);
    t.is(digestOf(Buffer.concat(chunks)), blob.digest);

    const other = client.repository({ registry, repository: 'me/other' });
    t.is(await other.uploadBlob(blob, source, { mountFrom: ['me/none', 'me/ws'] }), 'mounted');
    t.is(await other.blobSize(blob.digest), bytes.length);
  },
);
