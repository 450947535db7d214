import { statfsSync } from 'node:fs';

import { chmod, chown, setxattr, utimesNow } from './calls/attributes.ts';
import { O_CREAT, O_RDWR, open, tryOpen, truncate, write } from './calls/files.ts';
import { link, mkdir, rename, unlink } from './calls/names.ts';
import { check, checkLarge, type Group, type Observation } from './suite/check.ts';
import { FIXTURE_TIME, LARGE_BYTES, SPARSE_BYTES } from './suite/fixture.ts';
import { fact, identity, kind, links, mode, mtimeNs, names, owner, size } from './suite/observe.ts';
import { otherProcess } from './suite/partner.ts';

/** Whether an action leaves inode and device numbers as they were; `old > new` has another name afterwards. */
function keepsIdentity(path: string, action: () => Observation): Observation {
  const [was = '', is = was] = path.split(' > ');
  const before = identity(was);
  return [action(), identity(is) === before];
}

const all = (look: (path: string) => Observation): Observation =>
  ['small', 'dir', 'to-small', 'fifo', 'null', 'suid', 'mine', 'sticky', 'setgid'].map(look);

/** What stat(2) shows, and that an object stays the same one. */
export const ATTRIBUTES: Group = {
  name: 'attributes',
  checks: [
    check('kinds', () => all(kind), [
      'file',
      'directory',
      'symlink',
      'fifo',
      'char device',
      'file',
      'file',
      'directory',
      'directory',
    ]),
    check('modes', () => all(mode), ['644', '755', '777', '644', '666', '6755', '600', '1777', '2777']),
    check('owners', () => all(owner), [
      '0:0',
      '0:0',
      '0:0',
      '0:0',
      '0:0',
      '1001:1001',
      '1001:1001',
      '0:0',
      '1002:1002',
    ]),
    check('sizes', () => [size('small'), size('empty'), size('to-small'), size('fifo'), size('sparse')], [
      15,
      0,
      5,
      0,
      SPARSE_BYTES,
    ]),
    checkLarge('the size of a large file', () => size('large'), LARGE_BYTES),
    check(
      'numbers of links',
      () => [links('small'), links('hard-1'), links('hard-2'), links('fifo'), links('to-small')],
      [1, 2, 2, 1, 1],
    ),
    check(
      'modification times',
      () =>
        ['small', 'dir', 'dir/inside', 'to-small', 'fifo', 'hard-1'].map(
          (path) => Number(mtimeNs(path)) / 1e9 === FIXTURE_TIME,
        ),
      [true, true, true, true, true, true],
    ),
    check(
      'the block size is a power of two',
      () => fact('small', ({ blksize }) => blksize >= 512n && (blksize & (blksize - 1n)) === 0n),
      true,
    ),
    check(
      'everything lies on one device',
      () => {
        const device = (path: string): string => identity(path).split(':')[0] ?? '';
        return ['small', 'dir', 'dir/inside', 'dir/below', 'to-small', 'fifo', 'hard-1'].every(
          (path) => device(path) === device('.'),
        );
      },
      true,
    ),
    check(
      'a new file lies on the device of its directory',
      () => {
        const device = (path: string): string => identity(path).split(':')[0] ?? '';
        return [
          tryOpen('dir/new', O_CREAT | O_RDWR),
          mkdir('dir/newer'),
          device('dir/new') === device('dir'),
          device('dir/newer') === device('dir'),
        ];
      },
      [0, 0, true, true],
    ),
    check(
      'everything has a number of its own',
      () => {
        const list = names('.');
        const paths = typeof list === 'string' ? [] : list.filter((name) => name !== 'hard-2');
        return new Set(paths.map(identity)).size === paths.length;
      },
      true,
    ),
    check('numbers stay: write', () => keepsIdentity('small', () => write(open('small', O_RDWR), 'x')), [1, true]),
    check('numbers stay: chmod', () => keepsIdentity('small', () => chmod('small', 0o600)), [0, true]),
    check('numbers stay: chown', () => keepsIdentity('small', () => chown('small', 7, 8)), [0, true]),
    check('numbers stay: times', () => keepsIdentity('small', () => utimesNow('small')), [0, true]),
    check('numbers stay: truncate', () => keepsIdentity('small', () => truncate('small', 3)), [0, true]),
    check('numbers stay: an attribute', () => keepsIdentity('small', () => setxattr('small', 'user.a', 'b')), [
      0,
      true,
    ]),
    check('numbers stay: rename', () => keepsIdentity('small > dir/new', () => rename('small', 'dir/new')), [0, true]),
    check('numbers stay: link', () => keepsIdentity('small', () => link('small', 'new')), [0, true]),
    check('numbers stay: link, the new name', () => keepsIdentity('small > new', () => link('small', 'new')), [
      0,
      true,
    ]),
    check('numbers stay: one of two names goes', () => keepsIdentity('hard-2', () => unlink('hard-1')), [0, true]),
    checkLarge(
      'numbers stay: a large file is written',
      () => keepsIdentity('large', () => write(open('large', O_RDWR), 'x')),
      [1, true],
    ),
    check(
      'numbers stay: a directory gets a new name in it',
      () => keepsIdentity('dir', () => tryOpen('dir/new', O_CREAT | O_RDWR)),
      [0, true],
    ),
    check('numbers stay: a directory is renamed', () => keepsIdentity('dir > new', () => rename('dir', 'new')), [
      0,
      true,
    ]),
    check(
      'numbers stay: what is in a directory that is renamed',
      () => keepsIdentity('dir/below/deep > new/below/deep', () => rename('dir', 'new')),
      [0, true],
    ),
    check('numbers stay: a directory loses what was in it', () => keepsIdentity('full', () => unlink('full/file')), [
      0,
      true,
    ]),
    check(
      'numbers stay: a symlink and a fifo are renamed',
      () => [
        keepsIdentity('to-small > s', () => rename('to-small', 's')),
        keepsIdentity('fifo > f', () => rename('fifo', 'f')),
      ],
      [
        [0, true],
        [0, true],
      ],
    ),
    check(
      "numbers are another file's after a rename over it",
      () => {
        const before = [identity('small'), identity('other')];
        return [rename('small', 'other'), identity('other') === before[0], identity('other') === before[1]];
      },
      [0, true, false],
    ),
    check(
      'the number in a listing is that of stat()',
      () => {
        tryOpen('dir/new', O_CREAT | O_RDWR);
        return ['.', 'dir'].every((dir) => identity(`${dir}/.`) === identity(dir));
      },
      true,
    ),
    check(
      'fstat() shows what stat() shows, after a change by another process',
      () => {
        const there = otherProcess().call('open', 'small', O_RDWR);
        return [
          size('small'),
          otherProcess().call('write', there, 'x'.repeat(50)),
          size('small'),
          otherProcess().call('ftruncate', there, 7),
          size('small'),
        ];
      },
      [15, 50, 50, 0, 7],
    ),
    check(
      'statfs(): names of 255 bytes are possible, and there is room',
      () => {
        const { bsize, blocks, bavail, files } = statfsSync('.');
        return [bsize > 0, blocks > 0, bavail > 0, files >= 0];
      },
      [true, true, true, true],
    ),
  ],
};
