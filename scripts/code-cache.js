/**
 * Keeps what V8 makes of bundles beside them. It is good for the same V8 with the same flags.
 *
 *     node [flags] scripts/code-cache.js dist/bundle/code/main.js ...
 */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { Script } from 'node:vm';

for (const file of process.argv.slice(2)) {
  const script = new Script(readFileSync(file, 'latin1'), { filename: path.resolve(file) });
  writeFileSync(`${file}.cache`, script.createCachedData());
}
