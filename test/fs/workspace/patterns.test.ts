import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test from 'ava';
import { compileIgnore, compileLayers, NO_LAYER } from '../../../fs/workspace/patterns.ts';
import { fromBytes, fromText, parentPath, toFsPath } from '../../../store/byte-string.ts';

const LAYERS = [
  { name: 'deps', patterns: ['**/node_modules/**', '**/.venv/**', 'vendor/**'], catchAll: false },
  { name: 'agent', patterns: ['CLAUDE.md', '**/.claude/**', '.mcp.json'], catchAll: false },
  { name: 'project', patterns: ['**'], catchAll: true },
];

/** Names that a file system takes and a pattern library may not. */
const ODD_NAMES = [
  ' ',
  'two words',
  'trailing space ',
  'new\nline',
  '\n',
  'back\\slash',
  'ends with\\',
  '..',
  '...',
  '..x',
  '.',
  '-',
  '*',
  '[',
  '!x',
  '#x',
  '~',
  '$',
  '(',
  '__proto__',
  'constructor',
  fromText('naïve'),
  fromText('日本'),
  fromBytes(Buffer.from([0xff, 0xfe, 0x80])),
  'n'.repeat(255),
];

test('compileIgnore() speaks gitignore: tmp/, **/x/**, !x and anchors work (bug U5)', (t) => {
  const ignores = compileIgnore(['tmp/', '**/cache/**', '*.log', '!keep.log', '/only-root', 'docs/*.md']);
  t.true(ignores('tmp', true));
  t.false(ignores('tmp', false), 'a file called tmp');
  t.true(ignores('a/b/tmp', true));
  t.true(ignores('a/cache/x', false));
  t.true(ignores('a/x.log', false));
  t.false(ignores('a/keep.log', false));
  t.true(ignores('only-root', false));
  t.false(ignores('a/only-root', false));
  t.true(ignores('docs/a.md', false));
  t.false(ignores('docs/b/a.md', false));
});

test('compileIgnore() always ignores the config at the root, and not that of a nested workspace', (t) => {
  const ignores = compileIgnore([]);
  t.true(ignores('bento.yaml', false));
  t.true(ignores('.bentoignore', false));
  t.true(ignores('.bento.yaml.0badcafe.tmp', false));
  t.false(ignores('sub/bento.yaml', false));
  t.false(ignores('', true));
});

test('compileIgnore() prunes the directory that x/** empties, unless a negation wants something from it', (t) => {
  t.true(compileIgnore(['bin/**'])('bin', true));
  t.false(compileIgnore(['bin/**'])('sub/bin', true));
  t.false(compileIgnore(['bin/**'])('bin', false), 'a file called bin');
  t.true(compileIgnore(['**/__pycache__/**'])('a/b/__pycache__', true));
  const keeping = compileIgnore(['bin/**', '!bin/keep']);
  t.false(keeping('bin', true));
  t.true(keeping('bin/x', false));
  t.false(keeping('bin/keep', false));
});

test('compileIgnore() is case-sensitive and matches non-ASCII patterns by their bytes', (t) => {
  const ignores = compileIgnore(['Makefile', 'données/', '*.日本']);
  t.true(ignores('Makefile', false));
  t.false(ignores('makefile', false));
  t.true(ignores(fromText('a/données'), true));
  t.true(ignores(fromText('x.日本'), false));
});

test('compileIgnore() keeps a name that begins with ! or # literal when **/ stands before it', (t) => {
  const ignores = compileIgnore(['**/#x/**', '**/!y']);
  t.true(ignores('a/#x', true));
  t.true(ignores('a/!y', false));
  t.false(ignores('a/y', false));
});

test('compileIgnore() and compileLayers() take every legal file name', (t) => {
  const everything = compileIgnore(['*', '**/x/**']);
  const nothing = compileIgnore(['nothing', 'a/b/*.c', '!d']);
  const layers = compileLayers(LAYERS);
  for (const name of ODD_NAMES) {
    for (const path of [name, `dir/${name}`, `${name}/file`, `a/b/${name}`]) {
      t.true(everything(path, false), JSON.stringify(path));
      t.false(nothing(path, false), JSON.stringify(path));
      t.is(layers.assign(path, false), 2, JSON.stringify(path));
      t.is(layers.assign(`node_modules/${path}`, false), 0, JSON.stringify(path));
      t.is(layers.assign(`x/.claude/${path}`, true, 1), 1, JSON.stringify(path));
    }
  }
  for (const path of ['../x', './x', '/x', 'a//b', '', '.', '..']) {
    t.notThrows(() => [nothing(path, false), nothing(path, true), layers.assign(path, false)]);
  }
});

test('compileIgnore() agrees with git check-ignore', (t) => {
  const patterns = [
    'tmp/',
    '**/cache/**',
    '*.log',
    '/root',
    'docs/*.md',
    'a/**/z',
    '*.[ch]',
    '\\#hash',
    'b?r',
    'deep/er/',
  ];
  const files = [
    [
      'tmp/x',
      'a/tmp/x',
      'tmpx',
      'cache/x',
      'a/cache/y',
      'x.log',
      'a/x.log/y',
      'root',
      'a/root',
      'docs/a.md',
      'docs/b/a.md',
    ],
    [
      'a/z',
      'a/b/z',
      'a/b/c/z',
      'b/z',
      'x.c',
      'x.h',
      'x.d',
      '#hash',
      'bar',
      'foobar',
      'deep/er/x',
      'b/deep/er/x',
      'é.log',
    ],
  ].flat();
  const expected = git(patterns, files);
  if (expected === undefined) {
    t.log('git is missing: not compared');
    t.pass();
    return;
  }
  const ignores = compileIgnore(patterns);
  for (const file of files) t.is(ignoresWalking(ignores, fromText(file)), expected.has(file), file);
});

