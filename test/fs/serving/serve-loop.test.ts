import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdtempSync,
  opendirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  rmdirSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { Worker } from 'node:worker_threads';

import test, { type ExecutionContext } from 'ava';

import { fuseAvailability, mountAsRoot, raiseReadAhead, unmount } from '../../../fs/mounts/dev-fuse.ts';
import { mountedAt } from '../../../fs/mounts/mountinfo.ts';
import { answer, type FailedRequest, type Negotiated, openSession } from '../../../fs/serving/serve-loop.ts';
import { ERRNO, OPCODE } from '../../../fs/protocol/constants.ts';
import { decodeDirents } from '../../../fs/protocol/dirent.ts';
import { decodeReplyHeader, encodeRequestHeader, REPLY_HEADER_BYTES } from '../../../fs/protocol/header.ts';
import { encodeReadIn, READ_IN_BYTES } from '../../../fs/protocol/read.ts';
import { lgetxattr, llistxattr, readXattrs } from '../../../store/syscalls.ts';
import { BIG_BYTES, bigContent, LONGEST_NAME, MANY_COUNT, NOT_UTF8, sampleTree } from './memory-tree.ts';

const AVAILABILITY = fuseAvailability();

/** A test that needs a kernel mount; else it is counted as skipped and says what is missing. */
function testMount(title: string, run: (t: ExecutionContext) => void | Promise<void>): void {
  if (AVAILABILITY.usable === 'root') test.serial(title, run);
  else test.serial.skip(`${title} (skipped: ${AVAILABILITY.reason ?? 'needs root'})`, run);
}

type WorkerMessage = { negotiated: Negotiated } | { slow: true } | ({ error: string } & FailedRequest);

interface TestMount {
  dir: string;
  messages: WorkerMessage[];
  /** Unmounts and waits for the worker to end, which it does by ENODEV. */
  end: () => Promise<number>;
}

function mountSample(t: ExecutionContext): TestMount {
  const dir = mkdtempSync(join(tmpdir(), 'bento mount-'));
  const fd = mountAsRoot({ target: dir, source: 'sample', readOnly: false });
  const worker = new Worker(new URL('serve-thread.js', import.meta.url), { workerData: { fd } });
  const messages: WorkerMessage[] = [];
  worker.on('message', (message: WorkerMessage) => messages.push(message));
  const ended = once(worker, 'exit') as Promise<[number]>;
  let status: Promise<number> | undefined;
  const end = (): Promise<number> => (status ??= unmountAndWait(dir, fd, ended));
  t.teardown(end);
  return { dir, messages, end };
}

async function unmountAndWait(dir: string, fd: number, ended: Promise<[number]>): Promise<number> {
  unmount(dir, { lazy: true });
  const [status] = await ended;
  closeSync(fd);
  rmdirSync(dir);
  return status;
}

test.after.always('no mount is left behind', (t) => {
  t.false(readFileSync('/proc/mounts', 'latin1').includes('bento\\040mount-'));
});

testMount('serve() ends by itself when unmounted, after agreeing with the kernel', async (t) => {
  const { dir, messages, end } = mountSample(t);
  t.is(readFileSync(join(dir, 'small'), 'utf8'), 'hello\n');
  t.is(await end(), 0);
  const [first] = messages;
  if (first === undefined || !('negotiated' in first)) return t.fail('no agreement was reported');
  t.is(first.negotiated.maxWriteBytes, 1_048_576);
  t.true(first.negotiated.flags.includes('NO_OPEN_SUPPORT'));
  t.deepEqual(messages.slice(1), []);
});

testMount('a request in the slow lane delays no other, and a signal ends the wait for it', async (t) => {
  const { dir, messages } = mountSample(t);
  const waiting = spawn('stat', [join(dir, 'never')], { stdio: 'ignore' });
  const ended = once(waiting, 'exit');
  while (!messages.some((message) => 'slow' in message)) await sleep(10);
  t.is(readFileSync(join(dir, 'small'), 'utf8'), 'hello\n');
  waiting.kill('SIGINT');
  t.deepEqual(await ended, [null, 'SIGINT']);
});

