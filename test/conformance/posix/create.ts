import { chmod, umask } from './calls/attributes.ts';
import {
  O_APPEND,
  O_CREAT,
  O_EXCL,
  O_NOFOLLOW,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
  open,
  read,
  tryOpen,
  write,
} from './calls/files.ts';
import { mkdir, rename, rmdir, symlink, unlink } from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, type Group, type Observation } from './suite/check.ts';
import { OTHER, USER } from './suite/fixture.ts';
import { identity, kind, links, mode, mtimeNs, names, owner, size, text, touched } from './suite/observe.ts';

/** Makes an empty file, and fails where there is one. */
const create = (path: string, permissions = 0o644): Observation =>
  tryOpen(path, O_WRONLY | O_CREAT | O_EXCL, permissions);

/** open(2) with O_CREAT. */
export const CREATE: Group = {
  name: 'create',
  checks: [
    check('a new file is there, empty, with one name', () => [create('new'), kind('new'), size('new'), links('new')], [
      0,
      'file',
      0,
      1,
    ]),
    check('a new file in a directory', () => [create('dir/new'), names('dir')], [0, ['below', 'inside', 'new']]),
    check('a new file in an empty directory', () => [create('hollow/new'), names('hollow')], [0, ['new']]),
    check('a new file below a directory below', () => [create('dir/below/new'), names('dir/below')], [
      0,
      ['deep', 'new'],
    ]),
    check('a new file through a symlink to a directory', () => [create('to-dir/new'), names('dir')], [
      0,
      ['below', 'inside', 'new'],
    ]),
    check('what is written into it is there', () => [write(open('new', O_RDWR | O_CREAT), 'written'), text('new')], [
      7,
      'written',
    ]),
    check('twice with O_EXCL gives EEXIST', () => [create('new'), create('new')], [0, 'EEXIST']),
    check(
      'it appears among the names at once',
      () => {
        const before = names('hollow');
        return [before, create('hollow/new'), names('hollow')];
      },
      [[], 0, ['new']],
    ),
    check('mode 0777 less the mask 022', () => [create('new', 0o777), mode('new')], [0, '755']),
    check('mode 0666 less the mask 077', () => [umask(0o077), create('new', 0o666), mode('new')], [0o022, 0, '600']),
    check('mode 0777 with the mask 0', () => [umask(0), create('new', 0o777), mode('new')], [0o022, 0, '777']),
    check(
      'mode 0 makes a file that its maker may write',
      () => {
        const fd = open('new', O_WRONLY | O_CREAT | O_EXCL, 0);
        return [write(fd, 'x'), mode('new'), size('new')];
      },
      [1, '0', 1],
    ),
    check(
      'mode 0444 with O_RDWR: the maker may write',
      () =>
        asUser(USER, () => {
          const fd = open('open/new', O_RDWR | O_CREAT, 0o444);
          return [write(fd, 'x'), open('open/new', O_RDWR)];
        }),
      [1, 'EACCES'],
    ),
    check('suid, sgid and sticky are kept', () => [create('new', 0o7755), mode('new')], [0, '7755']),
    check('it belongs to who made it', () => asUser(USER, () => [create('open/new'), owner('open/new')]), [
      0,
      '1001:1001',
    ]),
    check(
      'its group is the effective one',
      () => {
        return asUser(USER, () => [create('open/new'), owner('open/new')], { gid: OTHER });
      },
      [0, '1001:1002'],
    ),
    check(
      'in a setgid directory it gets its group',
      () => asUser(USER, () => [create('setgid/new'), owner('setgid/new'), mode('setgid/new')]),
      [0, '1001:1002', '644'],
    ),
    check(
      'in a setgid directory sgid with execution by a stranger to the group is dropped',
      () => {
        return asUser(USER, () => [create('setgid/new', 0o2755), mode('setgid/new')]);
      },
      [0, '755'],
    ),
    check(
      'in a setgid directory a member of the group keeps sgid',
      () => {
        return asUser(USER, () => [create('setgid/new', 0o2755), mode('setgid/new')], { groups: [OTHER] });
      },
      [0, '2755'],
    ),
    check(
      'without permission to write the directory gives EACCES',
      () => asUser(USER, () => create('dir/new')),
      'EACCES',
    ),
    check(
      'without permission to write, what is there opens with O_CREAT',
      () => asUser(USER, () => tryOpen('dir/inside', O_RDONLY | O_CREAT)),
      0,
    ),
    check(
      'in a sticky directory everybody makes files',
      () => asUser(USER, () => [create('sticky/new'), owner('sticky/new')]),
      [0, '1001:1001'],
    ),
    check('in a directory that is not there gives ENOENT', () => create('nothing/new'), 'ENOENT'),
    check('below a file gives ENOTDIR', () => create('small/new'), 'ENOTDIR'),
    check('below a fifo gives ENOTDIR', () => create('fifo/new'), 'ENOTDIR'),
    check('below a symlink to nowhere gives ENOENT', () => create('to-nowhere/new'), 'ENOENT'),
    check('a new name with a slash behind it gives EISDIR', () => open('new/', O_WRONLY | O_CREAT), 'EISDIR'),
    check(
      'through a symlink to nowhere: the target is made',
      () => [tryOpen('to-nowhere', O_WRONLY | O_CREAT), kind('nowhere'), kind('to-nowhere')],
      [0, 'file', 'symlink'],
    ),
    check(
      'through a symlink to nowhere with O_NOFOLLOW gives ELOOP',
      () => open('to-nowhere', O_WRONLY | O_CREAT | O_NOFOLLOW),
      'ELOOP',
    ),
    check('through symlinks in a circle gives ELOOP', () => open('loop-1', O_WRONLY | O_CREAT), 'ELOOP'),
    check(
      'through a symlink to a file opens that',
      () => [tryOpen('to-small', O_WRONLY | O_CREAT | O_TRUNC), size('small')],
      [0, 0],
    ),
    check('it moves the times of the directory', () => touched(() => create('dir/new'), ['dir', '.']), {
      result: 0,
      dir: 'mtime ctime',
      '.': '',
    }),
    check(
      'opening what is there with O_CREAT moves no time',
      () => touched(() => tryOpen('dir/inside', O_RDWR | O_CREAT), ['dir', 'dir/inside']),
      { result: 0, dir: '', 'dir/inside': '' },
    ),
    check('a failing O_EXCL moves no time', () => touched(() => create('dir/inside'), ['dir', 'dir/inside']), {
      result: 'EEXIST',
      dir: '',
      'dir/inside': '',
    }),
    check(
      'in place of a file that was removed: a new one',
      () => {
        const before = [mtimeNs('small')];
        return [unlink('small'), create('small'), text('small'), mode('small'), before[0] === mtimeNs('small')];
      },
      [0, 0, '', '644', false],
    ),
    check(
      'in place of a file of another owner and mode',
      () => [unlink('mine'), create('mine', 0o640), owner('mine'), mode('mine'), links('mine')],
      [0, 0, '0:0', '640', 1],
    ),
    check(
      'in place of a symlink that was removed',
      () => [unlink('to-small'), create('to-small'), kind('to-small'), text('small')],
      [0, 0, 'file', 'small contents\n'],
    ),
    check(
      'in place of a directory that was removed',
      () => [rmdir('hollow'), create('hollow'), kind('hollow'), size('hollow')],
      [0, 0, 'file', 0],
    ),
    check('in place of a fifo that was removed', () => [unlink('fifo'), create('fifo'), kind('fifo')], [0, 0, 'file']),
    check(
      'in place of one of two names: a file of its own',
      () => {
        return [
          unlink('hard-1'),
          write(open('hard-1', O_WRONLY | O_CREAT), 'own'),
          text('hard-2'),
          links('hard-2'),
          links('hard-1'),
        ];
      },
      [0, 3, 'hard contents\n', 1, 1],
    ),
    check(
      'in place of a file that was moved away',
      () => [rename('small', 'moved'), write(open('small', O_RDWR | O_CREAT), 'new'), text('small'), text('moved')],
      [0, 3, 'new', 'small contents\n'],
    ),
    check(
      'in a directory that was removed and made again',
      () => {
        return [
          unlink('full/file'),
          rmdir('full'),
          mkdir('full'),
          names('full'),
          create('full/file'),
          text('full/file'),
        ];
      },
      [0, 0, 0, [], 0, ''],
    ),
    check(
      'a hundred files, a hundred names',
      () => {
        for (let at = 0; at < 100; at++) tryOpen(`hollow/f${at}`, O_WRONLY | O_CREAT | O_EXCL);
        return names('hollow').length;
      },
      100,
    ),
    check(
      'each new file has an identity of its own',
      () => {
        for (let at = 0; at < 50; at++) tryOpen(`hollow/f${at}`, O_WRONLY | O_CREAT | O_EXCL);
        return new Set(Array.from({ length: 50 }, (_, at) => identity(`hollow/f${at}`))).size;
      },
      50,
    ),
    check(
      'O_APPEND with O_CREAT',
      () => {
        const fd = open('new', O_WRONLY | O_CREAT | O_APPEND);
        return [write(fd, 'a'), write(open('new', O_WRONLY | O_APPEND), 'b'), write(fd, 'c'), text('new')];
      },
      [1, 1, 1, 'abc'],
    ),
    check('O_RDONLY with O_CREAT makes an empty file', () => [read(open('new', O_RDONLY | O_CREAT), 5), kind('new')], [
      '',
      'file',
    ]),
    check(
      'through a new symlink into an old directory',
      () => [symlink('dir/target', 'new-link'), create('dir/target'), tryOpen('new-link', O_RDWR), kind('dir/target')],
      [0, 0, 0, 'file'],
    ),
    check(
      'after the directory was closed to its user gives EACCES',
      () => [chmod('open', 0o555), asUser(USER, () => create('open/new'))],
      [0, 'EACCES'],
    ),
  ],
};
