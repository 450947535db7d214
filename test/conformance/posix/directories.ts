import { chmod, umask } from './calls/attributes.ts';
import { fsync, O_CREAT, O_DIRECTORY, O_RDONLY, O_RDWR, open, openat, tryOpen, write } from './calls/files.ts';
import { asFd } from './calls/libc.ts';
import {
  AT_REMOVEDIR,
  chdir,
  getcwd,
  mkdir,
  mkdirat,
  rename,
  rmdir,
  symlink,
  unlink,
  unlinkat,
} from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, type Group } from './suite/check.ts';
import { OTHER, USER } from './suite/fixture.ts';
import { identity, kind, links, mode, names, owner, text, touched } from './suite/observe.ts';

/** Removes `full`, which is not empty, and what it holds. */
const emptyAndRemove = (): readonly (number | string)[] => [unlink('full/file'), rmdir('full')];

/** mkdir(2), rmdir(2), and where they meet a checkpoint's directories. */
export const DIRECTORIES: Group = {
  name: 'directories',
  checks: [
    check('mkdir() makes an empty directory', () => [mkdir('new'), kind('new'), names('new')], [0, 'directory', []]),
    check('mkdir() with a slash behind the name', () => [mkdir('new/'), kind('new')], [0, 'directory']),
    check('mkdir() in an old directory', () => [mkdir('dir/new'), names('dir')], [0, ['below', 'inside', 'new']]),
    check('mkdir() through a symlink to a directory', () => [mkdir('to-dir/new'), names('dir')], [
      0,
      ['below', 'inside', 'new'],
    ]),
    check('mkdir() of what is there gives EEXIST: a directory', () => mkdir('dir'), 'EEXIST'),
    check('mkdir() of what is there gives EEXIST: a file', () => mkdir('small'), 'EEXIST'),
    check('mkdir() of what is there gives EEXIST: a fifo', () => mkdir('fifo'), 'EEXIST'),
    check('mkdir() of what is there gives EEXIST: a symlink to nowhere', () => [mkdir('to-nowhere'), kind('nowhere')], [
      'EEXIST',
      'ENOENT',
    ]),
    check('mkdir() of . and .. gives EEXIST', () => [mkdir('.'), mkdir('..'), mkdir('dir/.')], [
      'EEXIST',
      'EEXIST',
      'EEXIST',
    ]),
    check(
      'mkdir() mode less the mask',
      () => [mkdir('new', 0o777), mode('new'), umask(0o027), mkdir('more', 0o777), mode('more')],
      [0, '755', 0o022, 0, '750'],
    ),
    check('mkdir() keeps sticky and drops suid', () => [mkdir('new', 0o7777), mode('new')], [0, '1755']),
    check(
      'mkdir() in a setgid directory: its group and its bit',
      () => asUser(USER, () => [mkdir('setgid/new'), owner('setgid/new'), mode('setgid/new')]),
      [0, '1001:1002', '2755'],
    ),
    check(
      'mkdir() in a setgid directory twice down',
      () => [mkdir('setgid/new'), mkdir('setgid/new/more'), owner('setgid/new/more'), mode('setgid/new/more')],
      [0, 0, '0:1002', '2755'],
    ),
    check(
      'mkdir() belongs to who made it',
      () => asUser(USER, () => [mkdir('open/new'), owner('open/new')], { gid: OTHER }),
      [0, '1001:1002'],
    ),
    check('mkdir() moves the times of the parent', () => touched(() => mkdir('dir/new'), ['dir', 'small']), {
      result: 0,
      dir: 'mtime ctime',
      small: '',
    }),
    check(
      'mkdirat() starts at the directory it is given',
      () => [mkdirat(asFd(open('dir', O_RDONLY | O_DIRECTORY)), 'new'), kind('dir/new')],
      [0, 'directory'],
    ),
    check('rmdir() of an empty directory', () => [rmdir('hollow'), kind('hollow')], [0, 'ENOENT']),
    check('rmdir() with a slash behind the name', () => [rmdir('hollow/'), kind('hollow')], [0, 'ENOENT']),
    check('rmdir() takes the name from the parent', () => [mkdir('dir/new'), rmdir('dir/new'), names('dir')], [
      0,
      0,
      ['below', 'inside'],
    ]),
    check('rmdir() of a directory with a file gives ENOTEMPTY', () => [rmdir('full'), names('full')], [
      'ENOTEMPTY',
      ['file'],
    ]),
    check('rmdir() of a directory with a directory gives ENOTEMPTY', () => [unlink('dir/inside'), rmdir('dir')], [
      0,
      'ENOTEMPTY',
    ]),
    check(
      'rmdir() of a directory with a new file gives ENOTEMPTY',
      () => [tryOpen('hollow/new', O_CREAT | O_RDWR), rmdir('hollow')],
      [0, 'ENOTEMPTY'],
    ),
    check('rmdir() of a file gives ENOTDIR', () => rmdir('small'), 'ENOTDIR'),
    check('rmdir() of a fifo gives ENOTDIR', () => rmdir('fifo'), 'ENOTDIR'),
    check('rmdir() of a symlink to a directory gives ENOTDIR', () => rmdir('to-dir'), 'ENOTDIR'),
    check('rmdir() of . gives EINVAL', () => rmdir('hollow/.'), 'EINVAL'),
    check('rmdir() of .. gives ENOTEMPTY', () => rmdir('dir/below/..'), 'ENOTEMPTY'),
    check('rmdir() without permission to write the parent gives EACCES', () => asUser(USER, () => rmdir('hollow')), 0),
    check('rmdir() below a directory of another gives EACCES', () => asUser(USER, () => rmdir('dir/below')), 'EACCES'),
    check(
      'rmdir() in a sticky directory by a stranger gives EPERM',
      () => [mkdir('sticky/new'), asUser(USER, () => rmdir('sticky/new'))],
      [0, 'EPERM'],
    ),
    check(
      'rmdir() in a sticky directory by the owner',
      () => asUser(USER, () => [mkdir('sticky/new'), rmdir('sticky/new')]),
      [0, 0],
    ),
    check(
      'rmdir() needs no permission on the directory itself',
      () => [chmod('hollow', 0), asUser(USER, () => rmdir('hollow'))],
      [0, 0],
    ),
    check(
      'rmdir() moves the times of the parent',
      () => [unlink('dir/below/deep'), touched(() => rmdir('dir/below'), ['dir', 'small'])],
      [0, { result: 0, dir: 'mtime ctime', small: '' }],
    ),
    check('rmdir() after emptying', emptyAndRemove, [0, 0]),
    check(
      'rmdir() after emptying and mkdir(): empty',
      () => [emptyAndRemove(), mkdir('full'), names('full'), kind('full/file')],
      [[0, 0], 0, [], 'ENOENT'],
    ),
    check(
      'rmdir(), mkdir(), twice: still empty',
      () => {
        return [
          emptyAndRemove(),
          mkdir('full'),
          rmdir('full'),
          mkdir('full'),
          names('full'),
          rmdir('full'),
          kind('full'),
        ];
      },
      [[0, 0], 0, 0, 0, [], 0, 'ENOENT'],
    ),
    check(
      'rmdir() and mkdir(): another directory with a mode of its own',
      () => [
        mode('hollow'),
        chmod('hollow', 0o700),
        rmdir('hollow'),
        mkdir('hollow', 0o750),
        mode('hollow'),
        links('hollow/x'),
      ],
      ['755', 0, 0, 0, '750', 'ENOENT'],
    ),
    check(
      'a new file in a directory made anew has the old name',
      () => {
        emptyAndRemove();
        return [mkdir('full'), write(open('full/file', O_RDWR | O_CREAT), 'new'), text('full/file'), names('full')];
      },
      [0, 3, 'new', ['file']],
    ),
    check(
      'a new directory below one made anew has the old name',
      () => {
        const gone = [unlink('dir/below/deep'), rmdir('dir/below'), unlink('dir/inside'), rmdir('dir')];
        return [gone, mkdir('dir'), mkdir('dir/below'), names('dir/below'), names('dir')];
      },
      [[0, 0, 0, 0], 0, 0, [], ['below']],
    ),
    check('a directory in place of a file', () => [unlink('small'), mkdir('small'), kind('small'), names('small')], [
      0,
      0,
      'directory',
      [],
    ]),
    check(
      'a directory in place of a symlink to a directory',
      () => [unlink('to-dir'), mkdir('to-dir'), names('to-dir'), names('dir')],
      [0, 0, [], ['below', 'inside']],
    ),
    check('a symlink in place of a directory', () => [emptyAndRemove(), symlink('dir', 'full'), names('full')], [
      [0, 0],
      0,
      ['below', 'inside'],
    ]),
    check(
      'a file in place of a directory, a directory in place of the file',
      () => {
        return [emptyAndRemove(), tryOpen('full', O_CREAT | O_RDWR), unlink('full'), mkdir('full'), names('full')];
      },
      [[0, 0], 0, 0, 0, []],
    ),
    check(
      'a moved directory in place of a removed one does not show what that held',
      () => [
        emptyAndRemove(),
        mkdir('new'),
        tryOpen('new/own', O_CREAT | O_RDWR),
        rename('new', 'full'),
        names('full'),
      ],
      [[0, 0], 0, 0, 0, ['own']],
    ),
    check(
      'unlinkat(AT_REMOVEDIR) is rmdir()',
      () => [
        unlinkat(-100, 'hollow', AT_REMOVEDIR),
        unlinkat(-100, 'full', AT_REMOVEDIR),
        unlinkat(-100, 'small', AT_REMOVEDIR),
      ],
      [0, 'ENOTEMPTY', 'ENOTDIR'],
    ),
    check(
      'a new directory has two links, and its parent one more',
      () => {
        const before = links('dir');
        return [mkdir('dir/new'), links('dir/new'), Number(links('dir')) - Number(before)];
      },
      [0, 2, 1],
    ),
    check(
      'a removed directory takes a link from its parent',
      () => {
        const before = links('dir');
        return [unlink('dir/below/deep'), rmdir('dir/below'), Number(links('dir')) - Number(before)];
      },
      [0, 0, -1],
    ),
    check(
      'a directory has two links and one for each directory in it',
      () => [links('dir'), links('hollow'), links('full')],
      [3, 2, 2],
    ),
    check(
      'a file in it gives a directory no link',
      () => {
        const before = links('hollow');
        return [tryOpen('hollow/new', O_CREAT | O_RDWR), links('hollow') === before];
      },
      [0, true],
    ),
    check(
      '.. of a directory is its parent',
      () => [identity('dir/below/..') === identity('dir'), identity('dir/..') === identity('.')],
      [true, true],
    ),
    check(
      '.. of a moved directory is its new parent',
      () => [mkdir('new'), rename('new', 'dir/new'), identity('dir/new/..') === identity('dir')],
      [0, 0, true],
    ),
    check('. of a directory is that directory', () => identity('dir/.') === identity('dir'), true),
    check(
      'chdir() into a directory, its names are there',
      () => [chdir('dir'), text('inside'), text('below/deep'), text('../small')],
      [0, 'inside\n', 'deep\n', 'small contents\n'],
    ),
    check('chdir() to a file gives ENOTDIR', () => chdir('small'), 'ENOTDIR'),
    check('chdir() without permission to search gives EACCES', () => asUser(USER, () => chdir('closed')), 'EACCES'),
    check(
      'in a removed working directory nothing can be made',
      () => {
        return [
          chdir('hollow'),
          rmdir('../hollow'),
          tryOpen('new', O_CREAT | O_RDWR),
          mkdir('new'),
          names('.'),
          getcwd(),
        ];
      },
      [0, 0, 'ENOENT', 'ENOENT', [], 'ENOENT'],
    ),
    check(
      'out of a removed working directory .. leads on',
      () => [chdir('hollow'), rmdir('../hollow'), chdir('..'), text('small')],
      [0, 0, 0, 'small contents\n'],
    ),
    check(
      'a working directory that was moved goes on',
      () => [
        mkdir('new'),
        chdir('new'),
        rename('../new', '../dir/moved'),
        tryOpen('made', O_CREAT | O_RDWR),
        text('../inside'),
        getcwd().split('/').slice(-2).join('/'),
      ],
      [0, 0, 0, 0, 'inside\n', 'dir/moved'],
    ),
    check(
      'openat() in a removed directory gives ENOENT',
      () => {
        const dirFd = asFd(open('hollow', O_RDONLY | O_DIRECTORY));
        return [rmdir('hollow'), openat(dirFd, 'new', O_RDWR | O_CREAT), mkdirat(dirFd, 'new')];
      },
      [0, 'ENOENT', 'ENOENT'],
    ),
    check('fsync() of a directory', () => fsync(open('dir', O_RDONLY | O_DIRECTORY)), 0),
    check(
      'fsync() of a directory after a new name',
      () => [mkdir('dir/new'), fsync(open('dir', O_RDONLY)), fsync(open('dir/new', O_RDONLY))],
      [0, 0, 0],
    ),
    check(
      'a deep path of new directories',
      () => {
        for (let depth = 1; depth <= 40; depth++) mkdir(`hollow${'/d'.repeat(depth)}`);
        return [
          tryOpen(`hollow${'/d'.repeat(40)}/file`, O_RDWR | O_CREAT),
          names(`hollow${'/d'.repeat(40)}`),
          names('hollow'),
        ];
      },
      [0, ['file'], ['d']],
    ),
  ],
};
