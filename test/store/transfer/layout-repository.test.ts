import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { digestOf, hexOf, type Digest } from '../../../store/digest.ts';
import { BentoError, type ErrorCode } from '../../../store/errors.ts';
import { MEDIA_TYPES } from '../../../store/manifest.ts';
import { compareWithRemote } from '../../../store/transfer/compare.ts';
import { exportImages } from '../../../store/transfer/export-image.ts';
import { parseImagePlace } from '../../../store/transfer/image-place.ts';
import { LayoutRepository } from '../../../store/transfer/layout-repository.ts';
import { pullTags } from '../../../store/transfer/pull.ts';
import { pushTags } from '../../../store/transfer/push.ts';
import { newFolder } from '../../fixtures/workspaces.ts';
import { newMachine, saveCheckpoint, tagsOf, type Machine } from './transfer-fixtures.ts';

const BIG = randomBytes(2_500_000);

/** A layout folder with cp-1 and latest in it, and the machine it came from. */
async function pushed(t: ExecutionContext): Promise<{ from: Machine; path: string; first: Digest }> {
  const from = newMachine(t);
  const path = join(newFolder(t), 'layout');
  const { digest } = await saveCheckpoint(from, [BIG, Buffer.from('one')], { tags: ['cp-1', 'latest'], sequence: 1 });
  const result = await pushTags(from, new LayoutRepository(path), { tags: ['cp-1', 'latest'] });
  t.is(result.sentCount, 3);
  return { from, path, first: digest };
}

function files(path: string): string[] {
  return readdirSync(join(path, 'blobs/sha256')).sort();
}

async function refused(t: ExecutionContext, run: Promise<unknown>, code: ErrorCode, says: RegExp): Promise<void> {
  const error = await t.throwsAsync(run, { instanceOf: BentoError });
  t.is(error.code, code, error.message);
  t.regex(error.message, says);
}

test('push to a folder and pull from it are what they are with a registry', async (t) => {
  const { from, path, first } = await pushed(t);
  const again = await pushTags(from, new LayoutRepository(path), { tags: ['cp-1', 'latest'] });
  t.deepEqual([again.sentCount, again.tags.map(({ outcome }) => outcome)], [0, ['same', 'same']]);
  const to = newMachine(t);
  const result = await pullTags(to, new LayoutRepository(path));
  t.deepEqual(await tagsOf(to), { 'cp-1': first, latest: first });
  t.deepEqual(await to.store.blobs.list(), await from.store.blobs.list());
  t.is((await pullTags(to, new LayoutRepository(path))).fetchedBytes, 0);
  t.true(result.fetchedBytes > BIG.length);
  t.deepEqual(files(path), (await from.store.blobs.list()).map(hexOf), 'nothing temporary stays');

  const theirs = await saveCheckpoint(to, [BIG, Buffer.from('theirs')], { tags: ['cp-2'], sequence: 2, parent: first });
  const sent = await pushTags(to, new LayoutRepository(path), { tags: ['cp-2'] });
  t.true(sent.sentBytes < 10_000, 'what is there is not written again');
  const ours = await saveCheckpoint(from, [BIG, Buffer.from('ours')], { tags: ['cp-2'], sequence: 2, parent: first });
  await refused(t, pushTags(from, new LayoutRepository(path), { tags: ['cp-2'] }), 'DIVERGED', /^cp-2 is/);
  const head = { digest: ours.digest, sequence: 2 };
  const state = await compareWithRemote({ pool: from.store.blobs, layout: from.layout }, new LayoutRepository(path), {
    head,
    timeoutMs: 60_000,
  });
  t.like(state, { kind: 'diverged', here: ours.digest, there: theirs.digest });
  const { tags } = await pullTags(from, new LayoutRepository(path));
  t.is(tags.find(({ tag }) => tag === 'cp-2')?.outcome, 'diverged');
  t.is((await tagsOf(from))['cp-2'], ours.digest);
  await pushTags(from, new LayoutRepository(path), { tags: ['cp-2'], force: true });
  t.is((await new LayoutRepository(path).headManifest('cp-2'))?.digest, ours.digest);
  t.is(
    (await new LayoutRepository(path).headManifest(theirs.digest))?.digest,
    theirs.digest,
    'its parent can be followed',
  );
});

test('many push to one folder at once, and no tag is lost', async (t) => {
  const path = join(newFolder(t), 'layout');
  const machines = await Promise.all(
    Array.from({ length: 6 }, async (_, at) => {
      const machine = newMachine(t);
      await saveCheckpoint(machine, [BIG, Buffer.from(String(at))], { tags: [`t${at}`], sequence: 1 });
      return machine;
    }),
  );
  await Promise.all(
    machines.map(async (one, at) => await pushTags(one, new LayoutRepository(path), { tags: [`t${at}`] })),
  );
  t.deepEqual(await new LayoutRepository(path).tags(), ['t0', 't1', 't2', 't3', 't4', 't5']);
  t.is((await pullTags(newMachine(t), new LayoutRepository(path))).tags.length, 6);
});

