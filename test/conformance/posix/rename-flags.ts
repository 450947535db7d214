import { O_CREAT, O_RDONLY, O_RDWR, open, pread, tryOpen, write } from './calls/files.ts';
import { exchange, link, mkdir, RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2, rmdir, unlink } from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, checkLarge, type Group } from './suite/check.ts';
import { USER } from './suite/fixture.ts';
import { identity, kind, links, names, size, text, touched } from './suite/observe.ts';

const make = (path: string, contents = 'new'): unknown => write(open(path, O_RDWR | O_CREAT), contents);
const noReplace = (from: string, to: string): number | string => renameat2(from, to, RENAME_NOREPLACE);

/** renameat2(2) with flags. */
export const RENAME_FLAGS: Group = {
  name: 'rename flags',
  checks: [
    check('NOREPLACE to a free name', () => [noReplace('small', 'new'), text('new'), kind('small')], [
      0,
      'small contents\n',
      'ENOENT',
    ]),
    check('NOREPLACE of a directory to a free name', () => [noReplace('dir', 'new'), names('new')], [
      0,
      ['below', 'inside'],
    ]),
    check('NOREPLACE over a file gives EEXIST', () => [noReplace('small', 'other'), text('other'), text('small')], [
      'EEXIST',
      'other contents\n',
      'small contents\n',
    ]),
    check('NOREPLACE over an empty directory gives EEXIST', () => noReplace('dir', 'hollow'), 'EEXIST'),
    check('NOREPLACE over a symlink to nowhere gives EEXIST', () => noReplace('small', 'to-nowhere'), 'EEXIST'),
    check('NOREPLACE onto itself gives EEXIST', () => noReplace('small', 'small'), 'EEXIST'),
    check('NOREPLACE onto another name of the same file gives EEXIST', () => noReplace('hard-1', 'hard-2'), 'EEXIST'),
    check(
      'NOREPLACE to the name of what was removed',
      () => [unlink('small'), noReplace('other', 'small'), text('small')],
      [0, 0, 'other contents\n'],
    ),
    check(
      'NOREPLACE of a new file over an old one gives EEXIST',
      () => {
        make('new');
        return [noReplace('new', 'small'), text('small'), text('new')];
      },
      ['EEXIST', 'small contents\n', 'new'],
    ),
    check('NOREPLACE from nothing gives ENOENT', () => noReplace('nothing', 'new'), 'ENOENT'),
    check('NOREPLACE from nothing over a file gives ENOENT', () => noReplace('nothing', 'small'), 'ENOENT'),
    check('NOREPLACE of a directory into itself gives EINVAL', () => noReplace('dir', 'dir/new'), 'EINVAL'),

    check('EXCHANGE of two files', () => [exchange('small', 'other'), text('small'), text('other')], [
      0,
      'other contents\n',
      'small contents\n',
    ]),
    check(
      'EXCHANGE keeps identities',
      () => {
        const before = [identity('small'), identity('other')];
        return [exchange('small', 'other'), identity('other') === before[0], identity('small') === before[1]];
      },
      [0, true, true],
    ),
    check(
      'EXCHANGE of an old and a new file',
      () => {
        make('new');
        return [exchange('small', 'new'), text('small'), text('new')];
      },
      [0, 'new', 'small contents\n'],
    ),
    check(
      'EXCHANGE of a new and an old file',
      () => {
        make('new');
        return [exchange('new', 'small'), text('small'), text('new')];
      },
      [0, 'new', 'small contents\n'],
    ),
    checkLarge(
      'EXCHANGE of a large and a small file',
      () => [exchange('large', 'small'), text('large'), size('small'), pread(open('small', O_RDONLY), 8, 1_000_000)],
      [0, 'small contents\n', 3_146_962, '........'],
    ),
    check(
      'EXCHANGE of two directories',
      () => [exchange('dir', 'full'), names('dir'), names('full'), text('full/below/deep')],
      [0, ['file'], ['below', 'inside'], 'deep\n'],
    ),
    check(
      'EXCHANGE of an old and a new directory',
      () => {
        mkdir('new');
        make('new/own');
        return [exchange('dir', 'new'), names('dir'), names('new'), text('new/inside')];
      },
      [0, ['own'], ['below', 'inside'], 'inside\n'],
    ),
    check(
      'EXCHANGE of a directory with an empty one',
      () => [exchange('dir', 'hollow'), names('dir'), names('hollow')],
      [0, [], ['below', 'inside']],
    ),
    check(
      'EXCHANGE of a file and a directory',
      () => [exchange('small', 'dir'), kind('small'), text('dir'), text('small/inside')],
      [0, 'directory', 'small contents\n', 'inside\n'],
    ),
    check(
      'EXCHANGE of a directory and a new file',
      () => {
        make('new');
        return [exchange('dir', 'new'), text('dir'), names('new')];
      },
      [0, 'new', ['below', 'inside']],
    ),
    check(
      'EXCHANGE of a file and a symlink',
      () => [exchange('other', 'to-small'), kind('other'), text('to-small'), text('other')],
      [0, 'symlink', 'other contents\n', 'small contents\n'],
    ),
    check('EXCHANGE of a fifo and a directory', () => [exchange('fifo', 'dir'), kind('dir'), kind('fifo')], [
      0,
      'fifo',
      'directory',
    ]),
    check(
      'EXCHANGE across directories',
      () => [exchange('dir/inside', 'full/file'), text('dir/inside'), text('full/file')],
      [0, 'file\n', 'inside\n'],
    ),
    check(
      'EXCHANGE of a file and a directory across directories',
      () => {
        const before = [links('dir'), links('full')].map(Number);
        const result = exchange('dir/below', 'full/file');
        return [
          result,
          kind('dir/below'),
          names('full/file'),
          Number(links('dir')) - (before[0] ?? 0),
          Number(links('full')) - (before[1] ?? 0),
        ];
      },
      [0, 'file', ['deep'], -1, 1],
    ),
    check('EXCHANGE of a directory and what is in it gives EINVAL', () => exchange('dir', 'dir/below'), 'EINVAL'),
    check('EXCHANGE of what is in a directory and that gives EINVAL', () => exchange('dir/inside', 'dir'), 'EINVAL'),
    check(
      'EXCHANGE of two names of one file does nothing',
      () => [exchange('hard-1', 'hard-2'), links('hard-1'), text('hard-1')],
      [0, 2, 'hard contents\n'],
    ),
    check('EXCHANGE with a name that is not there gives ENOENT', () => [exchange('small', 'nothing'), text('small')], [
      'ENOENT',
      'small contents\n',
    ]),
    check('EXCHANGE with itself does nothing', () => [exchange('small', 'small'), text('small')], [
      0,
      'small contents\n',
    ]),
    check(
      'EXCHANGE there and back',
      () => [exchange('dir', 'full'), exchange('dir', 'full'), names('dir'), names('full')],
      [0, 0, ['below', 'inside'], ['file']],
    ),
    check(
      'EXCHANGE: an exchanged directory can be emptied, removed and made again',
      () => {
        exchange('dir', 'full');
        return [unlink('dir/file'), rmdir('dir'), mkdir('dir'), names('dir'), names('full')];
      },
      [0, 0, 0, [], ['below', 'inside']],
    ),
    check(
      'EXCHANGE: an exchanged old directory takes new files',
      () => {
        exchange('dir', 'hollow');
        return [
          tryOpen('hollow/new', O_RDWR | O_CREAT),
          tryOpen('dir/new', O_RDWR | O_CREAT),
          names('hollow'),
          names('dir'),
        ];
      },
      [0, 0, ['below', 'inside', 'new'], ['new']],
    ),
    check(
      'EXCHANGE moves the times of both directories and both ctimes',
      () => {
        return touched(
          () => exchange('dir/inside', 'full/file'),
          ['dir', 'full', 'dir/inside > full/file', 'full/file > dir/inside'],
        );
      },
      { result: 0, dir: 'mtime ctime', full: 'mtime ctime', 'dir/inside': 'ctime', 'full/file': 'ctime' },
    ),
    check(
      'EXCHANGE: open files stay with their contents',
      () => {
        const fd = open('small', O_RDONLY);
        return [exchange('small', 'other'), pread(fd, 5, 0), text('small')];
      },
      [0, 'small', 'other contents\n'],
    ),
    check(
      'EXCHANGE after a file got a second name',
      () => [link('small', 'new'), exchange('new', 'other'), text('other'), links('other'), text('small')],
      [0, 0, 'small contents\n', 2, 'small contents\n'],
    ),
    check(
      'EXCHANGE in a sticky directory, of another, gives EPERM',
      () => asUser(USER, () => exchange('sticky/mine', 'sticky/theirs')),
      'EPERM',
    ),
    check(
      'EXCHANGE without permission to write gives EACCES',
      () => asUser(USER, () => exchange('dir/inside', 'home/mine')),
      'EACCES',
    ),
    check(
      'NOREPLACE and EXCHANGE together give EINVAL',
      () => renameat2('small', 'other', RENAME_NOREPLACE | RENAME_EXCHANGE),
      'EINVAL',
    ),
    check('an unknown flag gives EINVAL', () => renameat2('small', 'other', 64), 'EINVAL'),
  ],
};
