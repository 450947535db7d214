import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { fuseAvailability, mountAsRoot, unmount } from '../../../fs/mounts/dev-fuse.ts';
import { mountedAt } from '../../../fs/mounts/mountinfo.ts';

const IS_USABLE = fuseAvailability().usable === 'root';
const NOBODY = 65_534;

function testMount(title: string, run: (t: ExecutionContext) => void): void {
  if (IS_USABLE) test(title, run);
  else test.skip(`${title} (skipped: needs root and /dev/fuse)`, run);
}

function tempDir(t: ExecutionContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'bento-dev-fuse-'));
  t.teardown(() => {
    rmSync(dir, { recursive: true, force: true });
  });
  return dir;
}

test('fuseAvailability() says why not', (t) => {
  t.like(fuseAvailability('/nowhere/fuse'), { usable: undefined });
  t.regex(fuseAvailability('/nowhere/fuse').reason ?? '', /does not exist/);
});

testMount('mountAsRoot() explains a target that is missing or no directory', (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, 'file'), '');
  t.throws(() => mountAsRoot({ target: join(dir, 'missing') }), { code: 'MOUNT_POINT_MISSING' });
  t.throws(() => mountAsRoot({ target: join(dir, 'file') }), { code: 'TARGET_INVALID' });
});

testMount('unmount() explains a place where nothing is mounted', (t) => {
  t.throws(() => unmount(tempDir(t)), { code: 'NOT_MOUNTED' });
  t.is(mountedAt(tempDir(t)), undefined);
});

testMount('mountAsUser() mounts for nobody through fusermount3', (t) => {
  const dir = tempDir(t);
  const target = join(dir, 'target, odd');
  mkdirSync(target);
  chmodSync(dir, 0o755);
  const result = runAsNobody(dir, target);
  t.is(result.stderr, '');
  t.regex(result.stdout, /fuse\.bento ro,nosuid,nodev,noatime,user_id=65534,group_id=65534,default_permissions/);
  t.false(readFileSync('/proc/mounts', 'latin1').includes(dir));
});

/**
 * Gives itself the target, becomes nobody, mounts, prints the mount table and unmounts; in a mount namespace of its own,
 * where anybody may open /dev/fuse.
 */
function runAsNobody(dir: string, target: string): { stdout: string; stderr: string } {
  const module = new URL('../../../fs/mounts/dev-fuse.js', import.meta.url).href;
  const script = `
    import { chownSync, readFileSync } from 'node:fs';
    import { fuseAvailability, mountAsUser, unmount } from ${JSON.stringify(module)};
    const target = ${JSON.stringify(target)};
    chownSync(target, ${NOBODY}, ${NOBODY});
    process.setgroups([]); process.setgid(${NOBODY}); process.setuid(${NOBODY});
    if (fuseAvailability().usable !== 'user') throw new Error(JSON.stringify(fuseAvailability()));
    mountAsUser({ target, source: 'a,b', allowOther: false });
    process.stdout.write(readFileSync('/proc/mounts', 'latin1').split('\\n').filter((line) => line.startsWith('a,b ')).join());
    unmount(target);
    try { unmount(target); } catch (error) { if (error.code !== 'NOT_MOUNTED') throw error; }
    try { mountAsUser({ target }); } catch (error) { if (!error.hint.includes('user_allow_other')) throw error; }
  `;
  const openDevice = 'mknod -m 666 "$1" c 10 229 && mount --bind "$1" /dev/fuse && shift && exec "$@"';
  const node = [process.execPath, '--input-type=module', '-e', script];
  const args = ['-m', 'sh', '-c', openDevice, 'sh', join(dir, 'fuse'), ...node];
  return spawnSync('unshare', args, { encoding: 'utf8', timeout: 20_000 });
}