test('bytes that are not what they are called go neither in nor out', async (t) => {
  const { path, first } = await pushed(t);
  const repository = new LayoutRepository(path);
  const right = Buffer.from('right');
  const blob = { digest: digestOf(right), sizeBytes: right.length };
  // eslint-disable-next-line @typescript-eslint/require-await -- a source of bytes is asynchronous
  const lies = async function* (): AsyncGenerator<Buffer> {
    yield Buffer.from('wrong');
  };
  await refused(t, repository.uploadBlob(blob, lies), 'REMOTE_INVALID', /other bytes than blob/);
  await refused(t, repository.uploadBlob({ ...blob, sizeBytes: 9 }, lies), 'REMOTE_INVALID', /5 bytes, not 9/);
  t.false(files(path).includes(hexOf(blob.digest)));
  t.false(files(path).some((name) => name.startsWith('.')));

  const big = join(path, 'blobs/sha256', hexOf(digestOf(BIG)));
  const bytes = readFileSync(big);
  bytes.writeUInt8(bytes.readUInt8(1_000_000) ^ 1, 1_000_000);
  writeFileSync(big, bytes);
  const to = newMachine(t);
  await refused(t, pullTags(to, repository), 'REMOTE_INVALID', /other bytes than/);
  t.deepEqual(await tagsOf(to), {});
  writeFileSync(big, bytes.subarray(0, 99));
  await refused(t, pullTags(to, repository), 'REMOTE_INVALID', /99 bytes for blob/);
  rmSync(big);
  await refused(t, pullTags(to, repository), 'REMOTE_NOT_FOUND', /does not hold the blob/);
  writeFileSync(join(path, 'blobs/sha256', hexOf(first)), '{}');
  await refused(t, pullTags(to, repository), 'REMOTE_INVALID', /other bytes than manifest/);
});

test('a folder that is not there is empty, unless what it would be in is not there either', async (t) => {
  const dir = newFolder(t);
  const missing = new LayoutRepository(join(dir, 'new'));
  t.deepEqual(await missing.tags(), []);
  t.is(await missing.headManifest('cp-1'), undefined);
  const unplugged = new LayoutRepository(join(dir, 'stick/ws'));
  await refused(t, unplugged.tags(), 'REMOTE_UNREACHABLE', /stick neither/);
  const from = newMachine(t);
  await saveCheckpoint(from, [BIG], { tags: ['cp-1'], sequence: 1 });
  await refused(t, pushTags(from, unplugged, { tags: ['cp-1'] }), 'REMOTE_UNREACHABLE', /stick neither/);
  t.deepEqual(readdirSync(dir), []);
});

test('a folder that goes away while it is used is unreachable, and is there again when it comes back', async (t) => {
  const { path } = await pushed(t);
  const repository = new LayoutRepository(path);
  const range = { offset: 5, length: 10, sizeBytes: BIG.length };
  t.deepEqual(await repository.readRange(digestOf(BIG), range), BIG.subarray(5, 15));
  renameSync(path, `${path}-gone`);
  await refused(t, repository.readRange(digestOf(BIG), range), 'REMOTE_UNREACHABLE', /is not there any more/);
  t.is(await repository.headManifest('cp-1'), undefined);
  renameSync(`${path}-gone`, path);
  t.deepEqual(await repository.readRange(digestOf(BIG), range), BIG.subarray(5, 15));
  t.not(await repository.headManifest('cp-1'), undefined);
});

test('push refuses folders of others, archives and stores, and takes a new file system', async (t) => {
  const from = newMachine(t);
  await saveCheckpoint(from, [BIG], { tags: ['cp-1'], sequence: 1 });
  const dir = newFolder(t);
  mkdirSync(join(dir, 'photos'));
  writeFileSync(join(dir, 'photos/1.jpg'), 'x');
  const push = async (path: string): Promise<unknown> =>
    await pushTags(from, new LayoutRepository(path), { tags: ['cp-1'] });
  await refused(t, push(join(dir, 'photos')), 'REMOTE_INVALID', /neither an image layout/);
  t.deepEqual(readdirSync(join(dir, 'photos')), ['1.jpg']);
  await refused(t, push(join(dir, 'new.tar')), 'REMOTE_REFUSED', /is an archive/);
  const other = newMachine(t);
  await saveCheckpoint(other, [BIG], { tags: ['cp-7'], sequence: 7 });
  await refused(t, push(other.layout.dir), 'TARGET_INVALID', /belongs to a store/);
  mkdirSync(join(dir, 'stick/lost+found'), { recursive: true });
  await push(join(dir, 'stick'));
  t.true(existsSync(join(dir, 'stick/index.json')));
});

