import { strict as assert } from 'node:assert';
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmdirSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { setTimeout } from 'node:timers/promises';

import { Random } from '../fixtures/random.ts';

/**
 * Works in the directory it is started in, with system calls of which each must happen exactly once:
 *
 *     node writer.js <role> <rounds> <seed>
 *
 * It ends with an error at the first thing that is not as it left it. What it leaves depends on its arguments alone.
 */
const [role = '', rounds = '', seed = ''] = process.argv.slice(2);
const ROUNDS = Number(rounds);
const random = new Random(Number(seed));
/** A lock that nobody gives back: the call that took it was told that it failed. */
const LOCK_TIMEOUT_MS = 60_000;
const OPEN_FILES = 6;

/** What `prepareRoles` puts into the checkpoint: all roles begin with saved files, too. */
const SAVED = 'saved';

const ROLES: Readonly<Record<string, () => void | Promise<void>>> = {
  append: appendLines,
  rename: renameFiles,
  create: createAndRemove,
  unlinked: useUnlinkedFiles,
  overwrite: overwriteParts,
  'lock-create': async () =>
    await countLocked(
      () => closeSync(openSync('lock', 'wx')),
      () => unlinkSync('lock'),
    ),
  'lock-mkdir': async () =>
    await countLocked(
      () => mkdirSync('lock'),
      () => rmdirSync('lock'),
    ),
  'lock-link': async () => {
    const own = `own-${process.pid}`;
    writeFileSync(own, own);
    await countLocked(
      () => linkSync(own, 'lock'),
      () => unlinkSync('lock'),
    );
    unlinkSync(own);
  },
};

/** A line that is written twice, or not at all, shows. */
function appendLines(): void {
  for (const file of [SAVED, 'new']) {
    const fd = openSync(file, 'a');
    for (let at = 0; at < ROUNDS; at += 1) {
      writeSync(fd, `${file} ${at}\n`);
      if (at % 5 === 0) fsyncSync(fd);
      if (at % 20 === 0) writeFileSync(file, `by its name ${at}\n`, { flag: 'a' });
    }
    closeSync(fd);
  }
}

/** Names go around: a rename that is done twice finds nothing the second time. */
function renameFiles(): void {
  for (let at = 0; at < ROUNDS; at += 1) {
    const next = `name-${at % 7}`;
    const before = at === 0 ? SAVED : `name-${(at - 1) % 7}`;
    renameSync(before, next);
    assert.ok(!existsSync(before), `${before} was renamed`);
    writeFileSync('tmp', `version ${at}\n`);
    renameSync('tmp', 'replaced'); // over what is there
    assert.equal(readFileSync('replaced', 'utf8'), `version ${at}\n`);
    mkdirSync('dir');
    writeFileSync('dir/inside', String(at));
    renameSync('dir', `moved-${at}`);
    if (at % 2 === 0) continue;
    unlinkSync(`moved-${at}/inside`);
    renameSync(`moved-${at}`, 'empty');
    rmdirSync('empty');
  }
}

/** Each of these fails when it is done twice, with EEXIST or ENOENT. */
function createAndRemove(): void {
  for (let at = 0; at < ROUNDS; at += 1) {
    closeSync(openSync('file', 'wx'));
    linkSync('file', 'link');
    assert.equal(statSync('file').nlink, 2);
    symlinkSync('file', 'symlink');
    assert.equal(readlinkSync('symlink'), 'file');
    mkdirSync('directory');
    rmdirSync('directory');
    unlinkSync('symlink');
    unlinkSync('link');
    assert.equal(statSync('file').nlink, 1);
    unlinkSync('file');
    if (at % 3 === 0) closeSync(openSync(`kept-${at}`, 'wx'));
    if (at === 0) unlinkSync(SAVED);
    if (at % 4 === 0) closeSync(openSync(SAVED, 'wx')); // where a saved file was hidden
    if (at % 4 === 3) unlinkSync(SAVED);
  }
  const left = readdirSync('.').filter((name) => !name.startsWith('kept-') && name !== SAVED);
  assert.deepEqual(left, [], 'nothing is left of what was removed');
}

