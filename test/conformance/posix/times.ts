import {
  chmod,
  futimens,
  getxattr,
  lutimens,
  NOW,
  OMIT,
  setxattr,
  utimens,
  utimesNow,
  type Time,
} from './calls/attributes.ts';
import {
  copyFileRange,
  fallocate,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  ftruncate,
  O_CREAT,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  open,
  read,
  truncate,
  tryOpen,
  write,
} from './calls/files.ts';
import { mkdir, readlink, unlink } from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, type Group } from './suite/check.ts';
import { FIXTURE_TIME, USER } from './suite/fixture.ts';
import { atimeNs, mode, mtimeNs, names, size, text, touched } from './suite/observe.ts';

const SOME: Time = { sec: 1_234_567_890, nsec: 123_456_789 };
const MORE: Time = { sec: 1_600_000_000, nsec: 1 };
const BEFORE_1970: Time = { sec: -14_182_940, nsec: 500_000_000 };

const isNow = (ns: string): boolean => Math.abs(Number(ns) / 1e6 - Date.now()) < 60_000;

/** utimensat(2), and which times each call moves. */
export const TIMES: Group = {
  name: 'times',
  checks: [
    check(
      'the time of the fixture is there',
      () => [mtimeNs('small'), mtimeNs('dir'), mtimeNs('to-small')].map((ns) => Number(ns) / 1e9 === FIXTURE_TIME),
      [true, true, true],
    ),
    check('both times to the nanosecond', () => [utimens('small', SOME, MORE), atimeNs('small'), mtimeNs('small')], [
      0,
      '1234567890123456789',
      '1600000000000000001',
    ]),
    check(
      'of a new file',
      () => [tryOpen('new', O_CREAT | O_RDWR), utimens('new', SOME, MORE), atimeNs('new'), mtimeNs('new')],
      [0, 0, '1234567890123456789', '1600000000000000001'],
    ),
    check('of a directory', () => [utimens('dir', SOME, MORE), mtimeNs('dir'), names('dir'), mtimeNs('dir')], [
      0,
      '1600000000000000001',
      ['below', 'inside'],
      '1600000000000000001',
    ]),
    check(
      'of a fifo and a device',
      () => [utimens('fifo', SOME, MORE), utimens('null', SOME, MORE), mtimeNs('fifo'), mtimeNs('null')],
      [0, 0, '1600000000000000001', '1600000000000000001'],
    ),
    check('before 1970', () => [utimens('small', BEFORE_1970, BEFORE_1970), mtimeNs('small'), atimeNs('small')], [
      0,
      '-14182939500000000',
      '-14182939500000000',
    ]),
    check('0', () => [utimens('small', { sec: 0, nsec: 0 }, { sec: 0, nsec: 0 }), mtimeNs('small')], [0, '0']),
    check(
      'after 2038',
      () => [utimens('small', { sec: 5_000_000_000, nsec: 7 }, { sec: 5_000_000_000, nsec: 7 }), mtimeNs('small')],
      [0, '5000000000000000007'],
    ),
    check(
      'UTIME_OMIT keeps the one',
      () => [utimens('small', OMIT, SOME), Number(mtimeNs('small')) !== FIXTURE_TIME * 1e9, atimeNs('small')],
      [0, true, '1500000000000000000'],
    ),
    check('UTIME_OMIT keeps the other', () => [utimens('small', SOME, OMIT), atimeNs('small'), mtimeNs('small')], [
      0,
      '1234567890123456789',
      '1500000000000000000',
    ]),
    check('UTIME_OMIT of both changes nothing', () => touched(() => utimens('small', OMIT, OMIT), ['small']), {
      result: 0,
      small: '',
    }),
    check('UTIME_NOW is now', () => [utimens('small', NOW, NOW), isNow(mtimeNs('small')), isNow(atimeNs('small'))], [
      0,
      true,
      true,
    ]),
    check(
      'UTIME_NOW of one, a time for the other',
      () => [utimens('small', NOW, SOME), isNow(atimeNs('small')), mtimeNs('small')],
      [0, true, '1234567890123456789'],
    ),
    check('no times are now', () => [utimesNow('small'), isNow(mtimeNs('small'))], [0, true]),
    check(
      'nanoseconds out of range give EINVAL',
      () => [utimens('small', { sec: 0, nsec: 1_000_000_000 }, NOW), utimens('small', { sec: 0, nsec: -1 }, NOW)],
      ['EINVAL', 'EINVAL'],
    ),
    check('of a symlink itself', () => [lutimens('to-small', SOME, MORE), mtimeNs('to-small'), mtimeNs('small')], [
      0,
      '1600000000000000001',
      '1500000000000000000',
    ]),
    check('through a symlink', () => [utimens('to-small', SOME, MORE), mtimeNs('small'), mtimeNs('to-small')], [
      0,
      '1600000000000000001',
      '1500000000000000000',
    ]),
    check('of an open file', () => [futimens(open('small', O_RDONLY), SOME, MORE), mtimeNs('small')], [
      0,
      '1600000000000000001',
    ]),
    check(
      'of an open file without a name',
      () => {
        const fd = open('small', O_RDWR);
        return [unlink('small'), futimens(fd, SOME, MORE)];
      },
      [0, 0],
    ),
    check('moves ctime', () => touched(() => utimens('small', OMIT, MORE), ['small', '.']), {
      result: 0,
      small: 'mtime ctime',
      '.': '',
    }),
    check('keeps mode and contents', () => [utimens('mine', SOME, MORE), mode('mine'), text('mine')], [
      0,
      '600',
      'mine\n',
    ]),
    check('by the owner', () => asUser(USER, () => [utimens('mine', SOME, MORE), mtimeNs('mine')]), [
      0,
      '1600000000000000001',
    ]),
    check(
      'a time by somebody who may only write gives EPERM',
      () => asUser(USER, () => utimens('public', SOME, MORE)),
      'EPERM',
    ),
    check('UTIME_NOW for both by somebody who may write', () => asUser(USER, () => utimens('public', NOW, NOW)), 0),
    check(
      'UTIME_NOW for one by somebody who may only write gives EPERM',
      () => asUser(USER, () => utimens('public', NOW, OMIT)),
      'EPERM',
    ),
    check(
      'UTIME_NOW by somebody who may not write gives EACCES',
      () => asUser(USER, () => utimens('small', NOW, NOW)),
      'EACCES',
    ),

    check(
      'a write after a time was set moves it',
      () => [utimens('small', SOME, MORE), write(open('small', O_WRONLY), 'x'), isNow(mtimeNs('small'))],
      [0, 1, true],
    ),
    check(
      'a time set through a descriptor that has written stays',
      () => {
        const fd = open('small', O_RDWR);
        return [
          write(fd, 'x'),
          futimens(fd, SOME, MORE),
          mtimeNs('small'),
          tryOpen('small', O_RDONLY),
          mtimeNs('small'),
        ];
      },
      [1, 0, '1600000000000000001', 0, '1600000000000000001'],
    ),
    check(
      'a time set while another descriptor is open for writing stays',
      () => {
        const fd = open('small', O_RDWR);
        return [
          write(fd, 'x'),
          utimens('small', SOME, MORE),
          mtimeNs('small'),
          tryOpen('small', O_RDWR),
          mtimeNs('small'),
        ];
      },
      [1, 0, '1600000000000000001', 0, '1600000000000000001'],
    ),
    check(
      'write() moves mtime and ctime of the file only',
      () => touched(() => write(open('dir/inside', O_WRONLY), 'x'), ['dir/inside', 'dir']),
      { result: 1, 'dir/inside': 'mtime ctime', dir: '' },
    ),
    check('a write of nothing moves nothing', () => touched(() => write(open('small', O_WRONLY), ''), ['small']), {
      result: 0,
      small: '',
    }),
    check('read() moves neither mtime nor ctime', () => touched(() => read(open('small', O_RDONLY), 5), ['small']), {
      result: 'small',
      small: '',
    }),
    check('truncate() moves mtime and ctime', () => touched(() => truncate('small', 3), ['small']), {
      result: 0,
      small: 'mtime ctime',
    }),
    check('truncate() to a larger size moves them', () => touched(() => truncate('small', 3000), ['small']), {
      result: 0,
      small: 'mtime ctime',
    }),
    check('truncate() to the same size moves them', () => touched(() => truncate('small', 15), ['small']), {
      result: 0,
      small: 'mtime ctime',
    }),
    check(
      'ftruncate() to the same size moves them',
      () => touched(() => ftruncate(open('small', O_RDWR), 15), ['small']),
      { result: 0, small: 'mtime ctime' },
    ),
    check('fallocate() moves them', () => touched(() => fallocate(open('small', O_RDWR), 0, 0, 9000), ['small']), {
      result: 0,
      small: 'mtime ctime',
    }),
    check(
      'a punched hole moves them',
      () =>
        touched(
          () => fallocate(open('sparse', O_RDWR), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096),
          ['sparse'],
        ),
      { result: 0, sparse: 'mtime ctime' },
    ),
    check(
      'copy_file_range() moves those of the target',
      () =>
        touched(
          () => copyFileRange({ fd: open('small', O_RDONLY), offset: 0 }, { fd: open('other', O_RDWR), offset: 0 }, 5),
          ['small', 'other'],
        ),
      { result: 5, small: '', other: 'mtime ctime' },
    ),
    check('chmod() moves ctime only', () => touched(() => chmod('small', 0o644), ['small']), {
      result: 0,
      small: 'ctime',
    }),
    check('setxattr() moves ctime only', () => touched(() => setxattr('small', 'user.a', 'b'), ['small']), {
      result: 0,
      small: 'ctime',
    }),
    check(
      'getxattr() and readlink() move nothing',
      () => touched(() => [getxattr('attributed', 'user.one'), readlink('to-small')], ['attributed', 'to-small']),
      { result: ['first', 'small'], attributed: '', 'to-small': '' },
    ),
    check('a listing moves neither mtime nor ctime', () => touched(() => names('dir'), ['dir']), {
      result: ['below', 'inside'],
      dir: '',
    }),
    check(
      'mkdir() leaves the time of what is above its parent',
      () => touched(() => mkdir('dir/below/new'), ['dir/below', 'dir']),
      { result: 0, 'dir/below': 'mtime ctime', dir: '' },
    ),
    check(
      'times of a directory after changes below',
      () => [
        tryOpen('dir/below/new', O_CREAT | O_RDWR),
        Number(mtimeNs('dir')) / 1e9 === FIXTURE_TIME,
        isNow(mtimeNs('dir/below')),
      ],
      [0, true, true],
    ),
    check(
      'a new file has three times of now',
      () => [tryOpen('new', O_CREAT | O_RDWR), isNow(mtimeNs('new')), isNow(atimeNs('new')), size('new')],
      [0, true, true, 0],
    ),
    check(
      'reading moves atime where it is not newer than mtime',
      () => {
        const before = atimeNs('small');
        return [text('small'), atimeNs('small') === before];
      },
      ['small contents\n', false],
    ),
  ],
};
