import { chmodSync, chownSync, lstatSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { applyAttributes, createNode } from '../../../fs/workspace/write-node.ts';
import type { Metadata } from '../../../store/entry.ts';
import { lgetxattr, llistxattr, lsetxattr } from '../../../store/syscalls.ts';
import { testSerialNeeding } from '../../fixtures/external-tools.ts';
import { newFolder } from '../../fixtures/workspaces.ts';

const FILE: Metadata = { type: 'file', mode: 0o644, uid: 0, gid: 0, mtimeSec: 1, mtimeNsec: 2, sizeBytes: 0 };
const NOBODY = 65534;

test('createNode() leaves holes where long runs of zeros are, and writes the rest', (t) => {
  const path = join(newFolder(t), 'sparse');
  const content = Buffer.alloc(4 << 20);
  content.write('start', 0);
  content.write('middle', 1_000_001);
  createNode(path, { ...FILE, sizeBytes: content.length }, [content.subarray(0, 3000), content.subarray(3000)]);
  t.true(readFileSync(path).equals(content));
  t.true(statSync(path).blocks * 512 < 100_000, `${statSync(path).blocks} blocks`);

  const zeros = join(newFolder(t), 'zeros');
  createNode(zeros, { ...FILE, sizeBytes: 1 << 20 }, [Buffer.alloc(1 << 20)]);
  t.is(statSync(zeros).size, 1 << 20, 'a hole at the end counts, too');
});

test('createNode() writes over nothing and through nothing', (t) => {
  const folder = newFolder(t);
  writeFileSync(join(folder, 'taken'), 'precious');
  t.throws(() => createNode(join(folder, 'taken'), FILE, [Buffer.from('new')]), { code: 'EEXIST' });
  createNode(join(folder, 'link'), { ...FILE, type: 'symlink', link: 'taken' }, []);
  t.throws(() => createNode(join(folder, 'link'), FILE, [Buffer.from('new')]), { code: 'EEXIST' });
  t.is(readFileSync(join(folder, 'taken'), 'utf8'), 'precious');
  for (const type of ['hardlink', 'whiteout'] as const)
    t.throws(() => createNode(join(folder, type), { ...FILE, type }, []), { instanceOf: TypeError });
});

testSerialNeeding({ root: true })('applyAttributes() gives owner 0 to the workspace, and keeps setuid bits', (t) => {
  const path = join(newFolder(t), 'file');
  writeFileSync(path, '');
  const refused: string[] = [];
  const options = { owner: { uid: 1234, gid: 5678 }, onRefused: (_: string, what: string) => void refused.push(what) };
  applyAttributes(path, { ...FILE, mode: 0o6755 }, options);
  t.like(lstatSync(path), { uid: 1234, gid: 5678 });
  t.is(lstatSync(path).mode & 0o7777, 0o6755);
  applyAttributes(path, { ...FILE, uid: 42, gid: 43 }, options);
  t.like(lstatSync(path), { uid: 42, gid: 43 });
  t.is(lstatSync(path, { bigint: true }).mtimeNs, 1_000_000_002n);
  t.deepEqual(refused, []);
});

test('applyAttributes() takes away the attributes that the checkpoint has not', (t) => {
  const path = join(newFolder(t), 'file');
  writeFileSync(path, '');
  lsetxattr(path, 'user.old', Buffer.from('x'));
  lsetxattr(path, 'user.kept', Buffer.from('old value'));
  const xattrs = new Map([['user.kept', Buffer.from('new value')]]);
  applyAttributes(path, { ...FILE, xattrs }, { owner: { uid: 0, gid: 0 }, onRefused: (_, what) => t.fail(what) });
  t.deepEqual(llistxattr(path), ['user.kept']);
  t.is(lgetxattr(path, 'user.kept').toString(), 'new value');
});

testSerialNeeding({ root: true })(
  "applyAttributes() sets an ordinary user's attributes on a file that is read-only",
  (t) => {
    const folder = newFolder(t);
    chmodSync(folder, 0o755);
    chownSync(folder, NOBODY, NOBODY);
    const path = join(folder, 'file');
    const xattrs = new Map([['user.note', Buffer.from('kept')]]);
    const refused: string[] = [];
    process.seteuid?.(NOBODY);
    try {
      createNode(path, FILE, []);
      const owner = { uid: NOBODY, gid: NOBODY };
      applyAttributes(
        path,
        { ...FILE, mode: 0o400, xattrs },
        { owner, onRefused: (_, what) => void refused.push(what) },
      );
    } finally {
      process.seteuid?.(0);
    }
    t.is(lgetxattr(path, 'user.note').toString(), 'kept');
    t.is(lstatSync(path).mode & 0o777, 0o400);
    t.false(refused.includes('user.note'));
  },
);
