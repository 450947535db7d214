import test from 'ava';

import { openSession } from '../../../fs/serving/serve-loop.ts';
import type { ServedTree } from '../../../fs/serving/served-tree.ts';
import { type Attr, decodeAttrOut, decodeEntryOut } from '../../../fs/protocol/attr.ts';
import { ERRNO, type InitFlag, OPEN_FLAG } from '../../../fs/protocol/constants.ts';
import { decodeDirents, decodeDirentsPlus } from '../../../fs/protocol/dirent.ts';
import { decodeInitOut, encodeInitIn, INIT_IN_BYTES } from '../../../fs/protocol/init.ts';
import { decodeOpenOut } from '../../../fs/protocol/open.ts';
import { encodeGetxattrIn } from '../../../fs/protocol/xattr.ts';
import { MemoryTree, type Sample, sampleTree } from './memory-tree.ts';
import { ask, askNow, nameBody, readBody } from './requests.ts';

const YEAR_SEC = 31_536_000;
const SMALL = 2;

function initBody(flags: InitFlag[]): Buffer {
  const body = Buffer.alloc(INIT_IN_BYTES);
  encodeInitIn(body, 0, { major: 7, minor: 45, maxReadaheadBytes: 131_072, flags });
  return body;
}

function getxattrBody(name: string): Buffer {
  const body = Buffer.alloc(8 + name.length + 1);
  encodeGetxattrIn(body, 0, { sizeBytes: 100, name });
  return body;
}

function attrOf(sample: Sample): Attr {
  const session = openSession(new MemoryTree({ type: 'dir', children: new Map([['x', sample]]) }));
  return decodeAttrOut(askNow(session, 'GETATTR', 2, Buffer.alloc(16))).attr;
}

test('blocks and sizes are those that a fresh ext4 would show', (t) => {
  const file = (sizeBytes: number): Attr => attrOf({ type: 'file', sizeBytes });
  t.deepEqual(
    [0, 1, 4096, 4097, 5e9].map((sizeBytes) => file(sizeBytes).blocks),
    [0, 8, 8, 16, 9_765_632],
  );
  t.like(attrOf({ type: 'dir' }), { sizeBytes: 4096, blocks: 8, blksizeBytes: 4096 });
  t.like(attrOf({ type: 'symlink', sizeBytes: 59 }), { sizeBytes: 59, blocks: 0 });
  t.like(attrOf({ type: 'symlink', sizeBytes: 60 }), { sizeBytes: 60, blocks: 8 });
  t.like(attrOf({ type: 'fifo' }), { sizeBytes: 0, blocks: 0 });
});

test('what never changes is believed for a year, missing names too', (t) => {
  const session = openSession(sampleTree());
  const entry = decodeEntryOut(askNow(session, 'LOOKUP', 1, nameBody('many')));
  t.like(entry, { entryValidSec: YEAR_SEC, attrValidSec: YEAR_SEC });
  t.is(decodeAttrOut(askNow(session, 'GETATTR', 1, Buffer.alloc(16))).attrValidSec, YEAR_SEC);
  t.like(decodeEntryOut(askNow(session, 'LOOKUP', 1, nameBody('missing'))), { nodeId: 0, entryValidSec: YEAR_SEC });
});

test('what is directly in a directory that grows is believed for a second, and so are the attributes of that', (t) => {
  const session = openSession(sampleTree(), { mayGrow: (nodeId) => nodeId === 1 });
  for (const name of ['many', 'small']) {
    const entry = decodeEntryOut(askNow(session, 'LOOKUP', 1, nameBody(name)));
    t.like(entry, { entryValidSec: 1, attrValidSec: 1 }, name);
  }
  t.is(decodeAttrOut(askNow(session, 'GETATTR', 1, Buffer.alloc(16))).attrValidSec, 1);
  t.is(decodeAttrOut(askNow(session, 'GETATTR', SMALL, Buffer.alloc(16))).attrValidSec, YEAR_SEC);
  t.deepEqual(ask(session, 'LOOKUP', 1, nameBody('missing')), { error: -ERRNO.ENOENT, body: Buffer.alloc(0) });
  const listed = decodeDirentsPlus(askNow(session, 'READDIRPLUS', 1, readBody(0, 100_000))).slice(2);
  t.true(listed.length > 5 && listed.every(({ entry }) => entry.entryValidSec === 1 && entry.attrValidSec === 1));
});

