import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { fromText } from '../../store/byte-string.ts';
import * as syscalls from '../../store/syscalls.ts';

const IS_ROOT = process.geteuid?.() === 0;

function tempDir(t: ExecutionContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'bento-syscalls-'));
  t.teardown(() => {
    rmSync(dir, { recursive: true, force: true });
  });
  return dir;
}

function tempFile(t: ExecutionContext, name = 'file'): string {
  const file = join(tempDir(t), name);
  writeFileSync(file, 'content');
  return file;
}

/** A test that runs only where `has` is true; else it is counted as skipped and says what is missing. */
function testWhere(has: boolean, missing: string, title: string, run: (t: ExecutionContext) => void): void {
  if (has) test(title, run);
  else test.skip(`${title} (skipped: needs ${missing})`, run);
}

const HAS_PYTHON = spawnSync('python3', ['--version']).status === 0;

test('errors carry code, errno, syscall and path like those of Node', (t) => {
  const path = fromText('/nowhere/é');
  const error = t.throws<NodeJS.ErrnoException>(() => syscalls.lgetxattr(path, 'user.a'));
  t.is(error.code, 'ENOENT');
  t.is(error.errno, -2);
  t.is(error.syscall, 'lgetxattr');
  t.is(error.path, '/nowhere/é');
  t.is(error.message, "ENOENT: no such file or directory, lgetxattr '/nowhere/é'");
});

test('a NUL byte in a path is refused instead of cutting it short', (t) => {
  t.throws(() => syscalls.llistxattr('/etc\0/passwd'), { instanceOf: TypeError });
  t.throws(() => syscalls.llistxattr(Buffer.from('/etc\0')), { instanceOf: TypeError });
});

test('flock() excludes a second open file until it is dropped', (t) => {
  const file = tempFile(t);
  const [first, second] = [openSync(file, 'r'), openSync(file, 'r')];
  t.true(syscalls.flock(first, 'exclusive', { wait: false }));
  t.false(syscalls.flock(second, 'shared', { wait: false }));
  t.true(syscalls.flock(first, 'shared', { wait: true }));
  t.true(syscalls.flock(second, 'shared', { wait: false }));
  t.true(syscalls.flock(second, 'unlock', { wait: false }));
  closeSync(first);
  t.true(syscalls.flock(second, 'exclusive', { wait: true }));
  closeSync(second);
  t.throws(() => syscalls.flock(second, 'exclusive', { wait: false }), { code: 'EBADF' });
});

test('flockAsync() waits for another process and leaves the event loop free to make it stop', async (t) => {
  const file = tempFile(t);
  const holder = spawn('flock', [file, 'sh', '-c', 'echo held; cat'], { stdio: ['pipe', 'pipe', 'inherit'] });
  await once(holder.stdout, 'data');
  const fd = openSync(file, 'r');
  t.false(syscalls.flock(fd, 'exclusive', { wait: false }));
  setTimeout(() => holder.stdin.end(), 20);
  await syscalls.flockAsync(fd, 'exclusive');
  closeSync(fd);
  t.pass();
});

test('flockAsync() stops waiting when told to', async (t) => {
  const file = tempFile(t);
  const [first, second] = [openSync(file, 'r'), openSync(file, 'r')];
  syscalls.flock(first, 'exclusive', { wait: true });
  await t.throwsAsync(syscalls.flockAsync(second, 'exclusive', { signal: AbortSignal.timeout(20) }));
  closeSync(first);
  closeSync(second);
});

test('extended attributes are written, listed, read and removed as raw bytes', (t) => {
  const file = tempFile(t);
  t.is(syscalls.readXattrs(file), undefined);
  t.deepEqual(syscalls.llistxattr(file), []);
  const value = Buffer.from([0, 255, 10, 0]);
  syscalls.lsetxattr(file, fromText('user.ä'), value);
  syscalls.lsetxattr(file, 'user.empty', Buffer.alloc(0));
  t.deepEqual(syscalls.lgetxattr(file, fromText('user.ä')), value);
  t.deepEqual([...(syscalls.readXattrs(file) ?? [])].sort(), [
    ['user.empty', Buffer.alloc(0)],
    [fromText('user.ä'), value],
  ]);
  t.throws(() => syscalls.lsetxattr(file, 'user.empty', value, syscalls.XATTR_CREATE), { code: 'EEXIST' });
  t.throws(() => syscalls.lsetxattr(file, 'user.none', value, syscalls.XATTR_REPLACE), { code: 'ENODATA' });
  syscalls.lremovexattr(file, 'user.empty');
  t.throws(() => syscalls.lgetxattr(file, 'user.empty'), { code: 'ENODATA' });
  t.throws(() => syscalls.lremovexattr(file, 'user.empty'), { code: 'ENODATA' });
  t.is(syscalls.readXattrs(file)?.size, 1);
});

