import { linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { writeFiles } from '../fixtures/command-checks.ts';
import { describeTree } from '../fixtures/compare-trees.ts';
import { makeManyFiles } from '../fixtures/many-files.ts';
import type { Random } from '../fixtures/random.ts';

/** A program that reads a tree. */
export interface ReadingCommand {
  name: string;
  program: string;
  args: readonly string[];
  /** Where in the tree it runs. */
  cwd: string;
  /** What it prints depends on the file system, and only has to stay the same. */
  printsInodes?: boolean;
}

const SMALL_FILES = 300;
const MODULE_COUNT = 30;
const LARGE_BYTES = 42 << 20;

/** Small files, a package to load, files for a repository, large files, links. */
export function makeReadTree(root: string, { random, large }: { random: Random; large: readonly string[] }): void {
  makeManyFiles(path.join(root, 'many'), { fileCount: SMALL_FILES, seed: random.below(1000) });
  makeManyFiles(path.join(root, 'repo'), { fileCount: SMALL_FILES / 5, seed: random.below(1000) });
  writeFiles(path.join(root, 'node_modules', 'app'), modules(random));
  symlinkSync('many/package.json', path.join(root, 'link'));
  linkSync(path.join(root, 'many', 'package.json'), path.join(root, 'many', 'same.json'));
  mkdirSync(path.join(root, 'empty'));
  for (const name of large) writeFileSync(path.join(root, name), largeContent(random));
}

function modules(random: Random): Record<string, string> {
  const names = Array.from({ length: MODULE_COUNT }, (_, at) => `lib/module-${at}.js`);
  const requires = names.map((name) => `require('./${name}')`).join(', ');
  return {
    'package.json': '{ "name": "app", "main": "index.js" }\n',
    'index.js': `module.exports = [${requires}];\n`,
    ...Object.fromEntries(names.map((name) => [name, `module.exports = ${random.below(1e9)};\n`])),
  };
}

/** Half of it compresses. */
function largeContent(random: Random): Buffer {
  const hard = random.bytes(1 << 20);
  const content = Buffer.alloc(LARGE_BYTES);
  for (let at = 0; at < LARGE_BYTES; at += 2 * hard.length) {
    hard.copy(content, at);
    hard.writeUInt32LE(random.below(2 ** 32), random.below(hard.length - 4)); // no two pieces alike
    content.fill(`line ${at}\n`, at + hard.length, at + 2 * hard.length);
  }
  return content;
}

/** Programs that read a tree with all of that, as it is on disk. */
export function commandsFor(saved: string, large: readonly string[]): ReadingCommand[] {
  const files = [...describeTree(saved, { contents: false })].filter(([, { type }]) => type === 'file');
  const names = files.map(([name]) => name);
  const load = `process.stdout.write(JSON.stringify(require('app')))`;
  return [
    { name: 'sha256sum of every file', program: 'sha256sum', args: ['--', ...names], cwd: '.' },
    { name: 'find . -ls', program: 'find', args: ['.', '-ls'], cwd: '.', printsInodes: true },
    { name: 'node -e require', program: process.execPath, args: ['-e', load], cwd: '.' },
    { name: 'git status', program: 'git', args: ['status', '--porcelain'], cwd: 'repo' },
    { name: 'git log', program: 'git', args: ['log', '-p', '--stat'], cwd: 'repo' },
    ...large.map((name) => ({ name: `cmp ${name}`, program: 'cmp', args: [path.join(saved, name), name], cwd: '.' })),
  ];
}
