import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import test from 'ava';

import { isFileMount, mountedAt, mountedFileSystems } from '../../../fs/mounts/mountinfo.ts';
import { fromText } from '../../../store/byte-string.ts';
import { mount, MS_BIND, umount2 } from '../../../store/syscalls.ts';
import { testSerialNeeding } from '../../fixtures/external-tools.ts';
import { newFolder } from '../../fixtures/workspaces.ts';

test('mountedFileSystems() finds /proc and the root', (t) => {
  const proc = mountedAt('/proc');
  t.is(proc?.fstype, 'proc');
  t.is(proc?.root, '/');
  const targets = mountedFileSystems().map(({ target }) => target);
  t.true(targets.includes('/'));
  t.is(mountedAt('/no/such/mount'), undefined);
});

testSerialNeeding({ root: true })('mountedAt() knows names with blanks, tabs, newlines, backslashes and UTF-8', (t) => {
  const folder = newFolder(t);
  for (const name of ['with blank', 'tab\there', 'new\nline', 'back\\slash', '\\040', 'żółć 漢字', '#hash']) {
    const target = join(folder, name);
    mkdirSync(target);
    mount(`source ${fromText(name)}`, fromText(target), 'tmpfs');
    try {
      const mounted = mountedAt(target);
      t.like(mounted, { target, fstype: 'tmpfs', root: '/', source: `source ${name}` });
      t.true((mounted?.deviceMinor ?? 0) > 0);
    } finally {
      umount2(fromText(target));
    }
    t.is(mountedAt(target), undefined);
  }
});

testSerialNeeding({ root: true })('mountedAt() tells a bind mount by its root, and the uppermost of two', (t) => {
  const folder = newFolder(t);
  for (const name of ['tmp', 'bind']) mkdirSync(join(folder, name));
  const [below, target] = [join(folder, 'tmp'), join(folder, 'bind')];
  mount('lower', below, 'tmpfs');
  try {
    mkdirSync(join(below, 'part of it'));
    mount(join(below, 'part of it'), target, undefined, MS_BIND);
    t.like(mountedAt(target), { target, root: '/part of it', fstype: 'tmpfs' });
    mount('upper', target, 'tmpfs');
    t.like(mountedAt(target), { target, root: '/', source: 'upper' });
    umount2(target);
    t.like(mountedAt(target), { source: 'lower' });
  } finally {
    execFileSync('umount', [target]);
    umount2(below);
  }
});

test('isFileMount() knows the mounts the daemon lays over large files', (t) => {
  const tmpfs = mountedFileSystems()[0];
  if (tmpfs === undefined) throw new Error('nothing is mounted');
  const isOne = (fstype: string, root: string): boolean => isFileMount({ ...tmpfs, fstype, root });
  t.true(isOne('fuse.bento', '/123456789012'));
  t.false(isOne('fuse.bento', '/'), 'a connection of its own');
  t.false(isOne('fuse.bento', `/${'1'.repeat(64)}`), 'a checkpoint');
  t.false(isOne('fuse.bento', '/12/34'));
  t.false(isOne('tmpfs', '/123456789012'));
});