test('readXattrs() of many attributes and of a filesystem that has none', (t) => {
  const file = tempFile(t);
  const names = Array.from({ length: 20 }, (_, i) => `user.${'n'.repeat(30)}${i}`);
  for (const name of names) syscalls.lsetxattr(file, name, Buffer.from(name));
  t.deepEqual([...(syscalls.readXattrs(file)?.keys() ?? [])].sort(), names.sort());
  t.deepEqual(syscalls.llistxattr('/proc/self/stat'), []);
});

testWhere(IS_ROOT, 'root', 'extended attributes of a symlink are its own', (t) => {
  const link = join(tempDir(t), 'link');
  symlinkSync('nowhere', link);
  syscalls.lsetxattr(link, 'trusted.mark', Buffer.from('x'));
  t.deepEqual(syscalls.readXattrs(link), new Map([['trusted.mark', Buffer.from('x')]]));
});

test('utimensat() sets nanoseconds, dates before 1970 and the times of a symlink', (t) => {
  const link = join(tempDir(t), 'link');
  symlinkSync('nowhere', link);
  syscalls.utimensat(link, { atime: { sec: 5, nsec: 7 }, mtime: { sec: -86_400, nsec: 999_999_999 } });
  const stat = lstatSync(link, { bigint: true });
  t.is(stat.atimeNs, 5_000_000_007n);
  t.is(stat.mtimeNs, -86_400n * 1_000_000_000n + 999_999_999n);
});

test('utimensat() leaves a time alone that is not given', (t) => {
  const file = tempFile(t);
  utimesSync(file, 111, 222);
  syscalls.utimensat(file, { mtime: { sec: 2 ** 33, nsec: 1 } });
  const stat = lstatSync(file, { bigint: true });
  t.is(stat.atimeMs, 111_000n);
  t.is(stat.mtimeNs, 2n ** 33n * 1_000_000_000n + 1n);
  t.throws(() => syscalls.utimensat(`${file}-missing`, { mtime: { sec: 0, nsec: 0 } }), { code: 'ENOENT' });
});

test('mkfifo() makes a fifo under a name that is not UTF-8', (t) => {
  const dir = tempDir(t);
  syscalls.mkfifo(Buffer.concat([Buffer.from(`${dir}/`), Buffer.from([0xff, 0xfe])]), 0o600);
  const stat = lstatSync(Buffer.from(`${dir}/\xff\xfe`, 'latin1'));
  t.true(stat.isFIFO());
  t.throws(() => syscalls.mkfifo(`${dir}/\xff\xfe`, 0o600), { code: 'EEXIST' });
});

testWhere(IS_ROOT, 'root', 'mknod() makes devices with large numbers', (t) => {
  const device = join(tempDir(t), 'device');
  syscalls.mknod(device, 0o020600, 300, 70_000);
  t.true(lstatSync(device).isCharacterDevice());
  t.is(spawnSync('stat', ['-c', '%Hr %Lr', device], { encoding: 'utf8' }).stdout, '300 70000\n');
});

test('renameat2() refuses to replace, and exchanges', (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, 'a'), 'A');
  writeFileSync(join(dir, 'b'), 'B');
  const rename = (flags: number): void => {
    syscalls.renameat2(join(dir, 'a'), join(dir, 'b'), flags);
  };
  t.throws(() => rename(syscalls.RENAME_NOREPLACE), { code: 'EEXIST' });
  rename(syscalls.RENAME_EXCHANGE);
  t.is(readFileSync(join(dir, 'a'), 'utf8'), 'B');
  rename(0);
  t.false(existsSync(join(dir, 'a')));
});

