import {
  copyFileRange,
  fallocate,
  FALLOC_FL_COLLAPSE_RANGE,
  FALLOC_FL_INSERT_RANGE,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  fsync,
  lseek,
  O_APPEND,
  O_CREAT,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  open,
  pread,
  preadBytes,
  pwrite,
  SEEK_DATA,
  SEEK_HOLE,
  truncate,
  write,
} from './calls/files.ts';
import type { Outcome } from './calls/libc.ts';
import { link } from './calls/names.ts';
import { check, checkLarge, type Group } from './suite/check.ts';
import { LARGE_BYTES, largeContents, SPARSE_BYTES, SPARSE_DATA } from './suite/fixture.ts';
import { blocks, brief, size, text } from './suite/observe.ts';

const PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

function zeros(fd: Outcome, from: number, to: number): boolean {
  const bytes = preadBytes(fd, to - from, from);
  return typeof bytes !== 'string' && bytes.length === to - from && bytes.every((byte) => byte === 0);
}

/** Copies within a file or from one to another, whole: copy_file_range(2) may do less than it is asked. */
function copyAll(
  from: { fd: Outcome; offset: number },
  to: { fd: Outcome; offset: number },
  lengthBytes: number,
): Outcome {
  for (let done = 0; done < lengthBytes;) {
    const at = (side: { fd: Outcome; offset: number }): { fd: Outcome; offset: number } => ({
      ...side,
      offset: side.offset + done,
    });
    const copied = copyFileRange(at(from), at(to), lengthBytes - done);
    if (typeof copied === 'string') return copied;
    if (copied === 0) return done;
    done += copied;
  }
  return lengthBytes;
}

