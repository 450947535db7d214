import { chmod, lchown, llistxattr, lsetxattr } from './calls/attributes.ts';
import { O_CREAT, O_RDWR, open, tryOpen, truncate, write } from './calls/files.ts';
import { chdir, mkdir, readlink, rename, symlink, unlink } from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, type Group } from './suite/check.ts';
import { USER } from './suite/fixture.ts';
import { identity, kind, links, mode, names, owner, size, text, touched } from './suite/observe.ts';

/** symlink(2), readlink(2), and paths that go through symlinks. */
export const SYMLINKS: Group = {
  name: 'symlinks',
  checks: [
    check(
      'a new symlink leads to its target',
      () => [symlink('small', 'new'), kind('new'), readlink('new'), text('new')],
      [0, 'symlink', 'small', 'small contents\n'],
    ),
    check('the target need not be there', () => [symlink('no/where', 'new'), readlink('new'), text('new')], [
      0,
      'no/where',
      'ENOENT',
    ]),
    check(
      'its size is the length of its target',
      () => [symlink('0123456789', 'new'), size('new'), size('to-small')],
      [0, 10, 5],
    ),
    check('its mode is 0777, whatever the mask', () => [symlink('x', 'new'), mode('new'), mode('to-small')], [
      0,
      '777',
      '777',
    ]),
    check('it has one link', () => [symlink('x', 'new'), links('new'), links('to-small')], [0, 1, 1]),
    check('it belongs to who made it', () => asUser(USER, () => [symlink('x', 'open/new'), owner('open/new')]), [
      0,
      '1001:1001',
    ]),
    check(
      'in a setgid directory it gets its group',
      () => asUser(USER, () => [symlink('x', 'setgid/new'), owner('setgid/new')]),
      [0, '1001:1002'],
    ),
    check(
      'over what is there gives EEXIST',
      () => [symlink('x', 'small'), symlink('x', 'dir'), symlink('x', 'to-small')],
      ['EEXIST', 'EEXIST', 'EEXIST'],
    ),
    check('an empty target gives ENOENT', () => symlink('', 'new'), 'ENOENT'),
    check(
      'a target of 255 bytes',
      () => [symlink('t'.repeat(255), 'new'), readlink('new').length, size('new')],
      [0, 255, 255],
    ),
    check(
      'a target of 1,000 bytes',
      () => [symlink('t'.repeat(1000), 'new'), readlink('new').length, size('new')],
      [0, 1000, 1000],
    ),
    check('a target of 4,095 bytes', () => [symlink('t'.repeat(4095), 'new'), readlink('new').length], [0, 4095]),
    check('a target of 4,096 bytes gives ENAMETOOLONG', () => symlink('t'.repeat(4096), 'new'), 'ENAMETOOLONG'),
    check('a target that is not UTF-8', () => [symlink('\xff\xfe\x80', 'new'), readlink('new')], [0, '\xff\xfe\x80']),
    check('readlink() cuts off what does not fit', () => readlink('to-nowhere', 3), 'now'),
    check('readlink() of a file gives EINVAL', () => [readlink('small'), readlink('dir'), readlink('fifo')], [
      'EINVAL',
      'EINVAL',
      'EINVAL',
    ]),
    check('readlink() into no room gives EINVAL', () => readlink('to-small', 0), 'EINVAL'),
    check('moves the times of the directory', () => touched(() => symlink('x', 'dir/new'), ['dir']), {
      result: 0,
      dir: 'mtime ctime',
    }),
    check(
      'lchown() changes the symlink, not the file',
      () => [lchown('to-small', 7, 8), owner('to-small'), owner('small'), readlink('to-small')],
      [0, '7:8', '0:0', 'small'],
    ),
    check('chmod() goes to the file', () => [chmod('to-small', 0o600), mode('small'), mode('to-small')], [
      0,
      '600',
      '777',
    ]),
    check('truncate() goes to the file', () => [truncate('to-small', 5), text('small'), kind('to-small')], [
      0,
      'small',
      'symlink',
    ]),
    check(
      'user attributes on a symlink give EPERM',
      () => [lsetxattr('to-small', 'user.a', 'b'), llistxattr('to-small')],
      ['EPERM', ''],
    ),
    check(
      'trusted attributes on a symlink',
      () => [lsetxattr('to-small', 'trusted.a', 'b'), llistxattr('to-small'), readlink('to-small')],
      [0, 'trusted.a', 'small'],
    ),
    check('a symlink in the middle of a path', () => [symlink('dir/below', 'new'), text('new/deep'), names('new')], [
      0,
      'deep\n',
      ['deep'],
    ]),
    check('a symlink that goes up', () => [symlink('../small', 'dir/new'), text('dir/new')], [0, 'small contents\n']),
    check('a symlink to a symlink', () => [symlink('to-small', 'new'), text('new'), readlink('new')], [
      0,
      'small contents\n',
      'to-small',
    ]),
    check(
      'a chain of 40 symlinks is followed',
      () => {
        symlink('small', 'l1');
        for (let at = 2; at <= 40; at++) symlink(`l${at - 1}`, `l${at}`);
        return text('l40');
      },
      'small contents\n',
    ),
    check(
      'a chain of 41 symlinks gives ELOOP',
      () => {
        symlink('small', 'l1');
        for (let at = 2; at <= 41; at++) symlink(`l${at - 1}`, `l${at}`);
        return text('l41');
      },
      'ELOOP',
    ),
    check('a symlink to itself gives ELOOP', () => [symlink('new', 'new'), text('new'), chdir('new')], [
      0,
      'ELOOP',
      'ELOOP',
    ]),
    check(
      'a symlink to . is the directory',
      () => [symlink('.', 'new'), identity('new/new/new/small') === identity('small')],
      [0, true],
    ),
    check(
      'a symlink follows what its target becomes',
      () => [unlink('small'), text('to-small'), rename('other', 'small'), text('to-small')],
      [0, 'ENOENT', 0, 'other contents\n'],
    ),
    check(
      'a symlink to nowhere leads somewhere once that is there',
      () => [mkdir('nowhere'), tryOpen('to-nowhere/new', O_RDWR | O_CREAT), names('nowhere')],
      [0, 0, ['new']],
    ),
    check(
      'a symlink that is replaced leads elsewhere at once',
      () => [
        text('to-small'),
        unlink('to-small'),
        symlink('other', 'to-small'),
        text('to-small'),
        readlink('to-small'),
      ],
      ['small contents\n', 0, 0, 'other contents\n', 'other'],
    ),
    check(
      'a symlink swapped by a rename leads elsewhere at once',
      () => [text('to-dir/inside'), symlink('full', 'new'), rename('new', 'to-dir'), names('to-dir')],
      ['inside\n', 0, 0, ['file']],
    ),
    check(
      'a symlink moved to another directory leads elsewhere',
      () => [symlink('inside', 'new'), text('new'), rename('new', 'dir/new'), text('dir/new')],
      [0, 'ENOENT', 0, 'inside\n'],
    ),
    check('a slash behind a symlink to a directory means the directory', () => [kind('to-dir/'), kind('to-small/')], [
      'directory',
      'ENOTDIR',
    ]),
    check(
      'an absolute target',
      () => [symlink('/dev/null', 'new'), readlink('new'), write(open('new', O_RDWR), 'gone')],
      [0, '/dev/null', 4],
    ),
  ],
};
