import { chmod, getxattr, listxattr, removexattr, setxattr, umask } from './calls/attributes.ts';
import { O_CREAT, O_RDONLY, O_RDWR, open, tryOpen, write } from './calls/files.ts';
import { mkdir, rename, symlink, unlink } from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, checkLarge, type Group } from './suite/check.ts';
import { OTHER, USER } from './suite/fixture.ts';
import { mode, names, text, touched } from './suite/observe.ts';

const ACCESS = 'system.posix_acl_access';
const DEFAULT = 'system.posix_acl_default';

// linux/posix_acl_xattr.h: version u32 2, then entries of tag u16, permissions u16, id u32
const TAGS = { u: 0x01, user: 0x02, g: 0x04, group: 0x08, m: 0x10, o: 0x20 } as const;
const NO_ID = 0xffff_ffff;

/** `u:6 user:1001:4 g:4 m:6 o:0` as the bytes of the attribute; entries in the order of their tags. */
function acl(entries: string): string {
  const list = entries.split(' ').map((entry) => entry.split(':'));
  const out = Buffer.alloc(4 + 8 * list.length);
  out.writeUInt32LE(2);
  list.forEach((parts, at) => {
    const id = parts.length === 3 ? Number(parts[1]) : NO_ID;
    out.writeUInt16LE(TAGS[parts[0] as keyof typeof TAGS], 4 + 8 * at);
    out.writeUInt16LE(Number(parts.at(-1)), 6 + 8 * at);
    out.writeUInt32LE(id, 8 + 8 * at);
  });
  return out.toString('latin1');
}

/** The attribute of a file as `acl` takes it. */
function aclOf(path: string, name = ACCESS): string {
  const value = String(getxattr(path, name));
  if (!value.startsWith('\x02\0\0\0')) return value;
  const bytes = Buffer.from(value, 'latin1');
  const entries = [];
  for (let at = 4; at < bytes.length; at += 8) {
    const tag = Object.entries(TAGS).find(([, number]) => number === bytes.readUInt16LE(at))?.[0];
    const id = bytes.readUInt32LE(at + 4);
    entries.push([tag, ...(id === NO_ID ? [] : [id]), bytes.readUInt16LE(at + 2)].join(':'));
  }
  return entries.join(' ');
}

const FOR_USER = `u:6 user:${USER}:6 g:4 m:6 o:0`;
const INHERITED = `u:7 user:${USER}:7 g:5 m:7 o:0`;

