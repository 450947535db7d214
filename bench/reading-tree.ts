import { createHash, randomBytes } from 'node:crypto';
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

import { makeManyFiles } from '../test/fixtures/many-files.ts';
import { run } from './measure.ts';

/** Parts of the tree, as paths in it. */
export const PART = {
  /** Many files, like a project with its `node_modules`, and the package `typescript`. */
  app: 'app',
  /** A git repository with everything committed and packed. */
  repo: 'repo',
  /** One large file: every other MiB random bytes, the rest text that compresses to about a fifth. */
  large: 'large.bin',
} as const;

export interface ReadingTree {
  fileCount: number;
  sizeBytes: number;
  largeBytes: number;
}

const REPO_FILES = 4_000;
const MIB = 1 << 20;
export const LARGE_MIB = 500;

/** Builds what the reading benchmark reads. @param fileCount - files of `app` without those of typescript */
export function makeReadingTree(root: string, fileCount: number): ReadingTree {
  const app = makeManyFiles(path.join(root, PART.app), { fileCount });
  writeFileSync(path.join(root, PART.app, 'package.json'), '{ "name": "app" }\n'); // that of makeManyFiles is no JSON
  run('cp', ['-aL', packageFolder('typescript'), path.join(root, PART.app, 'node_modules', 'typescript')]);
  makeRepository(path.join(root, PART.repo));
  writeLargeFile(path.join(root, PART.large));
  const count = Number(run('sh', ['-c', 'find . -type f | wc -l'], { cwd: root }));
  const sizeBytes = Number(run('du', ['-sb', '--apparent-size', root]).split('\t')[0]);
  return { fileCount: Math.max(count, app.fileCount), sizeBytes, largeBytes: LARGE_MIB * MIB };
}

function packageFolder(name: string): string {
  return path.dirname(createRequire(import.meta.url).resolve(`${name}/package.json`));
}

/** Packed, as a clone is; its index knows every file as it is here. */
function makeRepository(root: string): void {
  makeManyFiles(root, { fileCount: REPO_FILES, seed: 2 });
  git(root, 'init', '-q');
  git(root, 'add', '-A');
  git(root, '-c', 'user.name=b', '-c', 'user.email=b@b', '-c', 'gc.auto=0', 'commit', '-q', '-m', 'all');
  git(root, 'gc', '-q');
  git(root, 'status');
}

/** Runs git without anybody's settings. */
export function git(cwd: string, ...args: string[]): string {
  return run('git', args, { cwd, env: gitEnv() });
}

/** Without settings; `GIT_OPTIONAL_LOCKS=0` in addition keeps `git status` from refreshing the index. */
export function gitEnv(): Record<string, string> {
  return { PATH: process.env['PATH'] ?? '', HOME: '/nonexistent', GIT_CONFIG_NOSYSTEM: '1', LC_ALL: 'C' };
}

function writeLargeFile(file: string): void {
  mkdirSync(path.dirname(file), { recursive: true });
  const fd = openSync(file, 'w', 0o644);
  try {
    for (let at = 0; at < LARGE_MIB; at++) writeSync(fd, at % 2 === 0 ? randomBytes(MIB) : text(at));
  } finally {
    closeSync(fd);
  }
}

/** A MiB of lines like those of a log, other ones for each number. */
function text(number: number): Buffer {
  const lines: string[] = [];
  for (let sizeBytes = 0, line = 0; sizeBytes < MIB; line++) {
    const id = createHash('sha1').update(`${number}.${line}`).digest('hex').slice(0, 10);
    lines.push(`{"level":"info","at":${1_700_000_000 + line},"request":"${id}","path":"/v1/items/${line % 97}"}\n`);
    sizeBytes += lines.at(-1)?.length ?? 0;
  }
  return Buffer.from(lines.join('')).subarray(0, MIB);
}