test('what somebody left who was killed is cleared away a day later, and what is being written stays', async (t) => {
  const { from, path } = await pushed(t);
  const [old, fresh] = ['.tmp-1-aaaaaaaaaaaa', '.tmp-2-bbbbbbbbbbbb'].map((name) => join(path, 'blobs/sha256', name));
  for (const file of [old, fresh]) writeFileSync(file ?? '', 'x');
  const twoDaysAgo = Date.now() / 1000 - 2 * 86_400;
  utimesSync(old ?? '', twoDaysAgo, twoDaysAgo);
  await saveCheckpoint(from, [Buffer.from('more')], { tags: ['x'], sequence: 2 });
  await pushTags(from, new LayoutRepository(path), { tags: ['x'] });
  t.deepEqual([existsSync(old ?? ''), existsSync(fresh ?? '')], [false, true]);
});

test('archives are read: the same images, the same ranges', async (t) => {
  const { from, path, first } = await pushed(t);
  const archive = join(newFolder(t), 'x.tar');
  const checkpoint = await from.store.loadCheckpoint(first);
  await exportImages(from.store.blobs, [{ tag: 'v1', checkpoint }], { place: parseImagePlace(archive) });
  for (const [where, tags] of [
    [path, ['cp-1', 'latest']],
    [archive, ['v1']],
  ] as const) {
    const repository = new LayoutRepository(where);
    t.deepEqual(await repository.tags(), tags);
    const range = { offset: 1_048_000, length: 5000, sizeBytes: BIG.length };
    t.deepEqual(await repository.readRange(digestOf(BIG), range), BIG.subarray(1_048_000, 1_053_000));
    const rest: Buffer[] = [];
    for await (const piece of repository.streamBlob({ digest: digestOf(BIG), sizeBytes: BIG.length }, { offset: 7 }))
      rest.push(piece);
    t.deepEqual(Buffer.concat(rest), BIG.subarray(7));
    t.is(await repository.blobSize(digestOf(BIG)), BIG.length);
    t.is(await repository.blobSize(digestOf(Buffer.from('nowhere'))), undefined);
    const to = newMachine(t);
    await pullTags(to, repository, { reference: tags[0] });
    t.is((await tagsOf(to))[tags[0]], first);
    await repository.close();
  }
});

test('referrers() finds what is listed with the subject, whoever wrote it', async (t) => {
  const { path, first } = await pushed(t);
  const repository = new LayoutRepository(path);
  const empty = Buffer.from('{}');
  const config = { mediaType: 'application/vnd.oci.empty.v1+json', digest: digestOf(empty), size: 2 };
  // eslint-disable-next-line @typescript-eslint/require-await -- a source of bytes is asynchronous
  await repository.uploadBlob({ digest: config.digest, sizeBytes: 2 }, async function* () {
    yield empty;
  });
  const subject = { mediaType: MEDIA_TYPES.manifest, digest: first, size: 1 };
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.manifest,
    artifactType: 'text/x',
    config,
    layers: [config],
    subject,
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  const digest = digestOf(bytes);
  t.true((await repository.putManifest(digest, { mediaType: MEDIA_TYPES.manifest, bytes })).keepsReferrers);
  await repository.putManifest(digest, { mediaType: MEDIA_TYPES.manifest, bytes });
  const found = { mediaType: MEDIA_TYPES.manifest, digest, size: bytes.length, artifactType: 'text/x' };
  t.deepEqual(await repository.referrers(first), [found]);
  t.deepEqual(await repository.referrers(first, 'text/x'), [found]);
  t.deepEqual(await repository.referrers(first, 'text/y'), []);
  t.deepEqual(await repository.referrers(digest), []);
  t.deepEqual(await repository.tags(), ['cp-1', 'latest'], 'it has no tag, and others keep theirs');
  t.true(await repository.deleteManifest(digest));
  t.false(await repository.deleteManifest(digest));
  t.deepEqual(await repository.referrers(first), []);
  t.deepEqual(await repository.tags(), ['cp-1', 'latest']);
  await refused(
    t,
    repository.putManifest(first, { mediaType: MEDIA_TYPES.manifest, bytes }),
    'REMOTE_INVALID',
    /other bytes/,
  );
});

test('a pipe in the place of a blob is not waited for', async (t) => {
  const { path } = await pushed(t);
  const big = join(path, 'blobs/sha256', hexOf(digestOf(BIG)));
  rmSync(big);
  execFileSync('mkfifo', [big]);
  await refused(t, pullTags(newMachine(t), new LayoutRepository(path)), 'FORMAT_INVALID', /not a regular file/);
});
