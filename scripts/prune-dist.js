/**
 * Removes from dist/ what no source compiles to any more, so that the test of a deleted file is never run.
 *
 *     node scripts/prune-dist.js dist
 */
import { existsSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';

const COMPILED = /\.js$/;

/** @returns {boolean} whether the directory is empty now */
function prune(dir, sourceDir) {
  let left = 0;
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    const file = path.join(dir, entry.name);
    const source = path.join(sourceDir, entry.name);
    if (entry.isDirectory()) {
      if (!prune(file, source)) left++;
      else rmdirSync(file);
    } else if (COMPILED.test(entry.name) && !existsSync(source.replace(COMPILED, '.ts'))) rmSync(file);
    else left++;
  }
  return left === 0;
}

const out = process.argv[2] ?? 'dist';
if (existsSync(out)) {
  prune(out, '.');
  // Without any output tsc must not believe that everything is up to date.
  if (!readdirSync(out).some((name) => !name.startsWith('.'))) rmSync(out, { recursive: true });
}
