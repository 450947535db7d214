/**
 * Puts the program's modules together into one file for each process and thread: loading a hundred files one by one took a
 * third of the time of a `bento status`. As CommonJS, which Node starts sooner than modules, and with V8's code cache beside
 * each (`bundle-start.cjs`): `bento --version` takes 20 ms more than Node itself then, instead of 130. Packages stay outside.
 * Tests of functions load the files of dist/ that tsc made; whoever starts `bento` starts the bundle.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';

import { build } from 'esbuild';

import { SMALL_HEAP } from '../dist/fs/mounts/daemon/small-process.js';

const OUT = 'dist/bundle';
const CODE = path.join(OUT, 'code');
const START = 'scripts/bundle-start.cjs';
const COMMAND = ['cli/main.ts', 'fs/workspace/restore/write-worker.ts', 'store/layers/pack-worker.ts'];
const DAEMON = [
  'supervisor',
  'server',
  'serve-worker',
  'slow-worker',
  'bind-worker',
  'index-worker',
  'settle-worker',
].map((name) => `fs/mounts/daemon/${name}.ts`);

rmSync(OUT, { recursive: true, force: true });
mkdirSync(OUT, { recursive: true });
writeFileSync(path.join(OUT, 'package.json'), '{ "type": "commonjs" }\n');
await build({
  entryPoints: [...COMMAND, ...DAEMON],
  outdir: CODE,
  entryNames: '[name]',
  bundle: true,
  format: 'cjs',
  banner: {
    js:
      '(function(require,module,exports,__filename,__dirname){' +
      "const bundleUrl=require('node:url').pathToFileURL(__filename).href;",
  },
  footer: { js: '})' },
  define: { 'import.meta.url': 'bundleUrl' },
  platform: 'node',
  target: 'node20.19',
  packages: 'external',
  supported: { 'dynamic-import': false }, // what is imported late is in the file, or a package
  charset: 'ascii',
  minifyWhitespace: true, // names stay, for stacks; what is read at each start is a third less
  logLevel: 'warning',
});
for (const entry of [...COMMAND, ...DAEMON]) copyFileSync(START, path.join(OUT, nameOf(entry)));
keepCode(COMMAND, []);
keepCode(DAEMON, SMALL_HEAP);

function nameOf(entry) {
  return `${path.basename(entry, '.ts')}.js`;
}

/** With the flags that its process is started with. */
function keepCode(entries, flags) {
  const files = entries.map((entry) => path.join(CODE, nameOf(entry)));
  const { status } = spawnSync(process.execPath, [...flags, 'scripts/code-cache.js', ...files], { stdio: 'inherit' });
  if (status !== 0) process.exit(1);
}
