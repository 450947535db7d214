import {
  dup,
  lseek,
  O_APPEND,
  O_CREAT,
  O_RDWR,
  O_WRONLY,
  open,
  pread,
  pwrite,
  read,
  SEEK_CUR,
  SEEK_SET,
  truncate,
  write,
} from './calls/files.ts';
import { rename } from './calls/names.ts';
import { check, checkLarge, type Group } from './suite/check.ts';
import { LARGE_BYTES } from './suite/fixture.ts';
import { size, text } from './suite/observe.ts';
import { otherProcess } from './suite/partner.ts';

/** O_APPEND: every write goes to the end there is. */
export const APPEND: Group = {
  name: 'append',
  checks: [
    check('a write goes to the end', () => [write(open('small', O_WRONLY | O_APPEND), 'more'), text('small')], [
      4,
      'small contents\nmore',
    ]),
    check(
      'to a new file',
      () => {
        const fd = open('new', O_WRONLY | O_APPEND | O_CREAT);
        return [write(fd, 'one'), write(fd, 'two'), text('new')];
      },
      [3, 3, 'onetwo'],
    ),
    check('to an empty file', () => [write(open('empty', O_WRONLY | O_APPEND), 'x'), text('empty')], [1, 'x']),
    checkLarge(
      'to a large file',
      () => {
        const fd = open('large', O_RDWR | O_APPEND);
        return [write(fd, 'more'), size('large'), pread(fd, 100, LARGE_BYTES - 2), pread(fd, 16, 1_000_000)];
      },
      [4, LARGE_BYTES + 4, '..more', '........1000000\n'],
    ),
    checkLarge(
      'to a large file, a mebibyte',
      () => {
        const fd = open('large', O_RDWR | O_APPEND);
        return [write(fd, Buffer.alloc(2 ** 20, 'm')), size('large'), pread(fd, 3, LARGE_BYTES + 2 ** 20 - 3)];
      },
      [2 ** 20, LARGE_BYTES + 2 ** 20, 'mmm'],
    ),
    check(
      'lseek() does not count',
      () => {
        const fd = open('small', O_RDWR | O_APPEND);
        return [lseek(fd, 0, SEEK_SET), write(fd, 'end'), lseek(fd, 0, SEEK_CUR), text('small')];
      },
      [0, 3, 18, 'small contents\nend'],
    ),
    check('reading starts at the start', () => read(open('small', O_RDWR | O_APPEND), 5), 'small'),
    check('Linux appends with pwrite(), too', () => [pwrite(open('small', O_RDWR | O_APPEND), 'X', 0), text('small')], [
      1,
      'small contents\nX',
    ]),
    check(
      'two descriptors write one behind the other',
      () => {
        const [one, two] = [open('small', O_WRONLY | O_APPEND), open('small', O_WRONLY | O_APPEND)];
        return [write(one, '1'), write(two, '2'), write(one, '3'), write(two, '4'), text('small')];
      },
      [1, 1, 1, 1, 'small contents\n1234'],
    ),
    check(
      'after somebody else made the file longer',
      () => {
        const fd = open('small', O_WRONLY | O_APPEND);
        return [write(fd, 'a'), pwrite(open('small', O_WRONLY), 'b', 20), write(fd, 'c'), text('small')];
      },
      [1, 1, 1, 'small contents\na\0\0\0\0bc'],
    ),
    check(
      'after somebody made the file shorter',
      () => {
        const fd = open('small', O_WRONLY | O_APPEND);
        return [write(fd, 'a'), truncate('small', 3), write(fd, 'c'), text('small')];
      },
      [1, 0, 1, 'smac'],
    ),
    check(
      'by two processes in turn',
      () => {
        const fd = open('small', O_WRONLY | O_APPEND);
        const there = otherProcess().call('open', 'small', O_WRONLY | O_APPEND);
        for (let round = 0; round < 5; round++) {
          write(fd, `h${round}`);
          otherProcess().call('write', there, `t${round}`);
        }
        return text('small');
      },
      'small contents\nh0t0h1t1h2t2h3t3h4t4',
    ),
    check(
      'through two names of a file',
      () => {
        const [one, two] = [open('hard-1', O_WRONLY | O_APPEND), open('hard-2', O_WRONLY | O_APPEND)];
        return [write(one, '1'), write(two, '2'), text('hard-1'), text('hard-2')];
      },
      [1, 1, 'hard contents\n12', 'hard contents\n12'],
    ),
    check(
      'a duplicate appends',
      () => {
        const fd = open('small', O_WRONLY | O_APPEND);
        return [write(fd, '1'), write(dup(fd), '2'), text('small')];
      },
      [1, 1, 'small contents\n12'],
    ),
    check(
      'after the file was moved',
      () => {
        const fd = open('small', O_WRONLY | O_APPEND);
        return [rename('small', 'moved'), write(fd, '1'), text('moved')];
      },
      [0, 1, 'small contents\n1'],
    ),
    check(
      'a thousand lines',
      () => {
        const fd = open('empty', O_WRONLY | O_APPEND);
        for (let line = 0; line < 1000; line++) write(fd, `line ${line}\n`);
        return [size('empty'), pread(open('empty', O_RDWR), 9, (size('empty') as number) - 9)];
      },
      [8890, 'line 999\n'],
    ),
    check('a write of nothing', () => [write(open('small', O_WRONLY | O_APPEND), ''), size('small')], [0, 15]),
    check(
      'without it, two descriptors overwrite one another',
      () => {
        const [one, two] = [open('small', O_WRONLY), open('small', O_WRONLY)];
        return [write(one, '12'), write(two, '3'), text('small')];
      },
      [2, 1, '32all contents\n'],
    ),
  ],
};