testWhere(IS_ROOT, 'root', 'mount() and umount2() a tmpfs and a bind mount', (t) => {
  const dir = tempDir(t);
  const [tmpfs, bind] = [join(dir, 'with space'), join(dir, 'bind')];
  mkdirSync(tmpfs);
  mkdirSync(bind);
  syscalls.mount('bento-test', tmpfs, 'tmpfs', syscalls.MS_NOSUID | syscalls.MS_NODEV, 'size=64k,mode=700');
  writeFileSync(join(tmpfs, 'inside'), '');
  syscalls.mount(tmpfs, bind, undefined, syscalls.MS_BIND);
  t.true(existsSync(join(bind, 'inside')));
  const cwd = openSync(bind, 'r');
  t.throws(() => syscalls.umount2(bind), { code: 'EBUSY' });
  syscalls.umount2(bind, syscalls.MNT_DETACH);
  closeSync(cwd);
  syscalls.umount2(tmpfs, syscalls.UMOUNT_NOFOLLOW);
  t.throws(() => syscalls.umount2(tmpfs), { code: 'EINVAL' });
  t.false(readFileSync('/proc/mounts', 'utf8').includes(dir));
  t.throws(() => syscalls.mount('x', join(dir, 'missing'), 'tmpfs'), { code: 'ENOENT' });
});

/** Runs Python in a child that has the socket as `s`. */
function send(theirs: number, expression: string): void {
  const script = `import os, socket; s = socket.socket(fileno=3); ${expression}`;
  const { status, stderr } = spawnSync('python3', ['-c', script], {
    stdio: ['ignore', 'ignore', 'pipe', theirs],
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
}

testWhere(HAS_PYTHON, 'python3', 'recvFd() receives a descriptor from another process', (t) => {
  const file = tempFile(t);
  const { ours, theirs } = syscalls.socketpair();
  send(theirs, `socket.send_fds(s, [b"x"], [os.open(${JSON.stringify(file)}, 0)])`);
  const fd = syscalls.recvFd(ours);
  t.is(readFileSync(fd, 'utf8'), 'content');
  t.regex(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'), /flags:\s*02\d{6}/); // O_CLOEXEC
  closeSync(fd);

  send(theirs, 'socket.send_fds(s, [b"x"], [0, 0])');
  t.throws(() => syscalls.recvFd(ours), { code: 'EBADMSG' });
  send(theirs, 's.send(b"x")');
  t.throws(() => syscalls.recvFd(ours), { code: 'EBADMSG' });
  closeSync(theirs);
  t.throws(() => syscalls.recvFd(ours), { code: 'ECONNRESET' });
  closeSync(ours);
});

test('sendFd() sends a descriptor that works in the other process, and says when nobody is there', (t) => {
  const file = tempFile(t);
  const { ours, theirs } = syscalls.socketpair();
  const sent = openSync(file, 'r');
  syscalls.sendFd(ours, sent);
  closeSync(sent);
  const received = syscalls.recvFd(theirs);
  t.is(readFileSync(received, 'utf8'), 'content');
  closeSync(received);
  closeSync(theirs);
  t.throws(() => syscalls.sendFd(ours, 0), { code: 'EPIPE' });
  closeSync(ours);
});

test('PollSet.wait() names what can be read, and an eventfd wakes it', (t) => {
  const [first, second] = [syscalls.eventfd(), syscalls.eventfd()];
  const set = new syscalls.PollSet();
  set.fds = [first, second];
  const one = Buffer.alloc(8);
  one.writeBigUInt64LE(1n);
  writeSync(second, one);
  t.deepEqual(set.wait(), [second]);
  writeSync(first, one);
  t.deepEqual(set.wait(), [first, second]);
  readSync(second, Buffer.alloc(8));
  t.deepEqual(set.wait(), [first]);
  set.fds = [first];
  t.deepEqual(set.wait(), [first]);
  closeSync(first);
  closeSync(second);
});

test('setNonBlocking() makes an empty read fail instead of wait', (t) => {
  const { ours, theirs } = syscalls.socketpair();
  syscalls.setNonBlocking(ours);
  t.throws(() => readSync(ours, Buffer.alloc(1)), { code: 'EAGAIN' });
  t.throws(() => syscalls.ioctl(ours, 0xdead, Buffer.alloc(8)), { code: 'ENOTTY' });
  closeSync(ours);
  closeSync(theirs);
});