/** fallocate(2), holes, copy_file_range(2), and how much room a file takes. */
export const ALLOCATE: Group = {
  name: 'allocate',
  checks: [
    check(
      'fallocate() makes a file longer, with zeros',
      () => [fallocate(open('small', O_RDWR), 0, 0, 100), size('small'), text('small')],
      [0, 100, `small contents\n${'\0'.repeat(85)}`],
    ),
    check(
      'fallocate() within a file changes nothing',
      () => [fallocate(open('small', O_RDWR), 0, 0, 10), text('small')],
      [0, 'small contents\n'],
    ),
    check(
      'fallocate() behind the end',
      () => [
        fallocate(open('small', O_RDWR), 0, 10_000, 100),
        size('small'),
        zeros(open('small', O_RDONLY), 15, 10_100),
      ],
      [0, 10_100, true],
    ),
    check('fallocate() takes room', () => [fallocate(open('empty', O_RDWR), 0, 0, 2 ** 20), blocks('empty') >= 2048], [
      0,
      true,
    ]),
    check(
      'fallocate() with KEEP_SIZE takes room and keeps the size',
      () => [fallocate(open('empty', O_RDWR), FALLOC_FL_KEEP_SIZE, 0, 2 ** 20), size('empty'), blocks('empty') >= 2048],
      [0, 0, true],
    ),
    check(
      'fallocate() of a new file',
      () => {
        const fd = open('new', O_RDWR | O_CREAT);
        return [fallocate(fd, 0, 0, 5000), pwrite(fd, 'x', 4999), size('new'), zeros(fd, 0, 4999)];
      },
      [0, 1, 5000, true],
    ),
    checkLarge(
      'fallocate() makes a large file longer',
      () => [
        fallocate(open('large', O_RDWR), 0, LARGE_BYTES, 100_000),
        size('large'),
        pread(open('large', O_RDONLY), 16, 3_000_000),
      ],
      [0, LARGE_BYTES + 100_000, '........3000000\n'],
    ),
    check(
      'fallocate() of nothing gives EINVAL',
      () => [fallocate(open('small', O_RDWR), 0, 0, 0), fallocate(open('small', O_RDWR), 0, -1, 5)],
      ['EINVAL', 'EINVAL'],
    ),
    check(
      'fallocate() of what is open for reading gives EBADF',
      () => fallocate(open('small', O_RDONLY), 0, 0, 10),
      'EBADF',
    ),
    check('fallocate() of a fifo gives ESPIPE', () => fallocate(open('fifo', O_RDWR), 0, 0, 10), 'ESPIPE'),
    check(
      'fallocate() of more than a file can have gives EFBIG',
      () => fallocate(open('small', O_RDWR), 0, 2 ** 52, 2 ** 52),
      'EFBIG',
    ),
    check(
      'fallocate() with an unknown mode gives ENOTSUP',
      () => fallocate(open('small', O_RDWR), 0x8000, 0, 10),
      'ENOTSUP',
    ),

    check('a punched hole is zeros', () => [fallocate(open('small', O_RDWR), PUNCH, 2, 5), text('small')], [
      0,
      'sm\0\0\0\0\0ontents\n',
    ]),
    checkLarge(
      'a punched hole in a large file',
      () => {
        const fd = open('large', O_RDWR);
        return [
          fallocate(fd, PUNCH, 1_000_000, 1_000_000),
          zeros(fd, 1_000_000, 2_000_000),
          pread(fd, 16, 2_000_000),
          pread(fd, 16, 999_984),
          size('large'),
        ];
      },
      [0, true, '........2000000\n', '.........999984\n', LARGE_BYTES],
    ),
    checkLarge(
      'a punched hole gives room back',
      () => {
        const fd = open('large', O_RDWR);
        const results = [pwrite(fd, 'x', 0), fsync(fd), fallocate(fd, PUNCH, 0, 3 * 2 ** 20), fsync(fd)];
        return [results, blocks('large') < 100];
      },
      [[1, 0, 0, 0], true],
    ),
    check(
      'a punched hole behind the end changes nothing',
      () => [fallocate(open('small', O_RDWR), PUNCH, 100, 100), size('small'), text('small')],
      [0, 15, 'small contents\n'],
    ),
    check(
      'a punched hole over the end keeps the size',
      () => [fallocate(open('small', O_RDWR), PUNCH, 10, 100), text('small')],
      [0, 'small cont\0\0\0\0\0'],
    ),
    check(
      'PUNCH_HOLE without KEEP_SIZE gives ENOTSUP',
      () => fallocate(open('small', O_RDWR), FALLOC_FL_PUNCH_HOLE, 0, 10),
      'ENOTSUP',
    ),
    check('ZERO_RANGE is zeros', () => [fallocate(open('small', O_RDWR), FALLOC_FL_ZERO_RANGE, 2, 5), text('small')], [
      0,
      'sm\0\0\0\0\0ontents\n',
    ]),
    check(
      'ZERO_RANGE makes a file longer',
      () => [fallocate(open('small', O_RDWR), FALLOC_FL_ZERO_RANGE, 10, 100), size('small')],
      [0, 110],
    ),
    checkLarge(
      'ZERO_RANGE in a large file',
      () => {
        const fd = open('large', O_RDWR);
        return [
          fallocate(fd, FALLOC_FL_ZERO_RANGE, 1_000_000, 1_000_000),
          zeros(fd, 1_000_000, 2_000_000),
          pread(fd, 16, 2_000_000),
        ];
      },
      [0, true, '........2000000\n'],
    ),
    checkLarge(
      'COLLAPSE_RANGE takes blocks out',
      () => {
        const fd = open('large', O_RDWR);
        return [fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 4096, 8192), size('large'), pread(fd, 16, 4096)];
      },
      [0, LARGE_BYTES - 8192, '..........12288\n'],
    ),
    checkLarge(
      'INSERT_RANGE puts zeros in',
      () => {
        const fd = open('large', O_RDWR);
        return [
          fallocate(fd, FALLOC_FL_INSERT_RANGE, 4096, 8192),
          size('large'),
          zeros(fd, 4096, 12_288),
          pread(fd, 16, 12_288),
        ];
      },
      [0, LARGE_BYTES + 8192, true, '...........4096\n'],
    ),

    check(
      'SEEK_DATA and SEEK_HOLE of a sparse file',
      () => {
        const fd = open('sparse', O_RDONLY);
        return [
          lseek(fd, 0, SEEK_DATA),
          lseek(fd, 0, SEEK_HOLE),
          lseek(fd, 4096, SEEK_DATA),
          lseek(fd, SPARSE_DATA, SEEK_HOLE),
        ];
      },
      [0, 4096, SPARSE_DATA, SPARSE_DATA + 4096],
    ),
    check(
      'SEEK_DATA behind the last data gives ENXIO',
      () => lseek(open('sparse', O_RDONLY), SPARSE_DATA + 4096, SEEK_DATA),
      'ENXIO',
    ),
    check(
      'SEEK_DATA and SEEK_HOLE behind the end give ENXIO',
      () => [
        lseek(open('sparse', O_RDONLY), SPARSE_BYTES, SEEK_DATA),
        lseek(open('sparse', O_RDONLY), SPARSE_BYTES + 1, SEEK_HOLE),
      ],
      ['ENXIO', 'ENXIO'],
    ),
    check(
      'a file without holes: data at once, a hole at its end',
      () => [
        lseek(open('small', O_RDONLY), 0, SEEK_DATA),
        lseek(open('small', O_RDONLY), 3, SEEK_HOLE),
        lseek(open('small', O_RDONLY), 15, SEEK_HOLE),
      ],
      [0, 15, 'ENXIO'],
    ),
    checkLarge(
      'a large file without holes',
      () => [lseek(open('large', O_RDONLY), 1_000_000, SEEK_DATA), lseek(open('large', O_RDONLY), 0, SEEK_HOLE)],
      [1_000_000, LARGE_BYTES],
    ),
    check(
      'an empty file',
      () => [lseek(open('empty', O_RDONLY), 0, SEEK_DATA), lseek(open('empty', O_RDONLY), 0, SEEK_HOLE)],
      ['ENXIO', 'ENXIO'],
    ),
    check(
      'SEEK_HOLE of a file that was made longer',
      () => [
        truncate('empty', 2 ** 20),
        lseek(open('empty', O_RDONLY), 0, SEEK_DATA),
        lseek(open('empty', O_RDONLY), 0, SEEK_HOLE),
      ],
      [0, 'ENXIO', 0],
    ),
    check(
      'SEEK_DATA of what was written into a hole',
      () => {
        const fd = open('new', O_RDWR | O_CREAT);
        return [
          pwrite(fd, Buffer.alloc(4096, 'x'), 65_536),
          fsync(fd),
          lseek(fd, 0, SEEK_DATA),
          lseek(fd, 0, SEEK_HOLE),
          lseek(fd, 65_536, SEEK_HOLE),
        ];
      },
      [4096, 0, 65_536, 0, 69_632],
    ),
    check(
      'a sparse file stays sparse when it is written',
      () => {
        const fd = open('sparse', O_RDWR);
        return [
          pwrite(fd, 'x', 0),
          fsync(fd),
          lseek(fd, 4096, SEEK_DATA),
          blocks('sparse') < 200,
          pread(fd, 3, SPARSE_DATA),
        ];
      },
      [1, 0, SPARSE_DATA, true, 'bbb'],
    ),
    checkLarge(
      'SEEK_HOLE of a punched hole',
      () => {
        const fd = open('large', O_RDWR);
        return [
          fallocate(fd, PUNCH, 2 ** 20, 2 ** 20),
          fsync(fd),
          lseek(fd, 0, SEEK_HOLE),
          lseek(fd, 2 ** 20, SEEK_DATA),
        ];
      },
      [0, 0, 2 ** 20, 2 ** 21],
    ),

    check('st_blocks: an empty file has none', () => blocks('empty'), 0),
    check('st_blocks: a small file has some', () => blocks('small') > 0, true),
    checkLarge(
      'st_blocks: a large file has as many as it is large',
      () => Math.abs(blocks('large') * 512 - LARGE_BYTES) < 65_536,
      true,
    ),
    check('st_blocks: a sparse file has few', () => [blocks('sparse') > 0, blocks('sparse') < 100], [true, true]),
    check(
      'st_blocks: what was written takes room',
      () => {
        const fd = open('new', O_RDWR | O_CREAT);
        return [write(fd, Buffer.alloc(100_000, 'x')), fsync(fd), blocks('new') >= 196];
      },
      [100_000, 0, true],
    ),

    check(
      'copy_file_range() of a whole file',
      () => [
        copyAll({ fd: open('small', O_RDONLY), offset: 0 }, { fd: open('other', O_WRONLY), offset: 0 }, 15),
        text('other'),
      ],
      [15, 'small contents\n'],
    ),
    check(
      'copy_file_range() of a part to another place',
      () => [
        copyAll({ fd: open('small', O_RDONLY), offset: 6 }, { fd: open('other', O_WRONLY), offset: 2 }, 4),
        text('other'),
      ],
      [4, 'otcontcontents\n'],
    ),
    check(
      'copy_file_range() behind the end: zeros between',
      () => [
        copyAll({ fd: open('small', O_RDONLY), offset: 0 }, { fd: open('empty', O_WRONLY), offset: 5 }, 5),
        text('empty'),
      ],
      [5, '\0\0\0\0\0small'],
    ),
    check(
      'copy_file_range() from the end gives 0',
      () => copyFileRange({ fd: open('small', O_RDONLY), offset: 15 }, { fd: open('other', O_WRONLY), offset: 0 }, 5),
      0,
    ),
    check(
      'copy_file_range() of more than there is',
      () => [
        copyFileRange({ fd: open('small', O_RDONLY), offset: 10 }, { fd: open('empty', O_WRONLY), offset: 0 }, 100),
        text('empty'),
      ],
      [5, 'ents\n'],
    ),
    checkLarge(
      'copy_file_range() of a large file to a new one',
      () => [
        copyAll(
          { fd: open('large', O_RDONLY), offset: 0 },
          { fd: open('new', O_RDWR | O_CREAT), offset: 0 },
          LARGE_BYTES,
        ),
        text('new') === brief(largeContents()),
      ],
      [LARGE_BYTES, true],
    ),
    checkLarge(
      'copy_file_range() into a large file',
      () => {
        const fd = open('large', O_RDWR);
        return [
          copyAll({ fd: open('small', O_RDONLY), offset: 0 }, { fd, offset: 2_000_000 }, 5),
          pread(fd, 16, 2_000_000),
          size('large'),
        ];
      },
      [5, 'small...2000000\n', LARGE_BYTES],
    ),
    checkLarge(
      'copy_file_range() within a large file',
      () => {
        const fd = open('large', O_RDWR);
        return [copyAll({ fd, offset: 0 }, { fd, offset: 2_000_000 }, 32), pread(fd, 48, 2_000_000)];
      },
      [32, '..............0\n.............16\n........2000032\n'],
    ),
    check(
      'copy_file_range() within a file, overlapping, gives EINVAL',
      () => {
        const fd = open('small', O_RDWR);
        return copyFileRange({ fd, offset: 0 }, { fd, offset: 2 }, 5);
      },
      'EINVAL',
    ),
    check(
      'copy_file_range() from one name of a file to the other, overlapping, gives EINVAL',
      () => {
        return copyFileRange({ fd: open('hard-1', O_RDONLY), offset: 0 }, { fd: open('hard-2', O_RDWR), offset: 2 }, 5);
      },
      'EINVAL',
    ),
    check(
      'copy_file_range() from a name to a new name of it',
      () => [
        link('small', 'new'),
        copyAll({ fd: open('small', O_RDONLY), offset: 0 }, { fd: open('new', O_RDWR), offset: 6 }, 5),
        text('small'),
      ],
      [0, 5, 'small smallnts\n'],
    ),
    check(
      'copy_file_range() to what is open for reading gives EBADF',
      () => copyFileRange({ fd: open('small', O_RDONLY), offset: 0 }, { fd: open('other', O_RDONLY), offset: 0 }, 5),
      'EBADF',
    ),
    check(
      'copy_file_range() from what is open for writing gives EBADF',
      () => copyFileRange({ fd: open('small', O_WRONLY), offset: 0 }, { fd: open('other', O_WRONLY), offset: 0 }, 5),
      'EBADF',
    ),
    check(
      'copy_file_range() to what appends gives EBADF',
      () =>
        copyFileRange(
          { fd: open('small', O_RDONLY), offset: 0 },
          { fd: open('other', O_WRONLY | O_APPEND), offset: 0 },
          5,
        ),
      'EBADF',
    ),
    check(
      'copy_file_range() of a directory gives EISDIR',
      () => copyFileRange({ fd: open('dir', O_RDONLY), offset: 0 }, { fd: open('other', O_WRONLY), offset: 0 }, 5),
      'EISDIR',
    ),
    check(
      'copy_file_range() sees what was just written',
      () => {
        const fd = open('small', O_RDWR);
        return [
          pwrite(fd, 'SMALL', 0),
          copyAll({ fd, offset: 0 }, { fd: open('empty', O_WRONLY), offset: 0 }, 10),
          text('empty'),
        ];
      },
      [5, 10, 'SMALL cont'],
    ),
  ],
};
