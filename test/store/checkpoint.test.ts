import test from 'ava';

import { layerDescriptor, loadCheckpoint, storeCheckpoint } from '../../store/checkpoint.ts';
import type { CheckpointMeta } from '../../store/checkpoint-meta.ts';
import { digestOf } from '../../store/digest.ts';
import { parseRef, type Ref } from '../../store/ref.ts';
import { Store } from '../../store/store.ts';
import { newFolder } from '../fixtures/workspaces.ts';

const PACKED = {
  digest: digestOf('blob'),
  sizeBytes: 9,
  tocDigest: digestOf('toc'),
  uncompressedBytes: 99,
  fileCount: 3,
};
const LAYER = {
  title: 'project',
  descriptor: layerDescriptor('project', PACKED),
  diffId: digestOf('tar'),
  fileCount: 3,
};
const META: CheckpointMeta = {
  schemaVersion: '1.0.0',
  checkpoint: 7,
  created: '2026-01-02T03:04:05Z',
  message: 'été',
  extensions: ['node', 'python'],
  task: 'port it',
};

test('storeCheckpoint() writes the annotations and labels of docs/format.md, and loadCheckpoint() reads them', async (t) => {
  const { blobs } = new Store(newFolder(t));
  const parent = digestOf('parent');
  const { digest, size } = await storeCheckpoint(blobs, { layers: [LAYER], meta: META, parent });
  const json = JSON.parse((await blobs.read({ digest }, 1e6)).toString()) as { config: { digest: typeof digest } };
  const labels = {
    'dev.bento.format.version': '0.3.0',
    'dev.bento.checkpoint.sequence': '7',
    'dev.bento.checkpoint.parent': parent,
    'dev.bento.checkpoint.message': 'été',
    'dev.bento.extensions': 'node,python',
    'dev.bento.task': 'port it',
  };
  t.like(json, {
    artifactType: 'application/vnd.bento.workspace.v1',
    annotations: { 'org.opencontainers.image.created': META.created, ...labels },
  });
  const config = JSON.parse((await blobs.read(json.config, 1e6)).toString()) as unknown;
  t.deepEqual(config, {
    created: META.created,
    architecture: 'amd64',
    os: 'linux',
    config: { Labels: { ...labels, 'dev.bento.config': JSON.stringify(META) } },
    rootfs: { type: 'layers', diff_ids: [LAYER.diffId] },
  });
  const loaded = await loadCheckpoint(blobs, digest);
  t.like(loaded, { digest, size, sequence: 7, parent, message: 'été', extensions: ['node', 'python'], meta: META });
  t.deepEqual(loaded.layers, [LAYER]);
});

test('resolve() finds tags, digests and prefixes, and says what is missing or ambiguous', async (t) => {
  const store = new Store(newFolder(t));
  const own = store.layout('ws');
  const manifest = await store.blobs.put(Buffer.from('any blob'));
  await own.setTags(['cp-1'], manifest);
  await own.setTags(['x'], { digest: `sha256:${'ab'.repeat(31)}00`, size: 1 });
  await own.setTags(['y'], { digest: `sha256:${'ab'.repeat(31)}11`, size: 1 });
  const resolve = async (text: string, layout = own): Promise<unknown> => {
    const { layout: foundIn, digest, tag } = await store.resolve(parseRef(text) as Named, layout);
    return { id: foundIn.id, digest, tag };
  };
  const found = { id: 'ws', digest: manifest.digest, tag: undefined };
  t.deepEqual(await resolve('cp-1'), { ...found, tag: 'cp-1' });
  t.deepEqual(await resolve('ws:cp-1', store.layout('another')), { ...found, tag: 'cp-1' });
  t.deepEqual(await resolve(manifest.digest), found);
  t.deepEqual(await resolve(manifest.digest.slice(0, 13)), found);
  for (const text of ['', 'cp-2', 'other:cp-1', 'blobs:cp-1', 'sha256:000000', digestOf('none')]) {
    await t.throwsAsync(resolve(text), { code: 'REF_NOT_FOUND' }, text);
  }
  await t.throwsAsync(store.resolve(parseRef('cp-1') as Named, undefined), {
    code: 'REF_NOT_FOUND',
    message: /store name/,
  });
  await t.throwsAsync(resolve('sha256:ababab'), { code: 'REF_INVALID', message: /2 checkpoints/ });
  t.deepEqual(await store.workspaceIds(), ['ws']);
});

type Named = Exclude<Ref, { kind: 'head' | 'undo' }>;
