import { chmod, chown, fchmod, fchown, lchmod, lchown, SAME } from './calls/attributes.ts';
import {
  fallocate,
  ftruncate,
  O_CREAT,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
  open,
  pwrite,
  truncate,
  tryOpen,
  write,
} from './calls/files.ts';
import { mkdir, unlink } from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, checkLarge, type Group } from './suite/check.ts';
import { OTHER, USER } from './suite/fixture.ts';
import { identity, kind, mode, mtimeNs, names, owner, text, touched } from './suite/observe.ts';

/** Somebody who may write a suid file without owning it. */
const STRANGER = 1003;

/** chmod(2), chown(2), and what takes suid and sgid away. */
export const OWNERS_AND_MODES: Group = {
  name: 'owners and modes',
  checks: [
    check('chmod() of a file', () => [chmod('small', 0o751), mode('small'), text('small')], [
      0,
      '751',
      'small contents\n',
    ]),
    check('chmod() of a new file', () => [tryOpen('new', O_RDWR | O_CREAT), chmod('new', 0o604), mode('new')], [
      0,
      0,
      '604',
    ]),
    check('chmod() of a directory', () => [chmod('dir', 0o700), mode('dir'), names('dir')], [
      0,
      '700',
      ['below', 'inside'],
    ]),
    checkLarge('chmod() of a large file', () => [chmod('large', 0o600), mode('large')], [0, '600']),
    check('chmod() to 0 and back', () => [chmod('small', 0), mode('small'), chmod('small', 0o644), mode('small')], [
      0,
      '0',
      0,
      '644',
    ]),
    check(
      'chmod() with suid, sgid, sticky',
      () => [chmod('small', 0o7777), mode('small'), chmod('dir', 0o7777), mode('dir')],
      [0, '7777', 0, '7777'],
    ),
    check('chmod() ignores higher bits', () => [chmod('small', 0o100644), mode('small'), kind('small')], [
      0,
      '644',
      'file',
    ]),
    check('chmod() of a symlink goes to the file', () => [chmod('to-small', 0o600), mode('small')], [0, '600']),
    check('chmod() of a symlink to nowhere gives ENOENT', () => chmod('to-nowhere', 0o600), 'ENOENT'),
    check(
      'fchmodat(AT_SYMLINK_NOFOLLOW) of a symlink gives ENOTSUP',
      () => [lchmod('to-small', 0o600), mode('to-small')],
      ['ENOTSUP', '777'],
    ),
    check('fchmod() of a file open for reading', () => [fchmod(open('small', O_RDONLY), 0o600), mode('small')], [
      0,
      '600',
    ]),
    check(
      'fchmod() of a file without a name',
      () => {
        const fd = open('small', O_RDONLY);
        return [unlink('small'), fchmod(fd, 0o600)];
      },
      [0, 0],
    ),
    check(
      'chmod() keeps identity and mtime',
      () => {
        const before = [identity('small'), mtimeNs('small')].join();
        return [chmod('small', 0o600), [identity('small'), mtimeNs('small')].join() === before];
      },
      [0, true],
    ),
    check(
      'chmod() of a directory keeps its identity',
      () => {
        const before = identity('dir');
        return [chmod('dir', 0o700), identity('dir') === before];
      },
      [0, true],
    ),
    check('chmod() moves ctime only', () => touched(() => chmod('small', 0o600), ['small', '.']), {
      result: 0,
      small: 'ctime',
      '.': '',
    }),
    check(
      'chmod() of a directory moves ctime only',
      () => touched(() => chmod('dir', 0o700), ['dir', '.', 'dir/inside']),
      { result: 0, dir: 'ctime', '.': '', 'dir/inside': '' },
    ),
    check(
      'chmod() of a directory, twice',
      () => [chmod('dir', 0o700), chmod('dir', 0o711), mode('dir'), text('dir/below/deep')],
      [0, 0, '711', 'deep\n'],
    ),
    check('chmod() by who is not the owner gives EPERM', () => asUser(USER, () => chmod('public', 0o600)), 'EPERM'),
    check('chmod() by the owner', () => asUser(USER, () => [chmod('mine', 0o604), mode('mine')]), [0, '604']),
    check(
      'chmod() by an owner who is not in the group drops sgid',
      () => [chown('mine', USER, OTHER), asUser(USER, () => [chmod('mine', 0o2755), mode('mine')])],
      [0, [0, '755']],
    ),
    check(
      'chmod() by an owner who is in the group keeps sgid',
      () => [
        chown('mine', USER, OTHER),
        asUser(USER, () => [chmod('mine', 0o2755), mode('mine')], { groups: [OTHER] }),
      ],
      [0, [0, '2755']],
    ),
    check(
      'chmod() with sticky on a file by an ordinary user',
      () => asUser(USER, () => [chmod('mine', 0o1644), mode('mine')]),
      [0, '1644'],
    ),

    check('chown() of a file', () => [chown('small', 7, 8), owner('small'), text('small'), mode('small')], [
      0,
      '7:8',
      'small contents\n',
      '644',
    ]),
    check('chown() of the owner alone', () => [chown('mine', 7, SAME), owner('mine')], [0, '7:1001']),
    check('chown() of the group alone', () => [chown('mine', SAME, 7), owner('mine')], [0, '1001:7']),
    check('chown() of neither', () => [chown('mine', SAME, SAME), owner('mine')], [0, '1001:1001']),
    check('chown() of a directory', () => [chown('dir', 7, 8), owner('dir'), owner('dir/inside')], [0, '7:8', '0:0']),
    checkLarge('chown() of a large file', () => [chown('large', 7, 8), owner('large')], [0, '7:8']),
    check('chown() to large numbers', () => [chown('small', 4_000_000_000, 3_000_000_000), owner('small')], [
      0,
      '4000000000:3000000000',
    ]),
    check('chown() through a symlink', () => [chown('to-small', 7, 8), owner('small'), owner('to-small')], [
      0,
      '7:8',
      '0:0',
    ]),
    check('lchown() of a symlink to nowhere', () => [lchown('to-nowhere', 7, 8), owner('to-nowhere')], [0, '7:8']),
    check('fchown() of a file open for reading', () => [fchown(open('small', O_RDONLY), 7, 8), owner('small')], [
      0,
      '7:8',
    ]),
    check('chown() moves ctime only', () => touched(() => chown('small', 7, 8), ['small', '.']), {
      result: 0,
      small: 'ctime',
      '.': '',
    }),
    check(
      'chown() keeps identity',
      () => {
        const before = identity('small');
        return [chown('small', 7, 8), identity('small') === before];
      },
      [0, true],
    ),
    check(
      'chown() by an ordinary user to another owner gives EPERM',
      () => asUser(USER, () => chown('mine', OTHER, SAME)),
      'EPERM',
    ),
    check(
      'chown() by the owner to a group of his',
      () => asUser(USER, () => [chown('mine', SAME, OTHER), owner('mine')], { groups: [OTHER] }),
      [0, '1001:1002'],
    ),
    check(
      'chown() by the owner to another group gives EPERM',
      () => asUser(USER, () => chown('mine', SAME, OTHER)),
      'EPERM',
    ),
    check(
      'chown() by who is not the owner gives EPERM',
      () => asUser(USER, () => chown('theirs', USER, SAME)),
      'EPERM',
    ),
    check('chown() by the owner to what it is', () => asUser(USER, () => chown('mine', USER, USER)), 0),

    check('chown() by root takes suid and sgid', () => [chown('suid', 7, 8), mode('suid')], [0, '755']),
    check(
      'chown() by the owner takes suid and sgid',
      () => asUser(USER, () => [chown('suid', SAME, OTHER), mode('suid')], { groups: [OTHER] }),
      [0, '755'],
    ),
    check(
      'chown() leaves sgid without execution by the group',
      () => [chmod('suid', 0o2644), chown('suid', 7, 8), mode('suid')],
      [0, 0, '2644'],
    ),
    check('chown() leaves the bits of a directory', () => [chmod('dir', 0o6777), chown('dir', 7, 8), mode('dir')], [
      0,
      0,
      '6777',
    ]),
    check(
      'a write by a stranger takes suid and sgid',
      () => [chmod('suid', 0o6777), asUser(STRANGER, () => write(open('suid', O_WRONLY), 'x')), mode('suid')],
      [0, 1, '777'],
    ),
    check(
      'a write by the owner takes suid and sgid',
      () => [asUser(USER, () => write(open('suid', O_WRONLY), 'x')), mode('suid')],
      [1, '755'],
    ),
    check('a write by root leaves suid and sgid', () => [write(open('suid', O_WRONLY), 'x'), mode('suid')], [
      1,
      '6755',
    ]),
    check(
      'a write of nothing leaves suid',
      () => [asUser(USER, () => write(open('suid', O_WRONLY), '')), mode('suid')],
      [0, '6755'],
    ),
    check('opening for writing leaves suid', () => [asUser(USER, () => tryOpen('suid', O_RDWR)), mode('suid')], [
      0,
      '6755',
    ]),
    check(
      'pwrite() behind the end by the owner takes suid',
      () => [asUser(USER, () => pwrite(open('suid', O_WRONLY), 'x', 10_000)), mode('suid')],
      [1, '755'],
    ),
    check('truncate() by the owner takes suid', () => [asUser(USER, () => truncate('suid', 2)), mode('suid')], [
      0,
      '755',
    ]),
    check(
      'ftruncate() by the owner takes suid',
      () => [asUser(USER, () => ftruncate(open('suid', O_RDWR), 100)), mode('suid')],
      [0, '755'],
    ),
    check(
      'O_TRUNC by the owner takes suid',
      () => [asUser(USER, () => tryOpen('suid', O_WRONLY | O_TRUNC)), mode('suid')],
      [0, '755'],
    ),
    check('truncate() by root', () => [truncate('suid', 2), mode('suid')], [0, '6755']),
    check(
      'fallocate() by the owner takes suid',
      () => [asUser(USER, () => fallocate(open('suid', O_RDWR), 0, 0, 9000)), mode('suid')],
      [0, '755'],
    ),
    check(
      'a write by a stranger to the group takes sgid without execution, too',
      () => [chmod('suid', 0o2666), asUser(STRANGER, () => write(open('suid', O_WRONLY), 'x')), mode('suid')],
      [0, 1, '666'],
    ),
    check(
      'a new file made suid, written by its owner',
      () =>
        asUser(USER, () => {
          const fd = open('open/new', O_RDWR | O_CREAT, 0o4755);
          return [mode('open/new'), write(fd, 'x'), mode('open/new')];
        }),
      ['4755', 1, '755'],
    ),
    check(
      'a write leaves other bits alone',
      () => [chmod('public', 0o1666), asUser(USER, () => write(open('public', O_WRONLY), 'x')), mode('public')],
      [0, 1, '1666'],
    ),
    check(
      'setgid directories: chmod() by a stranger to the group drops the bit',
      () => [chown('home/dir', USER, OTHER), asUser(USER, () => [chmod('home/dir', 0o2755), mode('home/dir')])],
      [0, [0, '755']],
    ),
    check(
      'a new directory under the user in a sticky one',
      () => asUser(USER, () => [mkdir('sticky/new', 0o1777), mode('sticky/new'), owner('sticky/new')]),
      [0, '1755', '1001:1001'],
    ),
  ],
};
