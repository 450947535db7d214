import { mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

import test, { type ExecutionContext } from 'ava';

import { largeFileName, LargeTree } from '../../../fs/serving/large-tree.ts';
import { entryOfNode, withRecordedOwners } from '../../../fs/serving/node-ids.ts';
import { ContentReader } from '../../../fs/contents/content-reader.ts';
import type { LargeFile } from '../../../fs/tree/checkpoint-tree.ts';
import type { TreeSource } from '../../../fs/tree/index-checkpoint.ts';
import { LARGE_BYTES_MIN } from '../../../index/rows.ts';
import type { Digest } from '../../../store/digest.ts';
import { MNT_DETACH, mount, umount2 } from '../../../store/syscalls.ts';
import { testSerialNeeding } from '../../fixtures/external-tools.ts';
import { indexDraft, treeOf, type EntryDraft, type LayerDraft } from '../../fixtures/layers.ts';
import { newFolder, newSource } from '../../fixtures/workspaces.ts';
import { mountTree } from './kernel-mounts.ts';
import type { KernelThreadMessage } from './kernel-thread.ts';

const testMount = testSerialNeeding({ root: true, fuse: true });

function large(path: string, fields: Partial<EntryDraft> = {}): EntryDraft {
  return { path, type: 'file', sizeBytes: LARGE_BYTES_MIN, ...fields };
}

async function largeFiles(source: TreeSource, ...drafts: LayerDraft[]): Promise<LargeFile[]> {
  const layers: Digest[] = [];
  for (const draft of drafts) layers.push(await indexDraft(source, draft));
  return treeOf(source, layers).largeFiles();
}

const LOWER: LayerDraft = {
  entries: [
    large('dir/first'),
    { path: 'dir/small', type: 'file', sizeBytes: LARGE_BYTES_MIN - 1 },
    large('dir/sub/second', { sizeBytes: LARGE_BYTES_MIN * 3 }),
    { path: 'linked', type: 'hardlink', link: 'dir/first', sizeBytes: LARGE_BYTES_MIN },
  ],
};

async function pathsOver(t: ExecutionContext, ...uppers: LayerDraft[]): Promise<string[]> {
  return (await largeFiles(await newSource(t), LOWER, ...uppers)).map(({ path }) => path).sort();
}

test('largeFiles() names each large file by each of its names, with what is needed to have it', async (t) => {
  const files = await largeFiles(await newSource(t), LOWER);
  t.deepEqual(
    files.map(({ path, sizeBytes }) => [path, sizeBytes]),
    [
      ['dir/first', LARGE_BYTES_MIN],
      ['linked', LARGE_BYTES_MIN],
      ['dir/sub/second', 3 * LARGE_BYTES_MIN],
    ],
  );
  t.is(files[0]?.id, files[1]?.id);
  t.regex(files[2]?.digest ?? '', /^sha256:[0-9a-f]{64}$/);
});

test('largeFiles() leaves out what layers above hide', async (t) => {
  t.deepEqual(await pathsOver(t, { entries: [{ path: 'unrelated', type: 'fifo' }] }), [
    'dir/first',
    'dir/sub/second',
    'linked',
  ]);
  t.deepEqual(await pathsOver(t, { entries: [{ path: 'dir', type: 'whiteout' }] }), ['linked']);
  t.deepEqual(await pathsOver(t, { entries: [{ path: 'dir/first', type: 'file' }] }), ['dir/sub/second', 'linked']);
  t.deepEqual(await pathsOver(t, { entries: [], opaque: ['dir/sub'] }), ['dir/first', 'linked']);
  t.deepEqual(await pathsOver(t, { entries: [large('dir/first')] }), ['dir/first', 'dir/sub/second', 'linked']);
});

async function newLargeTree(t: ExecutionContext): Promise<{ tree: LargeTree; files: LargeFile[]; source: TreeSource }> {
  const source = await newSource(t);
  const xattrs = new Map([['user.x', Buffer.from('1')]]);
  const files = await largeFiles(source, {
    entries: [
      large('a', { uid: 1234, mode: 0o640, mtimeSec: -1, mtimeNsec: 5, xattrs }),
      large('b'),
      { path: 'c', type: 'hardlink', link: 'b' },
      { path: 'small', type: 'file', sizeBytes: LARGE_BYTES_MIN - 1 },
      { path: 'link', type: 'symlink', link: 'a' },
      { path: 'dir', type: 'dir' },
    ],
  });
  const reader = new ContentReader(source.store, source.entries);
  t.teardown(() => reader.close());
  return { tree: new LargeTree(source.entries, reader, { owner: { uid: 7, gid: 8 } }), files, source };
}

test('LargeTree has each large file by its id, twice: with the mounting user as its owner, and with the recorded one', async (t) => {
  const { tree, files } = await newLargeTree(t);
  const [a, b] = files;
  if (a === undefined || b === undefined) return t.fail();
  const mapped = tree.lookup(1, largeFileName(a.id, false));
  const kept = tree.lookup(1, largeFileName(a.id, true));
  const shown = {
    type: 'file',
    mode: 0o640,
    sizeBytes: LARGE_BYTES_MIN,
    mtimeSec: -1,
    mtimeNsec: 5,
    ino: a.id,
    nlink: 1,
  };
  t.deepEqual(mapped, { ...shown, nodeId: a.id, uid: 7, gid: 8 } as never);
  t.deepEqual(kept, { ...shown, nodeId: withRecordedOwners(a.id), uid: 1234, gid: 8 } as never);
  for (const node of [mapped, kept]) {
    t.deepEqual(tree.getattr(node?.nodeId ?? 0), node);
    t.is(entryOfNode(node?.nodeId ?? 0), a.id);
    t.is(
      tree
        .xattrs(node?.nodeId ?? 0)
        ?.get('user.x')
        ?.toString(),
      '1',
    );
  }
  t.is(tree.lookup(1, String(b.id))?.nlink, 2);
  t.like(tree.statfs(a.id), { totalBytes: LARGE_BYTES_MIN });
});

test('LargeTree shows nothing else, and lists nothing', async (t) => {
  const { tree, files, source } = await newLargeTree(t);
  const id = files[0]?.id ?? 0;
  t.like(tree.getattr(1), { type: 'dir', nodeId: 1, uid: 7, gid: 8 });
  t.deepEqual(tree.readdir(1), []);
  t.is(tree.readdir(id), undefined);
  t.is(tree.readlink(), undefined);
  for (const name of [
    '',
    'o',
    '0',
    `0${id}`,
    `${id}x`,
    `${id}oo`,
    `-${id}`,
    `${id}.0`,
    `${id} `,
    '99',
    '9'.repeat(16),
  ]) {
    t.is(tree.lookup(1, name), undefined, name);
  }
  t.is(tree.lookup(1, String(withRecordedOwners(id))), undefined, 'a node id is no name');
  t.is(tree.lookup(id, String(id)), undefined);
  const others = source.index.db
    .prepare('SELECT id FROM entries WHERE size < ?')
    .pluck()
    .all(LARGE_BYTES_MIN) as number[];
  t.is(others.length, 5);
  for (const other of others) {
    t.is(tree.lookup(1, String(other)), undefined);
    t.is(tree.getattr(other), undefined);
    t.is(tree.xattrs(other), undefined);
  }
});

/** A file that the kernel may read instead of a large one: on a plain filesystem, and on an overlay as containers have it. */
function backingFiles(t: ExecutionContext): string[] {
  const folder = newFolder(t);
  const [lower, upper, work, merged] = ['lower', 'upper', 'work', 'merged'].map((name) => join(folder, name));
  for (const dir of [lower, upper, work, merged]) mkdirSync(dir ?? '');
  mount('test', merged ?? '', 'overlay', 0, `lowerdir=${lower},upperdir=${upper},workdir=${work}`);
  t.teardown(() => umount2(merged ?? '', MNT_DETACH));
  const files = [join(folder, 'plain'), join(merged ?? '', 'stacked')];
  for (const file of files) {
    writeFileSync(file, `${file} is read`);
    truncateSync(file, LARGE_BYTES_MIN);
  }
  return files;
}

testMount(
  'the kernel itself reads a file that OPEN passes through, from a filesystem on another one too',
  async (t) => {
    for (const backing of backingFiles(t)) {
      const { files, source } = await newLargeTree(t);
      const { dir, messages } = mountTree(t, source, { kind: 'large', backing });
      t.deepEqual(readdirSync(dir), []);
      const name = join(dir, largeFileName(files[0]?.id ?? 0, false));
      t.is(statSync(name).size, LARGE_BYTES_MIN);
      const agreed = await nthOf(messages, 0);
      if (!flagsOf(agreed).includes('PASSTHROUGH')) return t.pass('this kernel has no passthrough');
      t.true(readFileSync(name).equals(readFileSync(backing)), 'there are no contents in the store to read');
      t.true(readFileSync(name).equals(readFileSync(backing)));
      t.deepEqual(await nthOf(messages, 1), { backingId: 1 });
    }
  },
);

/** A message, which may still be under way. */
async function nthOf(messages: readonly KernelThreadMessage[], at: number): Promise<KernelThreadMessage | undefined> {
  for (let tries = 0; tries < 500 && messages.length <= at; tries += 1) await setTimeout(10);
  return messages[at];
}

function flagsOf(message: KernelThreadMessage | undefined): readonly string[] {
  return message !== undefined && 'negotiated' in message ? message.negotiated.flags : [];
}
