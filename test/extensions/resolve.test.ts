import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test from 'ava';
import { CATALOGUE, resolveExtensions } from '../../extensions/resolve.ts';

/** A workspace with these files; a name that ends with a slash is a directory. */
function workspaceWith(...paths: string[]): { dir: string; home: string } {
  const root = mkdtempSync(join(tmpdir(), 'bento-extensions-'));
  const [dir, home] = [join(root, 'workspace'), join(root, 'home')];
  mkdirSync(dir);
  mkdirSync(home);
  for (const path of paths) {
    mkdirSync(join(dir, path.endsWith('/') ? path : dirname(path)), { recursive: true });
    if (!path.endsWith('/')) writeFileSync(join(dir, path), '');
  }
  return { dir, home };
}

function resolved(paths: string[], explicit?: string[]) {
  const { dir, home } = workspaceWith(...paths);
  return resolveExtensions(dir, home, explicit);
}

test('resolveExtensions() of an empty workspace gives deps, agent and a catch-all project', (t) => {
  t.deepEqual(resolved([]), {
    names: [],
    layers: [
      { name: 'deps', patterns: [], catchAll: false },
      { name: 'agent', patterns: [], catchAll: false },
      { name: 'project', patterns: ['**'], catchAll: true },
    ],
    ignore: [],
    unknown: [],
  });
});

test('resolveExtensions() detects in the order of the catalogue and merges patterns', (t) => {
  const { names, layers, ignore } = resolved(['package.json', 'uv.lock', 'AGENTS.md', '.claude/']);
  t.deepEqual(names, ['claude-code', 'agents-md', 'node', 'python']);
  t.deepEqual(layers[0]?.patterns, ['**/node_modules/**', '**/.venv/**']);
  t.deepEqual(layers[1]?.patterns.slice(-1), ['AGENTS.md']);
  t.deepEqual(ignore, ['**/__pycache__/**', '*.pyc']);
});

test('resolveExtensions() takes exactly the explicit names, in their order, and reports unknown ones', (t) => {
  const { names, layers, unknown } = resolved(['CLAUDE.md'], ['python', 'cobol', 'node', 'python']);
  t.deepEqual(names, ['python', 'node']);
  t.deepEqual(layers[0]?.patterns, ['**/.venv/**', '**/node_modules/**']);
  t.deepEqual(unknown, ['cobol']);
});

const DETECTED: [string, string[]][] = [
  ['claude-code', ['.claude/']],
  ['claude-code', ['CLAUDE.md']],
  ['agents-md', ['AGENTS.md']],
  ['node', ['bun.lock']],
  ['node', ['deno.jsonc']],
  ['python', ['requirements-dev.txt']],
  ['python', ['.venv/']],
  ['python', ['.python-version']],
];

for (const [name, paths] of DETECTED) {
  test(`detect() finds ${name} by ${paths.join(' ')}`, (t) => t.deepEqual(resolved(paths).names, [name]));
}

test('detect() wants a file where the marker is a file', (t) => {
  t.deepEqual(resolved(['package.json/', 'CLAUDE.md/', 'src/AGENTS.md']).names, []);
});

test('detect() of claude-code finds sessions of a path with dots, spaces and underscores (bug U11)', (t) => {
  const { dir, home } = workspaceWith('my.app_v 2/');
  const workspace = join(dir, 'my.app_v 2');
  mkdirSync(join(home, '.claude', 'projects', workspace.replace(/[/._ ]/g, '-')), { recursive: true });
  t.deepEqual(resolveExtensions(workspace, home).names, ['claude-code']);
});

test('contribute() of node takes vendor/ only from a Deno project without Go', (t) => {
  const deps = (...paths: string[]) => resolved(paths).layers[0]?.patterns;
  t.deepEqual(deps('deno.json', 'vendor/'), ['**/node_modules/**', 'vendor/**']);
  t.deepEqual(deps('deno.json', 'vendor/', 'go.mod'), ['**/node_modules/**']);
  t.deepEqual(deps('package.json', 'vendor/'), ['**/node_modules/**']);
});

test('detect() and contribute() say nothing about a workspace that does not exist', (t) => {
  for (const extension of CATALOGUE) t.false(extension.detect('/nonexistent/workspace', '/nonexistent/home'));
});
