import { randomBytes } from 'node:crypto';

import test, { type ExecutionContext } from 'ava';

import { digestOf, type Digest } from '../../../store/digest.ts';
import { pushTags, type PushEvent } from '../../../store/transfer/push.ts';
import { MemoryRepository } from '../../fixtures/memory-registry.ts';
import { ingestParts } from '../thin-fixtures.ts';
import { newMachine, saveCheckpoint, type Machine } from './transfer-fixtures.ts';

const BIG = randomBytes(300_000);
const SMALL = randomBytes(1_000);

async function pushed(t: ExecutionContext): Promise<{ machine: Machine; remote: MemoryRepository; first: Digest }> {
  const machine = newMachine(t);
  const remote = new MemoryRepository();
  const { digest } = await saveCheckpoint(machine, [BIG, SMALL], { tags: ['cp-1', 'latest'], sequence: 1 });
  await pushTags(machine, remote, { tags: ['cp-1', 'latest'] });
  return { machine, remote, first: digest };
}

test('pushTags() sends every blob once, then manifests and tags, and nothing the second time', async (t) => {
  const { machine, remote, first } = await pushed(t);
  t.is(remote.uploads.length, 3);
  t.is(new Set(remote.uploads).size, 3);
  t.deepEqual(remote.puts, ['cp-1', 'latest']);
  t.is(remote.named.get('latest'), first);
  remote.forgetCounts();
  const again = await pushTags(machine, remote, { tags: ['cp-1', 'latest'] });
  t.deepEqual(
    again.tags.map(({ outcome }) => outcome),
    ['same', 'same'],
  );
  t.deepEqual([remote.uploads, remote.puts, remote.receivedBytes], [[], [], 0]);
  t.like(again, { sentCount: 0, sentBytes: 0, thereCount: 0 });
});

test('pushTags() of a checkpoint with one new layer sends that layer and the config', async (t) => {
  const { machine, remote, first } = await pushed(t);
  remote.forgetCounts();
  const changed = Buffer.from('a small change');
  await saveCheckpoint(machine, [BIG, SMALL, changed], { tags: ['cp-2', 'latest'], sequence: 2, parent: first });
  const events: PushEvent[] = [];
  const result = await pushTags(machine, remote, {
    tags: ['cp-1', 'cp-2', 'latest'],
    onEvent: (event) => events.push(event),
  });
  t.is(remote.uploads.length, 2);
  t.true(remote.uploads.includes(digestOf(changed)));
  t.true(remote.receivedBytes < 3_000, String(remote.receivedBytes));
  t.like(result, { sentCount: 2, sentBytes: remote.receivedBytes, thereCount: 2 });
  t.deepEqual(
    result.tags.map(({ outcome }) => outcome),
    ['same', 'new', 'moved'],
  );
  t.true(events.some((e) => e.kind === 'blob' && e.title === 'layer-2' && e.outcome === 'sent' && e.sentBytes === 14));
  t.true(events.some((e) => e.kind === 'blob' && e.title === 'layer-0' && e.outcome === 'there'));
});

test('pushTags() refuses a tag that diverged before anything is sent, and force moves it', async (t) => {
  const { machine, remote, first } = await pushed(t);
  const other = newMachine(t);
  const theirs = await saveCheckpoint(other, [BIG, SMALL, Buffer.from('theirs')], {
    tags: ['cp-2'],
    sequence: 2,
    parent: first,
  });
  await pushTags(other, remote, { tags: ['cp-2'] });
  remote.forgetCounts();
  const ours = await saveCheckpoint(machine, [BIG, SMALL, Buffer.from('ours')], {
    tags: ['a-new-tag', 'cp-2'],
    sequence: 2,
    parent: first,
  });
  const error = await t.throwsAsync(pushTags(machine, remote, { tags: ['a-new-tag', 'cp-2'] }), { code: 'DIVERGED' });
  for (const part of ['cp-2', ours.digest.slice(0, 19), theirs.digest.slice(0, 19)])
    t.true(error.message.includes(part));
  t.deepEqual([remote.uploads, remote.puts], [[], []]);
  t.is(remote.named.get('cp-2'), theirs.digest);
  await pushTags(machine, remote, { tags: ['a-new-tag', 'cp-2'], force: true });
  t.is(remote.named.get('cp-2'), ours.digest);
});