testMount('stat shows nanoseconds, dates before 1970, types, modes and shared inos', (t) => {
  const { dir } = mountSample(t);
  const small = lstatSync(join(dir, 'small'), { bigint: true });
  t.is(small.mtimeNs, 1_600_000_000_123_456_789n);
  t.is(small.ctimeNs, small.mtimeNs);
  t.is(small.nlink, 2n);
  t.is(small.mode, 0o104750n);
  t.is(small.size, 6n);
  t.is(small.blocks, 8n);
  t.is(lstatSync(join(dir, 'hard link'), { bigint: true }).ino, small.ino);
  t.is(lstatSync(join(dir, 'old'), { bigint: true }).mtimeNs, -1_999_999_995n);
  t.true(lstatSync(join(dir, 'fifo')).isFIFO());
  t.true(lstatSync(join(dir, 'link')).isSymbolicLink());
  t.true(lstatSync(join(dir, 'many')).isDirectory());
  const device = spawnSync('stat', ['-c', '%F %Hr %Lr', 'device', 'gone'], { cwd: dir, encoding: 'utf8' });
  t.is(device.stdout, 'character special file 300 70000\ncharacter special file 0 0\n');
  t.is(statSync(dir).ino, 1001);
});

testMount('reading gives every byte, at any offset, and none past the end', (t) => {
  const { dir } = mountSample(t);
  const big = bigContent();
  t.true(readFileSync(join(dir, 'big')).equals(big));
  const fd = openSync(join(dir, 'big'), 'r');
  const out = Buffer.alloc(100_000);
  for (const offset of [0, 1, 4095, 1_048_575, 3_333_333]) {
    t.is(readSync(fd, out, 0, out.length, offset), out.length);
    t.true(out.equals(big.subarray(offset, offset + out.length)));
  }
  t.is(readSync(fd, out, 0, out.length, BIG_BYTES - 10), 10);
  t.is(readSync(fd, out, 0, out.length, BIG_BYTES + 10), 0);
  closeSync(fd);
  t.is(readFileSync(join(dir, 'empty')).length, 0);
});

testMount('reading around the page cache gives the same bytes', (t) => {
  const { dir } = mountSample(t);
  const copy = spawnSync('dd', [`if=${join(dir, 'big')}`, 'iflag=direct', 'bs=1M'], { maxBuffer: 2 * BIG_BYTES });
  t.true(copy.stdout.equals(bigContent()));
});

testMount('names are bytes: not UTF-8, and up to 255 of them', (t) => {
  const { dir } = mountSample(t);
  const path = Buffer.from(`${dir}/${NOT_UTF8}`, 'latin1');
  t.is(readFileSync(path, 'utf8'), 'bytes');
  t.is(readFileSync(join(dir, LONGEST_NAME), 'utf8'), 'long');
  t.throws(() => lstatSync(join(dir, `${LONGEST_NAME}n`)), { code: 'ENAMETOOLONG' });
  const names = readdirSync(Buffer.from(dir), { encoding: 'latin1' });
  t.true(names.includes(NOT_UTF8));
  t.is(names.length, 13);
  t.deepEqual(readlinkSync(join(dir, 'link'), 'buffer'), Buffer.from('small/../ä'));
});

testMount('a directory of 5,000 entries is listed completely, with types and without', (t) => {
  const { dir } = mountSample(t);
  const names = readdirSync(join(dir, 'many'));
  t.is(names.length, MANY_COUNT);
  t.is(new Set(names).size, MANY_COUNT);
  const listing = spawnSync('ls', ['-la', join(dir, 'many')], { encoding: 'utf8' });
  t.is(listing.status, 0);
  t.is(listing.stdout.trim().split('\n').length, MANY_COUNT + 3);
  const found = spawnSync('find', [dir, '-type', 'f'], { encoding: 'buffer' });
  t.is(found.stdout.toString('latin1').trim().split('\n').length, MANY_COUNT + 8);
  t.is(found.stderr.length, 0);
});

testMount('two listings of one directory do not disturb each other', (t) => {
  const { dir } = mountSample(t);
  const [first, second] = [opendirSync(join(dir, 'many')), opendirSync(join(dir, 'many'))];
  let count = 0;
  for (let entry = first.readSync(); entry !== null; entry = first.readSync()) {
    t.is(second.readSync()?.name, entry.name);
    count += 1;
  }
  t.is(count, MANY_COUNT);
  first.closeSync();
  second.closeSync();
});

testMount('extended attributes are shown, but for those that mean something to overlayfs', (t) => {
  const { dir } = mountSample(t);
  const small = join(dir, 'small');
  t.deepEqual(
    readXattrs(small),
    new Map([
      ['user.plain', Buffer.from([1, 0, 255])],
      ['user.empty', Buffer.alloc(0)],
    ]),
  );
  t.throws(() => lgetxattr(small, 'user.overlay.opaque'), { code: 'ENODATA' });
  t.throws(() => lgetxattr(small, 'trusted.overlay.redirect'), { code: 'ENODATA' });
  t.deepEqual(llistxattr(join(dir, 'big')), []);
  const tool = spawnSync('getfattr', ['--absolute-names', '-d', '-e', 'hex', small], { encoding: 'utf8' });
  if (tool.error === undefined) t.regex(tool.stdout, /user\.plain=0x0100ff/); // asks for sizes first
});

