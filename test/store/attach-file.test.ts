import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { attachFile, detach } from '../../store/attach-file.ts';
import {
  ATTACHMENT_BYTES_MAX,
  ATTACHMENT_COUNT_MAX,
  encodeAttachment,
  isPlainName,
  isTitle,
  parseAttachmentType,
} from '../../store/attachment.ts';
import { digestOf } from '../../store/digest.ts';
import { attachmentsOf, findAttachments } from '../../store/find-attachments.ts';
import { KEYS, MEDIA_TYPES, type Descriptor } from '../../store/manifest.ts';
import {
  attachTo,
  newMachine,
  pieces,
  saveCheckpoint,
  type Machine,
  type Saved,
} from './transfer/transfer-fixtures.ts';

const NOW = new Date('2026-03-10T12:00:00.123Z');

async function machineWithCheckpoint(t: ExecutionContext): Promise<{ machine: Machine; checkpoint: Saved }> {
  const machine = newMachine(t);
  const checkpoint = await saveCheckpoint(machine, [randomBytes(100)], { tags: ['cp-1', 'latest'], sequence: 1 });
  return { machine, checkpoint };
}

function readIndex({ layout }: Machine): { manifests: Record<string, unknown>[] } {
  return JSON.parse(readFileSync(join(layout.dir, 'index.json'), 'utf8')) as { manifests: Record<string, unknown>[] };
}

test('attachFile() writes an OCI artifact that names the checkpoint as its subject, and lists it without a tag', async (t) => {
  const { machine, checkpoint } = await machineWithCheckpoint(t);
  const { attachment, isNew } = await attachTo(machine, checkpoint);
  t.true(isNew);
  const bytes = readFileSync(machine.store.blobs.path(attachment.digest));
  t.deepEqual(JSON.parse(bytes.toString()), {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    artifactType: 'application/vnd.bento.attachment.test-results.v1+json',
    config: {
      mediaType: 'application/vnd.oci.empty.v1+json',
      digest: 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',
      size: 2,
    },
    layers: [
      {
        mediaType: 'application/json',
        digest: digestOf('ok'),
        size: 2,
        annotations: { 'org.opencontainers.image.title': 'results.json' },
      },
    ],
    subject: { mediaType: 'application/vnd.oci.image.manifest.v1+json', ...checkpoint },
    annotations: { 'org.opencontainers.image.created': '2026-03-10T12:00:00Z' },
  });
  t.deepEqual(readIndex(machine).manifests.at(-1), {
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    digest: attachment.digest,
    size: bytes.length,
    artifactType: 'application/vnd.bento.attachment.test-results.v1+json',
    annotations: { 'org.opencontainers.image.created': '2026-03-10T12:00:00Z' },
  });
  t.deepEqual([...(await machine.layout.tags()).keys()], ['cp-1', 'latest']);
  t.is(await machine.layout.nextSequence(), 2);
});

test('attachFile() of the same file, title and type is the attachment there is; any other is a new one', async (t) => {
  const { machine, checkpoint } = await machineWithCheckpoint(t);
  const first = await attachTo(machine, checkpoint);
  const again = await attachTo(machine, checkpoint);
  t.deepEqual([again.isNew, again.attachment.digest], [false, first.attachment.digest]);
  t.true((await attachTo(machine, checkpoint, { title: 'other.json' })).isNew);
  t.true((await attachTo(machine, checkpoint, { type: 'log' })).isNew);
  t.true((await attachTo(machine, checkpoint, { content: 'other' })).isNew);
  t.is((await attachmentsOf(machine.store, checkpoint.digest)).attachments.length, 4);
});

test('attachFile() by many at once loses none, and attaches the same file once', async (t) => {
  const { machine, checkpoint } = await machineWithCheckpoint(t);
  const contents = ['a', 'b', 'c', 'd', 'a', 'b', 'c', 'd'];
  const made = await Promise.all(contents.map((content) => attachTo(machine, checkpoint, { content })));
  t.is(made.filter(({ isNew }) => isNew).length, 4);
  t.is((await attachmentsOf(machine.store, checkpoint.digest)).attachments.length, 4);
});