test('pushTags() moves latest to another line of this workspace, whose old end has a name', async (t) => {
  const { machine, remote, first } = await pushed(t);
  await saveCheckpoint(machine, [Buffer.from('b')], { tags: ['cp-2', 'latest'], sequence: 2, parent: first });
  await pushTags(machine, remote, { tags: ['cp-2', 'latest'] });
  const third = await saveCheckpoint(machine, [Buffer.from('c')], {
    tags: ['cp-3', 'latest'],
    sequence: 3,
    parent: first,
  });
  await pushTags(machine, remote, { tags: ['cp-3', 'latest'] });
  t.is(remote.named.get('latest'), third.digest);
});

test('pushTags() that broke sets no tag, and is finished by a second one that sends less', async (t) => {
  const machine = newMachine(t);
  const remote = new MemoryRepository();
  const layers = Array.from({ length: 8 }, () => randomBytes(100_000));
  await saveCheckpoint(machine, layers, { tags: ['cp-1'], sequence: 1 });
  remote.bytesLeft = 650_000;
  await t.throwsAsync(pushTags(machine, remote, { tags: ['cp-1'] }), { code: 'REMOTE_UNREACHABLE' });
  t.deepEqual(remote.puts, []);
  const kept = remote.uploads.length;
  t.true(kept > 0);
  remote.forgetCounts();
  remote.bytesLeft = Infinity;
  const result = await pushTags(machine, remote, { tags: ['cp-1'] });
  t.is(result.thereCount, kept);
  t.is(remote.uploads.length, 9 - kept);
  t.deepEqual(remote.puts, ['cp-1']);
});

test('pushTags() sends nothing of a checkpoint that is not whole here, and names the blob', async (t) => {
  const machine = newMachine(t);
  const remote = new MemoryRepository();
  await saveCheckpoint(machine, [BIG, SMALL], { tags: ['cp-1'], sequence: 1 });
  await machine.store.blobs.remove(digestOf(SMALL));
  const error = await t.throwsAsync(pushTags(machine, remote, { tags: ['cp-1'] }), { code: 'BLOB_MISSING' });
  t.true(error.message.includes(digestOf(SMALL)));
  t.is(remote.receivedBytes, 0);
  await t.throwsAsync(pushTags(machine, remote, { tags: ['nope'] }), { code: 'REF_NOT_FOUND', message: /"nope"/ });
});

test('pushTags() sends a layer that is kept as a recipe whole', async (t) => {
  const machine = newMachine(t);
  const { blobs } = machine.store;
  const base = await blobs.put(randomBytes(4 << 20));
  const whole = await ingestParts(blobs, [Buffer.from('new'), { ...base, offset: 0, lengthBytes: 4 << 20 }]);
  t.true(await blobs.isThin(whole.digest));
  await saveCheckpoint(machine, [whole.bytes], { tags: ['cp-1'], sequence: 1 });
  await blobs.remove(whole.digest);
  await ingestParts(blobs, [Buffer.from('new'), { ...base, offset: 0, lengthBytes: 4 << 20 }]);
  t.true(await blobs.isThin(whole.digest));
  const remote = new MemoryRepository();
  await pushTags(machine, remote, { tags: ['cp-1'] });
  t.true(remote.blobs.get(whole.digest)?.equals(whole.bytes));
  const pieces: Buffer[] = [];
  for await (const piece of blobs.readFrom(whole, 2)) pieces.push(piece);
  t.true(Buffer.concat(pieces).equals(whole.bytes.subarray(2)));
});

test('readFrom() gives a blob from any offset on', async (t) => {
  const { store } = newMachine(t);
  const { digest } = await store.blobs.put(BIG);
  for (const offset of [0, 1, 299_999, 300_000]) {
    const pieces: Buffer[] = [];
    for await (const piece of store.blobs.readFrom({ digest }, offset)) pieces.push(piece);
    t.true(Buffer.concat(pieces).equals(BIG.subarray(offset)), String(offset));
  }
});
