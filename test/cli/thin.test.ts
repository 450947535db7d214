import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { assertFails, blobPath, digestOfRef, namesIn, readManifest, writeFiles } from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const MIB = 1 << 20;
const MB = 1_000_000;
const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];

interface Saved {
  digest: string;
  addedBytes: number;
  layers: { title: string; layerCount: number }[];
}

interface Damage {
  kind: string;
  what: string;
  where: string;
  digest: string | null;
  affects: string[];
  files: string[];
  repaired: boolean;
}

/** A workspace with one large file of random bytes, saved as cp-1. */
async function saveLarge(t: ExecutionContext, sizeBytes: number): Promise<Sandbox> {
  const sandbox = newSandbox(t);
  writeFiles(sandbox.workspace, { 'large.bin': randomBytes(sizeBytes), 'small.txt': 'small\n' });
  (await sandbox.bento(['init'])).ok();
  await save(sandbox);
  return sandbox;
}

async function save(sandbox: Sandbox, args: string[] = [], env: Record<string, string> = {}): Promise<Saved> {
  return (await sandbox.bento(['save', '--json', ...args], { env })).ok().json<Saved>();
}

/** Writes into a file that is there, as a database does. */
function writeAt(file: string, at: number, bytes: Buffer): void {
  const fd = openSync(file, 'r+');
  writeSync(fd, bytes, 0, bytes.length, at);
  closeSync(fd);
}

function editLarge(sandbox: Sandbox, at: number, bytes: Buffer = randomBytes(4096)): void {
  writeAt(path.join(sandbox.workspace, 'large.bin'), at, bytes);
}

/** The lengths of all files below a directory. */
function bytesBelow(dir: string): number {
  return readdirSync(dir, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + lstatSync(path.join(entry.parentPath, entry.name)).size, 0);
}

function thinDir({ storePath }: Sandbox): string {
  return path.join(storePath, 'thin', 'sha256');
}

async function damagesOf(sandbox: Sandbox, ...args: string[]): Promise<Damage[]> {
  return (await sandbox.bento(['verify', '--json', ...args])).json<{ damages: Damage[] }>().damages;
}

async function assertOpens(t: ExecutionContext, sandbox: Sandbox, ref: string): Promise<void> {
  const dir = sandbox.path(`opened-${ref}-${process.hrtime.bigint()}`);
  (await sandbox.bento(['open', '--copy', ref, dir])).ok();
  t.deepEqual(compareByWalk(sandbox.workspace, dir, { ignore: OWN_FILES }), []);
}

function flipByte(file: string, at: number): void {
  const bytes = readFileSync(file);
  bytes.writeUInt8(bytes.readUInt8(at) ^ 0x40, at);
  chmodSync(file, 0o644);
  writeFileSync(file, bytes);
}

/** cp-1 with 8 MiB, and cp-2, in which a part of them is another: the digests of base and delta. */
async function saveThin(t: ExecutionContext): Promise<{ sandbox: Sandbox; base: string; delta: string }> {
  const sandbox = await saveLarge(t, 8 * MIB);
  editLarge(sandbox, 5 * MIB + 100_000);
  const { digest } = await save(sandbox);
  const layers = readManifest(sandbox, digest).layers.map((layer) => layer.digest);
  const [base = '', delta = ''] = layers.slice(-2);
  t.true(existsSync(path.join(thinDir(sandbox), delta.slice(7))));
  return { sandbox, base, delta };
}

test.serial('a change of 4 KiB in a file of 50 MB adds less than 1 MB to the store, each time', async (t) => {
  const sandbox = await saveLarge(t, 50 * MB);
  const changes: [string, () => void][] = [
    ['in the middle', () => editLarge(sandbox, 20 * MB)],
    ['over the end of a chunk', () => editLarge(sandbox, 31 * MIB - 2000)],
    ['at the end', () => writeFileSync(path.join(sandbox.workspace, 'large.bin'), randomBytes(4096), { flag: 'a' })],
    ['somewhere else', () => editLarge(sandbox, 1234)],
  ];
  for (const [where, change] of changes) {
    const before = bytesBelow(sandbox.storePath);
    change();
    const { addedBytes } = await save(sandbox);
    const grown = bytesBelow(sandbox.storePath) - before;
    t.true(grown < MB, `${where}: ${grown} bytes`);
    t.true(addedBytes < grown, `${where}: ${addedBytes} said`);
  }
  t.deepEqual(await damagesOf(sandbox), []);
  await assertOpens(t, sandbox, 'latest');
  const changed = (await sandbox.bento(['diff', 'cp-1', 'latest', '--name-only'])).ok().stdout;
  t.is(changed, 'large.bin\n');
  (await sandbox.bento(['open', 'cp-1'])).ok();
  (await sandbox.bento(['open', 'cp-5'])).ok();
  await assertOpens(t, sandbox, 'cp-5');
});