test('an attachment survives tags that move and checkpoints that are saved', async (t) => {
  const { machine, checkpoint } = await machineWithCheckpoint(t);
  const { attachment } = await attachTo(machine, checkpoint);
  const before = readIndex(machine).manifests.at(-1);
  await saveCheckpoint(machine, [randomBytes(10)], { tags: ['cp-2', 'latest'], sequence: 2 });
  await machine.layout.setTags(['latest'], checkpoint);
  t.deepEqual(
    readIndex(machine).manifests.find(({ digest }) => digest === attachment.digest),
    before,
  );
});

test('attachFile() refuses a file that is too large, and leaves nothing of it', async (t) => {
  const { machine, checkpoint } = await machineWithCheckpoint(t);
  const large = new Uint8Array(new ArrayBuffer(ATTACHMENT_BYTES_MAX)); // pages that nobody touches
  const options = {
    subject: { mediaType: MEDIA_TYPES.manifest, ...checkpoint },
    type: parseAttachmentType('log'),
    title: 'log',
    shown: '/tmp/log',
  };
  const before = await machine.store.blobs.list();
  await t.throwsAsync(attachFile(machine, pieces(Buffer.from('x'), large), options), {
    code: 'TARGET_INVALID',
    message: '/tmp/log is larger than 1024 MiB',
  });
  t.deepEqual(await machine.store.blobs.list(), before);
  t.is(readIndex(machine).manifests.length, 2);
});

test('attachFile() refuses more attachments of a checkpoint than there may be', async (t) => {
  const { machine, checkpoint } = await machineWithCheckpoint(t);
  const subject = { mediaType: MEDIA_TYPES.manifest, ...checkpoint };
  const entries: Descriptor[] = [];
  for (let i = 0; i < ATTACHMENT_COUNT_MAX; i++) {
    const file = { digest: digestOf('x'), sizeBytes: 1 };
    const bytes = encodeAttachment({ subject, type: parseAttachmentType('log'), title: `${i}`, file, now: NOW });
    writeFileSync(machine.store.blobs.path(digestOf(bytes)), bytes);
    entries.push({ mediaType: MEDIA_TYPES.manifest, digest: digestOf(bytes), size: bytes.length, artifactType: 'a/b' });
  }
  await machine.layout.changeEntries((before) => [...before, ...entries]);
  await t.throwsAsync(attachTo(machine, checkpoint), { code: 'TARGET_INVALID', message: /has 1000 attachments/ });
});

test('findAttachments() takes what other tools list, and no checkpoint that lost its tags', async (t) => {
  const { machine, checkpoint } = await machineWithCheckpoint(t);
  await saveCheckpoint(machine, [randomBytes(10)], { tags: ['cp-1', 'latest'], sequence: 1 }); // the first is untagged now
  const { attachment } = await attachTo(machine, checkpoint);
  await machine.layout.changeEntries((before) =>
    before.map(({ artifactType: _type, annotations: _annotations, ...entry }) =>
      entry.digest === attachment.digest ? entry : { ...entry, ...(_annotations && { annotations: _annotations }) },
    ),
  );
  const { attachments, unreadable } = await findAttachments(machine.store);
  t.deepEqual(
    attachments.map(({ digest, subject }) => [digest, subject]),
    [[attachment.digest, checkpoint.digest]],
  );
  t.deepEqual(unreadable, []);
});

