import { chmod, setxattr, getxattr } from './calls/attributes.ts';
import { O_CREAT, O_RDONLY, O_RDWR, open, pread, pwrite, tryOpen, write } from './calls/files.ts';
import { link, mkdir, rename, rmdir, symlink, unlink, readlink } from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, checkLarge, type Group } from './suite/check.ts';
import { USER } from './suite/fixture.ts';
import { brief, identity, kind, links, mode, mtimeNs, names, owner, size, text, touched } from './suite/observe.ts';

const make = (path: string, contents = 'new'): unknown => write(open(path, O_RDWR | O_CREAT), contents);

/** rename(2). */
export const RENAME: Group = {
  name: 'rename',
  checks: [
    check('a file gets another name', () => [rename('small', 'new'), kind('small'), text('new')], [
      0,
      'ENOENT',
      'small contents\n',
    ]),
    check(
      'a file goes into another directory',
      () => [rename('small', 'hollow/small'), names('hollow'), text('hollow/small'), kind('small')],
      [0, ['small'], 'small contents\n', 'ENOENT'],
    ),
    check('a file comes out of a directory', () => [rename('dir/inside', 'new'), names('dir'), text('new')], [
      0,
      ['below'],
      'inside\n',
    ]),
    check(
      'a file goes from one directory to another',
      () => [rename('dir/inside', 'full/inside'), names('dir'), names('full')],
      [0, ['below'], ['file', 'inside']],
    ),
    checkLarge(
      'a large file keeps what it holds',
      () => {
        return [rename('large', 'dir/new'), size('dir/new'), pread(open('dir/new', O_RDONLY), 16, 3_000_000)];
      },
      [0, 3_146_962, '........3000000\n'],
    ),
    check('an empty file', () => [rename('empty', 'new'), size('new')], [0, 0]),
    check(
      'a file stays itself: identity, mode, owner, mtime',
      () => {
        const before = [identity('mine'), mode('mine'), owner('mine'), mtimeNs('mine')].join();
        return [rename('mine', 'new'), [identity('new'), mode('new'), owner('new'), mtimeNs('new')].join() === before];
      },
      [0, true],
    ),
    check('suid stays', () => [rename('suid', 'new'), mode('new'), owner('new')], [0, '6755', '1001:1001']),
    check('attributes stay', () => [rename('attributed', 'new'), getxattr('new', 'user.one')], [0, 'first']),
    check('a fifo', () => [rename('fifo', 'new'), kind('new'), kind('fifo')], [0, 'fifo', 'ENOENT']),
    check('a device', () => [rename('null', 'new'), kind('new'), kind('null')], [0, 'char device', 'ENOENT']),
    check('a symlink itself', () => [rename('to-small', 'new'), readlink('new'), kind('small')], [0, 'small', 'file']),
    check('a symlink to a directory itself', () => [rename('to-dir', 'new'), kind('new'), names('new')], [
      0,
      'symlink',
      ['below', 'inside'],
    ]),
    check(
      'one of two names: they stay one file',
      () => {
        return [rename('hard-1', 'new'), identity('new') === identity('hard-2'), links('new'), kind('hard-1')];
      },
      [0, true, 2, 'ENOENT'],
    ),
    check('an empty directory', () => [rename('hollow', 'new'), kind('new'), kind('hollow'), names('new')], [
      0,
      'directory',
      'ENOENT',
      [],
    ]),
    check(
      'a directory with what it holds',
      () => [rename('dir', 'new'), kind('dir'), names('new'), text('new/below/deep')],
      [0, 'ENOENT', ['below', 'inside'], 'deep\n'],
    ),
    check(
      'a directory into another one',
      () => [rename('dir', 'full/dir'), text('full/dir/inside'), text('full/file')],
      [0, 'inside\n', 'file\n'],
    ),
    check('a directory out of another one', () => [rename('dir/below', 'new'), names('dir'), text('new/deep')], [
      0,
      ['inside'],
      'deep\n',
    ]),
    check(
      'a directory keeps identity and mode',
      () => {
        const before = [identity('home'), mode('home'), owner('home')].join();
        return [rename('home', 'new'), [identity('new'), mode('new'), owner('new')].join() === before];
      },
      [0, true],
    ),
    check(
      'a directory with a new file in it',
      () => {
        make('dir/new');
        return [rename('dir', 'moved'), text('moved/new'), text('moved/inside')];
      },
      [0, 'new', 'inside\n'],
    ),
    check(
      'a directory with a removed file in it',
      () => [unlink('dir/inside'), rename('dir', 'moved'), names('moved')],
      [0, 0, ['below']],
    ),
    check(
      'a moved directory can be changed',
      () => {
        rename('dir', 'moved');
        make('moved/below/new');
        return [
          names('moved/below'),
          write(open('moved/inside', O_RDWR), 'I'),
          text('moved/inside'),
          unlink('moved/below/deep'),
        ];
      },
      [['deep', 'new'], 1, 'Inside\n', 0],
    ),
    check(
      'a moved directory can be emptied and removed',
      () => {
        rename('full', 'moved');
        return [unlink('moved/file'), rmdir('moved'), kind('moved'), kind('full')];
      },
      [0, 0, 'ENOENT', 'ENOENT'],
    ),
    check(
      'a directory there and back',
      () => [rename('dir', 'moved'), rename('moved', 'dir'), names('dir'), text('dir/below/deep')],
      [0, 0, ['below', 'inside'], 'deep\n'],
    ),
    check('a directory twice on', () => [rename('dir', 'one'), rename('one', 'full/two'), text('full/two/inside')], [
      0,
      0,
      'inside\n',
    ]),
    check(
      'a directory made in place of a moved one is empty',
      () => [rename('dir', 'moved'), mkdir('dir'), names('dir'), names('moved')],
      [0, 0, [], ['below', 'inside']],
    ),
    check(
      'a file made in place of a moved directory',
      () => {
        rename('dir', 'moved');
        make('dir');
        return [kind('dir'), text('moved/inside')];
      },
      ['file', 'inside\n'],
    ),
    check(
      'a directory within a moved directory moves on',
      () => [rename('dir', 'moved'), rename('moved/below', 'below'), text('below/deep'), names('moved')],
      [0, 0, 'deep\n', ['inside']],
    ),
    check(
      'a moved directory gives its parent its link',
      () => {
        const before = [links('dir'), links('full')].map(Number);
        const result = rename('dir/below', 'full/below');
        return [result, Number(links('dir')) - (before[0] ?? 0), Number(links('full')) - (before[1] ?? 0)];
      },
      [0, -1, 1],
    ),

    check('over a file: that is gone', () => [rename('small', 'other'), text('other'), kind('small'), mode('other')], [
      0,
      'small contents\n',
      'ENOENT',
      '644',
    ]),
    check('over a file in another directory', () => [rename('small', 'dir/inside'), text('dir/inside'), names('dir')], [
      0,
      'small contents\n',
      ['below', 'inside'],
    ]),
    check(
      'a new file over an old one',
      () => {
        make('new');
        return [rename('new', 'small'), text('small'), kind('new')];
      },
      [0, 'new', 'ENOENT'],
    ),
    check(
      'an old file over a new one',
      () => {
        make('new');
        return [rename('small', 'new'), text('new'), kind('small')];
      },
      [0, 'small contents\n', 'ENOENT'],
    ),
    checkLarge(
      'a new file over a large one',
      () => {
        make('new');
        return [rename('new', 'large'), text('large')];
      },
      [0, 'new'],
    ),
    check(
      'over one of two names: the other stays',
      () => [rename('small', 'hard-1'), text('hard-2'), links('hard-2'), text('hard-1')],
      [0, 'hard contents\n', 1, 'small contents\n'],
    ),
    check('over a fifo', () => [rename('small', 'fifo'), kind('fifo')], [0, 'file']),
    check(
      'over a symlink: the symlink is replaced',
      () => [rename('other', 'to-small'), kind('to-small'), text('small')],
      [0, 'file', 'small contents\n'],
    ),
    check('a symlink over a file', () => [rename('to-small', 'other'), kind('other'), text('other')], [
      0,
      'symlink',
      'small contents\n',
    ]),
    check('a fifo over a file', () => [rename('fifo', 'small'), kind('small')], [0, 'fifo']),
    check('over an empty directory', () => [rename('dir', 'hollow'), names('hollow'), kind('dir')], [
      0,
      ['below', 'inside'],
      'ENOENT',
    ]),
    check(
      'a new directory over an empty one',
      () => {
        mkdir('new');
        make('new/own');
        return [rename('new', 'hollow'), names('hollow')];
      },
      [0, ['own']],
    ),
    check(
      'a new directory over one that was emptied shows nothing of it',
      () => {
        mkdir('new');
        make('new/own');
        return [unlink('full/file'), rename('new', 'full'), names('full'), kind('full/file')];
      },
      [0, 0, ['own'], 'ENOENT'],
    ),
    check(
      'over a directory with something in it gives ENOTEMPTY',
      () => [rename('hollow', 'dir'), names('dir'), kind('hollow')],
      ['ENOTEMPTY', ['below', 'inside'], 'directory'],
    ),
    check(
      'a new directory over one with something in it gives ENOTEMPTY',
      () => [mkdir('new'), rename('new', 'full'), names('full')],
      [0, 'ENOTEMPTY', ['file']],
    ),
    check('a file over a directory gives EISDIR', () => [rename('small', 'hollow'), text('small')], [
      'EISDIR',
      'small contents\n',
    ]),
    check('a file over a directory with something in it gives EISDIR', () => rename('small', 'dir'), 'EISDIR'),
    check('a directory over a file gives ENOTDIR', () => [rename('dir', 'small'), text('small'), names('dir')], [
      'ENOTDIR',
      'small contents\n',
      ['below', 'inside'],
    ]),
    check('a directory over a symlink to a directory gives ENOTDIR', () => rename('hollow', 'to-dir'), 'ENOTDIR'),
    check('a directory over a fifo gives ENOTDIR', () => rename('hollow', 'fifo'), 'ENOTDIR'),
    check('a symlink to a directory over a directory gives EISDIR', () => rename('to-dir', 'hollow'), 'EISDIR'),
    check('a directory into itself gives EINVAL', () => [rename('dir', 'dir/new'), names('dir')], [
      'EINVAL',
      ['below', 'inside'],
    ]),
    check('a directory below itself gives EINVAL', () => rename('dir', 'dir/below/new'), 'EINVAL'),
    check('a new directory into itself gives EINVAL', () => [mkdir('new'), rename('new', 'new/more')], [0, 'EINVAL']),
    check('onto what it is in gives ENOTEMPTY', () => rename('dir/below', 'dir'), 'ENOTEMPTY'),
    check('onto itself does nothing', () => touched(() => rename('small', 'small'), ['small', '.']), {
      result: 0,
      small: '',
      '.': '',
    }),
    check('a directory onto itself does nothing', () => [rename('dir', 'dir'), names('dir')], [0, ['below', 'inside']]),
    check(
      'onto another name of the same file does nothing',
      () => [rename('hard-1', 'hard-2'), text('hard-1'), text('hard-2'), links('hard-1')],
      [0, 'hard contents\n', 'hard contents\n', 2],
    ),
    check(
      'onto a new name of the same file does nothing',
      () => [link('small', 'new'), rename('small', 'new'), kind('small'), links('new')],
      [0, 0, 'file', 2],
    ),
    check(
      'of . and .. gives EBUSY',
      () => [rename('dir/.', 'new'), rename('dir/..', 'new'), rename('hollow', 'dir/.')],
      ['EBUSY', 'EBUSY', 'EBUSY'],
    ),
    check('a file to a name with a slash behind it gives ENOTDIR', () => rename('small', 'new/'), 'ENOTDIR'),
    check('a directory to a name with a slash behind it', () => [rename('hollow', 'new/'), kind('new')], [
      0,
      'directory',
    ]),
    check(
      'from what is not there gives ENOENT, and leaves the target',
      () => [rename('nothing', 'small'), text('small')],
      ['ENOENT', 'small contents\n'],
    ),

    check(
      'moves the times of both directories and the ctime of the file',
      () => {
        return touched(() => rename('dir/inside', 'full/inside'), ['dir', 'full', 'dir/inside > full/inside']);
      },
      { result: 0, dir: 'mtime ctime', full: 'mtime ctime', 'dir/inside': 'ctime' },
    ),
    check(
      'moves the times of the directory, within one',
      () => touched(() => rename('full/file', 'full/new'), ['full']),
      { result: 0, full: 'mtime ctime' },
    ),
    check(
      'over another name moves the ctime of the file that lost it',
      () => touched(() => rename('small', 'hard-1'), ['hard-2']),
      { result: 0, 'hard-2': 'ctime' },
    ),
    check(
      'a directory to another parent moves the times of both',
      () => {
        return touched(() => rename('dir/below', 'full/below'), ['dir', 'full', 'dir/below > full/below']);
      },
      { result: 0, dir: 'mtime ctime', full: 'mtime ctime', 'dir/below': 'ctime' },
    ),

    check(
      'an open file goes on under its new name',
      () => {
        const fd = open('small', O_RDWR);
        return [rename('small', 'new'), pwrite(fd, 'X', 0), text('new')];
      },
      [0, 1, 'Xmall contents\n'],
    ),
    check(
      'an open file goes on after another took its name',
      () => {
        const fd = open('small', O_RDWR);
        return [rename('other', 'small'), pread(fd, 5, 0), pwrite(fd, 'X', 0), pread(fd, 5, 0), text('small')];
      },
      [0, 'small', 1, 'Xmall', 'other contents\n'],
    ),
    check(
      'a file open for reading when it was moved and written',
      () => {
        const fd = open('small', O_RDONLY);
        return [rename('small', 'new'), write(open('new', O_RDWR), 'X'), pread(fd, 5, 0)];
      },
      [0, 1, 'Xmall'],
    ),
    checkLarge(
      'a large file written after it was moved',
      () => {
        rename('large', 'new');
        const fd = open('new', O_RDWR);
        return [pwrite(fd, 'X', 1_500_000), brief(Buffer.from(pread(fd, 16, 1_500_000), 'latin1')), size('new')];
      },
      [1, 'X.......1500000\n', 3_146_962],
    ),

    check(
      'without permission to write the old parent gives EACCES',
      () => asUser(USER, () => rename('dir/inside', 'open/new')),
      'EACCES',
    ),
    check(
      'without permission to write the new parent gives EACCES',
      () => asUser(USER, () => rename('home/mine', 'dir/new')),
      'EACCES',
    ),
    check('within an own directory', () => asUser(USER, () => [rename('home/mine', 'home/new'), text('home/new')]), [
      0,
      'mine\n',
    ]),
    check(
      'a file of another in an own directory',
      () => {
        make('home/roots');
        return asUser(USER, () => rename('home/roots', 'home/new'));
      },
      0,
    ),
    check(
      'a directory of another to another parent gives EACCES',
      () => {
        mkdir('home/roots');
        return asUser(USER, () => rename('home/roots', 'open/new'));
      },
      'EACCES',
    ),
    check(
      'an own directory to another parent',
      () => asUser(USER, () => [rename('home/dir', 'open/new'), kind('open/new')]),
      [0, 'directory'],
    ),
    check(
      'out of a sticky directory, of another, gives EPERM',
      () => asUser(USER, () => rename('sticky/theirs', 'sticky/new')),
      'EPERM',
    ),
    check('out of a sticky directory, an own file', () => asUser(USER, () => rename('sticky/mine', 'open/new')), 0),
    check(
      'over a file of another in a sticky directory gives EPERM',
      () => asUser(USER, () => rename('sticky/mine', 'sticky/theirs')),
      'EPERM',
    ),
    check(
      'over a file that may not be written',
      () => [
        chmod('home/mine', 0o400),
        asUser(USER, () => [tryOpen('home/new', O_RDWR | O_CREAT), rename('home/new', 'home/mine')]),
      ],
      [0, [0, 0]],
    ),
    check('a symlink made over an old file', () => [symlink('dir', 'new'), rename('new', 'small'), names('small')], [
      0,
      0,
      ['below', 'inside'],
    ]),
    check(
      'an attribute set after a move',
      () => [rename('small', 'new'), setxattr('new', 'user.a', 'b'), getxattr('new', 'user.a')],
      [0, 0, 'b'],
    ),
    check(
      'a chain of names',
      () => {
        for (let at = 0; at < 30; at++) rename(at === 0 ? 'small' : `n${at}`, `n${at + 1}`);
        return [text('n30'), kind('small'), kind('n29')];
      },
      ['small contents\n', 'ENOENT', 'ENOENT'],
    ),
  ],
};
