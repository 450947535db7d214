import test from 'ava';

import type { Change } from '../../../fs/tree/diff-trees.ts';
import { findRenames, movedDirectories } from '../../../fs/tree/renames.ts';
import type { TreeNode } from '../../../fs/tree/tree.ts';
import type { Digest } from '../../../store/digest.ts';

function node(type: TreeNode['type'], content = ''): TreeNode {
  const digest: Digest = `sha256:${content}`;
  return { name: 'x', type, mode: 0o644, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0, sizeBytes: content.length, digest };
}

function removed(path: string, before: TreeNode): Change {
  return { path, kind: 'removed', before, after: undefined, differences: [] };
}

function added(path: string, after: TreeNode): Change {
  return { path, kind: 'added', before: undefined, after, differences: [] };
}

function renamesOf(changes: readonly Change[]): string[] {
  const asked: string[] = [];
  const digestOf = (path: string, { digest }: TreeNode) => {
    asked.push(path);
    return digest;
  };
  const renames = findRenames(changes, { digestBefore: digestOf, digestAfter: digestOf });
  return [...renames.map(({ from, path }) => `${from} -> ${path}`), `asked ${asked.sort().join(' ')}`.trimEnd()];
}

test('findRenames() pairs equal contents, and asks for no digest where no size agrees', (t) => {
  t.deepEqual(
    renamesOf([
      removed('a', node('file', 'same')),
      removed('other', node('file', 'longer than all')),
      removed('pair', node('file', 'blue')),
      added('b', node('file', 'same')),
      added('new', node('file', 'x')),
    ]),
    ['a -> b', 'asked a b pair'],
  );
});

test('findRenames() leaves empty files and links alone', (t) => {
  const link = { ...node('symlink'), link: 'there' };
  t.deepEqual(renamesOf([removed('a', node('file')), added('b', node('file')), removed('l', link), added('m', link)]), [
    'asked',
  ]);
});

test('findRenames() takes the same name first, then the nearest place, and each file once', (t) => {
  const same = node('file', 'licence');
  t.deepEqual(
    renamesOf([
      removed('one/LICENSE', same),
      removed('two/LICENSE', same),
      removed('two/NOTES', same),
      added('moved/two/LICENSE', same),
      added('moved/one/LICENSE', same),
      added('two/COPYING', same),
      added('zzz', same),
    ]).slice(0, -1),
    ['one/LICENSE -> moved/one/LICENSE', 'two/LICENSE -> moved/two/LICENSE', 'two/NOTES -> two/COPYING'],
  );
});

test('findRenames() of many equal files takes no quadratic time', (t) => {
  const same = node('file', 'stub');
  const paths = Array.from({ length: 30_000 }, (_, i) => `${i % 100}/${i}`);
  const changes = paths.flatMap((path) => [removed(`old/${path}`, same), added(`new/${path}`, same)]);
  const renames = findRenames(changes, { digestBefore: (_, n) => n.digest, digestAfter: (_, n) => n.digest });
  t.is(renames.length, paths.length);
  t.true(renames.every(({ from, path }) => from.slice(3) === path.slice(3)));
});

test('movedDirectories() names a directory only when it is gone and its new one is new', (t) => {
  const files = ['x', 'y', 'deep/z'].map((name, i) => ({ name, content: node('file', `content ${i}`) }));
  const moves = files.flatMap(({ name, content }) => [
    removed(`old/${name}`, content),
    added(`new/place/${name}`, content),
  ]);
  const moved = (changes: readonly Change[]) => {
    const renames = findRenames(changes, { digestBefore: (_, n) => n.digest, digestAfter: (_, n) => n.digest });
    return movedDirectories(changes, renames).map(({ from, to, paths }) => `${from} -> ${to}: ${paths.length}`);
  };
  const [gone, fresh] = [removed('old', node('dir')), added('new/place', node('dir'))];
  t.deepEqual(moved([gone, fresh, ...moves]), ['old -> new/place: 3']);
  t.deepEqual(moved([gone, ...moves]), [], 'moved into a directory that was there');
  t.deepEqual(moved([fresh, ...moves]), [], 'something stayed behind');
});