test.serial('a large file that was only touched, or moved, is not stored again', async (t) => {
  const sandbox = await saveLarge(t, 8 * MIB);
  const at = (name: string): string => path.join(sandbox.workspace, name);
  utimesSync(at('large.bin'), 1_000_000_000, 1_000_000_000);
  t.true((await save(sandbox)).addedBytes < 20_000);
  mkdirSync(at('elsewhere'));
  renameSync(at('large.bin'), at('elsewhere/other.bin'));
  t.true((await save(sandbox)).addedBytes < 20_000);
  renameSync(at('elsewhere/other.bin'), at('other.bin'));
  writeFileSync(at('other.bin'), 'and a line', { flag: 'a' });
  t.true((await save(sandbox)).addedBytes < 300_000);
  await assertOpens(t, sandbox, 'latest');
  t.deepEqual(await damagesOf(sandbox), []);
});

test.serial('BENTO_THIN=off keeps every blob in a file of its own, with the same digest', async (t) => {
  const sandbox = await saveLarge(t, 3 * MIB);
  const other = sandbox.path('other');
  execFileSync('cp', ['-a', sandbox.workspace, other]);
  rmSync(path.join(other, 'bento.yaml'));
  (await sandbox.bento(['init', '--store', sandbox.path('plain'), '--dir', other])).ok();
  await save(sandbox, ['--dir', other]);
  const bytes = randomBytes(4096);
  for (const dir of [sandbox.workspace, other]) {
    writeAt(path.join(dir, 'large.bin'), MIB + 5, bytes);
    for (const name of ['large.bin', '']) utimesSync(path.join(dir, name), 1_700_000_000, 1_700_000_000);
  }
  const thin = await save(sandbox);
  const delta = readManifest(sandbox, thin.digest).layers.at(-1)?.digest.slice(7) ?? '';
  t.deepEqual(namesIn(thinDir(sandbox)), [delta]);
  const { addedBytes } = await save(sandbox, ['--dir', other], { BENTO_THIN: 'off' });
  t.true(addedBytes > 3 * MIB);
  t.true(existsSync(sandbox.path('plain/blobs/sha256', delta)), 'the same layer');
  t.false(existsSync(sandbox.path('plain/thin')));
});

testSerialNeeding({ root: true, fuse: true })(
  'a thin checkpoint mounts, forks and is saved from a fork as any other',
  async (t) => {
    const { sandbox } = await saveThin(t);
    const [place, fork] = [sandbox.makeFolder('place'), sandbox.path('fork')];
    (await sandbox.bento(['mount', 'cp-2', place])).ok();
    t.deepEqual(compareByWalk(sandbox.workspace, place, { ignore: OWN_FILES }), []);
    (await sandbox.bento(['fork', 'cp-2', fork])).ok();
    writeAt(path.join(fork, 'large.bin'), 2 * MIB, randomBytes(4096));
    const { addedBytes } = await save(sandbox, ['--dir', fork]);
    t.true(addedBytes < 300_000, `${addedBytes} bytes`);
    const opened = sandbox.path('opened');
    (await sandbox.bento(['open', '--copy', 'cp-3', opened])).ok();
    t.is(Buffer.compare(readFileSync(path.join(opened, 'large.bin')), readFileSync(path.join(fork, 'large.bin'))), 0);
    (await sandbox.bento(['close', fork])).ok();
    (await sandbox.bento(['unmount', place])).ok();
    t.deepEqual(await damagesOf(sandbox), []);
  },
);

for (const engine of ['overlay', 'cow']) {
  testSerialNeeding({ root: true, fuse: true })(
    `a large file below a directory that was renamed in a fork (${engine}) is not stored again`,
    async (t) => {
      const sandbox = newSandbox(t);
      writeFiles(sandbox.workspace, { 'data/large.bin': randomBytes(4 * MIB) });
      (await sandbox.bento(['init'])).ok();
      await save(sandbox);
      const fork = sandbox.path('fork');
      (await sandbox.bento(['fork', '--engine', engine, 'cp-1', fork])).ok();
      execFileSync('mv', [path.join(fork, 'data'), path.join(fork, 'moved')]);
      const { addedBytes } = await save(sandbox, ['--dir', fork]);
      t.true(addedBytes < 20_000, `${addedBytes} bytes`);
      writeAt(path.join(fork, 'moved/large.bin'), MIB, randomBytes(4096));
      t.true((await save(sandbox, ['--dir', fork])).addedBytes < 300_000);
      const opened = sandbox.path('opened');
      (await sandbox.bento(['open', '--copy', 'cp-3', opened])).ok();
      const [there, here] = [fork, opened].map((dir) => readFileSync(path.join(dir, 'moved/large.bin')));
      t.true(there?.equals(here ?? Buffer.alloc(0)));
      (await sandbox.bento(['close', fork])).ok();
      t.deepEqual(await damagesOf(sandbox), []);
    },
  );
}