test('findAttachments() tells of an attachment that is missing, and of a damaged list of another workspace', async (t) => {
  const { machine, checkpoint } = await machineWithCheckpoint(t);
  const gone = digestOf('gone');
  await machine.layout.changeEntries((before) => [
    ...before,
    { mediaType: MEDIA_TYPES.manifest, digest: gone, size: 4, artifactType: 'a/b' },
  ]);
  const { attachment } = await attachTo(machine, checkpoint);
  const other = machine.store.layout('other');
  await other.ensure();
  writeFileSync(join(other.dir, 'index.json'), '{');
  const { attachments, unreadable } = await findAttachments(machine.store);
  t.deepEqual(
    attachments.map(({ digest }) => digest),
    [attachment.digest],
  );
  t.deepEqual(
    unreadable.map(({ digest, error }) => [digest, error.code]),
    [
      [undefined, 'FORMAT_INVALID'],
      [gone, 'BLOB_MISSING'],
    ],
  );
});

test('an attachment is no checkpoint: not by its digest, nor by the first digits of it', async (t) => {
  const { machine, checkpoint } = await machineWithCheckpoint(t);
  const { attachment } = await attachTo(machine, checkpoint);
  await t.throwsAsync(machine.store.loadCheckpoint(attachment.digest), {
    code: 'FORMAT_UNSUPPORTED',
    message: /is attached to a checkpoint, and none itself/,
  });
  const prefix = attachment.digest.slice(0, 20);
  await t.throwsAsync(machine.store.resolve({ kind: 'prefix', store: undefined, prefix }, machine.layout), {
    code: 'REF_NOT_FOUND',
  });
});

test('detach() takes an attachment off every list, and leaves tags alone', async (t) => {
  const { machine, checkpoint } = await machineWithCheckpoint(t);
  const { attachment } = await attachTo(machine, checkpoint);
  const other = machine.store.layout('other');
  await other.ensure();
  const entry = { mediaType: MEDIA_TYPES.manifest, digest: attachment.digest, size: attachment.size };
  await other.changeEntries(() => [entry, { ...entry, annotations: { [KEYS.refName]: 'tagged' } }]);
  t.true(await detach(machine.store, new Set([attachment.digest])));
  t.deepEqual((await attachmentsOf(machine.store, checkpoint.digest)).attachments, []);
  t.deepEqual([...(await other.tags()).keys()], ['tagged']);
  t.false(await detach(machine.store, new Set([attachment.digest])));
  t.true(existsSync(machine.store.blobs.path(attachment.digest)), 'until the next gc');
});

test('parseAttachmentType() takes kinds and media types, and nothing that an image is made of', (t) => {
  t.is(parseAttachmentType('diff').artifactType, 'application/vnd.bento.attachment.diff.v1+patch');
  t.is(parseAttachmentType('usage').artifactType, 'application/vnd.bento.attachment.usage.v1+json');
  t.is(parseAttachmentType('log').artifactType, 'application/vnd.bento.attachment.log.v1+jsonl');
  t.deepEqual(parseAttachmentType('text/plain'), { artifactType: 'text/plain', mediaType: 'text/plain' });
  const wrong = ['', 'toString', 'text', 'text/', '/plain', 'text/plain; charset=utf-8', 'a b/c', 'text/pl\nain'];
  for (const type of [...wrong, MEDIA_TYPES.config, 'application/vnd.bento.workspace.v1'])
    t.throws(() => parseAttachmentType(type), { code: 'USAGE' }, type);
});

test('isPlainName() lets no title out of its folder', (t) => {
  for (const title of ['results.json', 'a b.log', 'żółć', 'x'.repeat(255), '日本.diff'])
    t.true(isPlainName(title), title);
  const hostile = [
    '',
    '.',
    '..',
    '../x',
    '/etc/passwd',
    'a/b',
    'a\\b',
    '.bashrc',
    '-rf',
    'a\nb',
    'a\0b',
    '\u001b[2J',
    '\ud800',
  ];
  for (const title of [...hostile, 'x'.repeat(256), 'txt.\u202egnp', 'ż'.repeat(128)])
    t.false(isPlainName(title), title);
  t.true(isTitle('.bashrc'), 'it may be attached, and is then written where -o says');
});