test('the attributes of a directory that grows are believed for a second where its own name stays', (t) => {
  const tree = sampleTree();
  const many = tree.lookup(1, 'many')?.nodeId;
  const session = openSession(tree, { mayGrow: (nodeId) => nodeId === many });
  const entry = decodeEntryOut(askNow(session, 'LOOKUP', 1, nameBody('many')));
  t.like(entry, { entryValidSec: YEAR_SEC, attrValidSec: 1 });
  const other = decodeEntryOut(askNow(session, 'LOOKUP', 1, nameBody('small')));
  t.like(other, { entryValidSec: YEAR_SEC, attrValidSec: YEAR_SEC });
});

test('extended attributes are ENOSYS where there are none, so that the kernel stops asking', (t) => {
  const [without, with_] = [false, true].map((xattrs) => openSession(sampleTree(), { xattrs }));
  if (without === undefined || with_ === undefined) return t.fail();
  t.like(ask(without, 'GETXATTR', SMALL, getxattrBody('user.plain')), { error: -ERRNO.ENOSYS });
  t.like(ask(without, 'LISTXATTR', SMALL, Buffer.alloc(8)), { error: -ERRNO.ENOSYS });
  t.is(askNow(with_, 'GETXATTR', SMALL, getxattrBody('user.plain')).toString('hex'), '0100ff');
  t.like(ask(with_, 'GETXATTR', SMALL, getxattrBody('user.other')), { error: -ERRNO.ENODATA });
});

test('what a tree has no time for is handed on', (t) => {
  const tree: ServedTree = sampleTree();
  tree.read = () => 'slow';
  tree.lookup = () => 'slow';
  const session = openSession(tree);
  t.is(ask(session, 'READ', SMALL, readBody(0, 4096)), 'slow');
  t.is(ask(session, 'LOOKUP', 1, nameBody('small')), 'slow');
  t.is(decodeAttrOut(askNow(session, 'GETATTR', SMALL, Buffer.alloc(16))).attr.sizeBytes, 6);
});

test('OPEN is ENOSYS where the kernel takes that to mean "never ask again"', (t) => {
  const session = openSession(sampleTree());
  askNow(session, 'INIT', 0, initBody(['NO_OPEN_SUPPORT', 'NO_OPENDIR_SUPPORT', 'PASSTHROUGH', 'INIT_EXT']));
  t.deepEqual(session.negotiated?.flags, ['NO_OPEN_SUPPORT', 'NO_OPENDIR_SUPPORT', 'INIT_EXT']);
  t.like(ask(session, 'OPEN', SMALL, Buffer.alloc(8)), { error: -ERRNO.ENOSYS });
  t.like(ask(session, 'OPENDIR', 1, Buffer.alloc(8)), { error: -ERRNO.ENOSYS });
});

test('OPEN of a kernel that must ask keeps its pages, and of a directory its listing unless that grows', (t) => {
  const session = openSession(sampleTree(), { mayGrow: (nodeId) => nodeId === 1 });
  askNow(session, 'INIT', 0, initBody(['ASYNC_READ']));
  t.like(decodeOpenOut(askNow(session, 'OPEN', SMALL, Buffer.alloc(8))), { openFlags: OPEN_FLAG.KEEP_CACHE });
  const many = session.tree.getattr(14)?.nodeId ?? 0;
  const { openFlags } = decodeOpenOut(askNow(session, 'OPENDIR', many, Buffer.alloc(8)));
  t.is(openFlags, OPEN_FLAG.KEEP_CACHE | OPEN_FLAG.CACHE_DIR);
  t.like(decodeOpenOut(askNow(session, 'OPENDIR', 1, Buffer.alloc(8))), { openFlags: 0 });
});

