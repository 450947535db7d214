import test from 'ava';

import { escapePath } from '../../../store/layers/reserved-names.ts';
import {
  archiveName,
  archiveOpaqueMarker,
  checkPath,
  normalizePath,
  parseArchivedName,
} from '../../../store/layers/tar-name.ts';

test('escapePath() leaves ordinary names alone', (t) => {
  for (const path of ['', 'a', 'a/b', '.git/config', '.whx', 'src/stargz.index.json', 'a/.prefetch.landmark', '_']) {
    t.is(escapePath(path), path);
  }
});

test('escapePath() escapes what a layer would misread', (t) => {
  t.is(escapePath('stargz.index.json'), '.bento-name.stargz.index.json');
  t.is(escapePath('__external__/x'), '.bento-name.__external__/x');
  t.is(escapePath('.no.prefetch.landmark'), '.bento-name..no.prefetch.landmark');
  t.is(escapePath('a/.wh.b/c'), 'a/.bento-name..wh.b/c');
  t.is(escapePath('.bento-name.x'), '.bento-name..bento-name.x');
});

test('escapePath() hashes a name that has no room for the prefix', (t) => {
  const escaped = escapePath(`d/.wh.${'x'.repeat(251)}`);
  t.regex(escaped, /^d\/\.bento-name\.[0-9a-f]{32}$/);
  t.not(escaped, escapePath(`d/.wh.${'x'.repeat(250)}y`));
});

test('archiveName() marks directories and whiteouts, and adds the true path only when escaped', (t) => {
  t.deepEqual(archiveName({ path: '', type: 'dir' }), { tarName: './' });
  t.deepEqual(archiveName({ path: 'a/b', type: 'dir' }), { tarName: 'a/b/' });
  t.deepEqual(archiveName({ path: 'a/b', type: 'whiteout' }), { tarName: 'a/.wh.b' });
  t.deepEqual(archiveName({ path: '.wh.b', type: 'whiteout' }), {
    tarName: '.wh..bento-name..wh.b',
    truePath: '.wh.b',
  });
});

test('parseArchivedName() gives back what archiveName() was given', (t) => {
  for (const path of ['a', 'a/b', '.wh.x', '.wh..wh..opq', 'd/.wh..opq', 'stargz.index.json', '.bento-name.a']) {
    for (const type of ['file', 'dir', 'whiteout'] as const) {
      const { tarName, truePath } = archiveName({ path, type });
      t.deepEqual(parseArchivedName(tarName, truePath), { kind: type === 'whiteout' ? 'whiteout' : 'entry', path });
    }
    const marker = archiveOpaqueMarker(path);
    t.deepEqual(parseArchivedName(marker.tarName, marker.truePath), { kind: 'opaque', path });
  }
});

test('parseArchivedName() never guesses from an escaped form', (t) => {
  t.deepEqual(parseArchivedName('.bento-name..wh.x', undefined), { kind: 'entry', path: '.bento-name..wh.x' });
});

test('parseArchivedName() refuses a true path and a whiteout that leave the tree', (t) => {
  for (const path of ['../x', '/x', 'x/', 'a//b', 'a/./b', 'a\0b', 'x'.repeat(256)]) {
    t.throws(() => parseArchivedName('.bento-name.x', path), { code: 'FORMAT_INVALID' });
  }
  for (const name of ['.wh.', 'a/.wh...', '.wh..']) {
    t.throws(() => parseArchivedName(name, undefined), { code: 'FORMAT_INVALID' });
  }
});

test('normalizePath() knows one spelling for one path', (t) => {
  for (const name of ['a/b', './a/b', '/a/b', 'a/b/', 'a/./b', '//a/b//']) t.is(normalizePath(name), 'a/b');
  for (const name of ['.', './', '/']) t.is(normalizePath(name), '');
});

test('normalizePath() refuses what could leave the tree or exhaust us', (t) => {
  for (const name of ['', '..', 'a/../b', '../a', 'a//b', 'a\0', 'a/'.repeat(5000), 'x'.repeat(40_000)]) {
    t.throws(() => normalizePath(name), { code: 'FORMAT_INVALID' });
  }
  t.is(checkPath('a/b'), 'a/b');
});
