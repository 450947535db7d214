import { O_CREAT, O_RDWR, open, tryOpen, write } from './calls/files.ts';
import { link, mkdir, readlink, rename, rmdir, symlink, unlink } from './calls/names.ts';
import { check, type Check, type Group } from './suite/check.ts';
import { kind, names, text } from './suite/observe.ts';

const N255 = 'n'.repeat(255);
const N256 = 'n'.repeat(256);

/** Names that are bytes and nothing else. */
const ODD: Record<string, string> = {
  'a blank': ' ',
  'blanks around': '  x  ',
  'a line break': 'a\nb',
  'a tab': 'a\tb',
  'a backslash': 'a\\b',
  'an escape': '\x1b[31m',
  'not UTF-8': '\xff\xfe\x80',
  'cut-off UTF-8': 'x\xe2\x82',
  'UTF-8': Buffer.from('tür').toString('latin1'),
  'UTF-8, decomposed': Buffer.from('tür'.normalize('NFD')).toString('latin1'),
  'byte 1': '\x01',
  'byte 127': '\x7f',
  'three dots': '...',
  'a dot before': '.hidden',
  'a dot behind': 'name.',
  'a whiteout of a layer': '.wh.small',
  'an opaque mark of a layer': '.wh..wh..opq',
  'a name of FUSE': '.fuse_hidden0001',
  'a colon and a comma': 'a:b,c=d',
  quotes: `'"\``,
  '255 bytes': N255,
  '255 bytes not UTF-8': '\xff'.repeat(255),
};

function everyCall(name: string): readonly (string | number | boolean | readonly string[])[] {
  const made = write(open(`hollow/${name}`, O_RDWR | O_CREAT), 'odd');
  const listed = names('hollow');
  return [
    made,
    listed.length === 1 && listed[0] === name,
    text(`hollow/${name}`),
    rename(`hollow/${name}`, `full/${name}`),
    link(`full/${name}`, `hollow/${name}`),
    unlink(`full/${name}`),
    unlink(`hollow/${name}`),
    mkdir(`hollow/${name}`),
    tryOpen(`hollow/${name}/below`, O_RDWR | O_CREAT),
    names(`hollow/${name}`),
    unlink(`hollow/${name}/below`),
    rmdir(`hollow/${name}`),
    symlink(name, `hollow/${name}`),
    readlink(`hollow/${name}`) === name,
    kind('small'),
  ];
}

const odd: Check[] = Object.entries(ODD).map(([claim, name]) =>
  check(`${claim} is a name like others`, () => everyCall(name), [
    3,
    true,
    'odd',
    0,
    0,
    0,
    0,
    0,
    0,
    ['below'],
    0,
    0,
    0,
    true,
    'file',
  ]),
);

/** A path of exactly so many bytes to something in the fixture. */
const padded = (lengthBytes: number, end: string): string => {
  const dots = lengthBytes - end.length;
  return `${'./'.repeat(Math.floor(dots / 2))}${dots % 2 === 1 ? '/' : ''}${end}`;
};

/** Names, their lengths, and paths. */
export const NAMES_AND_LIMITS: Group = {
  name: 'names and limits',
  checks: [
    ...odd,
    check(
      'upper and lower case differ',
      () => [tryOpen('hollow/A', O_RDWR | O_CREAT), tryOpen('hollow/a', O_RDWR | O_CREAT), names('hollow')],
      [0, 0, ['A', 'a']],
    ),
    check(
      'composed and decomposed differ',
      () => [
        tryOpen('hollow/\xc3\xbc', O_RDWR | O_CREAT),
        tryOpen('hollow/u\xcc\x88', O_RDWR | O_CREAT),
        names('hollow').length,
      ],
      [0, 0, 2],
    ),
    check(
      '256 bytes give ENAMETOOLONG to every call',
      () => [
        tryOpen(N256, O_RDWR | O_CREAT),
        mkdir(N256),
        rename('small', N256),
        link('small', N256),
        symlink('x', N256),
        unlink(N256),
        rmdir(N256),
        kind(N256),
      ],
      Array.from({ length: 8 }, () => 'ENAMETOOLONG'),
    ),
    check('a path of 4,095 bytes', () => [text(padded(4095, 'small')), kind(padded(4095, 'dir'))], [
      'small contents\n',
      'directory',
    ]),
    check('a path of 4,096 bytes gives ENAMETOOLONG', () => [text(padded(4096, 'small')), kind(padded(4096, 'dir'))], [
      'ENAMETOOLONG',
      'ENAMETOOLONG',
    ]),
    check(
      'a new file at the end of a path of 4,095 bytes',
      () => [tryOpen(padded(4095, 'hollow/new'), O_RDWR | O_CREAT), names('hollow')],
      [0, ['new']],
    ),
    check('slashes in a row are one', () => [text('dir//below///deep'), kind('.//small')], ['deep\n', 'file']),
    check('. and .. on the way', () => [text('./dir/./below/../inside'), text('dir/below/../../small')], [
      'inside\n',
      'small contents\n',
    ]),
    check('.. of what is not there gives ENOENT', () => kind('nothing/../small'), 'ENOENT'),
    check('.. of a file gives ENOTDIR', () => kind('small/../small'), 'ENOTDIR'),
    check(
      'directories deeper than a path is long',
      () => {
        const deep = 'd'.repeat(200);
        let made = 0;
        for (let depth = 0; depth < 25; depth++) {
          if (mkdir(deep) === 0) made++;
          process.chdir(deep);
        }
        const found = [tryOpen('new', O_RDWR | O_CREAT), names('.'), names('..').length, unlink('new')];
        let removed = 0;
        for (let depth = 0; depth < 25; depth++) {
          process.chdir('..');
          if (rmdir(deep) === 0) removed++;
        }
        return [made, found, removed];
      },
      [25, [0, ['new'], 1, 0], 25],
    ),
    check(
      'a thousand directories in one',
      () => {
        for (let at = 0; at < 1000; at++) mkdir(`hollow/d${at}`);
        return [names('hollow').length, rmdir('hollow/d500'), names('hollow').length];
      },
      [1000, 0, 999],
    ),
    check(
      'a name of a checkpoint is not taken for a longer or shorter one',
      () => [kind('smal'), kind('small-'), kind('di'), kind('dir-')],
      ['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT'],
    ),
    check(
      'a name that was looked for before it was made is found',
      () => [
        kind('hollow/new'),
        tryOpen('hollow/new', O_RDWR | O_CREAT),
        kind('hollow/new'),
        unlink('hollow/new'),
        kind('hollow/new'),
      ],
      ['ENOENT', 0, 'file', 0, 'ENOENT'],
    ),
  ],
};
