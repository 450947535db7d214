import {
  fsync,
  ftruncate,
  lseek,
  O_APPEND,
  O_CREAT,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  open,
  pread,
  preadBytes,
  pwrite,
  read,
  SEEK_CUR,
  truncate,
  write,
} from './calls/files.ts';
import type { Outcome } from './calls/libc.ts';
import { unlink } from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, checkLarge, type Group } from './suite/check.ts';
import { LARGE_BYTES, USER } from './suite/fixture.ts';
import { blocks, size, text } from './suite/observe.ts';

const GIB = 1024 ** 3;

/** Whether a range of a file is zeros, all of it. */
function zeros(fd: Outcome, from: number, to: number): boolean {
  const bytes = preadBytes(fd, to - from, from);
  return typeof bytes !== 'string' && bytes.length === to - from && bytes.every((byte) => byte === 0);
}

/** truncate(2), ftruncate(2). */
export const TRUNCATE: Group = {
  name: 'truncate',
  checks: [
    check('to less', () => [truncate('small', 5), size('small'), text('small')], [0, 5, 'small']),
    check('to nothing', () => [truncate('small', 0), size('small'), text('small')], [0, 0, '']),
    check('to the same size', () => [truncate('small', 15), text('small')], [0, 'small contents\n']),
    check('to more: zeros', () => [truncate('small', 20), size('small'), text('small')], [
      0,
      20,
      'small contents\n\0\0\0\0\0',
    ]),
    check(
      'an empty file to more',
      () => [truncate('empty', 5000), size('empty'), zeros(open('empty', O_RDONLY), 0, 5000)],
      [0, 5000, true],
    ),
    check(
      'to less and to more again: zeros, not what was there',
      () => [truncate('small', 5), truncate('small', 15), text('small')],
      [0, 0, 'small\0\0\0\0\0\0\0\0\0\0'],
    ),
    check(
      'to nothing and to more again',
      () => [truncate('small', 0), truncate('small', 15), zeros(open('small', O_RDONLY), 0, 15)],
      [0, 0, true],
    ),
    check(
      'ftruncate() to less and to more again',
      () => {
        const fd = open('small', O_RDWR);
        return [ftruncate(fd, 5), ftruncate(fd, 10), pread(fd, 100, 0)];
      },
      [0, 0, 'small\0\0\0\0\0'],
    ),
    checkLarge(
      'a large file to less',
      () => [truncate('large', 1_000_000), size('large'), pread(open('large', O_RDONLY), 100, 999_984)],
      [0, 1_000_000, '.........999984\n'],
    ),
    checkLarge(
      'a large file to a size that is no multiple of anything',
      () => {
        truncate('large', 1_234_567);
        const fd = open('large', O_RDONLY);
        return [size('large'), pread(fd, 32, 1_234_544), pread(fd, 10, 1_234_567)];
      },
      [1_234_567, '........1234544\n.......', ''],
    ),
    checkLarge(
      'a large file to less and to more again: zeros',
      () => {
        const results = [truncate('large', 1_234_567), truncate('large', 2_500_000)];
        const fd = open('large', O_RDONLY);
        return [results, zeros(fd, 1_234_567, 2_500_000), pread(fd, 16, 1_234_528), size('large')];
      },
      [[0, 0], true, '........1234528\n', 2_500_000],
    ),
    checkLarge('a large file to one byte', () => [truncate('large', 1), text('large')], [0, '.']),
    checkLarge(
      'a large file to more',
      () => {
        const result = truncate('large', LARGE_BYTES + 100_000);
        const fd = open('large', O_RDONLY);
        return [result, zeros(fd, LARGE_BYTES, LARGE_BYTES + 100_000), pread(fd, 16, LARGE_BYTES - 18)];
      },
      [0, true, '........3146944\n'],
    ),
    checkLarge(
      'a large file to less, while it is open and was read',
      () => {
        const fd = open('large', O_RDONLY);
        return [pread(fd, 16, 2_000_000), truncate('large', 1_000_000), pread(fd, 16, 2_000_000), pread(fd, 16, 16)];
      },
      ['........2000000\n', 0, '', '.............16\n'],
    ),
    checkLarge(
      'a large file to less, to more, written in the middle',
      () => {
        const fd = open('large', O_RDWR);
        const results = [ftruncate(fd, 100), ftruncate(fd, 2_000_000), pwrite(fd, 'HERE', 1_000_000)];
        return [results, zeros(fd, 100, 1_000_000), pread(fd, 8, 1_000_000), zeros(fd, 1_000_004, 2_000_000)];
      },
      [[0, 0, 4], true, 'HERE\0\0\0\0', true],
    ),
    checkLarge(
      'what is written to a large file, then cut off, is gone',
      () => {
        const fd = open('large', O_RDWR);
        const results = [pwrite(fd, 'HERE', 2_000_000), ftruncate(fd, 2_000_000), ftruncate(fd, 2_000_016)];
        return [results, pread(fd, 16, 2_000_000)];
      },
      [[4, 0, 0], '\0'.repeat(16)],
    ),
    check('through one of two names', () => [truncate('hard-1', 4), text('hard-2')], [0, 'hard']),
    check(
      'through a descriptor whose file has no name',
      () => {
        const fd = open('small', O_RDWR);
        return [unlink('small'), ftruncate(fd, 5), pread(fd, 100, 0)];
      },
      [0, 0, 'small'],
    ),
    check(
      'the position stays where it was, behind the end',
      () => {
        const fd = open('small', O_RDWR);
        return [read(fd, 10), ftruncate(fd, 5), lseek(fd, 0, SEEK_CUR), read(fd, 10), write(fd, 'x'), text('small')];
      },
      ['small cont', 0, 10, '', 1, 'small\0\0\0\0\0x'],
    ),
    check(
      'the file grows at the end afterwards',
      () => [truncate('small', 5), write(open('small', O_WRONLY | O_APPEND), '!'), text('small')],
      [0, 1, 'small!'],
    ),
    check(
      'a write behind the new end leaves zeros between',
      () => {
        const fd = open('small', O_RDWR);
        return [ftruncate(fd, 3), pwrite(fd, 'x', 8), text('small')];
      },
      [0, 1, 'sma\0\0\0\0\0x'],
    ),
    check(
      'to 5 GiB, and written at 4 GiB',
      () => {
        const fd = open('small', O_RDWR);
        return [
          ftruncate(fd, 5 * GIB),
          size('small'),
          pwrite(fd, 'far', 4 * GIB + 5),
          pread(fd, 5, 4 * GIB + 4),
          pread(fd, 5, 0),
        ];
      },
      [0, 5_368_709_120, 3, '\0far\0', 'small'],
    ),
    check('a large hole takes no room', () => [truncate('small', GIB), blocks('small') < 100], [0, true]),
    check('to less than nothing gives EINVAL', () => [truncate('small', -1), ftruncate(open('small', O_RDWR), -1)], [
      'EINVAL',
      'EINVAL',
    ]),
    check('of a directory gives EISDIR', () => truncate('dir', 0), 'EISDIR'),
    check('of a fifo gives EINVAL', () => truncate('fifo', 0), 'EINVAL'),
    check(
      'through what is open for reading gives EINVAL',
      () => [ftruncate(open('small', O_RDONLY), 0), text('small')],
      ['EINVAL', 'small contents\n'],
    ),
    check('of a directory that is open gives EINVAL', () => ftruncate(open('dir', O_RDONLY), 0), 'EINVAL'),
    check('of a closed descriptor gives EBADF', () => ftruncate(9999, 0), 'EBADF'),
    check('to more than a file can have gives EFBIG', () => truncate('small', 2 ** 53), 'EFBIG'),
    check('without permission to write gives EACCES', () => asUser(USER, () => truncate('small', 0)), 'EACCES'),
    check(
      'of a file whose mode was taken, through its descriptor',
      () =>
        asUser(USER, () => {
          const fd = open('open/new', O_RDWR | O_CREAT, 0o400);
          return [write(fd, 'written'), ftruncate(fd, 3), truncate('open/new', 1), size('open/new')];
        }),
      [7, 0, 'EACCES', 3],
    ),
    check(
      'of a sparse file, into the hole',
      () => [
        truncate('sparse', 100_000),
        size('sparse'),
        zeros(open('sparse', O_RDONLY), 4096, 100_000),
        pread(open('sparse', O_RDONLY), 3, 4094),
      ],
      [0, 100_000, true, 'aa\0'],
    ),
    check(
      'it is there after fsync()',
      () => {
        const fd = open('small', O_RDWR);
        return [ftruncate(fd, 5), fsync(fd), text('small')];
      },
      [0, 0, 'small'],
    ),
  ],
};
