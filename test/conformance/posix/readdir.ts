import { opendirSync, type Dir } from 'node:fs';

import { chmod } from './calls/attributes.ts';
import { O_CREAT, O_RDONLY, O_RDWR, open, tryOpen } from './calls/files.ts';
import { mkdir, mknod, rename, rmdir, symlink, unlink } from './calls/names.ts';
import { asUser } from './suite/as-user.ts';
import { check, type Group } from './suite/check.ts';
import { USER } from './suite/fixture.ts';
import { kind, names } from './suite/observe.ts';
import { otherProcess } from './suite/partner.ts';

const make = (path: string): unknown => tryOpen(path, O_RDWR | O_CREAT);

function makeMany(dir: string, count: number): void {
  for (let at = 0; at < count; at++) make(`${dir}/f${at}`);
}

/** The rest of an open listing. */
function rest(dir: Dir): string[] {
  const found = [];
  for (let entry = dir.readSync(); entry !== null; entry = dir.readSync()) found.push(entry.name);
  dir.closeSync();
  return found;
}

/** A listing that is begun, then something happens, then it goes on. */
function during(path: string, happens: (first: string) => void): string[] {
  const dir = opendirSync(path, { bufferSize: 1 });
  const first = dir.readSync()?.name ?? '';
  happens(first);
  return [first, ...rest(dir)];
}

const typeIn = (dir: string, name: string): string => {
  const open = opendirSync(dir);
  for (let entry = open.readSync(); entry !== null; entry = open.readSync()) {
    if (entry.name !== name) continue;
    open.closeSync();
    return entry.isFile()
      ? 'file'
      : entry.isDirectory()
        ? 'directory'
        : entry.isSymbolicLink()
          ? 'symlink'
          : entry.isFIFO()
            ? 'fifo'
            : 'other';
  }
  open.closeSync();
  return 'not there';
};

/** What a directory lists, while entries come and go. */
export const READDIR: Group = {
  name: 'readdir',
  checks: [
    check('the names that are there', () => [names('dir'), names('hollow'), names('full')], [
      ['below', 'inside'],
      [],
      ['file'],
    ]),
    check(
      'a new name, and one that went',
      () => {
        make('dir/new');
        return [unlink('dir/inside'), names('dir')];
      },
      [0, ['below', 'new']],
    ),
    check(
      'a name that was moved in and one that was moved out',
      () => [rename('small', 'dir/small'), rename('dir/inside', 'inside'), names('dir')],
      [0, 0, ['below', 'small']],
    ),
    check('a name that was replaced is listed once', () => [rename('small', 'dir/inside'), names('dir')], [
      0,
      ['below', 'inside'],
    ]),
    check(
      'a name that was removed and made again is listed once',
      () => {
        unlink('dir/inside');
        make('dir/inside');
        return names('dir');
      },
      ['below', 'inside'],
    ),
    check(
      'a name that became a directory is listed once',
      () => [unlink('dir/inside'), mkdir('dir/inside'), names('dir'), typeIn('dir', 'inside')],
      [0, 0, ['below', 'inside'], 'directory'],
    ),
    check(
      'a written file is listed once',
      () => [tryOpen('dir/inside', O_RDWR), chmod('dir/inside', 0o600), names('dir')],
      [0, 0, ['below', 'inside']],
    ),
    check(
      'the kinds are told',
      () => [
        typeIn('.', 'small'),
        typeIn('.', 'dir'),
        typeIn('.', 'to-small'),
        typeIn('.', 'fifo'),
        typeIn('.', 'null'),
      ],
      ['file', 'directory', 'symlink', 'fifo', 'other'],
    ),
    check(
      'the kinds of new ones are told',
      () => {
        make('hollow/f');
        const results = [mkdir('hollow/d'), symlink('x', 'hollow/s'), mknod('hollow/p', 0o010644)];
        return [results, ['f', 'd', 's', 'p'].map((name) => typeIn('hollow', name))];
      },
      [
        [0, 0, 0],
        ['file', 'directory', 'symlink', 'fifo'],
      ],
    ),
    check(
      'a thousand names, each once',
      () => {
        makeMany('hollow', 1000);
        const found = names('hollow');
        return [found.length, new Set(found).size];
      },
      [1000, 1000],
    ),
    check(
      'a thousand names among old ones',
      () => {
        makeMany('dir', 1000);
        const found = names('dir');
        return [found.length, new Set(found).size, found.includes('inside')];
      },
      [1002, 1002, true],
    ),
    check(
      'long names',
      () => {
        for (let at = 0; at < 100; at++) make(`hollow/${String(at).padStart(255, 'n')}`);
        return new Set(names('hollow')).size;
      },
      100,
    ),
    check(
      'a name that is there all the time is listed once while others come',
      () => {
        makeMany('hollow', 300);
        const found = during('hollow', () => {
          for (let at = 0; at < 300; at++) make(`hollow/new${at}`);
        });
        const old = found.filter((name) => name.startsWith('f'));
        return [old.length, new Set(old).size, new Set(found).size === found.length];
      },
      [300, 300, true],
    ),
    check(
      'a name that is there all the time is listed once while others go',
      () => {
        makeMany('hollow', 600);
        const found = during('hollow', (first) => {
          for (let at = 1; at < 600; at += 2) if (`f${at}` !== first) unlink(`hollow/f${at}`);
        });
        const even = found.filter((name) => Number(name.slice(1)) % 2 === 0);
        return [even.length, new Set(even).size];
      },
      [300, 300],
    ),
    check(
      'an old name is listed once while others come',
      () => {
        const found = during('dir', () => makeMany('dir', 300));
        return ['inside', 'below'].map((name) => found.filter((other) => other === name).length);
      },
      [1, 1],
    ),
    check(
      'removing what is listed, until nothing is left',
      () => {
        makeMany('full', 500);
        const dir = opendirSync('full', { bufferSize: 8 });
        let removed = 0;
        for (let entry = dir.readSync(); entry !== null; entry = dir.readSync())
          if (unlink(`full/${entry.name}`) === 0) removed++;
        dir.closeSync();
        return [removed, names('full'), rmdir('full')];
      },
      [501, [], 0],
    ),
    check(
      'a name that another process makes is listed',
      () => [
        names('hollow'),
        otherProcess().call('mkdir', 'hollow/there'),
        names('hollow'),
        otherProcess().call('rmdir', 'hollow/there'),
        names('hollow'),
      ],
      [[], 0, ['there'], 0, []],
    ),
    check(
      'a listing of a directory that is moved goes on',
      () => {
        makeMany('hollow', 200);
        const found = during('hollow', () => rename('hollow', 'moved'));
        return [new Set(found).size, names('moved').length];
      },
      [200, 200],
    ),
    check(
      'the directory of a moved name lists it no more',
      () => [names('full'), rename('full/file', 'full/moved'), names('full'), kind('full/file')],
      [['file'], 0, ['moved'], 'ENOENT'],
    ),
    check('without permission to read gives EACCES', () => asUser(USER, () => names('closed')), 'EACCES'),
    check('of a file gives ENOTDIR', () => names('small'), 'ENOTDIR'),
    check('through a symlink', () => names('to-dir'), ['below', 'inside']),
    check(
      'of an open directory, from the start again',
      () => {
        const fd = open('dir', O_RDONLY);
        const before = names(`/proc/self/fd/${fd}`);
        make('dir/new');
        return [before, names(`/proc/self/fd/${fd}`)];
      },
      [
        ['below', 'inside'],
        ['below', 'inside', 'new'],
      ],
    ),
  ],
};
