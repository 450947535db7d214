import { mkdirSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';

import { run } from './measure.ts';

/** Packages of the registry with the files they and what they need bring, roughly; the first few are enough for a small run. */
const PACKAGES: readonly (readonly [name: string, version: string, fileCount: number])[] = [
  ['lodash', '4.17.21', 1_050],
  ['rxjs', '7.8.2', 2_280],
  ['date-fns', '4.1.0', 5_330],
  ['core-js', '3.46.0', 3_670],
  ['lodash-es', '4.17.21', 640],
  ['ramda', '0.31.3', 700],
  ['three', '0.180.0', 1_120],
  ['typescript', '5.9.3', 130],
  ['react', '19.2.0', 20],
  ['react-dom', '19.2.0', 40],
  ['@mui/material', '7.3.4', 5_000],
  ['webpack', '5.102.1', 2_500],
  ['jest', '30.2.0', 5_000],
  ['eslint', '9.38.0', 1_800],
  ['express', '5.1.0', 600],
  ['vite', '7.1.12', 300],
];
const OPTIONS = ['--ignore-scripts', '--no-audit', '--no-fund', '--no-update-notifier', '--loglevel=error'];

/** A project whose packages are in npm's cache, and its lock file. */
export interface NpmProject {
  dir: string;
  /** Files that `npm ci` makes. */
  fileCount: number;
}

/**
 * Makes the project, and installs it once, so that everything is in the cache.
 *
 * @throws Error when the registry is needed and cannot be reached
 */
export function makeProject(dir: string, fileCountMin: number): NpmProject {
  mkdirSync(dir, { recursive: true });
  const dependencies: Record<string, string> = {};
  let expected = 0;
  for (const [name, version, fileCount] of PACKAGES) {
    if (expected >= fileCountMin) break;
    dependencies[name] = version;
    expected += fileCount;
  }
  const project = { name: 'project', version: '1.0.0', private: true, dependencies };
  writeFileSync(path.join(dir, 'package.json'), JSON.stringify(project));
  npm(dir, 'install', '--package-lock-only', '--prefer-online'); // a cache may know of versions only what was there once
  npm(dir, 'ci', '--prefer-online');
  const fileCount = Number(run('sh', ['-c', 'find node_modules -type f | wc -l'], { cwd: dir }));
  run('rm', ['-rf', 'node_modules'], { cwd: dir });
  return { dir, fileCount };
}

export function npmCi(cwd: string): void {
  npm(cwd, 'ci', '--prefer-offline');
}

function npm(cwd: string, ...args: string[]): void {
  run('npm', [...args, ...OPTIONS], { cwd, env: { PATH: process.env['PATH'] ?? '', HOME: homedir(), ...proxies() } });
}

/** What a machine needs to reach the registry, if it is not reached directly. */
function proxies(): Record<string, string> {
  const names = /^(https?_proxy|no_proxy|node_extra_ca_certs|npm_config_.*)$/i;
  return Object.fromEntries(Object.entries(process.env).filter(([name, value]) => names.test(name) && value)) as Record<
    string,
    string
  >;
}

/** Brings npm's cache into memory, where it is when somebody installs often. */
export function readNpmCache(): void {
  const cache = path.join(process.env['npm_config_cache'] ?? path.join(homedir(), '.npm'), '_cacache');
  run('sh', ['-c', `find '${cache}' -type f -exec cat {} + > /dev/null`]);
}
