import { chmod, chown, getxattr, setxattr } from './calls/attributes.ts';
import {
  ftruncate,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  open,
  openat,
  pread,
  pwrite,
  tryOpen,
  write,
} from './calls/files.ts';
import { asFd } from './calls/libc.ts';
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_SYMLINK_FOLLOW,
  link,
  linkat,
  mkdir,
  readlink,
  rename,
  rmdir,
  unlink,
} from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, checkLarge, type Group } from './suite/check.ts';
import { USER } from './suite/fixture.ts';
import { kind, links, mode, mtimeNs, names, owner, same, size, text, touched } from './suite/observe.ts';

/** link(2), linkat(2), and files with several names. */
export const LINK: Group = {
  name: 'link',
  checks: [
    check(
      'a file gets a second name',
      () => [link('small', 'new'), text('new'), same('small', 'new'), links('small'), links('new')],
      [0, 'small contents\n', true, 2, 2],
    ),
    check(
      'a second name in another directory',
      () => [link('small', 'dir/new'), same('small', 'dir/new'), names('dir')],
      [0, true, ['below', 'inside', 'new']],
    ),
    check('a third name for a file with two', () => [link('hard-1', 'new'), links('hard-2'), same('new', 'hard-2')], [
      0,
      3,
      true,
    ]),
    check('two names are one file', () => [same('hard-1', 'hard-2'), links('hard-1'), links('hard-2')], [true, 2, 2]),
    check(
      'what is written through one name is read through the other',
      () => [write(open('hard-1', O_RDWR), 'HARD'), text('hard-2'), same('hard-1', 'hard-2')],
      [4, 'HARD contents\n', true],
    ),
    check('through the second name, too', () => [write(open('hard-2', O_RDWR), 'HARD'), text('hard-1')], [
      4,
      'HARD contents\n',
    ]),
    check(
      'what is written to a file with a new name is read through it',
      () => [
        link('small', 'new'),
        write(open('small', O_RDWR), 'S'),
        text('new'),
        write(open('new', O_RDWR), 'T'),
        text('small'),
      ],
      [0, 1, 'Small contents\n', 1, 'Tmall contents\n'],
    ),
    checkLarge(
      'a large file with two names',
      () => {
        return [
          link('large', 'new'),
          pwrite(open('new', O_RDWR), 'HERE', 2_000_000),
          pread(open('large', O_RDONLY), 8, 2_000_000),
          links('large'),
        ];
      },
      [0, 4, 'HERE....', 2],
    ),
    check(
      'a file open before it was written through its other name',
      () => {
        const fd = open('hard-1', O_RDONLY);
        return [pread(fd, 4, 0), write(open('hard-2', O_RDWR), 'HARD'), pread(fd, 4, 0)];
      },
      ['hard', 4, 'HARD'],
    ),
    check('truncation through one name', () => [ftruncate(open('hard-1', O_RDWR), 4), size('hard-2'), text('hard-2')], [
      0,
      4,
      'hard',
    ]),
    check(
      'O_TRUNC through one name',
      () => [tryOpen('hard-2', O_RDWR | O_TRUNC), size('hard-1'), links('hard-1')],
      [0, 0, 2],
    ),
    check('chmod() through one name', () => [chmod('hard-1', 0o751), mode('hard-2'), same('hard-1', 'hard-2')], [
      0,
      '751',
      true,
    ]),
    check('chown() through one name', () => [chown('hard-1', 7, 8), owner('hard-2')], [0, '7:8']),
    check('an attribute through one name', () => [setxattr('hard-1', 'user.a', 'b'), getxattr('hard-2', 'user.a')], [
      0,
      'b',
    ]),
    check(
      'mtime of one name is that of the other after a write',
      () => [write(open('hard-1', O_RDWR), 'x'), mtimeNs('hard-1') === mtimeNs('hard-2')],
      [1, true],
    ),
    check('one name goes, the file stays', () => [unlink('hard-1'), text('hard-2'), links('hard-2')], [
      0,
      'hard contents\n',
      1,
    ]),
    check('both names go', () => [unlink('hard-1'), unlink('hard-2'), kind('hard-1'), kind('hard-2')], [
      0,
      0,
      'ENOENT',
      'ENOENT',
    ]),
    check(
      'one goes, and the other is written',
      () => [unlink('hard-1'), write(open('hard-2', O_RDWR), 'HARD'), text('hard-2'), links('hard-2')],
      [0, 4, 'HARD contents\n', 1],
    ),
    check(
      'written, then one goes',
      () => [write(open('hard-1', O_RDWR), 'HARD'), unlink('hard-1'), text('hard-2'), links('hard-2')],
      [4, 0, 'HARD contents\n', 1],
    ),
    check(
      'one is moved, and the file is written',
      () => [rename('hard-1', 'dir/new'), write(open('dir/new', O_RDWR), 'HARD'), text('hard-2'), links('hard-2')],
      [0, 4, 'HARD contents\n', 2],
    ),
    check('a name comes and goes', () => [link('small', 'new'), unlink('new'), links('small'), text('small')], [
      0,
      0,
      1,
      'small contents\n',
    ]),
    check(
      'the first name goes, the new one stays',
      () => [link('small', 'new'), unlink('small'), text('new'), links('new')],
      [0, 0, 'small contents\n', 1],
    ),
    check(
      'the removed name is given to another file',
      () => [link('small', 'new'), unlink('small'), link('other', 'small'), text('small'), text('new')],
      [0, 0, 0, 'other contents\n', 'small contents\n'],
    ),
    check(
      'a name in a directory that is removed',
      () => [link('full/file', 'new'), unlink('full/file'), rmdir('full'), text('new'), links('new')],
      [0, 0, 0, 'file\n', 1],
    ),
    check(
      'a name in a directory that is made anew',
      () => [
        link('small', 'hollow/one'),
        unlink('hollow/one'),
        rmdir('hollow'),
        mkdir('hollow'),
        link('small', 'hollow/two'),
        names('hollow'),
        links('small'),
      ],
      [0, 0, 0, 0, 0, ['two'], 2],
    ),
    check(
      'thirty names',
      () => {
        for (let at = 0; at < 30; at++) link('small', `hollow/n${at}`);
        return [links('small'), names('hollow').length, text('hollow/n29')];
      },
      [31, 30, 'small contents\n'],
    ),
    check('over what is there gives EEXIST: a file', () => [link('small', 'other'), text('other'), links('small')], [
      'EEXIST',
      'other contents\n',
      1,
    ]),
    check('over what is there gives EEXIST: a directory', () => link('small', 'dir'), 'EEXIST'),
    check('over what is there gives EEXIST: a symlink to nowhere', () => link('small', 'to-nowhere'), 'EEXIST'),
    check('over itself gives EEXIST', () => link('small', 'small'), 'EEXIST'),
    check('of a directory gives EPERM', () => link('dir', 'new'), 'EPERM'),
    check('of a new directory gives EPERM', () => [mkdir('new'), link('new', 'more')], [0, 'EPERM']),
    check('of what is not there gives ENOENT', () => link('nothing', 'new'), 'ENOENT'),
    check('of a removed file gives ENOENT', () => [unlink('small'), link('small', 'new')], [0, 'ENOENT']),
    check(
      'of a symlink is one of the symlink',
      () => [link('to-small', 'new'), readlink('new'), same('new', 'to-small'), links('to-small')],
      [0, 'small', true, 2],
    ),
    check('of a symlink to nowhere', () => [link('to-nowhere', 'new'), readlink('new')], [0, 'nowhere']),
    check(
      'of a symlink with AT_SYMLINK_FOLLOW is one of the file',
      () => [linkat(AT_FDCWD, 'to-small', 'new', AT_SYMLINK_FOLLOW), kind('new'), same('new', 'small')],
      [0, 'file', true],
    ),
    check(
      'of a symlink to a directory with AT_SYMLINK_FOLLOW gives EPERM',
      () => linkat(AT_FDCWD, 'to-dir', 'new', AT_SYMLINK_FOLLOW),
      'EPERM',
    ),
    check('of a fifo', () => [link('fifo', 'new'), kind('new'), links('fifo'), same('new', 'fifo')], [
      0,
      'fifo',
      2,
      true,
    ]),
    check('of a device', () => [link('null', 'new'), kind('new'), links('null')], [0, 'char device', 2]),
    check('of a suid file of another', () => [link('suid', 'new'), mode('new'), owner('new')], [
      0,
      '6755',
      '1001:1001',
    ]),
    check(
      'of an open file by AT_EMPTY_PATH',
      () => [linkat(asFd(open('small', O_RDONLY)), '', 'new', AT_EMPTY_PATH), same('small', 'new')],
      [0, true],
    ),
    check(
      'of an O_PATH file by AT_EMPTY_PATH',
      () => [linkat(asFd(open('small', O_PATH)), '', 'new', AT_EMPTY_PATH), same('small', 'new')],
      [0, true],
    ),
    check(
      'of an open file through /proc',
      () => [
        linkat(AT_FDCWD, `/proc/self/fd/${open('small', O_RDONLY)}`, 'new', AT_SYMLINK_FOLLOW),
        same('small', 'new'),
      ],
      [0, true],
    ),
    check(
      'of an open file whose last name went gives ENOENT',
      () => {
        const fd = asFd(open('small', O_RDONLY));
        return [unlink('small'), linkat(fd, '', 'new', AT_EMPTY_PATH), kind('new')];
      },
      [0, 'ENOENT', 'ENOENT'],
    ),
    check(
      'by linkat() from a directory',
      () => [linkat(asFd(open('dir', O_DIRECTORY)), 'inside', 'new', 0), text('new')],
      [0, 'inside\n'],
    ),
    check('an unknown flag gives EINVAL', () => linkat(AT_FDCWD, 'small', 'new', 1), 'EINVAL'),
    check(
      'moves the ctime of the file and the times of the directory',
      () => touched(() => link('small', 'dir/new'), ['small', 'dir']),
      { result: 0, small: 'ctime', dir: 'mtime ctime' },
    ),
    check('a removed name moves the ctime of the file', () => touched(() => unlink('hard-1'), ['hard-2', '.']), {
      result: 0,
      'hard-2': 'ctime',
      '.': 'mtime ctime',
    }),
    check('a failing link moves nothing', () => touched(() => link('small', 'other'), ['small', 'other', '.']), {
      result: 'EEXIST',
      small: '',
      other: '',
      '.': '',
    }),
    check(
      'into a directory that may not be written gives EACCES',
      () => asUser(USER, () => link('mine', 'dir/new')),
      'EACCES',
    ),
    check('of an own file', () => asUser(USER, () => [link('mine', 'open/new'), text('open/new')]), [0, 'mine\n']),
    check(
      'of a new file, in the order of calls that a package manager makes',
      () => {
        const fd = open('hollow/tmp', O_RDWR | O_CREAT | O_EXCL);
        return [
          write(fd, 'package'),
          link('hollow/tmp', 'hollow/final'),
          unlink('hollow/tmp'),
          text('hollow/final'),
          links('hollow/final'),
          pread(fd, 100, 0),
        ];
      },
      [7, 0, 0, 'package', 1, 'package'],
    ),
    check(
      'openat() of either name after a rename over the other',
      () => {
        const dirFd = asFd(open('.', O_DIRECTORY));
        return [
          link('small', 'new'),
          rename('other', 'small'),
          pread(openat(dirFd, 'new', O_RDONLY), 5, 0),
          pread(openat(dirFd, 'small', O_RDONLY), 5, 0),
          links('new'),
        ];
      },
      [0, 0, 'small', 'other', 1],
    ),
  ],
};
