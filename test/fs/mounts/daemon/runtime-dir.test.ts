import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { once } from 'node:events';
import { execFileSync } from 'node:child_process';

import test from 'ava';

import { findRuntimeDir, runtimeDir } from '../../../../fs/mounts/daemon/runtime-dir.ts';
import { testSerialNeeding } from '../../../fixtures/external-tools.ts';
import { newFolder } from '../../../fixtures/workspaces.ts';

/** The environment belongs to the whole process, so these run one after another. */
function useRuntimeFolder(t: { teardown: (fn: () => void) => void }, folder: string): void {
  const before = process.env['XDG_RUNTIME_DIR'];
  process.env['XDG_RUNTIME_DIR'] = folder;
  t.teardown(() => {
    if (before === undefined) delete process.env['XDG_RUNTIME_DIR'];
    else process.env['XDG_RUNTIME_DIR'] = before;
  });
}

test.serial('runtimeDir() is private, below XDG_RUNTIME_DIR and one for each store', (t) => {
  const folder = newFolder(t);
  useRuntimeFolder(t, folder);
  const [one, two] = [join(folder, 'store-1'), join(folder, 'store-2')];
  const runtime = runtimeDir(one);
  t.true(runtime.dir.startsWith(`${folder}/bento/`));
  t.is(lstatSync(runtime.dir).mode & 0o777, 0o700);
  t.is(lstatSync(join(folder, 'bento')).mode & 0o777, 0o700);
  t.deepEqual(runtimeDir(one), runtime, 'the same each time');
  t.not(runtimeDir(two).dir, runtime.dir);
  symlinkSync(one, join(folder, 'other-name'));
  t.is(runtimeDir(join(folder, 'other-name')).dir, runtime.dir, 'by whatever name the store is called');
});

test.serial('runtimeDir() gives a socket path that can be listened on, however long the folder is', async (t) => {
  const folder = newFolder(t);
  const deep = join(folder, 'd'.repeat(90));
  mkdirSync(deep, { mode: 0o700 });
  useRuntimeFolder(t, deep);
  const { socket, dir } = runtimeDir(join(folder, 'store'));
  t.teardown(() => rmSync(dir, { recursive: true })); // it lies outside the folder of the test
  t.true(Buffer.byteLength(socket) <= 107, socket);
  t.deepEqual(readdirSync(deep), []);
  const server = createServer();
  server.listen(socket);
  await once(server, 'listening');
  t.true(lstatSync(socket).isSocket());
  server.close();
  await once(server, 'close');
  t.true(lstatSync(dir).isDirectory());
});

test.serial('runtimeDir() takes no folder that others may write to, and no symlink', (t) => {
  const folder = newFolder(t);
  useRuntimeFolder(t, folder);
  const store = join(folder, 'store');
  mkdirSync(join(folder, 'bento'));
  chmodSync(join(folder, 'bento'), 0o777);
  t.throws(() => runtimeDir(store), { code: 'PERMISSION_DENIED' });

  const second = newFolder(t);
  useRuntimeFolder(t, second);
  mkdirSync(join(second, 'elsewhere'), { mode: 0o700 });
  symlinkSync('elsewhere', join(second, 'bento'));
  t.throws(() => runtimeDir(store), { code: 'PERMISSION_DENIED' });
  t.deepEqual(readdirSync(join(second, 'elsewhere')), []);
});

const MODULE = new URL('../../../../fs/mounts/daemon/runtime-dir.js', import.meta.url).href;

/** The runtime folder of a store as a process of its own sees it, started by some other program. */
function askedBy(words: readonly string[], store: string, env: Record<string, string>): string {
  const script = `import { runtimeDir } from ${JSON.stringify(MODULE)}; console.log(runtimeDir(process.argv[1]).dir)`;
  const all = [...words, process.execPath, '--input-type=module', '-e', script, store];
  return execFileSync('env', all, { encoding: 'utf8', env: { PATH: process.env['PATH'] ?? '', ...env } }).trim();
}

testSerialNeeding({ root: true, tools: ['unshare', 'env'] })(
  'runtimeDir() is another in every other mount namespace, where this daemon has no mounts',
  (t) => {
    const folder = newFolder(t);
    const store = join(folder, 'store');
    const env = { XDG_RUNTIME_DIR: folder };
    const here = askedBy([], store, env);
    const canTell = existsSync('/proc/1/ns/mnt'); // which namespace is the machine's own
    for (const flags of [['-Urm'], ...(canTell ? [['-m']] : [])]) {
      t.regex(askedBy(['unshare', ...flags], store, env), new RegExp(`^${here}-\\d+$`));
    }
    t.is(askedBy([], store, env), here);
  },
);

testSerialNeeding({ root: true, tools: ['unshare', 'setpriv'] })(
  'runtimeDir() of root in a user namespace lies in a folder of the user behind it',
  (t) => {
    const folder = newFolder(t);
    chmodSync(folder, 0o777);
    const words = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', 'unshare', '-Urm'];
    const dir = askedBy(words, join(folder, 'store'), {});
    t.regex(dir, /^\/tmp\/bento-65534\/[0-9a-f]{16}-\d+$/);
    t.is(lstatSync(dir).uid, 65534);
    rmSync(dir, { recursive: true });
  },
);

test.serial('findRuntimeDir() finds what runtimeDir() makes, and makes nothing', (t) => {
  const folder = newFolder(t);
  const before = process.env['XDG_RUNTIME_DIR'];
  process.env['XDG_RUNTIME_DIR'] = join(folder, 'run');
  t.teardown(() => {
    if (before === undefined) delete process.env['XDG_RUNTIME_DIR'];
    else process.env['XDG_RUNTIME_DIR'] = before;
  });
  const root = join(folder, 'store');
  t.is(findRuntimeDir(root), undefined);
  mkdirSync(root);
  t.is(findRuntimeDir(root), undefined);
  t.deepEqual(readdirSync(folder), ['store']);
  const made = runtimeDir(root).dir;
  t.is(findRuntimeDir(root)?.dir, made);
  process.env['XDG_RUNTIME_DIR'] = join(folder, 'd'.repeat(100));
  mkdirSync(process.env['XDG_RUNTIME_DIR'], { mode: 0o700 });
  const { dir } = runtimeDir(root);
  t.is(findRuntimeDir(root)?.dir, dir, 'a path that is too long for a socket is passed over');
  t.not(dir, made);
  rmSync(dir, { recursive: true });
});