/** Files that have no name any more live as long as they are open. */
function useUnlinkedFiles(): void {
  const saved = openSync(SAVED, 'r+');
  unlinkSync(SAVED);
  const files = Array.from({ length: OPEN_FILES }, (_, at) => {
    const fd = at === 0 ? saved : openSync('temporary', 'wx+');
    if (at > 0) unlinkSync('temporary');
    const content = at === 0 ? readAll(saved) : Buffer.alloc(0);
    return { fd, content };
  });
  for (let at = 0; at < ROUNDS; at += 1) {
    const file = random.pick(files);
    if (random.chance(0.1)) {
      const sizeBytes = random.below(file.content.length + 1);
      ftruncateSync(file.fd, sizeBytes);
      file.content = file.content.subarray(0, sizeBytes);
    } else {
      const piece = random.bytes(1 + random.below(3000));
      const from = random.below(file.content.length + 1);
      writeSync(file.fd, piece, 0, piece.length, from);
      file.content = replaced(file.content, from, piece);
    }
    const stat = fstatSync(file.fd);
    assert.deepEqual([stat.nlink, stat.size], [0, file.content.length]);
    if (at % 7 === 0) for (const { fd, content } of files) assert.ok(readAll(fd).equals(content), 'an unlinked file');
  }
  writeFileSync('in-the-end', Buffer.concat(files.map(({ content }) => content)));
  for (const { fd } of files) closeSync(fd);
}

/** Parts of a saved file and of a new one, by descriptors that stay and by new ones. */
function overwriteParts(): void {
  const files = [SAVED, 'new'].map((name) => {
    const fd = openSync(name, name === SAVED ? 'r+' : 'wx+');
    return { name, fd, content: readAll(fd) };
  });
  for (let at = 0; at < ROUNDS; at += 1) {
    const file = random.pick(files);
    const piece = random.bytes(1 + random.below(20_000));
    const from = random.below(200_000);
    const fd = random.chance(0.3) ? openSync(file.name, 'r+') : file.fd;
    writeSync(fd, piece, 0, piece.length, from);
    file.content = replaced(file.content, from, piece);
    if (fd !== file.fd) closeSync(fd);
    if (random.chance(0.1)) {
      truncateSync(file.name, from);
      file.content = file.content.subarray(0, from);
    }
    if (random.chance(0.1)) fsyncSync(file.fd);
    if (at % 7 === 0) for (const { fd, content } of files) assert.ok(readAll(fd).equals(content), file.name);
  }
  for (const { fd } of files) closeSync(fd);
}

/** Several processes add to one number; the lock keeps them apart, and is theirs alone to give back. */
async function countLocked(take: () => void, giveBack: () => void): Promise<void> {
  for (let at = 0; at < ROUNDS; at += 1) {
    await takeLock(take);
    writeFileSync(SAVED, String(Number(readFileSync(SAVED, 'utf8')) + 1));
    giveBack();
  }
}

async function takeLock(take: () => void): Promise<void> {
  const endMs = Date.now() + LOCK_TIMEOUT_MS;
  for (;;) {
    try {
      take();
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    if (Date.now() > endMs) throw new Error('the lock is never given back: somebody has it and does not know');
    await setTimeout(random.below(5));
  }
}

function replaced(content: Buffer, from: number, piece: Buffer): Buffer {
  const after = Buffer.alloc(Math.max(content.length, from + piece.length));
  content.copy(after);
  piece.copy(after, from);
  return after;
}

function readAll(fd: number): Buffer {
  const content = Buffer.alloc(fstatSync(fd).size);
  assert.equal(readSync(fd, content, 0, content.length, 0), content.length);
  return content;
}

await ROLES[role]?.();