test.serial('save --flat leaves one layer for each title and no recipe in it, changed or not', async (t) => {
  const { sandbox } = await saveThin(t);
  const isWhole = (digest: string): boolean =>
    readManifest(sandbox, digest).layers.every((layer) => existsSync(blobPath(sandbox, layer.digest)));
  const flat = await save(sandbox, ['--flat']);
  t.deepEqual(
    flat.layers.map(({ layerCount }) => layerCount),
    [1, 1, 1],
  );
  t.true(isWhole(flat.digest));
  editLarge(sandbox, 100);
  const again = await save(sandbox, ['--flat']);
  t.deepEqual(
    again.layers.map(({ layerCount }) => layerCount),
    [1, 1, 1],
    'also over a single layer',
  );
  t.true(isWhole(again.digest));
  await assertOpens(t, sandbox, 'latest');
  (await sandbox.bento(['gc', '--keep-last', '1'])).ok();
  t.deepEqual(namesIn(thinDir(sandbox)), [], 'nobody needs one any more');
  t.deepEqual(await damagesOf(sandbox), []);
});

test.serial('gc keeps what a thin blob takes bytes from, and says what is freed as it is on disk', async (t) => {
  const { sandbox, base, delta } = await saveThin(t);
  (await sandbox.bento(['gc', '--keep-last', '1'])).ok();
  t.true(existsSync(blobPath(sandbox, base)));
  t.deepEqual(await damagesOf(sandbox), []);
  rmSync(path.join(sandbox.workspace, 'large.bin'));
  await save(sandbox, ['--flat']);
  const { blobs, freedBytes } = (await sandbox.bento(['gc', '--keep-last', '1', '--json'])).ok().json<{
    blobs: { digest: string; sizeBytes: number }[];
    freedBytes: number;
  }>();
  t.true((blobs.find(({ digest }) => digest === delta)?.sizeBytes ?? MB) < 400_000);
  t.true(freedBytes > 8 * MIB && freedBytes < 9 * MIB, `${freedBytes} bytes`);
  t.deepEqual(namesIn(thinDir(sandbox)), []);
});

test.serial('gc deletes nothing while a recipe cannot be read, unless it is given up', async (t) => {
  const { sandbox, delta } = await saveThin(t);
  const recipe = path.join(thinDir(sandbox), delta.slice(7));
  flipByte(recipe, lstatSync(recipe).size - 70);
  const refused = await sandbox.bento(['gc', '--keep-last', '1']);
  assertFails(t, refused, { code: 'FORMAT_INVALID', says: /nothing was deleted: .*recipe of thin blob/ });
  (await sandbox.bento(['gc', '--keep-last', '1', '--drop-damaged'])).ok();
});

test.serial('verify names what a damaged base hits, and mends it with another copy of the base', async (t) => {
  const { sandbox, base, delta } = await saveThin(t);
  const copy = readFileSync(blobPath(sandbox, base));
  flipByte(blobPath(sandbox, base), MIB);
  const found = await damagesOf(sandbox);
  t.deepEqual(
    found.map(({ kind, digest, files }) => ({ kind, digest, files })),
    [base, delta].map((digest) => ({ kind: 'layer', digest, files: ['large.bin'] })),
  );
  t.deepEqual(
    found.map(({ affects }) => affects.join()),
    ['cp-1,cp-2', 'cp-2'],
  );
  writeFileSync(path.join(sandbox.storePath, 'blobs', 'sha256', 'f'.repeat(64)), copy);
  t.true((await damagesOf(sandbox, '--repair')).every(({ repaired }) => repaired));
  t.deepEqual(await damagesOf(sandbox), []);
});

test.serial('verify tells of a missing base and of a damaged recipe, quickly, too', async (t) => {
  const { sandbox, base, delta } = await saveThin(t);
  const copy = readFileSync(blobPath(sandbox, base));
  rmSync(blobPath(sandbox, base));
  for (const args of [[], ['--quick']]) {
    const found = (await damagesOf(sandbox, ...args)).find(({ digest }) => digest === delta);
    t.like(found, { kind: 'layer', affects: ['cp-2'], repaired: false });
    t.regex(found?.what ?? '', new RegExp(`cannot be put together: .*${base}`));
  }
  t.regex((await sandbox.bento(['doctor', '--json'])).stdout, /1 of 1 cannot be put together/);
  writeFileSync(blobPath(sandbox, base), copy);
  t.deepEqual(await damagesOf(sandbox), []);
  const recipe = path.join(thinDir(sandbox), delta.slice(7));
  flipByte(recipe, lstatSync(recipe).size - 70);
  const [found] = await damagesOf(sandbox);
  t.regex(found?.what ?? '', /recipe of thin blob/);
  const failed = await sandbox.bento(['open', '--copy', 'cp-2', sandbox.path('never')]);
  assertFails(t, failed, { code: 'FORMAT_INVALID', says: /recipe of thin blob/ });
});

test.serial('doctor counts thin blobs, and list and inspect show the sizes that everybody else sees', async (t) => {
  const { sandbox, delta } = await saveThin(t);
  const { size } = readManifest(sandbox, await digestOfRef(sandbox, 'cp-2')).layers.at(-1) ?? { size: 0 };
  t.true(size > 8 * MIB);
  t.regex((await sandbox.bento(['doctor'])).stdout, /Thin blobs.*1, 1 MiB instead of 9 MiB/);
  t.true(lstatSync(path.join(thinDir(sandbox), delta.slice(7))).size < 400_000);
});