test('OPEN passes a file through when whoever opens files says so', (t) => {
  const answers = new Map<number, { backingId: number } | 'slow'>([
    [SMALL, { backingId: 17 }],
    [3, 'slow'],
  ]);
  const session = openSession(sampleTree(), { opener: (nodeId) => answers.get(nodeId) });
  const init = decodeInitOut(askNow(session, 'INIT', 0, initBody(['NO_OPEN_SUPPORT', 'PASSTHROUGH', 'INIT_EXT'])));
  t.like(init, { flags: ['INIT_EXT', 'PASSTHROUGH'], maxStackDepth: 2 });
  const opened = decodeOpenOut(askNow(session, 'OPEN', SMALL, Buffer.alloc(8)));
  t.is(opened.backingId, 17);
  t.true((opened.openFlags & OPEN_FLAG.PASSTHROUGH) !== 0);
  t.is(ask(session, 'OPEN', 3, Buffer.alloc(8)), 'slow');
  const plain = decodeOpenOut(askNow(session, 'OPEN', 4, Buffer.alloc(8)));
  t.like(plain, { openFlags: OPEN_FLAG.KEEP_CACHE, backingId: 0 });
  t.like(ask(session, 'FLUSH', SMALL, Buffer.alloc(24)), { error: -ERRNO.ENOSYS });
  t.like(ask(session, 'RELEASE', SMALL, Buffer.alloc(24)), { error: 0 });
});

test('OPEN does not ask for passthrough where the kernel has none', (t) => {
  const session = openSession(sampleTree(), { opener: () => ({ backingId: 17 }) });
  askNow(session, 'INIT', 0, initBody(['ASYNC_READ', 'INIT_EXT']));
  const opened = decodeOpenOut(askNow(session, 'OPEN', SMALL, Buffer.alloc(8)));
  t.like(opened, { openFlags: OPEN_FLAG.KEEP_CACHE, backingId: 0 });
});

test('readdirplus says of each name what a lookup says, page after page', (t) => {
  const session = openSession(sampleTree());
  const many = decodeEntryOut(askNow(session, 'LOOKUP', 1, nameBody('many'))).nodeId;
  for (const [dir, sizeBytes] of [
    [1, 4096],
    [many, 32_768],
  ] as const) {
    const names: string[] = [];
    for (let offset = 0, more = true; more;) {
      const records = decodeDirentsPlus(askNow(session, 'READDIRPLUS', dir, readBody(offset, sizeBytes)));
      for (const { entry, dirent } of records) {
        offset = dirent.nextOffset;
        names.push(dirent.name);
        if (dirent.name === '.') t.is(dirent.ino, dir + 1000);
        if (dirent.name === '.' || dirent.name === '..') t.is(entry.nodeId, 0, 'it counts as no lookup');
        else t.deepEqual(entry, decodeEntryOut(askNow(session, 'LOOKUP', dir, nameBody(dirent.name))));
      }
      more = records.length > 0;
    }
    t.is(session.listings.size, 0, 'a listing that was read to its end is not kept');
    t.is(names.length, (session.tree.readdir(dir) ?? []).length + 2);
    t.is(new Set(names).size, names.length);
  }
});

test('listings that nobody reads to the end do not pile up', (t) => {
  const children = new Map(
    Array.from({ length: 100 }, (_, i): [string, Sample] => [
      `d${i}`,
      { type: 'dir', children: new Map([['x', { type: 'fifo' }]]) },
    ]),
  );
  const session = openSession(new MemoryTree({ type: 'dir', children }));
  for (const { node } of session.tree.readdir(1) ?? []) askNow(session, 'READDIR', node.nodeId, readBody(0, 4096));
  t.is(session.listings.size, 64);
  const huge = Array.from({ length: 150_000 }, (_, i) => ({ name: String(i), node: session.tree.getattr(2) }));
  session.tree.readdir = () => huge as never;
  for (const nodeId of [1, 2, 4, 6]) askNow(session, 'READDIR', nodeId, readBody(0, 4096));
  t.true(session.listings.size <= 3, `${session.listings.size} listings`);
  t.is(decodeDirents(askNow(session, 'READDIR', 1, readBody(100_000, 40)))[0]?.name, '99998');
});

test('statfs is asked of the object', (t) => {
  const session = openSession(sampleTree());
  const asked: number[] = [];
  session.tree.statfs = (nodeId) => {
    asked.push(nodeId);
    return { totalBytes: 1, fileCount: 1 };
  };
  askNow(session, 'STATFS', 14);
  t.deepEqual(asked, [14]);
});
