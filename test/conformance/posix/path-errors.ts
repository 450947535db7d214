/** What every call that takes a path says of a path that leads nowhere: errno by errno, call by call. */
import {
  chmod,
  chown,
  getxattr,
  lchown,
  lutimens,
  NOW,
  setxattr,
  utimens,
  access,
  listxattr,
  removexattr,
} from './calls/attributes.ts';
import { O_CREAT, O_DIRECTORY, O_RDONLY, O_RDWR, O_TRUNC, tryOpen, truncate } from './calls/files.ts';
import type { Outcome, Path } from './calls/libc.ts';
import {
  chdir,
  exchange,
  link,
  mkdir,
  mknod,
  readlink,
  rename,
  RENAME_NOREPLACE,
  renameat2,
  rmdir,
  symlink,
  unlink,
} from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, type Check, type Group } from './suite/check.ts';
import { USER } from './suite/fixture.ts';
import { size } from './suite/observe.ts';

const S_IFIFO = 0o010000;
const S_IFREG = 0o100000;

/** Calls that need the path to be there. */
const ON_OLD: Record<string, (path: Path) => Outcome> = {
  'open(O_RDONLY)': (path) => tryOpen(path, O_RDONLY),
  'open(O_RDWR|O_TRUNC)': (path) => tryOpen(path, O_RDWR | O_TRUNC),
  'open(O_DIRECTORY)': (path) => tryOpen(path, O_DIRECTORY),
  lstat: (path) => (typeof size(path) === 'number' ? 0 : size(path)),
  access: (path) => access(path, 0),
  truncate: (path) => truncate(path, 3),
  chmod: (path) => chmod(path, 0o600),
  chown: (path) => chown(path, 0, 0),
  lchown: (path) => lchown(path, 0, 0),
  utimensat: (path) => utimens(path, NOW, NOW),
  'utimensat(AT_SYMLINK_NOFOLLOW)': (path) => lutimens(path, NOW, NOW),
  setxattr: (path) => setxattr(path, 'user.name', 'value'),
  getxattr: (path) => getxattr(path, 'user.name'),
  listxattr: (path) => listxattr(path),
  removexattr: (path) => removexattr(path, 'user.name'),
  readlink: (path) => readlink(path),
  unlink,
  rmdir,
  chdir,
  'rename, from': (path) => rename(path, 'hollow/target'),
  'rename(EXCHANGE)': (path) => exchange(path, 'small'),
  'link, from': (path) => link(path, 'hollow/target'),
};

/** Calls that make it. */
const ON_NEW: Record<string, (path: Path) => Outcome> = {
  'open(O_CREAT)': (path) => tryOpen(path, O_RDWR | O_CREAT),
  mkdir: (path) => mkdir(path),
  'mknod, a fifo': (path) => mknod(path, S_IFIFO | 0o644),
  'mknod, a file': (path) => mknod(path, S_IFREG | 0o644),
  symlink: (path) => symlink('small', path),
  'rename, to': (path) => rename('small', path),
  'rename(NOREPLACE), to': (path) => renameat2('small', path, RENAME_NOREPLACE),
  'link, to': (path) => link('public', path), // fs.protected_hardlinks wants it to be writable
};

interface Wrong {
  claim: string;
  path: string;
  errno: string;
  user?: boolean;
}

const LONG_NAME = 'n'.repeat(256);
const LONG_PATH = `${'./'.repeat(2048)}small`;

const WRONG: readonly Wrong[] = [
  { claim: 'in a directory that is not there', path: 'nothing/name', errno: 'ENOENT' },
  { claim: 'below a file', path: 'small/name', errno: 'ENOTDIR' },
  { claim: 'below a file below', path: 'dir/inside/name', errno: 'ENOTDIR' },
  { claim: 'below a symlink to a file', path: 'to-small/name', errno: 'ENOTDIR' },
  { claim: 'below a symlink to nowhere', path: 'to-nowhere/name', errno: 'ENOENT' },
  { claim: 'below symlinks in a circle', path: 'loop-1/name', errno: 'ELOOP' },
  { claim: 'a name of 256 bytes', path: `dir/${LONG_NAME}`, errno: 'ENAMETOOLONG' },
  { claim: 'below a name of 256 bytes', path: `${LONG_NAME}/name`, errno: 'ENAMETOOLONG' },
  { claim: 'a path of 4,101 bytes', path: LONG_PATH, errno: 'ENAMETOOLONG' },
  { claim: 'an empty path', path: '', errno: 'ENOENT' },
  { claim: 'in a directory that may not be searched', path: 'closed/inside', errno: 'EACCES', user: true },
];

/** Calls that change the directory: refused where it may not be written, whatever the file itself allows. */
const NEEDS_WRITE = ['unlink', 'rename, from', 'rename(EXCHANGE)'];

function checksFor(calls: Readonly<Record<string, (path: Path) => Outcome>>, wrongs: readonly Wrong[]): Check[] {
  return Object.entries(calls).flatMap(([name, call]) =>
    wrongs.map(({ claim, path, errno, user }) =>
      check(`${name}: ${claim}`, () => (user ? asUser(USER, () => call(path)) : call(path)), errno),
    ),
  );
}

const NOT_THERE: Wrong = { claim: 'a name that is not there', path: 'dir/name', errno: 'ENOENT' };
const NOT_WRITABLE: Wrong = {
  claim: 'in a directory that may not be written',
  path: 'dir/name',
  errno: 'EACCES',
  user: true,
};

export const PATH_ERRORS: Group = {
  name: 'path errors',
  shared: true,
  checks: [
    ...checksFor(ON_OLD, [...WRONG, NOT_THERE]),
    ...checksFor(ON_NEW, [...WRONG, NOT_WRITABLE]),
    ...checksFor(Object.fromEntries(Object.entries(ON_OLD).filter(([name]) => NEEDS_WRITE.includes(name))), [
      { ...NOT_WRITABLE, path: 'dir/inside' },
    ]),
  ],
};
