import { fstatSync } from 'node:fs';

import { fchmod, fchown, fgetxattr, fsetxattr } from './calls/attributes.ts';
import {
  close,
  fallocate,
  fsync,
  ftruncate,
  lseek,
  O_APPEND,
  O_CREAT,
  O_DIRECTORY,
  O_RDONLY,
  O_RDWR,
  open,
  openat,
  pread,
  pwrite,
  read,
  SEEK_END,
  write,
} from './calls/files.ts';
import { asFd, type Outcome } from './calls/libc.ts';
import { mkdir, rename, rmdir, unlink } from './calls/names.ts';
import { check, checkLarge, type Group } from './suite/check.ts';
import { LARGE_BYTES } from './suite/fixture.ts';
import { kind, links, mode, names, owner, size, text } from './suite/observe.ts';

const at = (fd: Outcome): string => `/proc/self/fd/${fd}`;
const linksOf = (fd: Outcome): number => fstatSync(asFd(fd)).nlink;

function factsOf(fd: Outcome): string {
  const stats = fstatSync(asFd(fd));
  return `${(stats.mode & 0o7777).toString(8)} ${stats.uid}:${stats.gid}`;
}

/** Files and directories that are open after their last name went. */
export const OPEN_UNLINKED: Group = {
  name: 'open unlinked',
  checks: [
    check(
      'is still read',
      () => {
        const fd = open('small', O_RDONLY);
        return [unlink('small'), read(fd, 100), kind('small')];
      },
      [0, 'small contents\n', 'ENOENT'],
    ),
    check(
      'is still written, and read again',
      () => {
        const fd = open('small', O_RDWR);
        return [unlink('small'), pwrite(fd, 'SMALL', 0), pread(fd, 100, 0)];
      },
      [0, 5, 'SMALL contents\n'],
    ),
    check(
      'was written before and is still',
      () => {
        const fd = open('small', O_RDWR);
        return [pwrite(fd, 'S', 0), unlink('small'), pwrite(fd, 'M', 1), pread(fd, 100, 0)];
      },
      [1, 0, 1, 'SMall contents\n'],
    ),
    checkLarge(
      'a large one is still read and written',
      () => {
        const fd = open('large', O_RDWR);
        return [
          unlink('large'),
          pread(fd, 16, 2_000_000),
          pwrite(fd, 'HERE', 2_000_000),
          pread(fd, 16, 2_000_000),
          lseek(fd, 0, SEEK_END),
        ];
      },
      [0, '........2000000\n', 4, 'HERE....2000000\n', LARGE_BYTES],
    ),
    checkLarge(
      'a large one open for reading is read to its end',
      () => {
        const fd = open('large', O_RDONLY);
        return [unlink('large'), pread(fd, 4_000_000, 0).length];
      },
      [0, LARGE_BYTES],
    ),
    check(
      'a new one',
      () => {
        const fd = open('new', O_RDWR | O_CREAT);
        return [write(fd, 'new'), unlink('new'), write(fd, 'er'), pread(fd, 10, 0)];
      },
      [3, 0, 2, 'newer'],
    ),
    check(
      'has no link',
      () => {
        const fd = open('small', O_RDWR);
        return [unlink('small'), linksOf(fd)];
      },
      [0, 0],
    ),
    check(
      'has one link when it had two',
      () => {
        const fd = open('hard-1', O_RDWR);
        return [unlink('hard-1'), linksOf(fd), links('hard-2')];
      },
      [0, 1, 1],
    ),
    check(
      'is made longer and shorter',
      () => {
        const fd = open('small', O_RDWR);
        return [unlink('small'), ftruncate(fd, 100), lseek(fd, 0, SEEK_END), ftruncate(fd, 5), pread(fd, 100, 0)];
      },
      [0, 0, 100, 0, 'small'],
    ),
    check(
      'gets another mode and owner',
      () => {
        const fd = open('small', O_RDWR);
        return [unlink('small'), fchmod(fd, 0o600), fchown(fd, 7, 8), factsOf(fd)];
      },
      [0, 0, 0, '600 7:8'],
    ),
    check(
      'gets an attribute',
      () => {
        const fd = open('small', O_RDWR);
        return [unlink('small'), fsetxattr(fd, 'user.a', 'b'), fgetxattr(fd, 'user.a')];
      },
      [0, 0, 'b'],
    ),
    check(
      'is synchronised',
      () => {
        const fd = open('small', O_RDWR);
        return [unlink('small'), write(fd, 'x'), fsync(fd)];
      },
      [0, 1, 0],
    ),
    check(
      'is allocated',
      () => {
        const fd = open('small', O_RDWR);
        return [unlink('small'), fallocate(fd, 0, 0, 10_000), lseek(fd, 0, SEEK_END)];
      },
      [0, 0, 10_000],
    ),
    check(
      'appends',
      () => {
        const fd = open('small', O_RDWR | O_APPEND);
        return [unlink('small'), write(fd, 'more'), pread(fd, 100, 0)];
      },
      [0, 4, 'small contents\nmore'],
    ),
    check(
      'is opened again through /proc',
      () => {
        const fd = open('small', O_RDONLY);
        return [
          unlink('small'),
          read(open(at(fd), O_RDONLY), 5),
          write(open(at(fd), O_RDWR), 'SMALL'),
          pread(fd, 5, 0),
        ];
      },
      [0, 'small', 5, 'SMALL'],
    ),
    check(
      'is not what is made under its name',
      () => {
        const fd = open('small', O_RDWR);
        return [
          unlink('small'),
          write(open('small', O_RDWR | O_CREAT), 'new'),
          pwrite(fd, 'X', 0),
          pread(fd, 5, 0),
          text('small'),
        ];
      },
      [0, 3, 1, 'Xmall', 'new'],
    ),
    check(
      'is not the directory that is made under its name',
      () => {
        const fd = open('small', O_RDWR);
        return [unlink('small'), mkdir('small'), pwrite(fd, 'X', 0), pread(fd, 5, 0), names('small')];
      },
      [0, 0, 1, 'Xmall', []],
    ),
    check(
      'lost its name to a rename',
      () => {
        const fd = open('small', O_RDWR);
        return [rename('other', 'small'), pwrite(fd, 'X', 0), pread(fd, 5, 0), text('small'), linksOf(fd)];
      },
      [0, 1, 'Xmall', 'other contents\n', 0],
    ),
    check(
      'two descriptors of one see one another',
      () => {
        const [one, two] = [open('small', O_RDWR), open('small', O_RDONLY)];
        return [unlink('small'), pwrite(one, 'X', 0), pread(two, 5, 0), close(one), pread(two, 5, 0)];
      },
      [0, 1, 'Xmall', 0, 'Xmall'],
    ),
    check(
      'in a directory that is gone, too',
      () => {
        const fd = open('full/file', O_RDWR);
        return [unlink('full/file'), rmdir('full'), pwrite(fd, 'F', 0), pread(fd, 10, 0)];
      },
      [0, 0, 1, 'File\n'],
    ),
    check(
      'fifty of them',
      () => {
        const fds = Array.from({ length: 50 }, (_, number) => open(`hollow/f${number}`, O_RDWR | O_CREAT));
        fds.forEach((fd, number) => write(fd, `file ${number}`));
        const gone = fds.filter((_, number) => unlink(`hollow/f${number}`) === 0).length;
        return [
          gone,
          names('hollow'),
          rmdir('hollow'),
          fds.filter((fd, number) => pread(fd, 20, 0) === `file ${number}`).length,
        ];
      },
      [50, [], 0, 50],
    ),
    check(
      'a removed directory that is open lists nothing',
      () => {
        const fd = open('hollow', O_RDONLY | O_DIRECTORY);
        return [rmdir('hollow'), names(at(fd)), linksOf(fd)];
      },
      [0, [], 0],
    ),
    check(
      'a removed directory that is open takes nothing',
      () => {
        const fd = asFd(open('hollow', O_RDONLY | O_DIRECTORY));
        return [rmdir('hollow'), openat(fd, 'new', O_RDWR | O_CREAT), openat(fd, 'x', O_RDONLY), fsync(fd)];
      },
      [0, 'ENOENT', 'ENOENT', 0],
    ),
    check(
      'a directory that lost its name to a rename lists nothing',
      () => {
        const fd = open('hollow', O_RDONLY | O_DIRECTORY);
        mkdir('new');
        write(open('new/own', O_RDWR | O_CREAT), 'x');
        return [rename('new', 'hollow'), names(at(fd)), names('hollow')];
      },
      [0, [], ['own']],
    ),
    check(
      'a directory that is made anew is another',
      () => {
        const fd = open('hollow', O_RDONLY | O_DIRECTORY);
        return [
          rmdir('hollow'),
          mkdir('hollow'),
          openat(asFd(fd), 'new', O_RDWR | O_CREAT),
          size('hollow/new'),
          fchmod(fd, 0o700),
          mode('hollow'),
          owner('hollow'),
        ];
      },
      [0, 0, 'ENOENT', 'ENOENT', 0, '755', '0:0'],
    ),
  ],
};
