import { chmodSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { collectGarbage, type GcOptions, type GcResult } from '../../../fs/maintenance/gc.ts';
import { verifyStore, type VerifyResult } from '../../../fs/maintenance/verify.ts';
import { saveWorkspace } from '../../../fs/workspace/save.ts';
import type { Workspace } from '../../../fs/workspace/workspace.ts';
import type { Attachment } from '../../../store/attachment.ts';
import { encodeAttachment, parseAttachmentType } from '../../../store/attachment.ts';
import { digestOf, type Digest } from '../../../store/digest.ts';
import { attachmentsOf } from '../../../store/find-attachments.ts';
import { MEDIA_TYPES } from '../../../store/manifest.ts';
import { newWorkspace } from '../../fixtures/workspaces.ts';
import { attachTo, type Saved } from '../../store/transfer/transfer-fixtures.ts';

async function saveOne(workspace: Workspace, content: string): Promise<Saved> {
  writeFileSync(join(workspace.dir, 'file'), content);
  const digest = (await saveWorkspace(workspace)).digest as Digest;
  return { digest, size: (await workspace.source.store.blobs.sizeOf(digest)) ?? 0 };
}

async function attach(workspace: Workspace, subject: Saved, content: string): Promise<Attachment> {
  const { layout, source } = workspace;
  return (await attachTo({ store: source.store, layout }, subject, { content, title: content })).attachment;
}

async function collect(workspace: Workspace, options: Partial<GcOptions> = {}): Promise<GcResult> {
  return await collectGarbage(workspace.source, {
    workspaceId: workspace.id,
    policy: { keepLast: 1, keepTagged: false },
    dryRun: false,
    dropDamaged: false,
    ...options,
  });
}

async function verify(workspace: Workspace, options: { isRepair?: boolean; only?: Saved } = {}): Promise<VerifyResult> {
  const { dir, id, source } = workspace;
  const only = options.only && [{ digest: options.only.digest, label: 'the one' }];
  const isRepair = options.isRepair ?? false;
  return await verifyStore(source.store, { dir, workspaceId: id, isQuick: false, isRepair, ...(only && { only }) });
}

async function titles({ source }: Workspace, { digest }: Saved): Promise<(string | undefined)[]> {
  return (await attachmentsOf(source.store, digest)).attachments.map(({ files }) => files[0]?.title);
}

async function prepare(t: ExecutionContext) {
  const workspace = await newWorkspace(t);
  const old = await saveOne(workspace, 'old');
  const kept = await saveOne(workspace, 'kept');
  const [ofOld, ofKept] = [await attach(workspace, old, 'of old'), await attach(workspace, kept, 'of kept')];
  return { workspace, old, kept, ofOld, ofKept };
}

test('collectGarbage() keeps what is attached to a checkpoint that stays, and nothing else that is attached', async (t) => {
  const { workspace, kept, ofOld, ofKept } = await prepare(t);
  const { blobs, deleted } = await collect(workspace);
  t.is(deleted.length, 1, 'an attachment keeps no checkpoint');
  const gone = new Set(blobs.map(({ digest }) => digest));
  for (const digest of [ofOld.digest, digestOf('of old')]) t.true(gone.has(digest));
  for (const digest of [ofKept.digest, digestOf('of kept'), digestOf('{}')]) t.false(gone.has(digest));
  t.deepEqual(await titles(workspace, kept), ['of kept']);
  t.false((await workspace.layout.manifests()).some(({ digest }) => digest === ofOld.digest));
  t.deepEqual((await verify(workspace)).damages, []);
  t.deepEqual((await collect(workspace)).blobs, []);
});

test('collectGarbage() keeps the attachments of a head that has no tag any more', async (t) => {
  const { workspace, old } = await prepare(t);
  await collect(workspace, { here: { dir: workspace.dir, head: old.digest } });
  t.deepEqual(await titles(workspace, old), ['of old']);
});

test('collectGarbage() keeps what is attached to an attachment, as long as that stays', async (t) => {
  const { workspace, ofOld, ofKept } = await prepare(t);
  const signatures: Digest[] = [];
  for (const subject of [ofKept, ofOld]) {
    const bytes = encodeAttachment({
      subject: { mediaType: MEDIA_TYPES.manifest, digest: subject.digest, size: subject.size },
      type: parseAttachmentType('application/x-signature'),
      title: 'signature',
      file: { digest: digestOf('{}'), sizeBytes: 2 },
      now: new Date(0),
    });
    const { digest, size } = await workspace.source.store.blobs.put(bytes);
    signatures.push(digest);
    const entry = { mediaType: MEDIA_TYPES.manifest, digest, size, artifactType: 'application/x-signature' };
    await workspace.layout.changeEntries((before) => [entry, ...before]);
  }
  await collect(workspace);
  t.deepEqual(await Promise.all(signatures.map((digest) => workspace.source.store.blobs.has(digest))), [true, false]);
});

test('collectGarbage() takes what was taken away', async (t) => {
  const { workspace, ofKept } = await prepare(t);
  await workspace.layout.removeEntries(({ digest }) => digest === ofKept.digest);
  const gone = (await collect(workspace)).blobs.map(({ digest }) => digest);
  t.true(gone.includes(ofKept.digest) && gone.includes(digestOf('of kept')));
});

test('collectGarbage() deletes nothing when an attachment cannot be read, unless it is given up', async (t) => {
  const { workspace, ofKept } = await prepare(t);
  const { blobs } = workspace.source.store;
  rmSync(blobs.path(ofKept.digest));
  const before = await blobs.list();
  const error = await t.throwsAsync(collect(workspace), {
    code: 'BLOB_MISSING',
    message: /nothing was deleted: what attachment/,
  });
  t.true(error.message.includes(ofKept.digest.slice(0, 19)));
  t.deepEqual(await blobs.list(), before);
  await collect(workspace, { dropDamaged: true });
  t.false(await blobs.has(digestOf('of kept')));
  t.deepEqual((await verify(workspace)).damages, []);
});

test('verifyStore() finds what is wrong with an attachment, and names file and checkpoint', async (t) => {
  const { workspace, kept, old, ofKept } = await prepare(t);
  const { blobs } = workspace.source.store;
  t.deepEqual((await verify(workspace)).damages, []);
  const file = blobs.path(digestOf('of kept'));
  chmodSync(file, 0o644);
  writeFileSync(file, 'OF KEPT');
  const { damages } = await verify(workspace);
  t.deepEqual(
    damages.map(({ kind, where, affects }) => [kind, where, affects]),
    [['attachment', 'attachment of kept', ['cp-2']]],
  );
  t.is((await verify(workspace, { only: kept })).damages.length, 1);
  t.is((await verify(workspace, { only: old })).damages.length, 0);
  rmSync(blobs.path(ofKept.digest));
  t.deepEqual(
    (await verify(workspace)).damages.map(({ kind, what, digest }) => [kind, what, digest]),
    [
      ['attachment', 'is missing', ofKept.digest],
      ['stray', 'is not what its name says, and nothing needs it', digestOf('of kept')],
    ],
  );
});

test('verifyStore() mends an attachment of which there is another copy', async (t) => {
  const { workspace } = await prepare(t);
  const { blobs } = workspace.source.store;
  rmSync(blobs.path(digestOf('of kept')));
  writeFileSync(join(blobs.dir, 'f'.repeat(64)), 'of kept');
  t.true((await verify(workspace, { isRepair: true })).damages.every(({ repaired }) => repaired));
  t.deepEqual((await verify(workspace)).damages, []);
});
