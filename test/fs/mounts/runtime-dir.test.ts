import { chmodSync, lstatSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { once } from 'node:events';

import test from 'ava';

import { runtimeDir } from '../../../fs/mounts/runtime-dir.ts';
import { newFolder } from '../../fixtures/workspaces.ts';

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
