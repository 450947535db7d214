import {
  fgetxattr,
  fremovexattr,
  fsetxattr,
  getxattr,
  lgetxattr,
  listxattr,
  llistxattr,
  lremovexattr,
  lsetxattr,
  removexattr,
  setxattr,
  XATTR_CREATE,
  XATTR_REPLACE,
} from './calls/attributes.ts';
import { O_CREAT, O_RDONLY, O_RDWR, open, tryOpen, write } from './calls/files.ts';
import { rename, unlink } from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, checkLarge, type Group } from './suite/check.ts';
import { USER } from './suite/fixture.ts';
import { mtimeNs, text, touched } from './suite/observe.ts';

/** Extended attributes: xattr(7). */
export const XATTRS: Group = {
  name: 'xattrs',
  checks: [
    check(
      'those of the fixture',
      () => [listxattr('attributed'), getxattr('attributed', 'user.one'), getxattr('attributed', 'user.two')],
      ['user.one user.two', 'first', 'second'],
    ),
    check('a new one', () => [setxattr('small', 'user.a', 'value'), getxattr('small', 'user.a'), listxattr('small')], [
      0,
      'value',
      'user.a',
    ]),
    check('a further one', () => [setxattr('attributed', 'user.a', 'b'), listxattr('attributed')], [
      0,
      'user.a user.one user.two',
    ]),
    check(
      'another value',
      () => [
        setxattr('attributed', 'user.one', 'another, longer one'),
        getxattr('attributed', 'user.one'),
        getxattr('attributed', 'user.two'),
      ],
      [0, 'another, longer one', 'second'],
    ),
    check('on a new file', () => [tryOpen('new', O_CREAT | O_RDWR), setxattr('new', 'user.a', 'b'), listxattr('new')], [
      0,
      0,
      'user.a',
    ]),
    check('on a directory', () => [setxattr('dir', 'user.a', 'b'), getxattr('dir', 'user.a'), listxattr('dir')], [
      0,
      'b',
      'user.a',
    ]),
    checkLarge('on a large file', () => [setxattr('large', 'user.a', 'b'), getxattr('large', 'user.a')], [0, 'b']),
    check('none', () => [listxattr('small'), getxattr('small', 'user.a')], ['', 'ENODATA']),
    check(
      'removed',
      () => [removexattr('attributed', 'user.one'), listxattr('attributed'), getxattr('attributed', 'user.one')],
      [0, 'user.two', 'ENODATA'],
    ),
    check(
      'all removed',
      () => [removexattr('attributed', 'user.one'), removexattr('attributed', 'user.two'), listxattr('attributed')],
      [0, 0, ''],
    ),
    check(
      'removed and set again',
      () => [
        removexattr('attributed', 'user.one'),
        setxattr('attributed', 'user.one', 'x', XATTR_CREATE),
        getxattr('attributed', 'user.one'),
      ],
      [0, 0, 'x'],
    ),
    check(
      'removing what is not there gives ENODATA',
      () => [removexattr('small', 'user.a'), removexattr('attributed', 'user.a')],
      ['ENODATA', 'ENODATA'],
    ),
    check(
      'removed twice gives ENODATA',
      () => [removexattr('attributed', 'user.one'), removexattr('attributed', 'user.one')],
      [0, 'ENODATA'],
    ),
    check(
      'XATTR_CREATE of what is there gives EEXIST',
      () => [setxattr('attributed', 'user.one', 'x', XATTR_CREATE), getxattr('attributed', 'user.one')],
      ['EEXIST', 'first'],
    ),
    check(
      'XATTR_CREATE of a new one',
      () => [setxattr('attributed', 'user.a', 'x', XATTR_CREATE), getxattr('attributed', 'user.a')],
      [0, 'x'],
    ),
    check(
      'XATTR_REPLACE of what is not there gives ENODATA',
      () => [setxattr('attributed', 'user.a', 'x', XATTR_REPLACE), listxattr('attributed')],
      ['ENODATA', 'user.one user.two'],
    ),
    check(
      'XATTR_REPLACE of what is there',
      () => [setxattr('attributed', 'user.one', 'x', XATTR_REPLACE), getxattr('attributed', 'user.one')],
      [0, 'x'],
    ),
    check('an unknown flag gives EINVAL', () => setxattr('small', 'user.a', 'x', 8), 'EINVAL'),
    check(
      'an empty value',
      () => [
        setxattr('small', 'user.a', ''),
        getxattr('small', 'user.a'),
        listxattr('small'),
        getxattr('small', 'user.a', 0),
      ],
      [0, '', 'user.a', 0],
    ),
    check(
      'a value with every byte',
      () => {
        const value = String.fromCharCode(...Array.from({ length: 256 }, (_, at) => at));
        return [setxattr('small', 'user.a', value), getxattr('small', 'user.a') === value];
      },
      [0, true],
    ),
    check(
      'a value of 1,000 bytes',
      () => [setxattr('small', 'user.a', 'v'.repeat(1000)), getxattr('small', 'user.a', 0)],
      [0, 1000],
    ),
    check(
      'the size is told without reading',
      () => [getxattr('attributed', 'user.one', 0), listxattr('attributed', 0)],
      [5, 18],
    ),
    check('too little room gives ERANGE', () => [getxattr('attributed', 'user.one', 4), listxattr('attributed', 17)], [
      'ERANGE',
      'ERANGE',
    ]),
    check('just enough room', () => [getxattr('attributed', 'user.one', 5), listxattr('attributed', 18)], [
      'first',
      'user.one user.two',
    ]),
    check(
      'a name of 255 bytes',
      () => {
        const name = `user.${'n'.repeat(250)}`;
        return [setxattr('small', name, 'x'), getxattr('small', name), listxattr('small') === name];
      },
      [0, 'x', true],
    ),
    check('a name of 256 bytes gives ERANGE', () => setxattr('small', `user.${'n'.repeat(251)}`, 'x'), 'ERANGE'),
    check('an empty name gives ERANGE', () => [setxattr('small', '', 'x'), getxattr('small', '')], [
      'ERANGE',
      'ERANGE',
    ]),
    check('a name of a namespace alone gives EINVAL', () => setxattr('small', 'user.', 'x'), 'EINVAL'),
    check(
      'a namespace that there is not gives ENOTSUP',
      () => [setxattr('small', 'nothing.a', 'x'), getxattr('small', 'nothing.a'), removexattr('small', 'nothing.a')],
      ['ENOTSUP', 'ENOTSUP', 'ENOTSUP'],
    ),
    check('a name without a namespace gives ENOTSUP', () => setxattr('small', 'name', 'x'), 'ENOTSUP'),
    check(
      'a name that is not UTF-8',
      () => [setxattr('small', 'user.\xff\xfe', 'x'), getxattr('small', 'user.\xff\xfe'), listxattr('small')],
      [0, 'x', 'user.\xff\xfe'],
    ),
    check(
      'a value of more than 65,536 bytes gives E2BIG',
      () => setxattr('small', 'user.a', 'v'.repeat(65_537)),
      'E2BIG',
    ),
    check(
      'forty of them',
      () => {
        for (let at = 0; at < 40; at++) setxattr('small', `user.n${at}`, `value ${at}`);
        return [
          String(listxattr('small')).split(' ').length,
          getxattr('small', 'user.n39'),
          getxattr('small', 'user.n0'),
        ];
      },
      [40, 'value 39', 'value 0'],
    ),
    check(
      'trusted, by root',
      () => [setxattr('small', 'trusted.a', 'b'), getxattr('small', 'trusted.a'), listxattr('small')],
      [0, 'b', 'trusted.a'],
    ),
    check(
      'trusted, hidden from others',
      () => [
        setxattr('small', 'trusted.a', 'b'),
        asUser(USER, () => [listxattr('small'), getxattr('small', 'trusted.a')]),
      ],
      [0, ['', 'ENODATA']],
    ),
    check(
      'security.capability',
      () => {
        const value = Buffer.from('0100000200200000000000000000000000000000', 'hex').toString('latin1');
        return [
          setxattr('small', 'security.capability', value),
          getxattr('small', 'security.capability') === value,
          write(open('small', O_RDWR), 'x'),
          getxattr('small', 'security.capability'),
        ];
      },
      [0, true, 1, 'ENODATA'],
    ),
    check(
      'user attributes are hidden from who may not read',
      () => asUser(USER, () => [getxattr('other', 'user.a'), setxattr('other', 'user.a', 'b')]),
      ['EACCES', 'EACCES'],
    ),
    check(
      'user attributes in a sticky directory of another give EPERM',
      () => asUser(USER, () => setxattr('sticky', 'user.a', 'b')),
      'EPERM',
    ),
    check(
      'through a symlink',
      () => [
        setxattr('to-small', 'user.a', 'b'),
        getxattr('small', 'user.a'),
        lgetxattr('to-small', 'user.a'),
        llistxattr('to-small'),
      ],
      [0, 'b', 'ENODATA', ''],
    ),
    check(
      'user attributes of a symlink give EPERM',
      () => [lsetxattr('to-small', 'user.a', 'b'), lremovexattr('to-small', 'user.a')],
      ['EPERM', 'EPERM'],
    ),
    check(
      'trusted attributes of a symlink',
      () => [
        lsetxattr('to-small', 'trusted.a', 'b'),
        lgetxattr('to-small', 'trusted.a'),
        lremovexattr('to-small', 'trusted.a'),
        llistxattr('to-small'),
      ],
      [0, 'b', 0, ''],
    ),
    check(
      'user attributes of a fifo and a device give EPERM',
      () => [setxattr('fifo', 'user.a', 'b'), setxattr('null', 'user.a', 'b'), getxattr('fifo', 'user.a')],
      ['EPERM', 'EPERM', 'ENODATA'],
    ),
    check(
      'of an open file',
      () => {
        const fd = open('attributed', O_RDONLY);
        return [
          fgetxattr(fd, 'user.one'),
          fsetxattr(fd, 'user.a', 'b'),
          fgetxattr(fd, 'user.a'),
          fremovexattr(fd, 'user.one'),
          listxattr('attributed'),
        ];
      },
      ['first', 0, 'b', 0, 'user.a user.two'],
    ),
    check(
      'of an open file without a name',
      () => {
        const fd = open('attributed', O_RDONLY);
        return [unlink('attributed'), fgetxattr(fd, 'user.one'), fsetxattr(fd, 'user.a', 'b'), fgetxattr(fd, 'user.a')];
      },
      [0, 'first', 0, 'b'],
    ),
    check(
      'they stay when the file is written',
      () => [write(open('attributed', O_RDWR), 'x'), listxattr('attributed'), getxattr('attributed', 'user.one')],
      [1, 'user.one user.two', 'first'],
    ),
    check('they stay when the file is moved', () => [rename('attributed', 'dir/new'), listxattr('dir/new')], [
      0,
      'user.one user.two',
    ]),
    check(
      'they go with the file',
      () => [unlink('attributed'), tryOpen('attributed', O_CREAT | O_RDWR), listxattr('attributed')],
      [0, 0, ''],
    ),
    check('they go with a file that is replaced', () => [rename('small', 'attributed'), listxattr('attributed')], [
      0,
      '',
    ]),
    check('setting one moves ctime only', () => touched(() => setxattr('small', 'user.a', 'b'), ['small', '.']), {
      result: 0,
      small: 'ctime',
      '.': '',
    }),
    check('removing one moves ctime only', () => touched(() => removexattr('attributed', 'user.one'), ['attributed']), {
      result: 0,
      attributed: 'ctime',
    }),
    check(
      'setting one keeps contents and mtime',
      () => {
        const before = mtimeNs('small');
        return [setxattr('small', 'user.a', 'b'), mtimeNs('small') === before, text('small')];
      },
      [0, true, 'small contents\n'],
    ),
    check(
      "overlayfs's own names are names like others",
      () => [
        setxattr('small', 'user.overlay.opaque', 'y'),
        getxattr('small', 'user.overlay.opaque'),
        listxattr('small'),
      ],
      [0, 'y', 'user.overlay.opaque'],
    ),
    check(
      "overlayfs's own names on a directory hide nothing",
      () => [
        setxattr('dir', 'trusted.overlay.opaque', 'y'),
        getxattr('dir', 'trusted.overlay.opaque'),
        text('dir/inside'),
      ],
      [0, 'y', 'inside\n'],
    ),
  ],
};
