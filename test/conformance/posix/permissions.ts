import { access, chmod, chown, R_OK, setxattr, utimesNow, W_OK, X_OK } from './calls/attributes.ts';
import { O_RDONLY, O_RDWR, O_WRONLY, open, tryOpen, truncate, write } from './calls/files.ts';
import { chdir, mkdir, rename, unlink } from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, type Check, type Group, type Observation } from './suite/check.ts';
import { OTHER, USER } from './suite/fixture.ts';
import { kind, names, text } from './suite/observe.ts';

const may = (path: string): Observation => [R_OK, W_OK, X_OK].map((right) => access(path, right) === 0);

/** Reading, writing and executing a file of every class of user, for every combination of bits. */
function matrix(): Check[] {
  return [0, 1, 2, 3, 4, 5, 6, 7].flatMap((bits) => {
    const rights = [(bits & 4) !== 0, (bits & 2) !== 0, (bits & 1) !== 0];
    const octal = bits.toString();
    return [
      check(`mode 0${octal}00 for the owner`, () => [chmod('mine', bits << 6), asUser(USER, () => may('mine'))], [
        0,
        rights,
      ]),
      check(
        `mode 00${octal}0 for the group`,
        () => [chmod('theirs', bits << 3), asUser(USER, () => may('theirs'), { gid: OTHER })],
        [0, rights],
      ),
      check(`mode 000${octal} for others`, () => [chmod('theirs', bits), asUser(USER, () => may('theirs'))], [
        0,
        rights,
      ]),
    ];
  });
}

/** Who may do what: access(2), and the calls that ask for it. */
export const PERMISSIONS: Group = {
  name: 'permissions',
  checks: [
    ...matrix(),
    check(
      'root reads and writes whatever the mode, and executes what somebody may',
      () => [chmod('mine', 0), may('mine'), chmod('mine', 0o001), may('mine')],
      [0, [true, true, false], 0, [true, true, true]],
    ),
    check(
      'root may enter and list a directory whatever the mode',
      () => [chmod('dir', 0), names('dir'), text('dir/inside')],
      [0, ['below', 'inside'], 'inside\n'],
    ),
    check(
      'access() through a symlink asks for the file',
      () => asUser(USER, () => [access('to-small', R_OK), access('to-small', W_OK)]),
      [0, 'EACCES'],
    ),
    check('access() of a symlink to nowhere gives ENOENT', () => access('to-nowhere', 0), 'ENOENT'),
    check(
      'a directory without search: its names are listed, not entered',
      () => [chmod('dir', 0o744), asUser(USER, () => [names('dir'), kind('dir/inside'), chdir('dir')])],
      [0, [['below', 'inside'], 'EACCES', 'EACCES']],
    ),
    check(
      'a directory without reading: entered, not listed',
      () => [chmod('dir', 0o711), asUser(USER, () => [names('dir'), text('dir/inside'), chdir('dir')])],
      [0, ['EACCES', 'inside\n', 0]],
    ),
    check(
      'a directory that may be written but not searched takes no new name',
      () => [chmod('open', 0o766), asUser(USER, () => mkdir('open/new'))],
      [0, 'EACCES'],
    ),
    check(
      'a directory that may be written and searched but not read takes a new name',
      () => [chmod('open', 0o733), asUser(USER, () => [mkdir('open/new'), names('open')])],
      [0, [0, 'EACCES']],
    ),
    check(
      'a directory above without search hides everything',
      () => [
        chmod('dir', 0o700),
        asUser(USER, () => [kind('dir/below'), text('dir/below/deep'), unlink('dir/below/deep')]),
      ],
      [0, ['EACCES', 'EACCES', 'EACCES']],
    ),
    check(
      'rights change at once',
      () => [
        asUser(USER, () => text('theirs')),
        chmod('theirs', 0o600),
        asUser(USER, () => text('theirs')),
        chmod('theirs', 0o644),
        asUser(USER, () => text('theirs')),
      ],
      ['theirs\n', 0, 'EACCES', 0, 'theirs\n'],
    ),
    check(
      'rights change with the owner',
      () => [
        asUser(USER, () => text('mine')),
        chown('mine', OTHER, OTHER),
        asUser(USER, () => text('mine')),
        asUser(OTHER, () => text('mine')),
      ],
      ['mine\n', 0, 'EACCES', 'mine\n'],
    ),
    check(
      'truncate() without permission to write gives EACCES',
      () => [asUser(USER, () => truncate('small', 0)), text('small')],
      ['EACCES', 'small contents\n'],
    ),
    check(
      'writing a file of another that all may write',
      () => [asUser(USER, () => write(open('public', O_WRONLY), 'P')), text('public')],
      [1, 'Public\n'],
    ),
    check('times to now by somebody who may write', () => asUser(USER, () => utimesNow('public')), 0),
    check(
      'times to now by somebody who may not write gives EACCES',
      () => asUser(USER, () => utimesNow('small')),
      'EACCES',
    ),
    check('an attribute by somebody who may write', () => asUser(USER, () => setxattr('public', 'user.a', 'b')), 0),
    check(
      'an attribute by somebody who may not write gives EACCES',
      () => asUser(USER, () => setxattr('small', 'user.a', 'b')),
      'EACCES',
    ),
    check(
      'a trusted attribute by an ordinary user gives EPERM',
      () => asUser(USER, () => setxattr('mine', 'trusted.a', 'b')),
      'EPERM',
    ),
    check(
      'a descriptor keeps its rights for another user',
      () => {
        const fd = open('other', O_RDWR);
        return [asUser(USER, () => write(fd, 'O')), text('other')];
      },
      [1, 'Other contents\n'],
    ),
    check(
      'two groups of one user',
      () => [
        chmod('theirs', 0o040),
        asUser(USER, () => tryOpen('theirs', O_RDONLY)),
        asUser(USER, () => tryOpen('theirs', O_RDONLY), { groups: [5, OTHER, 6] }),
      ],
      [0, 'EACCES', 0],
    ),
    check(
      'in an own directory a file of another is replaced, not written',
      () => [
        chown('home/mine', OTHER, OTHER),
        asUser(USER, () => [tryOpen('home/mine', O_RDWR), rename('home/mine', 'home/gone'), unlink('home/gone')]),
      ],
      [0, ['EACCES', 0, 0]],
    ),
  ],
};
