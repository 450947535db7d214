import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';

import test, { type ExecutionContext } from 'ava';

import {
  ATTACHMENT_BYTES_MAX,
  encodeAttachment,
  parseAttachmentType,
  type Attachment,
} from '../../../store/attachment.ts';
import { digestOf, type Digest } from '../../../store/digest.ts';
import { attachmentsOf } from '../../../store/find-attachments.ts';
import { KEYS, MEDIA_TYPES, type Descriptor } from '../../../store/manifest.ts';
import { fallbackTag } from '../../../store/registry/referrers.ts';
import { pullTags } from '../../../store/transfer/pull.ts';
import { pushTags } from '../../../store/transfer/push.ts';
import { attachToRemote, detachFromRemote, listRemoteAttachments } from '../../../store/transfer/remote-attachments.ts';
import { MemoryRepository } from '../../fixtures/memory-registry.ts';
import { attachTo, newMachine, saveCheckpoint, tagsOf, type Machine, type Saved } from './transfer-fixtures.ts';

interface World {
  machine: Machine;
  remote: MemoryRepository;
  checkpoint: Saved;
}

async function newWorld(t: ExecutionContext, keepsReferrers: boolean): Promise<World> {
  const machine = newMachine(t);
  const remote = new MemoryRepository();
  remote.keepsReferrers = keepsReferrers;
  const checkpoint = await saveCheckpoint(machine, [randomBytes(1000)], { tags: ['cp-1', 'latest'], sequence: 1 });
  return { machine, remote, checkpoint };
}

const TAGS = { tags: ['cp-1', 'latest'] };

async function titlesOf({ store }: Machine, subject: Digest): Promise<string[]> {
  const { attachments } = await attachmentsOf(store, subject);
  return attachments.map(({ files }) => files[0]?.title ?? '').sort();
}

