import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { digestOf, hexOf, type Digest } from '../../../store/digest.ts';
import { MEDIA_TYPES } from '../../../store/manifest.ts';
import { pullTags } from '../../../store/transfer/pull.ts';
import { pushTags } from '../../../store/transfer/push.ts';
import { MemoryRepository } from '../../fixtures/memory-registry.ts';
import { newMachine, saveCheckpoint, tagsOf, type Machine } from './transfer-fixtures.ts';

const BIG = randomBytes(300_000);

async function filled(t: ExecutionContext): Promise<{ from: Machine; remote: MemoryRepository; first: Digest }> {
  const from = newMachine(t);
  const remote = new MemoryRepository();
  const { digest } = await saveCheckpoint(from, [BIG, Buffer.from('one')], { tags: ['cp-1', 'latest'], sequence: 1 });
  await pushTags(from, remote, { tags: ['cp-1', 'latest'] });
  return { from, remote, first: digest };
}

function partials({ store }: Machine): string[] {
  const dir = join(store.root, 'partial');
  return existsSync(dir) ? readdirSync(dir) : [];
}

test('pullTags() fetches what a new store lacks, and nothing the second time', async (t) => {
  const { from, remote, first } = await filled(t);
  const to = newMachine(t);
  const result = await pullTags(to, remote);
  t.deepEqual(
    result.tags.map(({ tag, outcome }) => `${tag} ${outcome}`),
    ['cp-1 new', 'latest new'],
  );
  t.is(result.fetchedBytes, remote.sentBytes);
  t.deepEqual(await tagsOf(to), { 'cp-1': first, latest: first });
  t.deepEqual(await to.store.blobs.list(), await from.store.blobs.list());
  t.deepEqual(partials(to), []);
  remote.forgetCounts();
  const again = await pullTags(to, remote);
  t.deepEqual([again.fetchedCount, remote.sentBytes], [0, 0]);
  t.true(again.tags.every(({ outcome }) => outcome === 'same'));
});

test('pullTags() moves tags forward, and keeps those that are ahead', async (t) => {
  const { from, remote, first } = await filled(t);
  const to = newMachine(t);
  await pullTags(to, remote);
  const second = await saveCheckpoint(from, [BIG, Buffer.from('two')], {
    tags: ['cp-2', 'latest'],
    sequence: 2,
    parent: first,
  });
  const ahead = await pullTags(from, remote);
  t.deepEqual(
    ahead.tags.map(({ outcome }) => outcome),
    ['same', 'ahead'],
  );
  t.is((await tagsOf(from))['latest'], second.digest);
  await pushTags(from, remote, { tags: ['cp-1', 'cp-2', 'latest'] });
  remote.forgetCounts();
  const forward = await pullTags(to, remote);
  t.deepEqual(
    forward.tags.map(({ outcome }) => outcome),
    ['same', 'new', 'forward'],
  );
  t.true(remote.sentBytes < 3_000);
  t.deepEqual(await tagsOf(to), await tagsOf(from));
});

test('pullTags() keeps both when two machines made a cp-2 (weakness D12), and names the other', async (t) => {
  const { from, remote, first } = await filled(t);
  const to = newMachine(t);
  await pullTags(to, remote);
  const tags = ['cp-2', 'latest'];
  const theirs = await saveCheckpoint(from, [Buffer.from('theirs')], { tags, sequence: 2, parent: first });
  await pushTags(from, remote, { tags });
  const ours = await saveCheckpoint(to, [Buffer.from('ours')], { tags, sequence: 2, parent: first });
  const { tags: pulled } = await pullTags(to, remote);
  const other = `cp-2-remote-${hexOf(theirs.digest).slice(0, 12)}`;
  t.deepEqual(
    pulled.map(({ outcome, keptAs }) => [outcome, keptAs]),
    [
      ['same', undefined],
      ['diverged', other],
      ['diverged', other],
    ],
  );
  t.deepEqual(await tagsOf(to), {
    'cp-1': first,
    'cp-2': ours.digest,
    [other]: theirs.digest,
    latest: ours.digest,
  });
  await pullTags(to, remote);
  t.is(Object.keys(await tagsOf(to)).length, 4);
});

