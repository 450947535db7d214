import { chmod } from './calls/attributes.ts';
import { O_CREAT, O_DIRECTORY, O_EXCL, O_RDWR, open, tryOpen, write } from './calls/files.ts';
import { asFd } from './calls/libc.ts';
import { mkdir, rename, symlink, unlink, unlinkat } from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, checkLarge, type Group } from './suite/check.ts';
import { USER } from './suite/fixture.ts';
import { kind, links, names, text, touched } from './suite/observe.ts';

/** unlink(2). */
export const UNLINK: Group = {
  name: 'unlink',
  checks: [
    check('a file is gone', () => [unlink('small'), kind('small'), unlink('small')], [0, 'ENOENT', 'ENOENT']),
    check('its name leaves the directory', () => [unlink('dir/inside'), names('dir')], [0, ['below']]),
    check(
      'a new file is gone',
      () => [tryOpen('hollow/new', O_RDWR | O_CREAT), unlink('hollow/new'), names('hollow'), kind('hollow/new')],
      [0, 0, [], 'ENOENT'],
    ),
    checkLarge('a large file is gone', () => [unlink('large'), kind('large')], [0, 'ENOENT']),
    check('a fifo', () => [unlink('fifo'), kind('fifo')], [0, 'ENOENT']),
    check('a device', () => [unlink('null'), kind('null')], [0, 'ENOENT']),
    check('a symlink, not what it leads to', () => [unlink('to-small'), kind('to-small'), text('small')], [
      0,
      'ENOENT',
      'small contents\n',
    ]),
    check('a symlink to a directory', () => [unlink('to-dir'), names('dir')], [0, ['below', 'inside']]),
    check('a symlink to nowhere, and one of a circle', () => [unlink('to-nowhere'), unlink('loop-1'), kind('loop-2')], [
      0,
      0,
      'symlink',
    ]),
    check('a directory gives EISDIR', () => [unlink('hollow'), unlink('dir')], ['EISDIR', 'EISDIR']),
    check('a new directory gives EISDIR', () => [mkdir('new'), unlink('new')], [0, 'EISDIR']),
    check('a file with a slash behind it gives ENOTDIR', () => unlink('small/'), 'ENOTDIR'),
    check('. gives EINVAL or EISDIR', () => unlink('dir/.'), 'EISDIR'),
    check('through a symlink to a directory', () => [unlink('to-dir/inside'), names('dir')], [0, ['below']]),
    check(
      'unlinkat() starts at the directory it is given',
      () => [unlinkat(asFd(open('dir', O_DIRECTORY)), 'inside'), names('dir')],
      [0, ['below']],
    ),
    check('unlinkat() of a directory without AT_REMOVEDIR gives EISDIR', () => unlinkat(-100, 'hollow'), 'EISDIR'),
    check('unlinkat() with an unknown flag gives EINVAL', () => unlinkat(-100, 'small', 1), 'EINVAL'),
    check(
      'a file that may not be written',
      () => [chmod('home/mine', 0), asUser(USER, () => unlink('home/mine'))],
      [0, 0],
    ),
    check(
      'a file of another in an own directory',
      () => [tryOpen('home/roots', O_RDWR | O_CREAT), asUser(USER, () => unlink('home/roots'))],
      [0, 0],
    ),
    check(
      'in a directory of another gives EACCES',
      () => [asUser(USER, () => unlink('dir/inside')), text('dir/inside')],
      ['EACCES', 'inside\n'],
    ),
    check(
      'in a sticky directory, of another, gives EPERM',
      () => [asUser(USER, () => unlink('sticky/theirs')), text('sticky/theirs')],
      ['EPERM', 'theirs\n'],
    ),
    check('in a sticky directory, an own file', () => asUser(USER, () => unlink('sticky/mine')), 0),
    check('moves the times of the directory', () => touched(() => unlink('full/file'), ['full', 'dir']), {
      result: 0,
      full: 'mtime ctime',
      dir: '',
    }),
    check('a failing one moves nothing', () => touched(() => unlink('full/nothing'), ['full']), {
      result: 'ENOENT',
      full: '',
    }),
    check('the name is free for a directory', () => [unlink('small'), mkdir('small'), kind('small')], [
      0,
      0,
      'directory',
    ]),
    check('the name is free for a symlink', () => [unlink('small'), symlink('other', 'small'), text('small')], [
      0,
      0,
      'other contents\n',
    ]),
    check(
      'the name is free for another file',
      () => [unlink('small'), rename('other', 'small'), text('small'), names('hollow')],
      [0, 0, 'other contents\n', []],
    ),
    check(
      'the name is free for O_EXCL',
      () => [unlink('small'), write(open('small', O_RDWR | O_CREAT | O_EXCL), 'new'), text('small'), links('small')],
      [0, 3, 'new', 1],
    ),
    check(
      'removed and made ten times',
      () => {
        const results = new Set<unknown>();
        for (let round = 0; round < 10; round++) {
          results.add(unlink('small'));
          results.add(kind('small'));
          results.add(write(open('small', O_RDWR | O_CREAT | O_EXCL), `round ${round}`));
        }
        return [[...results].map(String), text('small')];
      },
      [['0', 'ENOENT', '7'], 'round 9'],
    ),
    check(
      'every file of a directory, in the order they are listed',
      () => {
        for (let at = 0; at < 60; at++) tryOpen(`full/f${at}`, O_RDWR | O_CREAT);
        const list = names('full');
        return [
          list.length,
          typeof list === 'string' ? list : list.filter((name) => unlink(`full/${name}`) !== 0),
          names('full'),
        ];
      },
      [61, [], []],
    ),
  ],
};