/** POSIX access control lists: acl(5). */
export const ACL: Group = {
  name: 'acl',
  checks: [
    check('none', () => [aclOf('small'), aclOf('dir', DEFAULT), listxattr('small')], ['ENODATA', 'ENODATA', '']),
    check('is there once set', () => [setxattr('small', ACCESS, acl(FOR_USER)), aclOf('small'), listxattr('small')], [
      0,
      FOR_USER,
      ACCESS,
    ]),
    check('its mask is the mode of the group', () => [setxattr('small', ACCESS, acl(FOR_USER)), mode('small')], [
      0,
      '660',
    ]),
    check(
      'a user of his own may what it says',
      () => [
        asUser(USER, () => tryOpen('other', O_RDWR)),
        setxattr('other', ACCESS, acl(FOR_USER)),
        asUser(USER, () => [tryOpen('other', O_RDWR), text('other')]),
        asUser(OTHER, () => tryOpen('other', O_RDONLY)),
      ],
      ['EACCES', 0, [0, 'other contents\n'], 'EACCES'],
    ),
    check(
      'a group of its own may what it says',
      () => [
        setxattr('other', ACCESS, acl(`u:6 g:0 group:${OTHER}:4 m:4 o:0`)),
        asUser(OTHER, () => [tryOpen('other', O_RDONLY), tryOpen('other', O_RDWR)]),
        asUser(USER, () => tryOpen('other', O_RDONLY), { groups: [OTHER] }),
      ],
      [0, [0, 'EACCES'], 0],
    ),
    check(
      'the mask limits it',
      () => [
        setxattr('other', ACCESS, acl(`u:6 user:${USER}:6 g:4 m:4 o:0`)),
        asUser(USER, () => [tryOpen('other', O_RDONLY), tryOpen('other', O_RDWR)]),
      ],
      [0, [0, 'EACCES']],
    ),
    check(
      'a user may be shut out',
      () => [
        setxattr('public', ACCESS, acl(`u:6 user:${USER}:0 g:6 m:6 o:6`)),
        asUser(USER, () => tryOpen('public', O_RDONLY)),
        asUser(OTHER, () => tryOpen('public', O_RDWR)),
      ],
      [0, 'EACCES', 0],
    ),
    check(
      'chmod() changes the mask',
      () => [setxattr('small', ACCESS, acl(FOR_USER)), chmod('small', 0o640), aclOf('small'), mode('small')],
      [0, 0, `u:6 user:${USER}:6 g:4 m:4 o:0`, '640'],
    ),
    check(
      'one that the mode says is none',
      () => [setxattr('small', ACCESS, acl('u:6 g:0 o:0')), mode('small'), aclOf('small')],
      [0, '600', 'ENODATA'],
    ),
    check(
      'removed',
      () => [setxattr('small', ACCESS, acl(FOR_USER)), removexattr('small', ACCESS), aclOf('small'), mode('small')],
      [0, 0, 'ENODATA', '660'],
    ),
    check(
      'on a directory',
      () => [
        setxattr('closed', ACCESS, acl(`u:7 user:${USER}:5 g:0 m:5 o:0`)),
        asUser(USER, () => [names('closed'), text('closed/inside'), mkdir('closed/new')]),
      ],
      [0, [['inside'], 'inside\n', 'EACCES']],
    ),
    check(
      'on a directory, for writing',
      () => [
        setxattr('closed', ACCESS, acl(`u:7 user:${USER}:7 g:0 m:7 o:0`)),
        asUser(USER, () => [mkdir('closed/new'), unlink('closed/inside'), names('closed')]),
      ],
      [0, [0, 0, ['new']]],
    ),
    check(
      'on a new file',
      () => [
        tryOpen('new', O_CREAT | O_RDWR, 0o600),
        setxattr('new', ACCESS, acl(FOR_USER)),
        asUser(USER, () => tryOpen('new', O_RDWR)),
      ],
      [0, 0, 0],
    ),
    checkLarge('on a large file', () => [setxattr('large', ACCESS, acl(FOR_USER)), aclOf('large'), mode('large')], [
      0,
      FOR_USER,
      '660',
    ]),
    check(
      'stays when the file is written and moved',
      () => [
        setxattr('small', ACCESS, acl(FOR_USER)),
        write(open('small', O_RDWR), 'x'),
        rename('small', 'dir/new'),
        aclOf('dir/new'),
      ],
      [0, 1, 0, FOR_USER],
    ),
    check('a default on a file gives EACCES', () => setxattr('small', DEFAULT, acl(INHERITED)), 'EACCES'),
    check(
      'what has no version gives ENOTSUP, what is no list EINVAL',
      () => [setxattr('small', ACCESS, 'nonsense'), setxattr('small', ACCESS, acl('u:6 g:4'))],
      ['ENOTSUP', 'EINVAL'],
    ),
    check('on a symlink it goes to the file', () => [setxattr('to-small', ACCESS, acl(FOR_USER)), aclOf('small')], [
      0,
      FOR_USER,
    ]),
    check(
      'by who is not the owner gives EPERM',
      () => asUser(USER, () => setxattr('public', ACCESS, acl(FOR_USER))),
      'EPERM',
    ),
    check(
      'by the owner',
      () => asUser(USER, () => [setxattr('mine', ACCESS, acl(`u:6 user:${OTHER}:4 g:0 m:4 o:0`)), mode('mine')]),
      [0, '640'],
    ),
    check('moves ctime only', () => touched(() => setxattr('small', ACCESS, acl(FOR_USER)), ['small']), {
      result: 0,
      small: 'ctime',
    }),

    check(
      'a default is there once set, and changes no mode',
      () => [setxattr('dir', DEFAULT, acl(INHERITED)), aclOf('dir', DEFAULT), mode('dir'), aclOf('dir')],
      [0, INHERITED, '755', 'ENODATA'],
    ),
    check(
      'a new file inherits the default',
      () => [
        setxattr('dir', DEFAULT, acl(INHERITED)),
        tryOpen('dir/new', O_CREAT | O_RDWR, 0o666),
        aclOf('dir/new'),
        mode('dir/new'),
      ],
      [0, 0, `u:6 user:${USER}:7 g:5 m:6 o:0`, '660'],
    ),
    check(
      'with a default the mask does not count',
      () => [
        setxattr('dir', DEFAULT, acl('u:7 g:7 o:7')),
        umask(0o077),
        tryOpen('dir/new', O_CREAT | O_RDWR, 0o666),
        mode('dir/new'),
      ],
      [0, 0o022, 0, '666'],
    ),
    check(
      'with a default of an old directory, in a directory below',
      () => [
        setxattr('dir/below', DEFAULT, acl(INHERITED)),
        tryOpen('dir/below/new', O_CREAT | O_RDWR, 0o600),
        mode('dir/below/new'),
        aclOf('dir/below/new'),
      ],
      [0, 0, '600', `u:6 user:${USER}:7 g:5 m:0 o:0`],
    ),
    check(
      'a new directory inherits it as both',
      () => [
        setxattr('dir', DEFAULT, acl(INHERITED)),
        mkdir('dir/new', 0o777),
        aclOf('dir/new', DEFAULT),
        aclOf('dir/new'),
        mode('dir/new'),
      ],
      [0, 0, INHERITED, INHERITED, '770'],
    ),
    check(
      'a new directory below the new one, too',
      () => [
        setxattr('hollow', DEFAULT, acl(INHERITED)),
        mkdir('hollow/new', 0o777),
        mkdir('hollow/new/more', 0o700),
        aclOf('hollow/new/more', DEFAULT),
        mode('hollow/new/more'),
      ],
      [0, 0, 0, INHERITED, '700'],
    ),
    check(
      'an inherited right works',
      () => [
        setxattr('dir', DEFAULT, acl(INHERITED)),
        tryOpen('dir/new', O_CREAT | O_RDWR, 0o666),
        asUser(USER, () => [tryOpen('dir/new', O_RDWR), tryOpen('dir/inside', O_RDWR)]),
      ],
      [0, 0, [0, 'EACCES']],
    ),
    check(
      'what was there does not inherit',
      () => [setxattr('dir', DEFAULT, acl(INHERITED)), aclOf('dir/inside'), aclOf('dir/below', DEFAULT)],
      [0, 'ENODATA', 'ENODATA'],
    ),
    check(
      'what is moved in does not inherit',
      () => [setxattr('dir', DEFAULT, acl(INHERITED)), rename('small', 'dir/new'), aclOf('dir/new')],
      [0, 0, 'ENODATA'],
    ),
    check(
      'a symlink does not inherit',
      () => [setxattr('dir', DEFAULT, acl(INHERITED)), symlink('x', 'dir/new'), mode('dir/new')],
      [0, 0, '777'],
    ),
    check(
      'a removed default is inherited no more',
      () => [
        setxattr('dir', DEFAULT, acl(INHERITED)),
        removexattr('dir', DEFAULT),
        tryOpen('dir/new', O_CREAT | O_RDWR, 0o666),
        mode('dir/new'),
        aclOf('dir/new'),
      ],
      [0, 0, 0, '644', 'ENODATA'],
    ),
  ],
};