for (const keepsReferrers of [true, false]) {
  const how = keepsReferrers ? 'with the referrers API' : 'with fallback tags';

  test(`attachments go with their checkpoint to a registry ${how} and come from there`, async (t) => {
    const { machine, remote, checkpoint } = await newWorld(t, keepsReferrers);
    await attachTo(machine, checkpoint, { title: 'one' });
    const first = await pushTags(machine, remote, TAGS);
    t.is(first.attachments.length, 1);
    t.is(remote.named.has(fallbackTag(checkpoint.digest)), !keepsReferrers);
    const there = newMachine(t);
    const pulled = await pullTags(there, remote);
    t.deepEqual(pulled.skippedReferrers, []);
    t.is(pulled.attachments.length, 1);
    t.deepEqual(await titlesOf(there, checkpoint.digest), ['one']);
    const [{ files } = { files: [] }] = (await attachmentsOf(there.store, checkpoint.digest)).attachments;
    t.is((await there.store.blobs.read({ digest: files[0]?.digest ?? digestOf('') }, 100)).toString(), 'ok');
    t.deepEqual(Object.keys(await tagsOf(there)), ['cp-1', 'latest']);
  });

  test(`what is there ${how} is not sent or fetched again, and what is new is, though the tags are the same`, async (t) => {
    const { machine, remote, checkpoint } = await newWorld(t, keepsReferrers);
    const there = newMachine(t);
    await attachTo(machine, checkpoint, { title: 'one' });
    await pushTags(machine, remote, TAGS);
    await pullTags(there, remote);
    remote.forgetCounts();
    t.is((await pushTags(machine, remote, TAGS)).attachments.length, 0);
    t.is((await pullTags(there, remote)).attachments.length, 0);
    t.deepEqual([remote.uploads, remote.puts, remote.downloads], [[], [], []]);
    const { attachment } = await attachTo(machine, checkpoint, { title: 'two', content: 'second' });
    const again = await pushTags(machine, remote, TAGS);
    t.deepEqual(
      [again.tags.map(({ outcome }) => outcome), again.attachments.map(({ digest }) => digest)],
      [['same', 'same'], [attachment.digest]],
    );
    t.deepEqual(remote.uploads, [digestOf('second')]);
    const pulled = await pullTags(there, remote);
    t.deepEqual([pulled.attachments.length, pulled.fetchedCount], [1, 1]);
    t.deepEqual(await titlesOf(there, checkpoint.digest), ['one', 'two']);
  });

  test(`two machines attach to one checkpoint ${how}, and each gets the other's`, async (t) => {
    const { machine, remote, checkpoint } = await newWorld(t, keepsReferrers);
    const there = newMachine(t);
    await pushTags(machine, remote, TAGS);
    await pullTags(there, remote);
    await attachTo(machine, checkpoint, { title: 'ours' });
    await attachTo(there, checkpoint, { title: 'theirs', content: 'theirs' });
    await Promise.all([pushTags(machine, remote, TAGS), pushTags(there, remote, TAGS)]);
    await pushTags(machine, remote, TAGS); // whoever was undone by the other does it again
    await pushTags(there, remote, TAGS);
    for (const one of [machine, there]) {
      await pullTags(one, remote);
      t.deepEqual(await titlesOf(one, checkpoint.digest), ['ours', 'theirs']);
    }
  });

  test(`a file is attached to and taken away from a checkpoint in a registry ${how}`, async (t) => {
    const { machine, remote, checkpoint } = await newWorld(t, keepsReferrers);
    await pushTags(machine, remote, TAGS);
    const bytes = Buffer.from('sent');
    const made = {
      subject: { mediaType: MEDIA_TYPES.manifest, ...checkpoint },
      type: parseAttachmentType('log'),
      title: 'a.log',
      file: {
        digest: digestOf(bytes),
        sizeBytes: bytes.length,
        source: async function* () {
          yield await Promise.resolve(bytes);
        },
      },
      now: new Date(),
    };
    const { attachment, isNew } = await attachToRemote(remote, made);
    t.true(isNew);
    t.false((await attachToRemote(remote, made)).isNew);
    const { found } = await listRemoteAttachments(remote, checkpoint.digest);
    t.deepEqual(
      found.map((one) => one.attachment.digest),
      [attachment.digest],
    );
    await pullTags(machine, remote);
    t.deepEqual(await titlesOf(machine, checkpoint.digest), ['a.log']);
    await detachFromRemote(remote, checkpoint.digest, { digests: new Set([attachment.digest]) });
    t.deepEqual(await remote.referrers(checkpoint.digest), []);
    t.false(remote.manifests.has(attachment.digest));
  });
}

test('pushTags() asks nothing about checkpoints that have no attachments', async (t) => {
  const { machine, remote } = await newWorld(t, true);
  await pushTags(machine, remote, TAGS);
  t.deepEqual(remote.lists, []);
});

test('pushTags() that broke sets nothing half, and the next one finishes', async (t) => {
  const { machine, remote, checkpoint } = await newWorld(t, false);
  await pushTags(machine, remote, TAGS);
  await attachTo(machine, checkpoint, { content: 'x'.repeat(100_000) });
  remote.bytesLeft = 50_000;
  await t.throwsAsync(pushTags(machine, remote, TAGS), { code: 'REMOTE_UNREACHABLE' });
  t.false(remote.named.has(fallbackTag(checkpoint.digest)));
  remote.bytesLeft = Infinity;
  t.is((await pushTags(machine, remote, TAGS)).attachments.length, 1);
  t.is((await remote.referrers(checkpoint.digest)).length, 1);
});

test('pushTags() says how to be rid of an attachment that is not whole', async (t) => {
  const { machine, remote, checkpoint } = await newWorld(t, true);
  const { attachment } = await attachTo(machine, checkpoint);
  rmSync(machine.store.blobs.path(digestOf('ok')));
  const error = await t.throwsAsync(pushTags(machine, remote, TAGS), { code: 'BLOB_MISSING' });
  t.true(error.message.includes(attachment.digest));
  t.regex((error as { hint?: string }).hint ?? '', /bento attach rm/);
  t.deepEqual([remote.uploads, remote.puts], [[], []]);
});