test('pullTags() that broke goes on where it was, and stores only what is whole', async (t) => {
  const { remote } = await filled(t);
  const to = newMachine(t);
  remote.bytesLeft = 200_000;
  await t.throwsAsync(pullTags(to, remote), { code: 'REMOTE_UNREACHABLE' });
  t.deepEqual(await tagsOf(to), {});
  t.false(await to.store.blobs.has(digestOf(BIG)));
  t.true(partials(to).includes(hexOf(digestOf(BIG))));
  remote.forgetCounts();
  remote.bytesLeft = Infinity;
  const { fetchedBytes } = await pullTags(to, remote);
  t.true(fetchedBytes < 150_000, String(fetchedBytes));
  t.true(remote.downloads.some(({ digest, offset }) => digest === digestOf(BIG) && offset > 150_000));
  t.deepEqual(readFileSync(to.store.blobs.path(digestOf(BIG))), BIG);
  t.deepEqual(partials(to), []);
});

test('pullTags() throws away a beginning that is not the blob’s, and a save clears none away', async (t) => {
  const { remote } = await filled(t);
  const to = newMachine(t);
  remote.bytesLeft = 200_000;
  await t.throwsAsync(pullTags(to, remote));
  remote.bytesLeft = Infinity;
  const file = join(to.store.root, 'partial', hexOf(digestOf(BIG)));
  const bytes = readFileSync(file);
  bytes.writeUInt8(bytes.readUInt8(5) ^ 1, 5);
  writeFileSync(file, bytes);
  (await to.layout.lockForSaving()).release();
  t.true(existsSync(file));
  await pullTags(to, remote);
  t.deepEqual(readFileSync(to.store.blobs.path(digestOf(BIG))), BIG);
  t.deepEqual(partials(to), []);
});

test('pullTags() refuses wrong bytes and stores nothing of them', async (t) => {
  const { remote } = await filled(t);
  const to = newMachine(t);
  remote.lies = true;
  await t.throwsAsync(pullTags(to, remote), { code: 'REMOTE_INVALID', message: /another manifest/ });
  remote.lies = false;
  for (const [digest, bytes] of remote.blobs) {
    const wrong = Buffer.from(bytes);
    wrong.writeUInt8(wrong.readUInt8(0) ^ 1, 0);
    remote.blobs.set(digest, wrong);
  }
  await t.throwsAsync(pullTags(to, remote), { code: 'REMOTE_INVALID' });
  t.deepEqual(await tagsOf(to), {});
  t.deepEqual(await to.store.blobs.list(), []);
});

test('pullTags() takes one tag or digest, and says what is not there', async (t) => {
  const { remote, first } = await filled(t);
  const to = newMachine(t);
  await t.throwsAsync(pullTags(to, remote, { reference: 'nope' }), { code: 'REMOTE_NOT_FOUND', message: /nope/ });
  await pullTags(to, remote, { reference: 'cp-1' });
  t.deepEqual(await tagsOf(to), { 'cp-1': first });
  const other = newMachine(t);
  await pullTags(other, remote, { reference: first });
  t.deepEqual(await tagsOf(other), { [`remote-${hexOf(first).slice(0, 12)}`]: first });
  t.deepEqual((await pullTags(newMachine(t), new MemoryRepository())).tags, []);
});

test('pullTags() skips tags that are no checkpoints or not wanted, and refuses one that was asked for', async (t) => {
  const { remote, first } = await filled(t);
  const index = Buffer.from('{"schemaVersion":2,"manifests":[]}');
  remote.manifests.set(digestOf(index), { mediaType: MEDIA_TYPES.index, bytes: index });
  remote.named.set('images', digestOf(index));
  for (const tag of ['head', 'pre-open', `sha256-${'0'.repeat(64)}`, '../x']) remote.named.set(tag, first);
  const to = newMachine(t);
  const { skipped } = await pullTags(to, remote, { isWanted: (tag) => tag !== 'pre-open' });
  t.deepEqual(
    skipped.map(({ tag }) => tag),
    ['images'],
  );
  t.deepEqual(Object.keys(await tagsOf(to)), ['cp-1', 'latest']);
  await t.throwsAsync(pullTags(to, remote, { reference: 'images' }), { code: 'FORMAT_UNSUPPORTED' });
});

test('pullTags() refuses a layer that says it is larger than any, before fetching', async (t) => {
  const { remote, first } = await filled(t);
  const manifest = JSON.parse(remote.manifests.get(first)?.bytes.toString() ?? '') as { layers: { size: number }[] };
  for (const layer of manifest.layers) layer.size = 2 ** 50;
  const bytes = Buffer.from(JSON.stringify(manifest));
  remote.manifests.set(digestOf(bytes), { mediaType: MEDIA_TYPES.manifest, bytes });
  remote.named.set('huge', digestOf(bytes));
  await t.throwsAsync(pullTags(newMachine(t), remote, { reference: 'huge' }), {
    code: 'FORMAT_INVALID',
    message: /limit/,
  });
  t.is(remote.sentBytes, 0);
});