testMount('a missing name is ENOENT, and so is every later question about it', (t) => {
  const { dir } = mountSample(t);
  for (let i = 0; i < 3; i += 1) t.false(existsSync(join(dir, 'missing')));
  t.throws(() => readFileSync(join(dir, 'missing', 'deeper')), { code: 'ENOENT' });
  t.throws(() => readFileSync(join(dir, 'small', 'deeper')), { code: 'ENOTDIR' });
});

testMount('every change is refused with EROFS, even on a mount that is not marked read-only', (t) => {
  const { dir } = mountSample(t);
  const at = (name: string): string => join(dir, name);
  const script = [
    `touch ${JSON.stringify(at('new'))}`,
    `mkdir ${JSON.stringify(at('new'))}`,
    `rm -f ${JSON.stringify(at('small'))}`,
    `mv ${JSON.stringify(at('small'))} ${JSON.stringify(at('other'))}`,
    `ln ${JSON.stringify(at('small'))} ${JSON.stringify(at('other'))}`,
    `ln -s x ${JSON.stringify(at('other'))}`,
    `chmod 600 ${JSON.stringify(at('small'))}`,
    `truncate -s 0 ${JSON.stringify(at('small'))}`,
    `mkfifo ${JSON.stringify(at('other'))}`,
    `rmdir ${JSON.stringify(at('many'))}`,
  ];
  for (const command of script) {
    const { status, stderr } = spawnSync('sh', ['-c', command], {
      encoding: 'utf8',
      env: { ...process.env, LC_ALL: 'C' },
    });
    t.not(status, 0, command);
    t.regex(stderr, /Read-only file system/, command);
  }
  t.throws(() => writeFileSync(at('small'), 'x'), { code: 'EROFS' });
  t.is(readFileSync(at('small'), 'utf8'), 'hello\n');
});

testMount('a read that throws is EIO for the reader and is reported, and the loop goes on', async (t) => {
  const { dir, messages, end } = mountSample(t);
  t.throws(() => readFileSync(join(dir, 'broken')), { code: 'EIO' });
  t.is(readFileSync(join(dir, 'small'), 'utf8'), 'hello\n');
  await end();
  const failures = messages.filter((message) => 'error' in message);
  t.like(failures[0], { operation: 'READ', error: 'BentoError: node 6 has no content' });
});

testMount('statfs, access and fsync answer as on a plain read-only filesystem', (t) => {
  const { dir } = mountSample(t);
  const stat = statfsSync(dir);
  t.like(stat, { bsize: 4096, blocks: 11, bfree: 0, bavail: 0, ffree: 0 });
  t.is(stat.files, MANY_COUNT + 13);
  t.notThrows(() => accessSync(join(dir, 'small'), constants.R_OK));
  t.is(spawnSync('sync', [join(dir, 'small')]).status, 0);
  const df = spawnSync('df', [dir], { encoding: 'utf8' });
  t.is(df.status, 0);
});

testMount('raiseReadAhead() makes reads larger', (t) => {
  const { dir } = mountSample(t);
  const device = mountedAt(dir);
  if (device === undefined) return t.fail('the mount is not in the mount table');
  t.true(raiseReadAhead(device.deviceMajor, device.deviceMinor, 1024));
  t.true(readFileSync(join(dir, 'big')).equals(bigContent()));
  t.false(raiseReadAhead(9999, 9999, 1024));
});

function serveInChild(fd: number, ...args: string[]): ChildProcess {
  const script = new URL('serve-child.js', import.meta.url).pathname;
  return spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'inherit', fd] });
}

function stdoutOf({ stdout }: ChildProcess): Readable {
  if (stdout === null) throw new TypeError('no pipe');
  return stdout;
}

testMount('a successor answers the request that its predecessor was killed over', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'bento mount-'));
  const fd = mountAsRoot({ target: dir });
  t.teardown(() => {
    if (mountedAt(dir) !== undefined) unmount(dir, { lazy: true });
    closeSync(fd);
    rmdirSync(dir);
  });
  const first = serveInChild(fd);
  const said = createInterface({ input: stdoutOf(first) })[Symbol.asyncIterator]();
  const reader = spawn('cat', [join(dir, 'big')], { stdio: ['ignore', 'pipe', 'inherit'] });
  const { negotiated } = JSON.parse((await said.next()).value as string) as { negotiated: Negotiated };
  t.deepEqual(JSON.parse((await said.next()).value as string), { reading: true });
  first.kill('SIGKILL');
  await once(first, 'exit');

  const second = serveInChild(fd, JSON.stringify(negotiated));
  const chunks: Buffer[] = [];
  for await (const chunk of reader.stdout) chunks.push(chunk as Buffer);
  t.true(Buffer.concat(chunks).equals(bigContent()));
  const ended = once(second, 'exit');
  unmount(dir);
  t.deepEqual(await ended, [0, null]);
  t.is(await text(stdoutOf(first)), '');
});