/** Puts a manifest into a registry, with the blobs that it names. */
async function putReferrer(
  remote: MemoryRepository,
  subject: Saved,
  change: (manifest: Record<string, unknown>) => Record<string, unknown>,
): Promise<Descriptor> {
  const file = { digest: digestOf('file'), sizeBytes: 4 };
  remote.blobs.set(file.digest, Buffer.from('file'));
  remote.blobs.set(digestOf('{}'), Buffer.from('{}'));
  const made = {
    subject: { mediaType: MEDIA_TYPES.manifest, ...subject },
    type: parseAttachmentType('text/plain'),
    title: 'hostile',
    file,
    now: new Date(0),
  };
  const manifest = change(JSON.parse(encodeAttachment(made).toString()) as Record<string, unknown>);
  const bytes = Buffer.from(JSON.stringify(manifest));
  await remote.putManifest(digestOf(bytes), { mediaType: MEDIA_TYPES.manifest, bytes });
  return { mediaType: MEDIA_TYPES.manifest, digest: digestOf(bytes), size: bytes.length, artifactType: 'text/plain' };
}

/** A registry that lists whatever it was told to. */
class LyingRepository extends MemoryRepository {
  listed: Descriptor[] = [];

  override async referrers(): Promise<Descriptor[]> {
    return await Promise.resolve(this.listed);
  }
}

const OTHER = digestOf('another checkpoint');
const HUGE = { mediaType: 'text/plain', digest: digestOf('huge'), size: ATTACHMENT_BYTES_MAX + 1 };
type Change = Parameters<typeof putReferrer>[2];
const HOSTILE: Record<string, [reason: RegExp, change: Change, list?: (listed: Descriptor) => Descriptor]> = {
  'of another checkpoint': [
    /it is attached to sha256:/,
    (manifest) => ({ ...manifest, subject: { mediaType: MEDIA_TYPES.manifest, digest: OTHER, size: 1 } }),
  ],
  'without a subject': [/attached to nothing/, ({ subject: _subject, ...manifest }) => manifest],
  'that says it is a checkpoint': [
    /attached to nothing/,
    (manifest) => ({ ...manifest, artifactType: 'application/vnd.bento.workspace.v1' }),
  ],
  'that is not there': [/not there/, (m) => m, (listed) => ({ ...listed, digest: digestOf('nowhere') })],
  'of another size': [/its descriptor says/, (m) => m, (listed) => ({ ...listed, size: listed.size + 1 })],
  'whose manifest is large': [/limit 131072/, (m) => m, (listed) => ({ ...listed, size: 131_073 })],
  'that is an index': [/it is a .*index/, (m) => m, (listed) => ({ ...listed, mediaType: MEDIA_TYPES.index })],
  'whose layers are no list': [/not an OCI image manifest/, (manifest) => ({ ...manifest, layers: 'none' })],
};
for (const [what, [reason, change, list]] of Object.entries(HOSTILE)) {
  test(`pullTags() leaves a referrer ${what} where it is, and takes the checkpoint and the others`, async (t) => {
    const { machine, checkpoint } = await newWorld(t, true);
    const remote = new LyingRepository();
    await pushTags(machine, remote, TAGS);
    const good = await putReferrer(remote, checkpoint, (manifest) => manifest);
    const bad = await putReferrer(remote, checkpoint, (manifest) => change({ ...manifest, annotations: {} }));
    const listed = list?.(bad) ?? bad;
    remote.listed = [listed, good, good];
    const there = newMachine(t);
    const result = await pullTags(there, remote);
    t.is(result.tags.length, 2);
    t.deepEqual(
      result.attachments.map(({ digest }) => digest),
      [good.digest],
    );
    t.deepEqual(
      result.skippedReferrers.map(({ digest, subject }) => [digest, subject]),
      [[listed.digest, checkpoint.digest]],
    );
    t.regex(result.skippedReferrers[0]?.reason ?? '', reason);
    t.false(await there.store.blobs.has(bad.digest));
  });
}

