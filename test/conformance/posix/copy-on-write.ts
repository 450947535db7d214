import { chmod, setxattr, getxattr } from './calls/attributes.ts';
import {
  close,
  fsync,
  O_CREAT,
  O_EXCL,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
  open,
  pread,
  pwrite,
  tryOpen,
  write,
} from './calls/files.ts';
import { exchange, link, mkdir, rename, rmdir, symlink, unlink } from './calls/names.ts';
import { check, checkLarge, type Group } from './suite/check.ts';
import { brief, kind, links, names, size, text } from './suite/observe.ts';

const put = (path: string, contents: string): unknown => write(open(path, O_RDWR | O_CREAT | O_TRUNC), contents);

/** Removes a directory of the fixture and all that is in it. */
function removeDir(): void {
  for (const path of ['dir/below/deep', 'dir/inside']) unlink(path);
  for (const path of ['dir/below', 'dir']) rmdir(path);
}

/** Where layers meet: what is below must not shine through, and what was changed must be found wherever it went. */
export const COPY_ON_WRITE: Group = {
  name: 'copy on write',
  checks: [
    check(
      'a removed tree made anew shows nothing old, at any depth',
      () => {
        removeDir();
        const made = [mkdir('dir'), mkdir('dir/below')];
        return [made, names('dir'), names('dir/below'), kind('dir/inside'), kind('dir/below/deep')];
      },
      [[0, 0], ['below'], [], 'ENOENT', 'ENOENT'],
    ),
    check(
      'a removed tree made anew, moved: still nothing old',
      () => {
        removeDir();
        mkdir('dir');
        return [rename('dir', 'moved'), names('moved'), kind('dir'), mkdir('moved/below'), names('moved/below')];
      },
      [0, [], 'ENOENT', 0, []],
    ),
    check(
      'a tree moved away, one made in its place, that one moved onto another',
      () => {
        const results = [rename('dir', 'away'), mkdir('dir')];
        put('dir/own', 'own');
        return [results, rename('dir', 'hollow'), names('hollow'), names('away'), kind('dir')];
      },
      [[0, 0], 0, ['own'], ['below', 'inside'], 'ENOENT'],
    ),
    check(
      'a tree moved into one made in its place',
      () => {
        const results = [rename('dir', 'away'), mkdir('dir'), rename('away', 'dir/away')];
        return [results, names('dir'), names('dir/away'), text('dir/away/below/deep')];
      },
      [[0, 0, 0], ['away'], ['below', 'inside'], 'deep\n'],
    ),
    check(
      'a file moved to the name of a removed tree, and removed there',
      () => {
        removeDir();
        return [rename('small', 'dir'), text('dir'), unlink('dir'), kind('dir'), mkdir('dir'), names('dir')];
      },
      [0, 'small contents\n', 0, 'ENOENT', 0, []],
    ),
    check(
      'a tree moved to the name of a removed file',
      () => [unlink('small'), rename('dir', 'small'), names('small'), text('small/inside')],
      [0, 0, ['below', 'inside'], 'inside\n'],
    ),
    check(
      'a tree moved back over a new empty one',
      () => [rename('dir', 'away'), mkdir('dir'), rename('away', 'dir'), names('dir'), text('dir/below/deep')],
      [0, 0, 0, ['below', 'inside'], 'deep\n'],
    ),
    check(
      'two trees change places by three renames',
      () => [
        rename('dir', 't'),
        rename('full', 'dir'),
        rename('t', 'full'),
        names('dir'),
        names('full'),
        text('full/below/deep'),
      ],
      [0, 0, 0, ['file'], ['below', 'inside'], 'deep\n'],
    ),
    check(
      'a tree exchanged with a new one, and both changed',
      () => {
        mkdir('new');
        put('new/own', 'own');
        const results = [exchange('dir', 'new'), unlink('new/inside')];
        put('dir/more', 'more');
        put('new/more', 'more');
        return [results, names('dir'), names('new'), text('new/below/deep')];
      },
      [[0, 0], ['more', 'own'], ['below', 'more'], 'deep\n'],
    ),
    check(
      'a file deep in a moved tree is changed',
      () => {
        rename('dir', 'moved');
        put('moved/below/deep', 'changed');
        return [text('moved/below/deep'), rename('moved', 'again'), text('again/below/deep'), text('again/inside')];
      },
      ['changed', 0, 'changed', 'inside\n'],
    ),
    check(
      'a changed file moves with its tree',
      () => {
        put('dir/below/deep', 'changed');
        return [
          chmod('dir/inside', 0o600),
          rename('dir', 'full/dir'),
          text('full/dir/below/deep'),
          rename('full', 'f'),
          text('f/dir/below/deep'),
          text('f/dir/inside'),
        ];
      },
      [0, 0, 'changed', 0, 'changed', 'inside\n'],
    ),
    check(
      'what was removed from a tree stays removed when it moves',
      () => [
        unlink('dir/below/deep'),
        rename('dir', 'moved'),
        names('moved/below'),
        rmdir('moved/below'),
        names('moved'),
      ],
      [0, 0, [], 0, ['inside']],
    ),
    check(
      'what was made in a tree that moved is not at the old place',
      () => {
        rename('dir', 'moved');
        put('moved/new', 'new');
        mkdir('dir');
        return [names('dir'), names('moved'), rmdir('dir'), rename('moved', 'dir'), names('dir')];
      },
      [[], ['below', 'inside', 'new'], 0, 0, ['below', 'inside', 'new']],
    ),
    check(
      'a moved tree is emptied file by file and removed',
      () => {
        const results = [
          rename('dir', 'moved'),
          unlink('moved/below/deep'),
          rmdir('moved/below'),
          unlink('moved/inside'),
          rmdir('moved'),
        ];
        return [results, kind('moved'), mkdir('moved'), names('moved'), mkdir('dir'), names('dir')];
      },
      [[0, 0, 0, 0, 0], 'ENOENT', 0, [], 0, []],
    ),
    check(
      'a directory and a file take turns at one name',
      () => {
        const seen = [];
        unlink('small');
        for (let round = 0; round < 5; round++) {
          seen.push(mkdir('small'), tryOpen('small/in', O_RDWR | O_CREAT), unlink('small/in'), rmdir('small'));
          put('small', `round ${round}`);
          seen.push(text('small'), unlink('small'));
        }
        return [[...new Set(seen)].map(String), kind('small')];
      },
      [['0', 'round 0', 'round 1', 'round 2', 'round 3', 'round 4'], 'ENOENT'],
    ),
    check(
      'every kind takes the place of every other',
      () => {
        const makers = [
          (): unknown => put('spot', 'x'),
          (): unknown => mkdir('spot'),
          (): unknown => symlink('small', 'spot'),
          (): unknown => link('hard-1', 'spot'),
        ];
        return makers.flatMap((first) =>
          makers.map((second) => {
            first();
            if (rmdir('spot') !== 0) unlink('spot');
            second();
            const found = kind('spot');
            if (rmdir('spot') !== 0) unlink('spot');
            return found;
          }),
        );
      },
      Array.from({ length: 4 }, () => ['file', 'directory', 'symlink', 'file']).flat(),
    ),
    check(
      'a file saved as editors do: a new one is moved over it',
      () => {
        const fd = open('small.tmp', O_WRONLY | O_CREAT | O_EXCL);
        return [
          write(fd, 'saved'),
          fsync(fd),
          close(fd),
          rename('small.tmp', 'small'),
          text('small'),
          kind('small.tmp'),
          links('small'),
        ];
      },
      [5, 0, 0, 0, 'saved', 'ENOENT', 1],
    ),
    check(
      'a file saved as other editors do: the old one is moved away',
      () => {
        const results = [rename('small', 'small~')];
        put('small', 'saved');
        return [results, text('small'), text('small~'), unlink('small~')];
      },
      [[0], 'saved', 'small contents\n', 0],
    ),
    check(
      'saved twenty times',
      () => {
        for (let round = 0; round < 20; round++) {
          put('small.tmp', `version ${round}`);
          rename('small.tmp', 'small');
        }
        return [text('small'), kind('small.tmp')];
      },
      ['version 19', 'ENOENT'],
    ),
    check(
      'a lock file as git makes it',
      () => {
        const results = [
          open('small.lock', O_WRONLY | O_CREAT | O_EXCL),
          open('small.lock', O_WRONLY | O_CREAT | O_EXCL),
        ].map((fd) => typeof fd);
        return [
          results,
          rename('small.lock', 'small'),
          size('small'),
          tryOpen('small.lock', O_WRONLY | O_CREAT | O_EXCL),
        ];
      },
      [['number', 'string'], 0, 0, 0],
    ),
    check(
      'a hard link breaks only when a name is replaced',
      () => {
        put('new', 'new');
        return [rename('new', 'hard-1'), text('hard-1'), text('hard-2'), links('hard-1'), links('hard-2')];
      },
      [0, 'new', 'hard contents\n', 1, 1],
    ),
    check(
      'a hard link across a moved directory',
      () => [
        link('dir/inside', 'full/link'),
        rename('dir', 'moved'),
        write(open('moved/inside', O_WRONLY), 'I'),
        text('full/link'),
        links('full/link'),
      ],
      [0, 0, 1, 'Inside\n', 2],
    ),
    check(
      'a symlink in a moved tree leads where it did',
      () => [symlink('inside', 'dir/link'), rename('dir', 'moved'), text('moved/link')],
      [0, 0, 'inside\n'],
    ),
    check(
      'attributes of a directory stay when it is changed and moved',
      () => [
        setxattr('dir', 'user.a', 'b'),
        chmod('dir', 0o711),
        rename('dir', 'moved'),
        getxattr('moved', 'user.a'),
        mkdir('dir'),
        getxattr('dir', 'user.a'),
      ],
      [0, 0, 0, 'b', 0, 'ENODATA'],
    ),
    checkLarge(
      'a large file: read, changed, read by who had it open',
      () => {
        const before = open('large', O_RDONLY);
        const pieces = [pread(before, 16, 0), pread(before, 16, 3_000_000)];
        const fd = open('large', O_RDWR);
        pwrite(fd, 'CHANGED', 3_000_000);
        return [pieces, pread(before, 16, 3_000_000), pread(before, 16, 0), pread(before, 16, 1_600_000)];
      },
      [['..............0\n', '........3000000\n'], 'CHANGED.3000000\n', '..............0\n', '........1600000\n'],
    ),
    checkLarge(
      'a large file: changed, moved, linked, removed under its old name',
      () => {
        const fd = open('large', O_RDWR);
        const results = [
          pwrite(fd, 'ONE', 16),
          rename('large', 'dir/large'),
          link('dir/large', 'again'),
          unlink('dir/large'),
        ];
        return [
          results,
          pwrite(fd, 'TWO', 1_000_000),
          pread(open('again', O_RDONLY), 16, 16),
          pread(open('again', O_RDONLY), 16, 1_000_000),
          brief(Buffer.from(pread(open('again', O_RDONLY), 16, 2_000_000))),
        ];
      },
      [[3, 0, 0, 0], 3, 'ONE..........16\n', 'TWO.....1000000\n', '........2000000\n'],
    ),
    checkLarge(
      'a large file: copied by reading while it is changed elsewhere',
      () => {
        const [from, to, change] = [open('large', O_RDONLY), open('copy', O_WRONLY | O_CREAT), open('large', O_WRONLY)];
        for (let at = 0; at < 3_200_000; at += 100_000) {
          const piece = pread(from, 100_000, at);
          pwrite(change, 'gone', at);
          pwrite(to, piece, at);
        }
        return [
          size('copy') === size('large'),
          pread(open('copy', O_RDONLY), 16, 2_000_000),
          pread(open('large', O_RDONLY), 16, 2_000_000),
        ];
      },
      [true, '........2000000\n', 'gone....2000000\n'],
    ),
    check(
      'opening for reading twice, then for writing: all see the same',
      () => {
        const [one, two] = [open('small', O_RDONLY), open('small', O_RDONLY)];
        const fd = open('small', O_RDWR);
        return [
          write(fd, '1'),
          pread(one, 2, 0),
          pread(two, 2, 0),
          close(fd),
          write(open('small', O_WRONLY), '2'),
          pread(one, 2, 0),
          pread(two, 2, 0),
        ];
      },
      [1, '1m', '1m', 0, 1, '2m', '2m'],
    ),
    check(
      'opening for writing what stays unchanged',
      () => [tryOpen('small', O_RDWR), tryOpen('small', O_WRONLY), text('small'), links('small'), names('.').length],
      [0, 0, 'small contents\n', 1, 26],
    ),
    check(
      'failing calls leave no trace',
      () => [
        mkdir('small'),
        rename('dir', 'full'),
        link('small', 'other'),
        rmdir('full'),
        unlink('dir'),
        symlink('x', 'dir'),
        names('.').length,
        names('dir'),
        names('full'),
      ],
      ['EEXIST', 'ENOTEMPTY', 'EEXIST', 'ENOTEMPTY', 'EISDIR', 'EEXIST', 26, ['below', 'inside'], ['file']],
    ),
  ],
};
