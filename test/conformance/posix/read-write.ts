import {
  dup,
  fdatasync,
  fsync,
  lseek,
  O_CREAT,
  O_DIRECT,
  O_DSYNC,
  O_RDONLY,
  O_RDWR,
  O_SYNC,
  O_TRUNC,
  O_WRONLY,
  open,
  pread,
  pwrite,
  read,
  SEEK_CUR,
  SEEK_END,
  SEEK_SET,
  sendfile,
  syncfs,
  write,
} from './calls/files.ts';
import { alignedMemory } from './calls/memory.ts';
import { check, checkLarge, type Group } from './suite/check.ts';
import { LARGE_BYTES, largeContents } from './suite/fixture.ts';
import { blocks, brief, identity, size, text } from './suite/observe.ts';
import { otherProcess } from './suite/partner.ts';

/** The large file, changed in the same way in memory. */
function changedLarge(changes: readonly { at: number; bytes: string }[]): string {
  const contents = Buffer.from(largeContents());
  for (const { at, bytes } of changes) contents.write(bytes, at, 'latin1');
  return brief(contents);
}

/** read(2), write(2), lseek(2). */
export const READ_WRITE: Group = {
  name: 'read and write',
  checks: [
    check(
      'read() goes on where it was',
      () => {
        const fd = open('small', O_RDONLY);
        return [read(fd, 5), read(fd, 5), read(fd, 100), read(fd, 100)];
      },
      ['small', ' cont', 'ents\n', ''],
    ),
    check('read() of an empty file', () => read(open('empty', O_RDONLY), 10), ''),
    check('read() of nothing', () => read(open('small', O_RDONLY), 0), ''),
    check(
      'pread() leaves the position',
      () => {
        const fd = open('small', O_RDONLY);
        return [pread(fd, 8, 6), read(fd, 5)];
      },
      ['contents', 'small'],
    ),
    check(
      'pread() at and behind the end',
      () => {
        const fd = open('small', O_RDONLY);
        return [pread(fd, 10, 15), pread(fd, 10, 1_000_000), pread(fd, 10, 14)];
      },
      ['', '', '\n'],
    ),
    check('pread() before the start gives EINVAL', () => pread(open('small', O_RDONLY), 1, -1), 'EINVAL'),
    check(
      'write() goes on where it was',
      () => {
        const fd = open('small', O_RDWR);
        return [write(fd, 'SMALL'), write(fd, '-'), read(fd, 3), text('small')];
      },
      [5, 1, 'con', 'SMALL-contents\n'],
    ),
    check(
      'write() makes the file longer',
      () => {
        const fd = open('small', O_RDWR);
        return [lseek(fd, 0, SEEK_END), write(fd, 'more\n'), text('small'), size('small')];
      },
      [15, 5, 'small contents\nmore\n', 20],
    ),
    check(
      'pwrite() leaves the position',
      () => {
        const fd = open('small', O_RDWR);
        return [pwrite(fd, 'X', 6), read(fd, 7), text('small')];
      },
      [1, 'small X', 'small Xontents\n'],
    ),
    check('pwrite() behind the end: zeros between', () => [pwrite(open('small', O_RDWR), 'x', 20), text('small')], [
      1,
      'small contents\n\0\0\0\0\0x',
    ]),
    check('pwrite() before the start gives EINVAL', () => pwrite(open('small', O_RDWR), 'x', -1), 'EINVAL'),
    check(
      'pwrite() far behind the end takes little room',
      () => [pwrite(open('small', O_RDWR), 'x', 1_000_000_000), size('small'), blocks('small') < 100],
      [1, 1_000_000_001, true],
    ),
    check(
      'behind 2 GiB',
      () => {
        const fd = open('small', O_RDWR);
        return [pwrite(fd, 'far', 2 ** 31 - 1), pread(fd, 10, 2 ** 31 - 1), size('small')];
      },
      [3, 'far', 2_147_483_650],
    ),
    check(
      'behind 4 GiB',
      () => {
        const fd = open('small', O_RDWR);
        return [
          lseek(fd, 2 ** 32 + 7, SEEK_SET),
          write(fd, 'far'),
          lseek(fd, -3, SEEK_CUR),
          read(fd, 10),
          size('small'),
          pread(fd, 3, 7),
        ];
      },
      [4_294_967_303, 3, 4_294_967_300 + 3, 'far', 4_294_967_306, 'ont'],
    ),
    check('behind what a file can have gives EFBIG', () => pwrite(open('small', O_RDWR), 'x', 2 ** 53), 'EFBIG'),
    check(
      'lseek() from the start, the position, the end',
      () => {
        const fd = open('small', O_RDONLY);
        return [lseek(fd, 6, SEEK_SET), lseek(fd, 2, SEEK_CUR), lseek(fd, -5, SEEK_END), read(fd, 100)];
      },
      [6, 8, 10, 'ents\n'],
    ),
    check(
      'lseek() behind the end, and reading there',
      () => {
        const fd = open('small', O_RDONLY);
        return [lseek(fd, 100, SEEK_SET), read(fd, 1), size('small')];
      },
      [100, '', 15],
    ),
    check('lseek() before the start gives EINVAL', () => lseek(open('small', O_RDONLY), -16, SEEK_END), 'EINVAL'),
    check('lseek() with an unknown whence gives EINVAL', () => lseek(open('small', O_RDONLY), 0, 99), 'EINVAL'),
    check(
      'lseek() to the end sees what another descriptor wrote',
      () => {
        const [one, two] = [open('small', O_RDONLY), open('small', O_WRONLY)];
        return [lseek(one, 0, SEEK_END), pwrite(two, 'more', 15), lseek(one, 0, SEEK_END)];
      },
      [15, 4, 19],
    ),
    check(
      'two descriptors see one another',
      () => {
        const [one, two] = [open('small', O_RDWR), open('small', O_RDWR)];
        return [pwrite(one, '1', 0), pread(two, 2, 0), pwrite(two, '2', 1), pread(one, 3, 0)];
      },
      [1, '1m', 1, '12a'],
    ),
    check(
      'another process sees it at once',
      () => [otherProcess().text('small'), write(open('small', O_RDWR), 'SMALL'), otherProcess().text('small')],
      ['small contents\n', 5, 'SMALL contents\n'],
    ),
    check(
      'what another process wrote is seen at once',
      () => {
        const fd = open('small', O_RDWR);
        const there = otherProcess().call('open', 'small', O_RDWR);
        return [
          pread(fd, 5, 0),
          otherProcess().call('pwrite', there, 'THERE', 0),
          pread(fd, 5, 0),
          pwrite(fd, 'HERE', 5),
          otherProcess().call('pread', there, 10, 0),
        ];
      },
      ['small', 5, 'THERE', 4, 'THEREHEREt'],
    ),
    check(
      'a size that another process made is seen at once',
      () => {
        const there = otherProcess().call('open', 'small', O_RDWR);
        return [
          size('small'),
          otherProcess().call('pwrite', there, 'x', 99),
          size('small'),
          otherProcess().call('ftruncate', there, 3),
          size('small'),
          text('small'),
        ];
      },
      [15, 1, 100, 0, 3, 'sma'],
    ),
    check(
      'a duplicate writes where the first one is',
      () => {
        const fd = open('small', O_RDWR);
        return [write(fd, 'AB'), write(dup(fd), 'CD'), text('small')];
      },
      [2, 2, 'ABCDl contents\n'],
    ),
    check(
      'a write keeps the identity',
      () => {
        const before = identity('small');
        return [write(open('small', O_RDWR), 'x'), identity('small') === before];
      },
      [1, true],
    ),
    check(
      'a new file: written and read',
      () => {
        const fd = open('new', O_RDWR | O_CREAT);
        return [write(fd, 'a'.repeat(10_000)), pread(fd, 3, 9_998), size('new')];
      },
      [10_000, 'aa', 10_000],
    ),
    check(
      'a new file of 5 MB in pieces of 7,000 bytes',
      () => {
        const fd = open('new', O_RDWR | O_CREAT);
        const piece = largeContents().subarray(0, 7000);
        let total = 0;
        for (let at = 0; at < 700; at++) total += Number(write(fd, piece));
        return [total, size('new'), pread(fd, 16, 7000 * 650 + 16)];
      },
      [4_900_000, 4_900_000, '.............16\n'],
    ),
    check(
      'one write of 3 MB',
      () => {
        const fd = open('new', O_RDWR | O_CREAT);
        return [write(fd, largeContents()), pread(fd, 16, 3_000_000), text('new') === brief(largeContents())];
      },
      [LARGE_BYTES, '........3000000\n', true],
    ),
    checkLarge(
      'a few bytes of a large file, the rest stays',
      () => {
        const result = pwrite(open('large', O_RDWR), 'HERE', 1_234_567);
        return [result, text('large') === changedLarge([{ at: 1_234_567, bytes: 'HERE' }]), size('large')];
      },
      [4, true, LARGE_BYTES],
    ),
    checkLarge(
      'the first and the last byte of a large file',
      () => {
        const fd = open('large', O_RDWR);
        const results = [pwrite(fd, 'A', 0), pwrite(fd, 'Z', LARGE_BYTES - 1)];
        return [
          results,
          text('large') ===
            changedLarge([
              { at: 0, bytes: 'A' },
              { at: LARGE_BYTES - 1, bytes: 'Z' },
            ]),
        ];
      },
      [[1, 1], true],
    ),
    checkLarge(
      'bytes on both sides of a mebibyte of a large file',
      () => {
        const result = pwrite(open('large', O_RDWR), 'ACROSS', 2 ** 20 - 3);
        return [result, text('large') === changedLarge([{ at: 2 ** 20 - 3, bytes: 'ACROSS' }])];
      },
      [6, true],
    ),
    checkLarge(
      'a hundred places of a large file',
      () => {
        const fd = open('large', O_RDWR);
        const changes = Array.from({ length: 100 }, (_, at) => ({ at: (at * 31_337) % LARGE_BYTES, bytes: `<${at}>` }));
        for (const { at, bytes } of changes) pwrite(fd, bytes, at);
        return text('large') === changedLarge(changes);
      },
      true,
    ),
    checkLarge(
      'a large file, more at its end',
      () => {
        const result = pwrite(open('large', O_RDWR), 'END', LARGE_BYTES);
        return [result, size('large'), pread(open('large', O_RDONLY), 10, LARGE_BYTES - 2)];
      },
      [3, LARGE_BYTES + 3, '..END'],
    ),
    checkLarge(
      'a large file, far behind its end',
      () => {
        const result = pwrite(open('large', O_RDWR), 'END', LARGE_BYTES + 100_000);
        return [
          result,
          size('large'),
          pread(open('large', O_RDONLY), 4, LARGE_BYTES + 99_999),
          pread(open('large', O_RDONLY), 16, 2_000_000),
        ];
      },
      [3, LARGE_BYTES + 100_003, '\0END', '........2000000\n'],
    ),
    checkLarge(
      'a large file written whole',
      () => {
        const contents = Buffer.alloc(LARGE_BYTES, 'n');
        return [pwrite(open('large', O_RDWR), contents, 0), text('large') === brief(contents)];
      },
      [LARGE_BYTES, true],
    ),
    checkLarge(
      'a large file emptied and written anew',
      () => [write(open('large', O_WRONLY | O_TRUNC), 'new'), text('large')],
      [3, 'new'],
    ),
    checkLarge(
      'a large file read while it is written',
      () => {
        const [reader, writer] = [open('large', O_RDONLY), open('large', O_WRONLY)];
        const seen = [];
        for (let at = 0; at < 3_000_000; at += 1_000_000) {
          pwrite(writer, 'written', at + 16);
          seen.push(pread(reader, 16, at + 16));
        }
        return seen;
      },
      ['written......16\n', 'written.1000016\n', 'written.2000016\n'],
    ),
    check(
      'sendfile() from one file to another',
      () => [sendfile(open('other', O_WRONLY), open('small', O_RDONLY), 100), text('other')],
      [15, 'small contents\n'],
    ),
    checkLarge(
      'sendfile() of a large file',
      () => [
        sendfile(open('new', O_WRONLY | O_CREAT), open('large', O_RDONLY), 4_000_000),
        text('new') === brief(largeContents()),
      ],
      [LARGE_BYTES, true],
    ),
    check(
      'O_SYNC and O_DSYNC',
      () => [
        write(open('small', O_WRONLY | O_SYNC), 'A'),
        pwrite(open('small', O_WRONLY | O_DSYNC), 'B', 1),
        text('small'),
      ],
      [1, 1, 'ABall contents\n'],
    ),
    check(
      'fsync() and fdatasync() of what is open for reading',
      () => [fsync(open('small', O_RDONLY)), fdatasync(open('small', O_RDONLY))],
      [0, 0],
    ),
    check(
      'fsync() and fdatasync() of what was written',
      () => {
        const fd = open('small', O_RDWR);
        return [write(fd, 'X'), fsync(fd), write(fd, 'Y'), fdatasync(fd), text('small')];
      },
      [1, 0, 1, 0, 'XYall contents\n'],
    ),
    check('fsync() of a closed descriptor gives EBADF', () => [fsync(9999), fdatasync(9999)], ['EBADF', 'EBADF']),
    check('syncfs()', () => [write(open('small', O_RDWR), 'X'), syncfs(open('.', O_RDONLY))], [1, 0]),
    check(
      'O_DIRECT: a block is written and read',
      () => {
        const memory = alignedMemory(4096);
        memory.write(0, 'direct'.padEnd(4096, '.'));
        const fd = open('new', O_RDWR | O_CREAT | O_DIRECT);
        const written = memory.pwrite(fd, 4096, 0);
        memory.write(0, 'nothing');
        return [written, memory.pread(fd, 4096, 0), memory.read(0, 8), size('new')];
      },
      [4096, 4096, 'direct..', 4096],
    ),
    checkLarge(
      'O_DIRECT: a block of a large file is read',
      () => {
        const memory = alignedMemory(4096);
        return [memory.pread(open('large', O_RDONLY | O_DIRECT), 4096, 2 ** 21), memory.read(0, 16)];
      },
      [4096, '........2097152\n'],
    ),
    checkLarge(
      'O_DIRECT: a block of a large file is written, the rest stays',
      () => {
        const memory = alignedMemory(4096);
        memory.write(0, 'D'.repeat(4096));
        const written = memory.pwrite(open('large', O_RDWR | O_DIRECT), 4096, 2 ** 21);
        return [written, text('large') === changedLarge([{ at: 2 ** 21, bytes: 'D'.repeat(4096) }])];
      },
      [4096, true],
    ),
    check(
      'O_DIRECT and cached reading see the same',
      () => {
        const memory = alignedMemory(4096);
        memory.write(0, 'direct'.padEnd(4096, '.'));
        const [cached, direct] = [open('public', O_RDWR), open('public', O_RDWR | O_DIRECT)];
        return [
          pread(cached, 6, 0),
          memory.pwrite(direct, 4096, 0),
          pread(cached, 6, 0),
          pwrite(cached, 'CACHED', 0),
          memory.pread(direct, 4096, 0),
          memory.read(0, 8),
        ];
      },
      ['public', 4096, 'direct', 6, 4096, 'CACHED..'],
    ),
  ],
};