test('pullTags() asks for nothing of a file that is too large, and of too many no more than there may be', async (t) => {
  const { machine, checkpoint } = await newWorld(t, true);
  const remote = new LyingRepository();
  await pushTags(machine, remote, TAGS);
  remote.blobs.set(HUGE.digest, Buffer.from('huge'));
  const huge = await putReferrer(remote, checkpoint, (manifest) => ({ ...manifest, layers: [HUGE] }));
  const nowhere = Array.from({ length: 1200 }, (_, i) => ({ ...huge, digest: digestOf(`${i}`) }));
  remote.listed = [huge, ...nowhere];
  remote.forgetCounts();
  const there = newMachine(t);
  const { attachments, skippedReferrers } = await pullTags(there, remote);
  t.deepEqual(attachments, []);
  t.true(skippedReferrers.some(({ digest, reason }) => digest === undefined && reason.includes('no more than 1000')));
  t.true(skippedReferrers.some(({ digest, reason }) => digest === huge.digest && reason.includes(`limit ${2 ** 30}`)));
  t.false(remote.downloads.some(({ digest }) => digest === HUGE.digest));
  t.deepEqual(Object.keys(await tagsOf(there)), ['cp-1', 'latest']);
});

test('an annotation of a referrer is no tag, whatever it is called', async (t) => {
  const { machine, remote, checkpoint } = await newWorld(t, true);
  await pushTags(machine, remote, TAGS);
  const annotations = { [KEYS.refName]: 'latest', [KEYS.created]: '1970-01-01T00:00:00Z' };
  await putReferrer(remote, checkpoint, (manifest) => ({ ...manifest, annotations }));
  const there = newMachine(t);
  t.is((await pullTags(there, remote)).attachments.length, 1);
  t.deepEqual(await tagsOf(there), { 'cp-1': checkpoint.digest, latest: checkpoint.digest });
});

test('pullTags() refuses wrong bytes of a file, names it, and keeps nothing of it', async (t) => {
  const { machine, remote, checkpoint } = await newWorld(t, true);
  const { attachment } = await attachTo(machine, checkpoint, { content: 'right' });
  await pushTags(machine, remote, TAGS);
  remote.blobs.set(digestOf('right'), Buffer.from('wrong'));
  const there = newMachine(t);
  const { tags, attachments, skippedReferrers } = await pullTags(there, remote);
  t.deepEqual([tags.length, attachments.length], [2, 0]);
  t.deepEqual(
    skippedReferrers.map(({ digest }) => digest),
    [attachment.digest],
  );
  t.false(await there.store.blobs.has(digestOf('right')));
  remote.blobs.set(digestOf('right'), Buffer.from('right'));
  t.is((await pullTags(there, remote)).attachments.length, 1);
});

test('attachments of other tools come with all their files', async (t) => {
  const { machine, remote, checkpoint } = await newWorld(t, true);
  await pushTags(machine, remote, TAGS);
  const second = { mediaType: 'text/x-other', digest: digestOf('second'), size: 6 };
  remote.blobs.set(second.digest, Buffer.from('second'));
  await putReferrer(remote, checkpoint, (manifest) => ({
    ...manifest,
    layers: [...(manifest['layers'] as Descriptor[]), second],
  }));
  const there = newMachine(t);
  const [attachment] = (await pullTags(there, remote)).attachments as [Attachment];
  t.deepEqual(
    attachment.files.map(({ title, sizeBytes }) => [title, sizeBytes]),
    [
      ['hostile', 4],
      [undefined, 6],
    ],
  );
  t.true(await there.store.blobs.has(second.digest));
});
