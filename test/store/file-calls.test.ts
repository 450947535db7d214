import { spawnSync } from 'node:child_process';
import {
  closeSync,
  constants,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { constants as system } from 'node:os';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import * as calls from '../../store/file-calls.ts';
import { testNeeding } from '../fixtures/external-tools.ts';
import { newFolder } from '../fixtures/workspaces.ts';

const { EBADF, EEXIST, EINVAL, ENAMETOOLONG, ENODATA, ENOENT, ENOTDIR, ENOTEMPTY, ENXIO, EXDEV } = system.errno;
const { O_CREAT, O_EXCL, O_RDONLY, O_RDWR, S_IFCHR, S_IFIFO, S_IFMT } = constants;

function stat(path: string): calls.FileStat {
  const found = calls.statOf(path);
  if (typeof found === 'number') throw new Error(`errno ${-found} for ${path}`);
  return found;
}

/** An open file of 12 bytes. */
function openSample(t: ExecutionContext, dir: string): number {
  writeFileSync(join(dir, 'sample'), 'hello, world');
  const fd = openSync(join(dir, 'sample'), 'r+');
  t.teardown(() => closeSync(fd));
  return fd;
}

test('statOf() and fstatOf() say what lstat says, of a symlink itself', (t) => {
  const dir = newFolder(t);
  const fd = openSample(t, dir);
  calls.makeSymlink('nowhere', join(dir, 'link'));
  for (const name of ['sample', 'link', '']) {
    const found = stat(join(dir, name));
    const wanted = lstatSync(join(dir, name), { bigint: true });
    t.like(found, {
      mode: Number(wanted.mode),
      ino: Number(wanted.ino),
      nlink: Number(wanted.nlink),
      uid: Number(wanted.uid),
      gid: Number(wanted.gid),
      sizeBytes: Number(wanted.size),
      blocks: Number(wanted.blocks),
      blksizeBytes: Number(wanted.blksize),
    });
    for (const which of ['atime', 'btime', 'ctime', 'mtime'] as const)
      if (which !== 'btime' || wanted.birthtimeNs !== 0n)
        t.is(
          BigInt(found[`${which}Sec`]) * 1_000_000_000n + BigInt(found[`${which}Nsec`]),
          which === 'btime' ? wanted.birthtimeNs : wanted[`${which}Ns`],
        );
  }
  t.deepEqual(calls.fstatOf(fd), calls.statOf(join(dir, 'sample')));
  t.is(calls.statOf(join(dir, 'missing')), -ENOENT);
  t.is(calls.fstatOf(-1), -EBADF);
});

test('openFile() opens and makes, and closes with exec', (t) => {
  const path = join(newFolder(t), 'new');
  const fd = calls.openFile(path, O_RDWR | O_CREAT | O_EXCL, 0o640);
  t.true(fd > 0);
  t.regex(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'), /flags:\s*02\d{6}/);
  t.is(stat(path).mode & 0o777 & ~0o640, 0);
  t.is(calls.openFile(path, O_RDWR | O_CREAT | O_EXCL, 0o640), -EEXIST);
  calls.closeFile(fd);
  t.is(calls.fstatOf(fd), -EBADF);
});

test('names are made, moved and taken away, or an errno says why not', (t) => {
  const dir = newFolder(t);
  const at = (name: string): string => join(dir, name);
  t.is(calls.makeDir(at('d'), 0o700), 0);
  t.is(calls.makeDir(at('d'), 0o700), -EEXIST);
  t.is(calls.makeNode(at('fifo'), S_IFIFO | 0o600), 0);
  t.is(calls.makeNode(at('fifo'), S_IFIFO | 0o600), -EEXIST);
  t.is(stat(at('fifo')).mode & S_IFMT, S_IFIFO);
  t.is(calls.makeSymlink('to/where', at('link')), 0);
  t.is(calls.makeSymlink('to/where', at('link')), -EEXIST);
  t.is((calls.readLink(at('link')) as Buffer).toString(), 'to/where');
  t.is(calls.readLink(at('d')), -EINVAL);
  t.is(calls.link(at('fifo'), at('d/same')), 0);
  t.is(calls.link(at('missing'), at('d/other')), -ENOENT);
  t.is(stat(at('d/same')).ino, stat(at('fifo')).ino);
  t.is(calls.removeDir(at('d')), -ENOTEMPTY);
  t.is(calls.unlink(at('d/same')), 0);
  t.is(calls.unlink(at('d/same')), -ENOENT);
  t.is(calls.removeDir(at('d')), 0);
  t.is(calls.removeDir(at('fifo')), -ENOTDIR);
  t.is(calls.rename(at('fifo'), at('moved')), 0);
  t.is(calls.rename(at('fifo'), at('moved')), -ENOENT);
  t.deepEqual(readdirSync(dir).sort(), ['link', 'moved']);
});

test('rename() refuses to replace, exchanges, and leaves a whiteout', (t) => {
  const dir = newFolder(t);
  const [a, b] = [join(dir, 'a'), join(dir, 'b')];
  writeFileSync(a, 'A');
  writeFileSync(b, 'B');
  t.is(calls.rename(a, b, calls.RENAME_NOREPLACE), -EEXIST);
  t.is(calls.rename(a, b, calls.RENAME_EXCHANGE), 0);
  t.is(readFileSync(a, 'utf8'), 'B');
  t.is(calls.rename(a, b, calls.RENAME_WHITEOUT), 0);
  t.like(stat(a), { mode: S_IFCHR, rdevMajor: 0, rdevMinor: 0 });
  t.is(readFileSync(b, 'utf8'), 'B');
  t.is(calls.makeWhiteout(join(dir, 'w')), 0);
  t.is(stat(join(dir, 'w')).mode & S_IFMT, S_IFCHR);
});

testNeeding({ root: true })(
  'makeNode() makes devices with large numbers, changeOwner() leaves alone what is -1',
  (t) => {
    const path = join(newFolder(t), 'device');
    t.is(calls.makeNode(path, S_IFCHR | 0o600, 0x1111_2c70), 0);
    t.like(stat(path), { rdevMajor: 300, rdevMinor: 70_000 });
    t.is(calls.changeOwner(path, 2 ** 32 - 2, 7), 0);
    t.is(calls.changeOwner(path, -1, 8), 0);
    t.like(stat(path), { uid: 2 ** 32 - 2, gid: 8 });
    t.is(calls.changeOwner(`${path}x`, 0, 0), -ENOENT);
  },
);

test('permissions, size and times are set, or an errno says why not', (t) => {
  const dir = newFolder(t);
  const fd = openSample(t, dir);
  const path = join(dir, 'sample');
  const missing = join(dir, 'missing');
  t.is(calls.changeMode(path, 0o4711), 0);
  t.is(stat(path).mode & 0o7777, 0o4711);
  t.is(calls.changeMode(missing, 0o600), -ENOENT);
  t.is(calls.truncateFile(path, 2 ** 32 + 1), 0);
  t.is(stat(path).sizeBytes, 2 ** 32 + 1);
  t.is(calls.truncateFile(missing, 0), -ENOENT);
  t.is(calls.ftruncateFile(fd, 5), 0);
  t.is(stat(path).sizeBytes, 5);
  t.is(calls.ftruncateFile(fd, -1), -EINVAL);
  t.is(calls.setTimes(missing, [0, 0], [0, 0]), -ENOENT);
});

test('setTimes() sets nanoseconds, dates before 1970 and after 2106, and leaves alone what it shall', (t) => {
  const path = join(newFolder(t), 'link');
  calls.makeSymlink('nowhere', path);
  t.is(calls.setTimes(path, [-86_400, 999_999_999], [2 ** 32 + 5, 1]), 0);
  t.like(stat(path), { atimeSec: -86_400, atimeNsec: 999_999_999, mtimeSec: 2 ** 32 + 5, mtimeNsec: 1 });
  t.is(calls.setTimes(path, [0, calls.UTIME_OMIT], [-1, 0]), 0);
  t.like(stat(path), { atimeSec: -86_400, atimeNsec: 999_999_999, mtimeSec: -1, mtimeNsec: 0 });
  const before = Math.floor(Date.now() / 1000);
  t.is(calls.setTimes(path, [0, calls.UTIME_NOW], [0, calls.UTIME_OMIT]), 0);
  t.true(stat(path).atimeSec >= before);
  t.is(calls.setTimes(path, [0, 1e9], [0, 0]), -EINVAL);
});

test('extended attributes are set, listed, read and removed, or an errno says why not', (t) => {
  const dir = newFolder(t);
  const fd = openSample(t, dir);
  const path = join(dir, 'sample');
  const value = Buffer.from([0, 255, 10, 0]);
  t.is((calls.xattrNamesOf(path) as Buffer).length, 0);
  t.is(calls.setXattr(path, 'user.\xe9', value), 0);
  t.is(calls.setXattr(path, 'user.\xe9', value, 1), -EEXIST);
  t.is(calls.setXattr(path, 'user.none', value, 2), -ENODATA);
  t.is(calls.fsetXattr(fd, 'user.empty', Buffer.alloc(0)), 0);
  t.is(calls.fsetXattr(-1, 'user.empty', value), -EBADF);
  t.deepEqual(calls.xattrOf(path, 'user.\xe9'), value);
  t.is((calls.xattrOf(path, 'user.empty') as Buffer).length, 0);
  t.deepEqual((calls.xattrNamesOf(path) as Buffer).toString('latin1').split('\0').sort(), [
    '',
    'user.empty',
    'user.\xe9',
  ]);
  t.is(calls.removeXattr(path, 'user.empty'), 0);
  t.is(calls.removeXattr(path, 'user.empty'), -ENODATA);
  t.is(calls.xattrOf(path, 'user.empty'), -ENODATA);
  t.is(calls.xattrNamesOf(join(dir, 'missing')), -ENOENT);
});

test('contents are read and written where they are to be, beyond 2^32 too', (t) => {
  const fd = openSample(t, newFolder(t));
  const far = 2 ** 32 + 3;
  t.is(calls.writeAt(fd, Buffer.from('far'), far), 3);
  const out = Buffer.alloc(8);
  t.is(calls.readAt(fd, out, far), 3);
  t.is(out.toString('utf8', 0, 3), 'far');
  t.is(calls.readAt(fd, out, 7), 8);
  t.is(out.toString('latin1'), 'world\0\0\0');
  t.is(calls.readAt(fd, out, far + 10), 0);
  t.is(calls.readOnce(fd, out), 8);
  t.is(out.toString(), 'hello, w');
  for (const call of [calls.readAt, calls.writeAt]) {
    t.is(call(-1, out, 0), -EBADF);
    t.is(call(fd, out, -1), -EINVAL);
  }
  t.is(calls.readOnce(-1, out), -EBADF);
  t.is(calls.seek(fd, 8192, calls.SEEK_DATA), 2 ** 32);
  t.is(calls.seek(fd, 2 ** 32, calls.SEEK_HOLE), far + 3);
  t.is(calls.seek(fd, far + 3, calls.SEEK_DATA), -ENXIO);
});

test('files are synced, allocated, punched and copied, or an errno says why not', (t) => {
  const dir = newFolder(t);
  const fd = openSample(t, dir);
  const to = calls.openFile(join(dir, 'copy'), O_RDWR | O_CREAT, 0o600);
  t.is(calls.syncFile(fd, true), 0);
  t.is(calls.syncFile(fd, false), 0);
  t.is(calls.syncFile(-1, true), -EBADF);
  t.is(calls.syncFile(-1, false), -EBADF);
  t.is(calls.copyRange({ fd, offset: 7 }, { fd: to, offset: 2 }, 100), 5);
  t.is(readFileSync(join(dir, 'copy'), 'latin1'), '\0\0world');
  t.is(calls.copyRange({ fd: -1, offset: 0 }, { fd: to, offset: 0 }, 1), -EBADF);
  t.is(calls.allocate(fd, calls.FALLOC_KEEP_SIZE, 0, 100_000), 0);
  t.is(stat(join(dir, 'sample')).sizeBytes, 12);
  t.is(calls.allocate(fd, calls.FALLOC_PUNCH_HOLE | calls.FALLOC_KEEP_SIZE, 0, 5), 0);
  t.is(readFileSync(join(dir, 'sample'), 'latin1'), '\0\0\0\0\0, world');
  t.is(calls.allocate(fd, calls.FALLOC_PUNCH_HOLE, 0, 5), -system.errno.EOPNOTSUPP);
  calls.closeFile(to);
});

test('statfsOf() says what kind of file system it is and how full', (t) => {
  const found = calls.statfsOf('/proc');
  t.like(found, { type: 0x9fa0 });
  const disk = calls.statfsOf(newFolder(t));
  if (typeof disk === 'number') return t.fail();
  t.true(disk.blocks >= disk.blocksFree && disk.blocksFree >= disk.blocksAvailable && disk.blockBytes >= 512);
  t.true(disk.files >= disk.filesFree);
  t.is(calls.statfsOf('/nowhere'), -ENOENT);
});

const DEPTH = 20;

/** The path of a directory that no system call takes whole. */
function deepDir(t: ExecutionContext): string {
  const folder = newFolder(t);
  t.teardown(() => void spawnSync('rm', ['-rf', folder])); // Node cannot
  let path = folder;
  for (let i = 0; i < DEPTH; i += 1) {
    path += `/${String.fromCharCode(97 + i).repeat(255)}`;
    if (calls.makeDir(path, 0o700) !== 0) throw new Error(`at depth ${i}`);
  }
  return path;
}

test('paths longer than PATH_MAX work for every call', (t) => {
  const dir = deepDir(t);
  const [file, link, other] = [`${dir}/file`, `${dir}/link`, `${dir}/${'\xff'.repeat(255)}`];
  t.true(dir.length > 4096);
  const fd = calls.openFile(file, O_RDWR | O_CREAT, 0o600);
  t.is(calls.writeAt(fd, Buffer.from('deep'), 0), 4);
  calls.closeFile(fd);
  t.is(stat(file).sizeBytes, 4);
  t.is(calls.makeSymlink('nowhere', link), 0);
  t.is((calls.readLink(link) as Buffer).toString(), 'nowhere');
  t.is(calls.link(file, other), 0);
  t.is(stat(other).nlink, 2);
  t.is(calls.unlink(other), 0);
  t.is(calls.rename(file, other), 0);
  t.is(calls.rename(other, link, calls.RENAME_EXCHANGE), 0);
  t.is(stat(link).sizeBytes, 4);
  t.is(calls.changeMode(link, 0o640), 0);
  t.is(calls.changeOwner(link, -1, -1), 0);
  t.is(calls.truncateFile(link, 9), 0);
  t.is(calls.setTimes(link, [1, 2], [3, 4]), 0);
  t.like(stat(link), { sizeBytes: 9, atimeSec: 1, mtimeNsec: 4 });
  t.is(calls.setXattr(link, 'user.a', Buffer.from('x')), 0);
  t.is((calls.xattrOf(link, 'user.a') as Buffer).toString(), 'x');
  t.is((calls.xattrNamesOf(link) as Buffer).toString(), 'user.a\0');
  t.is(calls.removeXattr(link, 'user.a'), 0);
  t.is(calls.makeNode(`${dir}/fifo`, S_IFIFO | 0o600), 0);
  t.is(calls.makeWhiteout(`${dir}/w`), 0);
  t.is(calls.makeDir(`${dir}/d`, 0o700), 0);
  t.is(calls.removeDir(`${dir}/d`), 0);
  t.is(calls.removeDir(dir), -ENOTEMPTY);
  t.like(calls.statfsOf(dir), { blockBytes: (calls.statfsOf('/tmp') as calls.FileSystemStat).blockBytes });
});

test('paths longer than PATH_MAX leave no descriptor behind for each, and say what is wrong with them', (t) => {
  const dir = deepDir(t);
  const missing = dir.replace('/c', '/C');
  calls.statOf(`${dir}/file`);
  const open = readdirSync('/proc/self/fd').length;
  for (let i = 0; i < 20; i += 1) {
    t.is(calls.statOf(`${dir}/file`), -ENOENT);
    t.is(calls.statOf(`${missing}/file`), -ENOENT);
  }
  t.true(readdirSync('/proc/self/fd').length <= open);
});

test('a name longer than any may be is refused, and not cut short', (t) => {
  const dir = newFolder(t);
  mkdirSync(join(dir, 'd'));
  for (const path of [`${dir}/${'n'.repeat(256)}`, `${dir}/d/${'n'.repeat(5000)}`, 'n'.repeat(5000)]) {
    t.is(calls.statOf(path), -ENAMETOOLONG, `${path.length} bytes`);
    t.is(calls.makeDir(path, 0o700), -ENAMETOOLONG);
    t.is(calls.rename(`${dir}/d`, path), -ENAMETOOLONG);
  }
  t.deepEqual(readdirSync(dir), ['d']);
});

test('a symlink that leads too far is refused, and not cut short', (t) => {
  const dir = newFolder(t);
  const longest = `/tmp/${'n'.repeat(4090)}`;
  t.is(calls.makeSymlink(longest, join(dir, 'longest')), 0);
  t.is((calls.readLink(join(dir, 'longest')) as Buffer).toString(), longest);
  for (const target of ['n'.repeat(4096), `${longest}n`, 'a/'.repeat(5000)])
    t.is(calls.makeSymlink(target, join(dir, 'longer')), -ENAMETOOLONG);
  t.deepEqual(readdirSync(dir), ['longest']);
});

test('the name of an attribute is no path, however long', (t) => {
  const dir = newFolder(t);
  for (const name of [`/tmp/${'n'.repeat(5000)}`, 'user.'.repeat(2000)]) {
    t.is(calls.xattrOf(dir, name), -system.errno.ERANGE);
    t.is(calls.setXattr(dir, name, Buffer.alloc(1)), -system.errno.ERANGE);
    t.is(calls.removeXattr(dir, name), -system.errno.ERANGE);
  }
});

test('names that are not UTF-8 stay the bytes that they are', (t) => {
  const dir = newFolder(t);
  const name = 'latin-\xe9\xff';
  t.is(calls.makeDir(`${dir}/${name}`, 0o700), 0);
  t.is(calls.makeSymlink('\xfe/\xff', `${dir}/${name}/\x80`), 0);
  t.deepEqual(calls.readLink(`${dir}/${name}/\x80`), Buffer.from([0xfe, 0x2f, 0xff]));
  t.deepEqual(readdirSync(Buffer.from(`${dir}/${name}`, 'latin1'), { encoding: 'buffer' }), [Buffer.from([0x80])]);
});

test('what is on another file system cannot be linked or moved', (t) => {
  const dir = newFolder(t);
  writeFileSync(join(dir, 'f'), '');
  t.is(calls.rename(join(dir, 'f'), '/proc/f'), -EXDEV);
  const fd = calls.openFile('/proc/self/status', O_RDONLY);
  t.true(calls.readAt(fd, Buffer.alloc(100), 0) === 100);
  calls.closeFile(fd);
});
