import { createHash, randomBytes } from 'node:crypto';
import {
  chownSync,
  closeSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import type { ExecutionContext } from 'ava';

import { askDaemon, daemonLog } from '../../../fixtures/daemon.ts';
import { testSerialNeeding } from '../../../fixtures/external-tools.ts';
import { newSandbox, type Sandbox } from '../../../fixtures/sandbox.ts';

const NEEDS = { fuse: true, root: true };
const LARGE_BYTES = 40 << 20;
const WAIT_MS = 20_000;

async function savedLargeFile(t: ExecutionContext): Promise<{ sandbox: Sandbox; content: Buffer; dir: string }> {
  const sandbox = newSandbox(t);
  const content = Buffer.concat([randomBytes(LARGE_BYTES / 2), Buffer.alloc(LARGE_BYTES / 2 + 7, 'text ')]);
  writeFileSync(path.join(sandbox.makeFolder('ws', 'deep', 'folder'), 'large'), content, { mode: 0o640 });
  writeFileSync(path.join(sandbox.workspace, 'small'), 'small\n');
  (await sandbox.bento(['init'])).ok();
  (await sandbox.bento(['save'])).ok();
  return { sandbox, content, dir: sandbox.makeFolder('mount') };
}

function sha(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Waits until something is true that the daemon does in its own time. */
async function until(isSo: () => boolean, what: string): Promise<void> {
  for (const endMs = Date.now() + WAIT_MS; Date.now() < endMs;) {
    if (isSo()) return;
    await sleep(20);
  }
  throw new Error(`waited in vain: ${what}`);
}

async function killServer(sandbox: Sandbox): Promise<void> {
  const { serverPid } = (await askDaemon(sandbox, { op: 'hello' })).health;
  if (serverPid === undefined) throw new Error('there is no server to kill');
  process.kill(serverPid, 'SIGKILL');
}

testSerialNeeding(NEEDS)('a large file that was read gets a mount of its own, which survives its server', async (t) => {
  const { sandbox, content, dir } = await savedLargeFile(t);
  (await sandbox.bento(['mount', 'cp-1', dir])).ok();
  const file = path.join(dir, 'deep', 'folder', 'large');
  const before = lstatSync(file, { bigint: true });
  t.is(sha(readFileSync(file)), sha(content));
  await until(() => sandbox.mounts().includes(file), 'the file to be mounted');
  const after = lstatSync(file, { bigint: true });
  for (const field of ['ino', 'mode', 'nlink', 'uid', 'gid', 'size', 'blocks', 'mtimeNs', 'ctimeNs'] as const)
    t.is(after[field], before[field], field);
  t.is(sha(readFileSync(file)), sha(content));

  const fd = openSync(file, 'r');
  await killServer(sandbox);
  t.is(sha(readFileSync(file)), sha(content), 'opened again while it is open');
  const piece = Buffer.alloc(1000);
  readSync(fd, piece, 0, 1000, LARGE_BYTES - 500);
  t.true(piece.subarray(0, 507).equals(content.subarray(LARGE_BYTES - 500)));
  closeSync(fd);

  const second = sandbox.makeFolder('second');
  (await sandbox.bento(['mount', 'cp-1', second])).ok();
  await until(() => sandbox.mounts().includes(path.join(second, 'deep', 'folder', 'large')), 'the other mount');
  (await sandbox.bento(['unmount', dir])).ok();
  t.deepEqual(readdirSync(dir), []);
  t.is(readFileSync(path.join(second, 'small'), 'utf8'), 'small\n');
});

testSerialNeeding(NEEDS)(
  'a large file that belongs to somebody else has its own mount, and is unmounted with the rest',
  async (t) => {
    const { sandbox, content, dir } = await savedLargeFile(t);
    chownSync(path.join(sandbox.workspace, 'deep', 'folder', 'large'), 12_345, 54_321);
    (await sandbox.bento(['save'])).ok();
    (await sandbox.bento(['mount', '--owners', 'cp-2', dir])).ok();
    const file = path.join(dir, 'deep', 'folder', 'large');
    t.is(sha(readFileSync(file)), sha(content));
    await until(() => sandbox.mounts().includes(file), 'the file to be mounted');
    t.like(lstatSync(file), { uid: 12_345, gid: 54_321 });
    (await sandbox.bento(['unmount', dir])).ok();
  },
);

testSerialNeeding(NEEDS)('a mount is unmounted while its large files are being mounted', async (t) => {
  const { sandbox, dir } = await savedLargeFile(t);
  for (let pauseMs = 0; pauseMs < 400; pauseMs += 40) {
    (await sandbox.bento(['mount', 'cp-1', dir])).ok();
    readFileSync(path.join(dir, 'deep', 'folder', 'large'));
    rmSync(path.join(sandbox.storePath, 'cache', 'sha256'), { recursive: true, force: true }); // the next time is a first one
    await sleep(pauseMs);
    (await sandbox.bento(['unmount', dir])).ok();
    t.deepEqual(
      sandbox.mounts().filter((target) => target.startsWith(dir)),
      [],
    );
  }
});

testSerialNeeding(NEEDS)('a byte that changed in the cache reaches nobody', async (t) => {
  const { sandbox, content, dir } = await savedLargeFile(t);
  (await sandbox.bento(['mount', 'cp-1', dir])).ok();
  const file = path.join(dir, 'deep', 'folder', 'large');
  t.is(sha(readFileSync(file)), sha(content));
  await until(() => sandbox.mounts().includes(file), 'the file to be mounted');
  (await sandbox.bento(['unmount', '--all'])).ok();

  const cached = path.join(sandbox.storePath, 'cache', 'sha256', sha(content));
  const wrong = Buffer.from(content);
  wrong[LARGE_BYTES / 2] = (wrong[LARGE_BYTES / 2] ?? 0) ^ 1;
  writeFileSync(cached, wrong);
  (await sandbox.bento(['mount', 'cp-1', dir])).ok();
  t.is(sha(readFileSync(file)), sha(content));
  await until(() => daemonLog(sandbox).includes(sha(content)), 'a line in the log that names the copy');
});

testSerialNeeding(NEEDS)('what is not answered in time is an error for its caller, and for nobody else', async (t) => {
  const { sandbox, dir } = await savedLargeFile(t);
  (await sandbox.bento(['mount', 'cp-1', dir], { env: { BENTO_SLOW_DEADLINE_MS: '0' } })).ok();
  t.throws(() => readFileSync(path.join(dir, 'deep', 'folder', 'large')), { code: 'EIO' });
  t.is(readFileSync(path.join(dir, 'small'), 'utf8'), 'small\n');
  t.regex(daemonLog(sandbox), /no answer within 0 s/);
});
