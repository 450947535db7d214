import {
  close,
  fsync,
  ftruncate,
  O_CREAT,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
  open,
  pread,
  pwrite,
  truncate,
  write,
} from './calls/files.ts';
import { map, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE, tryMap } from './calls/memory.ts';
import { link, rename, unlink } from './calls/names.ts';
import { check, checkLarge, type Group } from './suite/check.ts';
import { LARGE_BYTES } from './suite/fixture.ts';
import { kind, mtimeNs, size, text } from './suite/observe.ts';
import { otherProcess } from './suite/partner.ts';

const PAGE = 4096;

/** mmap(2), and whether mappings, reads and writes see one another. */
export const MMAP: Group = {
  name: 'mmap',
  checks: [
    check(
      'a file is seen in memory',
      () => map(open('small', O_RDONLY), { lengthBytes: 15, protection: PROT_READ }).read(0, 15),
      'small contents\n',
    ),
    check(
      'behind the end of the file the page is zeros',
      () => map(open('small', O_RDONLY), { lengthBytes: PAGE, protection: PROT_READ }).read(14, 5),
      '\n\0\0\0\0',
    ),
    checkLarge(
      'a large file is seen in memory',
      () => {
        const mapping = map(open('large', O_RDONLY), { lengthBytes: LARGE_BYTES, protection: PROT_READ });
        return [mapping.read(0, 16), mapping.read(2_000_000, 16), mapping.read(LARGE_BYTES - 2, 2)];
      },
      ['..............0\n', '........2000000\n', '..'],
    ),
    checkLarge(
      'a part of a large file, from a page on',
      () => map(open('large', O_RDONLY), { lengthBytes: PAGE, protection: PROT_READ, offset: 2 ** 21 }).read(0, 16),
      '........2097152\n',
    ),
    check(
      'it stays after the descriptor is closed',
      () => {
        const fd = open('small', O_RDONLY);
        const mapping = map(fd, { lengthBytes: 15, protection: PROT_READ });
        return [close(fd), mapping.read(0, 5)];
      },
      [0, 'small'],
    ),
    check(
      'what is stored in a shared mapping is read from the file',
      () => {
        const fd = open('small', O_RDWR);
        map(fd, { lengthBytes: 15 }).write(0, 'SMALL');
        return [pread(fd, 15, 0), text('small')];
      },
      ['SMALL contents\n', 'SMALL contents\n'],
    ),
    checkLarge(
      'what is stored in a shared mapping of a large file',
      () => {
        const fd = open('large', O_RDWR);
        const mapping = map(fd, { lengthBytes: LARGE_BYTES });
        mapping.write(2_000_000, 'HERE');
        return [pread(fd, 16, 2_000_000), pread(open('large', O_RDONLY), 16, 2_000_000), pread(fd, 16, 1_000_000)];
      },
      ['HERE....2000000\n', 'HERE....2000000\n', '........1000000\n'],
    ),
    check(
      'it is there after msync() and unmapping',
      () => {
        const fd = open('small', O_RDWR);
        const mapping = map(fd, { lengthBytes: 15 });
        mapping.write(0, 'SMALL');
        return [mapping.sync(), mapping.unmap(), close(fd), text('small')];
      },
      [0, 0, 0, 'SMALL contents\n'],
    ),
    check(
      'it is there after unmapping without msync()',
      () => {
        const fd = open('small', O_RDWR);
        const mapping = map(fd, { lengthBytes: 15 });
        mapping.write(6, 'CONTENTS');
        return [mapping.unmap(), close(fd), text('small')];
      },
      [0, 0, 'small CONTENTS\n'],
    ),
    check(
      'it is there after fsync()',
      () => {
        const fd = open('small', O_RDWR);
        map(fd, { lengthBytes: 15 }).write(0, 'S');
        return [fsync(fd), text('small')];
      },
      [0, 'Small contents\n'],
    ),
    check(
      'what is written to the file is seen in a shared mapping',
      () => {
        const fd = open('small', O_RDWR);
        const mapping = map(fd, { lengthBytes: 15 });
        return [
          mapping.read(0, 5),
          pwrite(fd, 'WRITE', 0),
          mapping.read(0, 5),
          pwrite(open('small', O_WRONLY), 'AGAIN', 0),
          mapping.read(0, 5),
        ];
      },
      ['small', 5, 'WRITE', 5, 'AGAIN'],
    ),
    check(
      'a mapping made of what is open for reading sees what is written later',
      () => {
        const mapping = map(open('small', O_RDONLY), { lengthBytes: 15, protection: PROT_READ });
        return [mapping.read(0, 5), write(open('small', O_WRONLY), 'LATER'), mapping.read(0, 5)];
      },
      ['small', 5, 'LATER'],
    ),
    checkLarge(
      'a mapping made of a large file open for reading sees what is written later',
      () => {
        const mapping = map(open('large', O_RDONLY), { lengthBytes: LARGE_BYTES, protection: PROT_READ });
        return [
          mapping.read(2_000_000, 16),
          pwrite(open('large', O_WRONLY), 'LATER', 2_000_000),
          mapping.read(2_000_000, 16),
        ];
      },
      ['........2000000\n', 5, 'LATER...2000000\n'],
    ),
    check(
      'two mappings of two descriptors see one another',
      () => {
        const [one, two] = [
          map(open('small', O_RDWR), { lengthBytes: 15 }),
          map(open('small', O_RDWR), { lengthBytes: 15 }),
        ];
        one.write(0, '1');
        two.write(1, '2');
        return [one.read(0, 5), two.read(0, 5)];
      },
      ['12all', '12all'],
    ),
    check(
      'what another process writes is seen',
      () => {
        const mapping = map(open('small', O_RDWR), { lengthBytes: 15 });
        const there = otherProcess().call('open', 'small', O_RDWR);
        const results = [mapping.read(0, 5), otherProcess().call('pwrite', there, 'THERE', 0), mapping.read(0, 5)];
        mapping.write(0, 'HERE!');
        return [results, otherProcess().call('pread', there, 5, 0)];
      },
      [['small', 5, 'THERE'], 'HERE!'],
    ),
    check(
      'what is stored in a private mapping stays there',
      () => {
        const fd = open('small', O_RDWR);
        const mapping = map(fd, { lengthBytes: 15, flags: MAP_PRIVATE });
        mapping.write(0, 'SMALL');
        return [mapping.read(0, 15), pread(fd, 15, 0), text('small')];
      },
      ['SMALL contents\n', 'small contents\n', 'small contents\n'],
    ),
    check(
      'a private mapping for writing of what is open for reading',
      () => {
        const mapping = map(open('small', O_RDONLY), {
          lengthBytes: 15,
          flags: MAP_PRIVATE,
          protection: PROT_READ | PROT_WRITE,
        });
        mapping.write(0, 'SMALL');
        return [mapping.read(0, 5), text('small')];
      },
      ['SMALL', 'small contents\n'],
    ),
    check(
      'a private mapping sees what is written until it is stored to',
      () => {
        const fd = open('small', O_RDWR);
        const mapping = map(fd, { lengthBytes: 15, flags: MAP_PRIVATE });
        const before = [mapping.read(0, 5), pwrite(fd, 'WRITE', 0), mapping.read(0, 5)];
        mapping.write(10, 'x');
        return [before, pwrite(fd, 'AGAIN', 0), mapping.read(0, 5)];
      },
      [['small', 5, 'WRITE'], 5, 'WRITE'],
    ),
    check(
      'a shared mapping for writing of what is open for reading gives EACCES',
      () => tryMap(open('small', O_RDONLY), { lengthBytes: 15, flags: MAP_SHARED }),
      'EACCES',
    ),
    check(
      'a mapping of what is open for writing only gives EACCES',
      () => tryMap(open('small', O_WRONLY), { lengthBytes: 15, protection: PROT_READ }),
      'EACCES',
    ),
    check('a mapping of nothing gives EINVAL', () => tryMap(open('small', O_RDWR), { lengthBytes: 0 }), 'EINVAL'),
    check(
      'a mapping from the middle of a page gives EINVAL',
      () => tryMap(open('small', O_RDWR), { lengthBytes: 15, offset: 100 }),
      'EINVAL',
    ),
    check(
      'a mapping of a directory gives ENODEV',
      () => tryMap(open('dir', O_RDONLY), { lengthBytes: 15, protection: PROT_READ }),
      'ENODEV',
    ),
    check(
      'a file that was made longer, stored behind its old end',
      () => {
        const fd = open('small', O_RDWR);
        const results = ftruncate(fd, 3 * PAGE);
        const mapping = map(fd, { lengthBytes: 3 * PAGE });
        mapping.write(2 * PAGE, 'far');
        return [results, pread(fd, 5, 2 * PAGE), size('small'), mapping.read(0, 5)];
      },
      [0, 'far\0\0', 3 * PAGE, 'small'],
    ),
    check(
      'a new file, stored through its mapping alone',
      () => {
        const fd = open('new', O_RDWR | O_CREAT | O_TRUNC);
        const result = ftruncate(fd, 2 * PAGE);
        const mapping = map(fd, { lengthBytes: 2 * PAGE });
        mapping.write(PAGE, 'second');
        mapping.write(0, 'first');
        return [
          result,
          mapping.unmap(),
          close(fd),
          pread(open('new', O_RDONLY), 6, 0),
          pread(open('new', O_RDONLY), 6, PAGE),
        ];
      },
      [0, 0, 0, 'first\0', 'second'],
    ),
    check(
      'what is stored behind the end of the file is not in the file',
      () => {
        const fd = open('small', O_RDWR);
        const mapping = map(fd, { lengthBytes: PAGE });
        mapping.write(20, 'behind');
        return [mapping.sync(), size('small'), mapping.unmap(), ftruncate(fd, 30), text('small')];
      },
      [0, 15, 0, 0, `small contents\n${'\0'.repeat(15)}`],
    ),
    check(
      'a truncation is seen in the mapping',
      () => {
        const fd = open('small', O_RDWR);
        const mapping = map(fd, { lengthBytes: 15 });
        return [mapping.read(0, 8), ftruncate(fd, 5), mapping.read(0, 8)];
      },
      ['small co', 0, 'small\0\0\0'],
    ),
    check(
      'a mapping outlives the name of its file',
      () => {
        const fd = open('small', O_RDWR);
        const mapping = map(fd, { lengthBytes: 15 });
        const results = [unlink('small'), mapping.read(0, 5)];
        mapping.write(0, 'SMALL');
        return [results, pread(fd, 5, 0), kind('small')];
      },
      [[0, 'small'], 'SMALL', 'ENOENT'],
    ),
    check(
      'a mapping follows its file to another name',
      () => {
        const mapping = map(open('small', O_RDWR), { lengthBytes: 15 });
        const result = rename('small', 'moved');
        mapping.write(0, 'SMALL');
        return [result, text('moved')];
      },
      [0, 'SMALL contents\n'],
    ),
    check(
      'a mapping through one name is seen through the other',
      () => {
        map(open('hard-1', O_RDWR), { lengthBytes: 14 }).write(0, 'HARD');
        return text('hard-2');
      },
      'HARD contents\n',
    ),
    check(
      'a mapping through a new name',
      () => {
        const result = link('small', 'new');
        map(open('new', O_RDWR), { lengthBytes: 15 }).write(0, 'SMALL');
        return [result, text('small')];
      },
      [0, 'SMALL contents\n'],
    ),
    check(
      'storing moves mtime once it is synchronised',
      () => {
        const before = mtimeNs('small');
        const fd = open('small', O_RDWR);
        const mapping = map(fd, { lengthBytes: 15 });
        mapping.write(0, 'S');
        return [mapping.sync(), fsync(fd), mtimeNs('small') === before];
      },
      [0, 0, false],
    ),
    check(
      'mapping alone moves nothing',
      () => {
        const before = mtimeNs('small');
        const mapping = map(open('small', O_RDWR), { lengthBytes: 15 });
        return [mapping.read(0, 1), mapping.unmap(), mtimeNs('small') === before];
      },
      ['s', 0, true],
    ),
    checkLarge(
      'every page of a large file stored to',
      () => {
        const fd = open('large', O_RDWR);
        const mapping = map(fd, { lengthBytes: LARGE_BYTES });
        const pages = Math.ceil(LARGE_BYTES / PAGE);
        for (let page = 0; page < pages; page++) mapping.write(page * PAGE, 'P');
        const wrong = Array.from({ length: pages }, (_, page) => page).filter(
          (page) => pread(fd, 2, page * PAGE) !== 'P.',
        );
        return [wrong.length, size('large')];
      },
      [0, LARGE_BYTES],
    ),
    checkLarge(
      'a hole made by a truncation, stored into',
      () => {
        const result = [truncate('large', PAGE), truncate('large', 2 ** 20)];
        const fd = open('large', O_RDWR);
        map(fd, { lengthBytes: 2 ** 20 }).write(500_000, 'HERE');
        return [result, pread(fd, 6, 499_999), pread(fd, 3, PAGE)];
      },
      [[0, 0], '\0HERE\0', '\0\0\0'],
    ),
  ],
};
