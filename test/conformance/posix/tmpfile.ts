import { fstatSync } from 'node:fs';

import { fchmod, fsetxattr, getxattr } from './calls/attributes.ts';
import {
  close,
  fsync,
  O_CREAT,
  O_EXCL,
  O_RDONLY,
  O_RDWR,
  O_TMPFILE,
  O_WRONLY,
  open,
  pread,
  write,
} from './calls/files.ts';
import { asFd, type Outcome } from './calls/libc.ts';
import { AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, linkat, rmdir, unlink } from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, type Group } from './suite/check.ts';
import { USER } from './suite/fixture.ts';
import { links, mode, names, owner, size, text, touched } from './suite/observe.ts';

const make = (dir: string, flags = O_RDWR, permissions = 0o644): Outcome => open(dir, O_TMPFILE | flags, permissions);
const named = (fd: Outcome, path: string): Outcome => linkat(AT_FDCWD, `/proc/self/fd/${fd}`, path, AT_SYMLINK_FOLLOW);

/** O_TMPFILE: files that have no name yet. */
export const TMPFILE: Group = {
  name: 'tmpfile',
  checks: [
    check(
      'is written and read, and has no name',
      () => {
        const fd = make('hollow');
        return [write(fd, 'contents'), pread(fd, 100, 0), names('hollow'), fstatSync(asFd(fd)).nlink];
      },
      [8, 'contents', [], 0],
    ),
    check(
      'gets a name',
      () => {
        const fd = make('dir');
        return [write(fd, 'contents'), named(fd, 'dir/new'), text('dir/new'), links('dir/new'), names('dir')];
      },
      [8, 0, 'contents', 1, ['below', 'inside', 'new']],
    ),
    check(
      'gets a name by AT_EMPTY_PATH',
      () => {
        const fd = make('.');
        return [write(fd, 'contents'), linkat(asFd(fd), '', 'new', AT_EMPTY_PATH), text('new')];
      },
      [8, 0, 'contents'],
    ),
    check(
      'gets two names',
      () => {
        const fd = make('.');
        return [named(fd, 'one'), named(fd, 'two'), links('one'), write(fd, 'x'), text('two')];
      },
      [0, 0, 2, 1, 'x'],
    ),
    check(
      'gets a name in another directory',
      () => {
        const fd = make('hollow');
        return [write(fd, 'x'), named(fd, 'dir/new'), text('dir/new'), rmdir('hollow')];
      },
      [1, 0, 'x', 0],
    ),
    check(
      'gets a name that is free again',
      () => {
        const fd = make('.');
        return [unlink('small'), write(fd, 'new'), named(fd, 'small'), text('small'), mode('small')];
      },
      [0, 3, 0, 'new', '644'],
    ),
    check('over what is there gives EEXIST', () => named(make('.'), 'small'), 'EEXIST'),
    check('with O_EXCL it gets no name', () => named(make('.', O_RDWR | O_EXCL), 'new'), 'ENOENT'),
    check(
      'has the mode less the mask, and an owner',
      () => {
        const fd = asUser(USER, () => make('open', O_RDWR, 0o666));
        return [named(fd, 'open/new'), mode('open/new'), owner('open/new')];
      },
      [0, '644', '1001:1001'],
    ),
    check(
      'mode and attributes stay when it gets a name',
      () => {
        const fd = make('.');
        return [
          fchmod(fd, 0o4711),
          fsetxattr(fd, 'user.a', 'b'),
          named(fd, 'new'),
          mode('new'),
          getxattr('new', 'user.a'),
        ];
      },
      [0, 0, 0, '4711', 'b'],
    ),
    check('for reading only gives EINVAL', () => make('.', O_RDONLY), 'EINVAL'),
    check('for writing only', () => write(make('.', O_WRONLY), 'x'), 1),
    check('with O_CREAT gives EINVAL', () => make('.', O_RDWR | O_CREAT), 'EINVAL'),
    check('in a file gives ENOTDIR', () => make('small'), 'ENOTDIR'),
    check('in nothing gives ENOENT', () => make('nothing'), 'ENOENT'),
    check('in a directory that may not be written gives EACCES', () => asUser(USER, () => make('dir')), 'EACCES'),
    check(
      'in a setgid directory it gets its group',
      () => {
        const fd = asUser(USER, () => make('setgid'));
        return [named(fd, 'new'), owner('new')];
      },
      [0, '1001:1002'],
    ),
    check('moves no time of the directory', () => touched(() => close(make('dir')), ['dir']), { result: 0, dir: '' }),
    check(
      'its name moves the times of the directory',
      () => {
        const fd = make('dir');
        return touched(() => named(fd, 'dir/new'), ['dir']);
      },
      { result: 0, dir: 'mtime ctime' },
    ),
    check(
      'is synchronised before it gets a name',
      () => {
        const fd = make('.');
        return [write(fd, 'x'), fsync(fd), named(fd, 'new'), fsync(open('.', O_RDONLY)), size('new')];
      },
      [1, 0, 0, 0, 1],
    ),
    check(
      'a directory with one in it can be removed',
      () => {
        const fd = make('hollow');
        return [rmdir('hollow'), write(fd, 'x'), pread(fd, 5, 0), named(fd, 'new'), text('new')];
      },
      [0, 1, 'x', 0, 'x'],
    ),
  ],
};
