import { constants } from 'node:fs';

import {
  close,
  dup,
  fsync,
  lseek,
  O_APPEND,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOATIME,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
  open,
  openat,
  pread,
  pwrite,
  read,
  SEEK_CUR,
  tryOpen,
  write,
} from './calls/files.ts';
import { fchmod, fsetxattr } from './calls/attributes.ts';
import { fchdir } from './calls/names.ts';
import { asFd } from './calls/libc.ts';
import { asUser } from './suite/as-user.ts';
import { check, checkLarge, type Group } from './suite/check.ts';
import { USER } from './suite/fixture.ts';
import { brief, identity, kind, mode, mtimeNs, names, owner, size, text } from './suite/observe.ts';

/** open(2), for files that are there. */
export const OPEN: Group = {
  name: 'open',
  checks: [
    check('a file opens for reading', () => read(open('small', O_RDONLY), 100), 'small contents\n'),
    check('a file opens for writing', () => [write(open('small', O_WRONLY), 'S'), text('small')], [
      1,
      'Small contents\n',
    ]),
    check('reading what is open for writing only gives EBADF', () => read(open('small', O_WRONLY), 1), 'EBADF'),
    check('writing to what is open for reading only gives EBADF', () => write(open('small', O_RDONLY), 'x'), 'EBADF'),
    check('a name that is not there gives ENOENT', () => open('nothing', O_RDWR), 'ENOENT'),
    check('an empty path gives ENOENT', () => open('', O_RDONLY), 'ENOENT'),
    check('a file with a slash behind it gives ENOTDIR', () => open('small/', O_RDONLY), 'ENOTDIR'),
    check('a directory opens for reading', () => tryOpen('dir', O_RDONLY), 0),
    check('a directory with a slash behind it opens', () => tryOpen('dir/', O_RDONLY), 0),
    check('a directory for writing gives EISDIR', () => open('dir', O_WRONLY), 'EISDIR'),
    check('a directory for reading and writing gives EISDIR', () => open('dir', O_RDWR), 'EISDIR'),
    check('a directory with O_TRUNC gives EISDIR', () => open('dir', O_RDONLY | O_TRUNC), 'EISDIR'),
    check('a directory with O_CREAT gives EISDIR', () => open('dir', O_RDONLY | O_CREAT), 'EISDIR'),
    check('read() of a directory gives EISDIR', () => read(open('dir', O_RDONLY), 10), 'EISDIR'),
    check('pread() of a directory gives EISDIR', () => pread(open('dir', O_RDONLY), 10, 0), 'EISDIR'),
    check('O_DIRECTORY opens a directory', () => tryOpen('dir', O_RDONLY | O_DIRECTORY), 0),
    check('O_DIRECTORY of a file gives ENOTDIR', () => open('small', O_RDONLY | O_DIRECTORY), 'ENOTDIR'),
    check('O_DIRECTORY of a fifo gives ENOTDIR', () => open('fifo', O_RDONLY | O_DIRECTORY), 'ENOTDIR'),
    check('O_DIRECTORY follows a symlink', () => tryOpen('to-dir', O_RDONLY | O_DIRECTORY), 0),
    check('O_NOFOLLOW of a symlink gives ELOOP', () => open('to-small', O_RDONLY | O_NOFOLLOW), 'ELOOP'),
    check('O_NOFOLLOW of a symlink to nowhere gives ELOOP', () => open('to-nowhere', O_RDWR | O_NOFOLLOW), 'ELOOP'),
    check('O_NOFOLLOW of a file opens it', () => tryOpen('small', O_RDONLY | O_NOFOLLOW), 0),
    check(
      'O_NOFOLLOW follows symlinks on the way',
      () => read(open('to-dir/inside', O_RDONLY | O_NOFOLLOW), 100),
      'inside\n',
    ),
    check('O_NOFOLLOW with O_DIRECTORY of a symlink', () => open('to-dir', O_DIRECTORY | O_NOFOLLOW), 'ENOTDIR'),
    check('a symlink is followed', () => read(open('to-small', O_RDONLY), 5), 'small'),
    check(
      'writing through a symlink writes the file',
      () => {
        write(open('to-small', O_WRONLY), 'through');
        return [text('small'), kind('to-small')];
      },
      ['throughontents\n', 'symlink'],
    ),
    check('a symlink to nowhere gives ENOENT', () => open('to-nowhere', O_RDONLY), 'ENOENT'),
    check('symlinks in a circle give ELOOP', () => open('loop-1', O_RDONLY), 'ELOOP'),
    check('O_TRUNC empties a file', () => [tryOpen('small', O_WRONLY | O_TRUNC), size('small'), text('small')], [
      0,
      0,
      '',
    ]),
    checkLarge('O_TRUNC empties a large file', () => [tryOpen('large', O_RDWR | O_TRUNC), size('large')], [0, 0]),
    check(
      'O_TRUNC with O_CREAT keeps mode and identity of what is there',
      () => {
        const before = identity('other');
        return [
          tryOpen('other', O_WRONLY | O_CREAT | O_TRUNC, 0o777),
          mode('other'),
          identity('other') === before,
          size('other'),
        ];
      },
      [0, '640', true, 0],
    ),
    check(
      'O_TRUNC through one name empties the other',
      () => [tryOpen('hard-1', O_WRONLY | O_TRUNC), size('hard-2')],
      [0, 0],
    ),
    check(
      'O_TRUNC of an empty file moves its times',
      () => {
        const before = mtimeNs('empty');
        return [tryOpen('empty', O_WRONLY | O_TRUNC), mtimeNs('empty') === before];
      },
      [0, false],
    ),
    check(
      'O_RDONLY changes nothing',
      () => {
        const before = [identity('small'), mtimeNs('small')].join();
        return [tryOpen('small', O_RDONLY), [identity('small'), mtimeNs('small')].join() === before];
      },
      [0, true],
    ),
    check(
      'opening for writing alone changes no time',
      () => {
        const before = mtimeNs('small');
        return [tryOpen('small', O_RDWR), mtimeNs('small') === before, text('small')];
      },
      [0, true, 'small contents\n'],
    ),
    check('O_EXCL without O_CREAT is ignored for files', () => tryOpen('small', O_RDONLY | O_EXCL), 0),
    check(
      'openat() starts at the directory it is given',
      () => {
        const dirFd = asFd(open('dir', O_RDONLY | O_DIRECTORY));
        return [read(openat(dirFd, 'inside', O_RDONLY), 100), read(openat(dirFd, 'below/deep', O_RDONLY), 100)];
      },
      ['inside\n', 'deep\n'],
    ),
    check(
      'openat() of a file descriptor gives ENOTDIR',
      () => openat(asFd(open('small', O_RDONLY)), 'x', O_RDONLY),
      'ENOTDIR',
    ),
    check('openat() of a closed descriptor gives EBADF', () => openat(9999, 'x', O_RDONLY), 'EBADF'),
    check(
      'two descriptors have positions of their own',
      () => {
        const [one, two] = [open('small', O_RDONLY), open('small', O_RDONLY)];
        return [read(one, 5), read(two, 3), read(one, 3)];
      },
      ['small', 'sma', ' co'],
    ),
    check(
      'a duplicate shares its position',
      () => {
        const fd = open('small', O_RDONLY);
        const copy = dup(fd);
        return [read(fd, 5), read(copy, 3), lseek(fd, 0, SEEK_CUR), close(fd), read(copy, 100)];
      },
      ['small', ' co', 8, 0, 'ntents\n'],
    ),
    check('O_PATH opens what may not be read', () => tryOpen('mine', O_PATH), 0),
    check('O_PATH: read() gives EBADF', () => read(open('small', O_PATH), 1), 'EBADF'),
    check('O_PATH: write() gives EBADF', () => write(open('small', O_PATH), 'x'), 'EBADF'),
    check('O_PATH: fchmod() gives EBADF', () => fchmod(open('small', O_PATH), 0o600), 'EBADF'),
    check('O_PATH: fsetxattr() gives EBADF', () => fsetxattr(open('small', O_PATH), 'user.a', 'b'), 'EBADF'),
    check('O_PATH: fsync() gives EBADF', () => fsync(open('small', O_PATH)), 'EBADF'),
    check('O_PATH with O_NOFOLLOW opens a symlink itself', () => tryOpen('to-nowhere', O_PATH | O_NOFOLLOW), 0),
    check(
      'O_PATH of a directory serves openat()',
      () => {
        return read(openat(asFd(open('dir', O_PATH)), 'inside', O_RDONLY), 100);
      },
      'inside\n',
    ),
    check('O_PATH of a directory serves fchdir()', () => [fchdir(asFd(open('dir', O_PATH))), text('inside')], [
      0,
      'inside\n',
    ]),
    check(
      'a descriptor is opened anew through /proc/self/fd',
      () => {
        const fd = open('small', O_RDONLY);
        return [write(open(`/proc/self/fd/${fd}`, O_WRONLY), 'anew'), pread(fd, 100, 0)];
      },
      [4, 'anewl contents\n'],
    ),
    check(
      'what was opened for reading sees what is written later',
      () => {
        const [reader, writer] = [open('small', O_RDONLY), open('small', O_WRONLY)];
        return [pread(reader, 100, 0), pwrite(writer, 'LATER', 0), pread(reader, 100, 0)];
      },
      ['small contents\n', 5, 'LATER contents\n'],
    ),
    checkLarge(
      'what was opened for reading a large file sees what is written later',
      () => {
        const [reader, writer] = [open('large', O_RDONLY), open('large', O_RDWR)];
        return [pread(reader, 16, 2_000_000), pwrite(writer, 'LATER', 2_000_000), pread(reader, 16, 2_000_000)];
      },
      ['........2000000\n', 5, 'LATER...2000000\n'],
    ),
    check(
      'what was opened for reading sees a truncation',
      () => {
        const reader = open('small', O_RDONLY);
        return [tryOpen('small', O_WRONLY | O_TRUNC), pread(reader, 100, 0)];
      },
      [0, ''],
    ),
    check('a fifo opened for reading without waiting', () => tryOpen('fifo', O_RDONLY | O_NONBLOCK), 0),
    check('a fifo opened for writing without a reader gives ENXIO', () => open('fifo', O_WRONLY | O_NONBLOCK), 'ENXIO'),
    check(
      'what goes into a fifo comes out of it',
      () => {
        const [reader, writer] = [open('fifo', O_RDONLY | O_NONBLOCK), open('fifo', O_WRONLY | O_NONBLOCK)];
        return [write(writer, 'through'), read(reader, 100)];
      },
      [7, 'through'],
    ),
    check(
      'O_APPEND with O_TRUNC: from the start',
      () => {
        const fd = open('small', O_WRONLY | O_APPEND | O_TRUNC);
        return [write(fd, 'one'), write(fd, 'two'), text('small')];
      },
      [3, 3, 'onetwo'],
    ),
    check(
      'O_NOATIME by somebody who is not the owner gives EPERM',
      () => {
        return asUser(USER, () => open('theirs', O_RDONLY | O_NOATIME));
      },
      'EPERM',
    ),
    check('O_NOATIME by the owner', () => asUser(USER, () => tryOpen('mine', O_RDONLY | O_NOATIME)), 0),
    check('without permission to read gives EACCES', () => asUser(USER, () => open('other', O_RDONLY)), 'EACCES'),
    check('without permission to write gives EACCES', () => asUser(USER, () => open('small', O_WRONLY)), 'EACCES'),
    check(
      'without permission to write, O_TRUNC gives EACCES',
      () => {
        return [asUser(USER, () => open('small', O_RDONLY | O_TRUNC)), text('small')];
      },
      ['EACCES', 'small contents\n'],
    ),
    check(
      'permission by the group',
      () => {
        return [
          fchmod(open('theirs', O_RDONLY), 0o060),
          asUser(USER, () => tryOpen('theirs', O_RDWR), { groups: [1002] }),
        ];
      },
      [0, 0],
    ),
    check(
      'the class of the owner counts even where others may more',
      () => {
        return [fchmod(open('mine', O_RDONLY), 0o077), asUser(USER, () => open('mine', O_RDONLY))];
      },
      [0, 'EACCES'],
    ),
    check(
      'a right that was taken away later leaves the descriptor alone',
      () => {
        const fd = asUser(USER, () => open('mine', O_RDWR));
        return [fchmod(fd, 0), asUser(USER, () => [write(fd, 'still'), open('mine', O_RDONLY)])];
      },
      [0, [5, 'EACCES']],
    ),
    checkLarge(
      'a large file reads as it was written',
      () => {
        const fd = open('large', O_RDONLY);
        return brief(Buffer.from(pread(fd, 4_000_000, 0), 'latin1'));
      },
      '3146962 bytes, f39d9ac7651c',
    ),
    check('O_CREAT of what is there opens it', () => [tryOpen('small', O_RDWR | O_CREAT), text('small')], [
      0,
      'small contents\n',
    ]),
    check('O_CREAT with O_EXCL of a file gives EEXIST', () => open('small', O_RDWR | O_CREAT | O_EXCL), 'EEXIST'),
    check('O_CREAT with O_EXCL of a directory gives EEXIST', () => open('dir', O_RDWR | O_CREAT | O_EXCL), 'EEXIST'),
    check('O_CREAT with O_EXCL of a fifo gives EEXIST', () => open('fifo', O_RDWR | O_CREAT | O_EXCL), 'EEXIST'),
    check(
      'O_CREAT with O_EXCL does not follow a symlink',
      () => [open('to-nowhere', O_RDWR | O_CREAT | O_EXCL), kind('nowhere')],
      ['EEXIST', 'ENOENT'],
    ),
    check('O_CREAT with O_DIRECTORY gives EINVAL', () => open('dir', constants.O_CREAT | O_DIRECTORY), 'EINVAL'),
    check(
      'in a directory that may not be searched gives EACCES',
      () => asUser(USER, () => open('closed/inside', O_RDONLY)),
      'EACCES',
    ),
    check(
      'in a directory that may not be searched, what is not there gives EACCES',
      () => asUser(USER, () => open('closed/nothing', O_RDONLY)),
      'EACCES',
    ),
    check(
      'the owner and the names stay with an open by another',
      () => [asUser(USER, () => tryOpen('public', O_RDWR)), owner('public'), names('hollow')],
      [0, '0:0', []],
    ),
  ],
};