test('compileIgnore() refuses patterns that could take forever', (t) => {
  t.throws(() => compileIgnore(['a/**/'.repeat(30)]), { message: /too many "\*\*"/ });
  t.throws(() => compileIgnore(['x'.repeat(5000)]), { message: /too long/ });
});

test('compileLayers() puts node_modules and .venv of nested packages in deps (bug U5)', (t) => {
  const { assign } = compileLayers(LAYERS);
  t.is(assign('node_modules', true), 0);
  t.is(assign('packages/a/node_modules/b/index.js', false), 0);
  t.is(assign('services/x/.venv/bin/python', false), 0);
  t.is(assign('packages/a/CLAUDE.md', false), 1);
  t.is(assign('packages/a/.claude/settings.json', false), 1);
  t.is(assign('vendor', true), 0);
  t.is(assign('a/vendor', true), 2);
  t.is(assign('src/main.ts', false), 2);
});

test('compileLayers() lets an earlier layer take from a directory that a later one claimed', (t) => {
  const { assign } = compileLayers(LAYERS);
  t.is(assign('.claude/plugin/node_modules', true, 1), 0);
  t.is(assign('node_modules/x/CLAUDE.md', false, 0), 0);
});

test('compileLayers() honours a negation, with and without the layer of the parent', (t) => {
  const { assign } = compileLayers([
    { name: 'a', patterns: ['lib/**', '!lib/mine'], catchAll: false },
    { name: 'b', patterns: ['lib/**'], catchAll: false },
    { name: 'project', patterns: [], catchAll: true },
  ]);
  t.is(assign('lib/theirs', false), 0);
  t.is(assign('lib/mine', false), 1);
  t.is(assign('lib/mine', false, 1), 1);
  t.is(assign('lib/theirs', false, 1), 0);
});

test('compileLayers() ignores patterns outside the workspace, and says when no layer takes a path', (t) => {
  const rules = [{ name: 'agent', patterns: ['~/.claude/**', '/etc/**'], catchAll: false }];
  const { assign } = compileLayers(rules);
  t.is(assign('etc/x', false), NO_LAYER);
  t.is(assign('etc', true, NO_LAYER), NO_LAYER);
});

test('compileLayers() gives the same answer with the layer of the parent as without', (t) => {
  const names = ['node_modules', '.claude', 'CLAUDE.md', 'src', 'lib', 'mine', 'vendor', 'x.py', '.mcp.json'];
  const odd = { name: 'odd', patterns: ['lib/**', '!lib/mine', 'src/*/lib', '*.py'], catchAll: false };
  const middle = { name: 'project', patterns: ['src/vendor/**'], catchAll: true };
  for (const rules of [
    LAYERS,
    [odd, ...LAYERS],
    [LAYERS[0], middle, odd, LAYERS[1]].filter((rule) => rule !== undefined),
  ]) {
    const { assign } = compileLayers(rules);
    const visit = (dir: string, layer: number, depth: number): void => {
      for (const name of names) {
        const path = dir === '' ? name : `${dir}/${name}`;
        const layerOfDir = assign(path, true, layer);
        t.is(layerOfDir, assign(path, true), path);
        t.is(assign(path, false, layer), assign(path, false), path);
        if (depth < 4) visit(path, layerOfDir, depth + 1);
      }
    };
    visit('', NO_LAYER, 1);
  }
});

test('compileIgnore() and compileLayers() leave 30,000 paths alone that no pattern names', (t) => {
  const ignores = compileIgnore(['*.log', '.DS_Store', '*~', '**/__pycache__/**', '*.pyc', 'bin/**', '/tmp/']);
  const { assign } = compileLayers(LAYERS);
  const paths = Array.from({ length: 30_000 }, (_, i) => `packages/p${i % 40}/src/d${i % 97}/file-${i}.ts`);
  let taken = 0;
  for (const path of paths) if (!ignores(path, false) && assign(path, false, 2) === 2) taken++;
  t.is(taken, paths.length);
});

/** As a scan does it: top-down, and not into what is ignored. */
function ignoresWalking(ignores: (path: string, isDir: boolean) => boolean, path: string): boolean {
  for (let parent = parentPath(path); parent !== ''; parent = parentPath(parent))
    if (ignores(parent, true)) return true;
  return ignores(path, false);
}

function git(patterns: string[], files: string[]): Set<string> | undefined {
  const dir = mkdtempSync(join(tmpdir(), 'bento-patterns-'));
  try {
    execFileSync('git', ['init', '-q', dir], { stdio: 'ignore' });
  } catch {
    return undefined;
  }
  writeFileSync(join(dir, '.gitignore'), patterns.join('\n'));
  for (const file of files) {
    mkdirSync(join(dir, dirname(file)), { recursive: true });
    writeFileSync(toFsPath(fromText(join(dir, file))), '');
  }
  const input = files.join('\0');
  const output = execFileSync('git', ['-C', dir, 'check-ignore', '-z', '--stdin'], { input, encoding: 'utf8' });
  return new Set(output.split('\0').filter(Boolean));
}