// Without a kernel: what no kernel would send, and what one would send after a restart

function requestFor(opcode: number, nodeId: number, body: Buffer): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(40), body]);
  encodeRequestHeader({ bytes, opcode, nodeId, uid: 0, gid: 0, pid: 0 }, Buffer.from('0102030405060788', 'hex'));
  return bytes;
}

test('answer() answers ten thousand random requests and never throws', (t) => {
  const session = openSession(sampleTree());
  let failed = 0;
  for (let i = 0; i < 10_000; i += 1) {
    const body = randomBytes(i % 97);
    const bytes = i % 5 === 0 ? body : requestFor(i % 60, i % 20, body);
    const replyBytes = answerNow(session, bytes, () => (failed += 1));
    if (replyBytes === 0) continue;
    const { error } = decodeReplyHeader(session.reply.subarray(0, replyBytes));
    if (error > 0 || error < -999) t.fail(`error ${error} for ${bytes.toString('hex')}`);
  }
  t.true(failed > 1000);
});

test('answer() refuses a request that is cut off with EINVAL, keeping its id', (t) => {
  const session = openSession(sampleTree());
  const bytes = requestFor(OPCODE.READ, 2, Buffer.alloc(READ_IN_BYTES - 1));
  const seen: FailedRequest[] = [];
  const replyBytes = answerNow(session, bytes, (_, request) => seen.push(request));
  const reply = decodeReplyHeader(session.reply.subarray(0, replyBytes));
  t.is(reply.error, -ERRNO.EINVAL);
  t.is(reply.unique.toString('hex'), '0102030405060788');
  t.deepEqual(seen, [{ operation: 'READ', nodeId: 2 }]);
});

test('answer() replies although the error log fails', (t) => {
  const session = openSession(sampleTree());
  const bytes = requestFor(OPCODE.LOOKUP, 1, Buffer.alloc(0));
  const fail = (): never => {
    throw new Error('disk full');
  };
  t.is(answerNow(session, bytes, fail), REPLY_HEADER_BYTES);
});

test('answer() maps an unknown node to ESTALE and an unknown request to ENOSYS', (t) => {
  const session = openSession(sampleTree());
  const errorOf = (opcode: number, body: Buffer): number => {
    const replyBytes = answerNow(session, requestFor(opcode, 999_999, body), undefined);
    return decodeReplyHeader(session.reply.subarray(0, replyBytes)).error;
  };
  t.is(errorOf(OPCODE.GETATTR, Buffer.alloc(16)), -ERRNO.ESTALE);
  t.is(errorOf(OPCODE.READDIR, Buffer.alloc(READ_IN_BYTES)), -ERRNO.ESTALE);
  t.is(errorOf(999, Buffer.alloc(0)), -ERRNO.ENOSYS);
  t.is(errorOf(OPCODE.UNLINK, Buffer.from('a\0')), -ERRNO.EROFS);
});

test('readdir goes on in a process that has not seen the start of the listing', (t) => {
  const body = Buffer.alloc(READ_IN_BYTES);
  const names: string[] = [];
  for (let offset = 0; ;) {
    const session = openSession(sampleTree()); // a fresh one each time
    encodeReadIn(body, 0, { fh: 0, offset, sizeBytes: 128 });
    const replyBytes = answerNow(session, requestFor(OPCODE.READDIR, 1, body), undefined);
    const dirents = decodeDirents(session.reply.subarray(REPLY_HEADER_BYTES, replyBytes));
    const last = dirents.at(-1);
    if (last === undefined) break; // the longest name needs more room than this
    names.push(...dirents.map(({ name }) => name));
    offset = last.nextOffset;
  }
  t.deepEqual(names.slice(0, 4), ['.', '..', 'small', 'hard link']);
  t.is(names.length, 13);
});

test('a missing name in a directory that may grow is not remembered', (t) => {
  const session = openSession(sampleTree(), { mayGrow: (nodeId) => nodeId === 1 });
  const reply = answerNow(session, requestFor(OPCODE.LOOKUP, 1, Buffer.from('missing\0')), undefined);
  t.is(decodeReplyHeader(session.reply.subarray(0, reply)).error, -ERRNO.ENOENT);
});

/** `answer` of a tree that has everything at hand. */
function answerNow(...args: Parameters<typeof answer>): number {
  const replyBytes = answer(...args);
  if (replyBytes === 'slow') throw new Error('handed to the slow lane');
  return replyBytes;
}
