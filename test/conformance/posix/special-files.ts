import { chmod, chown, setxattr, umask } from './calls/attributes.ts';
import {
  fsync,
  ftruncate,
  lseek,
  O_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  open,
  read,
  truncate,
  tryOpen,
  write,
} from './calls/files.ts';
import { mknod, rename, unlink } from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, type Group } from './suite/check.ts';
import { USER } from './suite/fixture.ts';
import { fact, kind, links, mode, names, owner, size, touched } from './suite/observe.ts';

const S_IFIFO = 0o010000;
const S_IFCHR = 0o020000;
const S_IFDIR = 0o040000;
const S_IFBLK = 0o060000;
const S_IFREG = 0o100000;
const S_IFSOCK = 0o140000;

const device = (path: string): string => fact(path, ({ rdev }) => `${rdev >> 8n}:${rdev & 0xffn}`);
const numbers = (major: number, minor: number): number => major * 256 + minor;

/** mknod(2): fifos, sockets, devices. */
export const SPECIAL_FILES: Group = {
  name: 'special files',
  checks: [
    check('a fifo', () => [mknod('new', S_IFIFO | 0o644), kind('new'), mode('new'), size('new'), links('new')], [
      0,
      'fifo',
      '644',
      0,
      1,
    ]),
    check('a socket', () => [mknod('new', S_IFSOCK | 0o600), kind('new'), mode('new')], [0, 'socket', '600']),
    check(
      'a file',
      () => [mknod('new', S_IFREG | 0o640), kind('new'), mode('new'), size('new'), tryOpen('new', O_RDWR)],
      [0, 'file', '640', 0, 0],
    ),
    check('a file without a type', () => [mknod('new', 0o600), kind('new')], [0, 'file']),
    check('a directory gives EPERM', () => mknod('new', S_IFDIR | 0o755), 'EPERM'),
    check(
      'a character device with its numbers',
      () => [mknod('new', S_IFCHR | 0o600, numbers(5, 1)), kind('new'), device('new')],
      [0, 'char device', '5:1'],
    ),
    check(
      'a block device with its numbers',
      () => [mknod('new', S_IFBLK | 0o600, numbers(7, 200)), kind('new'), device('new')],
      [0, 'block device', '7:200'],
    ),
    check('a device 0:0', () => [mknod('new', S_IFCHR | 0o600, 0), kind('new'), names('hollow')], [
      0,
      'char device',
      [],
    ]),
    check('a device of a checkpoint has its numbers', () => [kind('null'), device('null'), mode('null')], [
      'char device',
      '1:3',
      '666',
    ]),
    check('the mask counts', () => [umask(0o077), mknod('new', S_IFIFO | 0o666), mode('new')], [0o022, 0, '600']),
    check(
      'a device by an ordinary user gives EPERM',
      () => asUser(USER, () => mknod('open/new', S_IFCHR | 0o600, numbers(1, 3))),
      'EPERM',
    ),
    check(
      'a fifo by an ordinary user',
      () => asUser(USER, () => [mknod('open/new', S_IFIFO | 0o600), owner('open/new')]),
      [0, '1001:1001'],
    ),
    check(
      'over what is there gives EEXIST',
      () => [mknod('small', S_IFIFO | 0o600), mknod('fifo', S_IFIFO | 0o600), mknod('dir', S_IFREG | 0o600)],
      ['EEXIST', 'EEXIST', 'EEXIST'],
    ),
    check('over a symlink to nowhere gives EEXIST', () => mknod('to-nowhere', S_IFIFO | 0o600), 'EEXIST'),
    check('moves the times of the directory', () => touched(() => mknod('dir/new', S_IFIFO | 0o600), ['dir']), {
      result: 0,
      dir: 'mtime ctime',
    }),
    check('chmod() of a fifo', () => [chmod('fifo', 0o600), mode('fifo'), kind('fifo')], [0, '600', 'fifo']),
    check('chown() of a fifo', () => [chown('fifo', 7, 8), owner('fifo'), kind('fifo')], [0, '7:8', 'fifo']),
    check('chmod() of a device', () => [chmod('null', 0o600), mode('null'), device('null')], [0, '600', '1:3']),
    check('user attributes on a fifo give EPERM', () => setxattr('fifo', 'user.a', 'b'), 'EPERM'),
    check('trusted attributes on a fifo', () => setxattr('fifo', 'trusted.a', 'b'), 0),
    check('truncate() of a fifo gives EINVAL', () => truncate('fifo', 0), 'EINVAL'),
    check('lseek() in a fifo gives ESPIPE', () => lseek(open('fifo', O_RDWR), 0, 1), 'ESPIPE'),
    check('ftruncate() of a fifo gives EINVAL', () => ftruncate(open('fifo', O_RDWR), 0), 'EINVAL'),
    check('fsync() of a fifo gives EINVAL', () => fsync(open('fifo', O_RDWR)), 'EINVAL'),
    check('an empty fifo with a writer gives EAGAIN', () => read(open('fifo', O_RDWR | O_NONBLOCK), 1), 'EAGAIN'),
    check(
      'an empty fifo without a writer gives the end of the file',
      () => read(open('fifo', O_RDONLY | O_NONBLOCK), 1),
      '',
    ),
    check(
      'a fifo is one pipe under two of its names',
      () => {
        const [reader, writer] = [open('fifo', O_RDONLY | O_NONBLOCK), open('fifo', O_WRONLY | O_NONBLOCK)];
        return [
          rename('fifo', 'moved'),
          write(writer, 'a'),
          write(open('moved', O_WRONLY | O_NONBLOCK), 'b'),
          read(reader, 10),
        ];
      },
      [0, 1, 1, 'ab'],
    ),
    check(
      'a fifo goes on after it is removed',
      () => {
        const [reader, writer] = [open('fifo', O_RDONLY | O_NONBLOCK), open('fifo', O_WRONLY | O_NONBLOCK)];
        return [unlink('fifo'), write(writer, 'a'), read(reader, 10)];
      },
      [0, 1, 'a'],
    ),
    check(
      'a new fifo carries data',
      () => {
        mknod('new', S_IFIFO | 0o644);
        const fd = open('new', O_RDWR | O_NONBLOCK);
        return [write(fd, 'data'), read(fd, 10)];
      },
      [4, 'data'],
    ),
    check('opening a socket gives ENXIO', () => [mknod('new', S_IFSOCK | 0o600), open('new', O_RDWR)], [0, 'ENXIO']),
  ],
};
