/**
 * Puts the program's modules together into one file for each process and thread: loading a hundred files one by one took a
 * third of the time of a `bento status`. Packages stay outside. Tests of functions load the files of dist/ that tsc made;
 * whoever starts `bento` starts the bundle.
 */
import { build } from 'esbuild';

await build({
  entryPoints: [
    'cli/main.ts',
    'fs/mounts/daemon/supervisor.ts',
    'fs/mounts/daemon/server.ts',
    'fs/mounts/daemon/serve-worker.ts',
    'fs/mounts/daemon/slow-worker.ts',
    'fs/mounts/daemon/bind-worker.ts',
    'fs/mounts/daemon/index-worker.ts',
    'fs/mounts/daemon/settle-worker.ts',
    'fs/workspace/restore/write-worker.ts',
    'store/layers/pack-worker.ts',
  ],
  outdir: 'dist/bundle',
  entryNames: '[name]',
  bundle: true,
  format: 'esm',
  platform: 'node',
  target: 'node20.19',
  packages: 'external',
  minifyWhitespace: true, // names stay, for stacks; what is read at each start is a third less
  logLevel: 'warning',
});
