import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import {
  assertFails,
  assertTidy,
  assertUsable,
  blobPath,
  digestOfRef,
  makeSmallWorkspace,
  readManifest,
  saveSmallWorkspace,
  watchTree,
  workspaceId,
  writeFiles,
} from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { daemonLog } from '../fixtures/daemon.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { makeManyFiles } from '../fixtures/many-files.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];
const BIG = 'node_modules/left-pad/big.bin';
const BIG_BYTES = 2_000_000;

/** Bytes that do not compress, so that most of the layer is this one payload. */
function noise(seed: string): Buffer {
  const blocks = Math.ceil(BIG_BYTES / 32);
  const hash = (block: number): Buffer => createHash('sha256').update(`${seed}${block}`).digest();
  return Buffer.concat(Array.from({ length: blocks }, (_, block) => hash(block)));
}

/** cp-1 with a large file in its deps layer, and cp-2 without it. */
async function saveWithBigFile(t: ExecutionContext): Promise<Sandbox> {
  const sandbox = newSandbox(t);
  makeSmallWorkspace(sandbox.workspace);
  writeFiles(sandbox.workspace, { [BIG]: noise('a') });
  (await sandbox.bento(['init'])).ok();
  (await sandbox.bento(['save', '-m', 'big'])).ok();
  rmSync(path.join(sandbox.workspace, BIG));
  writeFiles(sandbox.workspace, { 'src/main.js': 'second\n' });
  (await sandbox.bento(['save', '-m', 'small'])).ok();
  return sandbox;
}

async function depsDigestOf(sandbox: Sandbox, ref: string): Promise<string> {
  const { layers } = readManifest(sandbox, await digestOfRef(sandbox, ref));
  return layers[0]?.digest ?? '';
}

async function depsBlobOf(sandbox: Sandbox, ref: string): Promise<string> {
  return blobPath(sandbox, await depsDigestOf(sandbox, ref));
}

/** Changes one byte and leaves the length alone. */
function flipByte(file: string, at = Math.floor(readFileSync(file).length / 2)): void {
  const bytes = readFileSync(file);
  bytes[at] = (bytes[at] ?? 0) ^ 0x40;
  chmodSync(file, 0o644);
  writeFileSync(file, bytes);
  chmodSync(file, 0o444);
}

test.serial(
  'a flipped byte in a layer: open() fails with DIGEST_MISMATCH and leaves the target as it was',
  async (t) => {
    const sandbox = await saveWithBigFile(t);
    flipByte(await depsBlobOf(sandbox, 'cp-1'));
    const expected = { code: 'DIGEST_MISMATCH', says: /integrity check failed/ } as const;
    assertFails(t, await sandbox.bento(['open', '--copy', 'cp-1', '../new']), expected);
    t.false(existsSync(sandbox.path('new')), 'what was begun is taken back');
    sandbox.makeFolder('empty');
    assertFails(t, await sandbox.bento(['open', '--copy', 'cp-1', '../empty']), expected);
    t.deepEqual(readdirSync(sandbox.path('empty')), []);
    writeFiles(sandbox.workspace, { unsaved: 'precious\n' });
    const changed = watchTree(sandbox.workspace, { ignore: ['.'] });
    assertFails(t, await sandbox.bento(['open', 'cp-1']), expected);
    t.deepEqual(changed(), [], 'nothing in the workspace is touched before everything is there and whole');
    assertTidy(t, sandbox);
    await assertUsable(t, sandbox);
  },
);

// the message names neither: layer-reader.ts does not know what it reads
test.serial(
  'a flipped byte in a layer: the message names the layer and the file, in the words of the original',
  async (t) => {
    const sandbox = await saveWithBigFile(t);
    const blob = await depsBlobOf(sandbox, 'cp-1');
    flipByte(blob);
    const { stderr } = await sandbox.bento(['open', '--copy', 'cp-1', '../new']);
    t.regex(stderr, /blob integrity check failed/);
    t.true(stderr.includes(path.basename(blob).slice(0, 12)));
    t.true(stderr.includes(BIG));
  },
);

testSerialNeeding({ root: true, fuse: true })(
  'a flipped byte in a layer: reading that file of a mount gives EIO, all others read well',
  async (t) => {
    const sandbox = await saveWithBigFile(t);
    (await sandbox.bento(['open', '--copy', 'cp-1', '../reference'])).ok();
    flipByte(await depsBlobOf(sandbox, 'cp-1'));
    const [mounted, fork] = [sandbox.makeFolder('mounted'), sandbox.path('fork')];
    (await sandbox.bento(['mount', 'cp-1', mounted])).ok();
    (await sandbox.bento(['fork', 'cp-1', fork])).ok();
    for (const dir of [mounted, fork]) {
      t.throws(() => readFileSync(path.join(dir, BIG)), { code: 'EIO' });
      t.throws(() => readFileSync(path.join(dir, BIG)), { code: 'EIO' }, 'and it stays so');
      t.regex(
        daemonLog(sandbox),
        new RegExp(`layer ${await depsDigestOf(sandbox, 'cp-1')}[^\\n]*${BIG}`),
        'layer and path',
      );
      t.deepEqual(compareByWalk(sandbox.path('reference'), dir, { ignore: [...OWN_FILES, BIG] }), []);
    }
    writeFiles(fork, { [BIG]: 'mended\n', 'src/more': 'more\n' });
    (await sandbox.bento(['save', '--dir', fork])).ok();
    (await sandbox.bento(['open', '--copy', 'head', '../mended', '--dir', fork])).ok();
    t.is(readFileSync(sandbox.path('mended', BIG), 'utf8'), 'mended\n', 'what was put in its place is whole');
  },
);

for (const [what, damage, code] of [
  ['damaged', (file: string) => flipByte(file, 20), 'DIGEST_MISMATCH'],
  [
    'cut off',
    (file: string) => {
      chmodSync(file, 0o644);
      truncateSync(file, 100);
    },
    'DIGEST_MISMATCH',
  ],
  [
    'missing',
    (file: string) => {
      rmSync(file);
    },
    'BLOB_MISSING',
  ],
] as const) {
  test.serial(`a ${what} manifest: ${code}, and the other checkpoints are listed and opened`, async (t) => {
    const sandbox = newSandbox(t);
    await saveSmallWorkspace(sandbox);
    writeFiles(sandbox.workspace, { 'src/main.js': 'second\n' });
    (await sandbox.bento(['save'])).ok();
    const digest = await digestOfRef(sandbox, 'cp-1');
    damage(blobPath(sandbox, digest));
    sandbox.makeFolder('empty');
    for (const command of [
      ['open', 'cp-1'],
      ['open', '--copy', 'cp-1', '../new'],
      ['inspect', 'cp-1'],
      ['fork', 'cp-1', '../fork'],
      ['diff', 'cp-1'],
    ]) {
      assertFails(t, await sandbox.bento(command), { code, says: new RegExp(digest.slice(7)) });
    }
    t.deepEqual(
      ['new', 'fork'].map((name) => existsSync(sandbox.path(name))),
      [false, false],
    );
    const listed = (await sandbox.bento(['list'])).ok();
    t.regex(listed.stdout, /^cp-2, latest /m);
    t.regex(listed.stderr, /^note: cp-1 [^\n]*\n$/, 'the broken one is named');
    rmSync(path.join(sandbox.storePath, 'cache'), { recursive: true }); // from the index it could still be mounted
    assertFails(t, await sandbox.bento(['mount', 'cp-1', '../empty']), { code, says: new RegExp(digest.slice(7)) });
    assertTidy(t, sandbox);
    await assertUsable(t, sandbox);
  });
}

test.serial('a missing layer: BLOB_MISSING, and the target is as it was', async (t) => {
  const sandbox = await saveWithBigFile(t);
  const blob = await depsBlobOf(sandbox, 'cp-1');
  renameSync(blob, sandbox.path('lost'));
  const expected = { code: 'BLOB_MISSING', says: new RegExp(path.basename(blob).slice(0, 12)) } as const;
  assertFails(t, await sandbox.bento(['open', '--copy', 'cp-1', '../new']), expected);
  assertFails(t, await sandbox.bento(['open', 'cp-1']), expected);
  t.false(existsSync(sandbox.path('new')));
  rmSync(path.join(sandbox.storePath, 'cache'), { recursive: true }); // now not even the index knows it
  assertFails(t, await sandbox.bento(['open', '--copy', 'cp-1', '../new']), expected);
  renameSync(sandbox.path('lost'), blob);
  (await sandbox.bento(['open', '--copy', 'cp-1', '../new'])).ok();
  t.is(readFileSync(sandbox.path('new', BIG)).length, BIG_BYTES);
});

test.serial('an index.json that is no index: FORMAT_INVALID, and it is not overwritten', async (t) => {
  const sandbox = newSandbox(t);
  await saveSmallWorkspace(sandbox);
  const file = path.join(sandbox.storePath, workspaceId(sandbox), 'index.json');
  const whole = readFileSync(file);
  writeFiles(sandbox.workspace, { new: 'new\n' });
  for (const text of ['', '{', '[]', '{"manifests":[{"digest":"sha256:0"}]}']) {
    writeFileSync(file, text);
    for (const command of [['list'], ['save'], ['open', 'cp-1']]) {
      assertFails(t, await sandbox.bento(command), { code: 'FORMAT_INVALID', says: /index\.json/ });
    }
    t.is(readFileSync(file, 'utf8'), text);
  }
  writeFileSync(file, whole);
  await assertUsable(t, sandbox);
});

const INDEX_DAMAGE: readonly [string, (file: string) => void][] = [
  ['cut off', (file) => truncateSync(file, 5000)],
  ['emptied', (file) => truncateSync(file, 0)],
  ['overwritten with garbage', (file) => writeFileSync(file, noise('index').subarray(0, 60_000))],
  ['deleted', (file) => rmSync(file)],
];

for (const [what, damage] of INDEX_DAMAGE) {
  test.serial(`an index that was ${what} is rebuilt, and commands say the same as before`, async (t) => {
    const sandbox = newSandbox(t);
    await saveSmallWorkspace(sandbox);
    writeFiles(sandbox.workspace, { 'src/main.js': 'changed\n' });
    const commands = [
      ['inspect', 'cp-1', '--files', '--json'],
      ['diff', '--json'],
    ];
    const run = async () => await Promise.all(commands.map(async (command) => await sandbox.bento(command)));
    const before = await run();
    damage(path.join(sandbox.storePath, 'cache', 'index.db'));
    const after = await run();
    t.deepEqual(
      after.map(({ code, stdout }) => [code, stdout]),
      before.map(({ code, stdout }) => [code, stdout]),
    );
    const said = after.map(({ stderr }) => stderr).join('');
    t.regex(said, what === 'deleted' ? /^$/ : /^note: the index \S+ was damaged [^\n]*\n$/, 'once, by one of them');
    await assertUsable(t, sandbox);
  });
}

/** cp-1 is mounted, and one of its files has been read; then the index is damaged under the running daemon. */
async function damageUnderDaemon(t: ExecutionContext, damage: (file: string) => void): Promise<Sandbox> {
  const sandbox = newSandbox(t);
  makeManyFiles(sandbox.workspace, { fileCount: 500 }); // more of an index than SQLite keeps in memory by chance
  await saveSmallWorkspace(sandbox);
  const mounted = sandbox.makeFolder('mounted');
  (await sandbox.bento(['mount', 'cp-1', mounted])).ok();
  t.is(readFileSync(path.join(mounted, 'CLAUDE.md'), 'utf8'), '# notes\n');
  damage(path.join(sandbox.storePath, 'cache', 'index.db'));
  return sandbox;
}

for (const [what, damage] of INDEX_DAMAGE) {
  testSerialNeeding({ root: true, fuse: true })(
    `with an index ${what} under a running daemon, saving and new mounts work`,
    async (t) => {
      const sandbox = await damageUnderDaemon(t, damage);
      writeFiles(sandbox.workspace, { 'src/more.js': 'more\n' });
      (await sandbox.bento(['save', '-m', 'after'])).ok();
      const second = sandbox.makeFolder('second');
      (await sandbox.bento(['mount', 'cp-2', second])).ok();
      t.deepEqual(compareByWalk(sandbox.workspace, second, { ignore: OWN_FILES }), []);
      (await sandbox.bento(['fork', 'cp-1', '../fork'])).ok();
      t.is(readFileSync(sandbox.path('fork/src/main.js'), 'utf8'), 'first line\nsecond line\n');
      (await sandbox.bento(['unmount', '--all'])).ok();
      t.deepEqual([sandbox.mounts(), sandbox.processes()], [[], []]);
    },
  );
}

// A file that is overwritten in place is lost to the daemon that has it open as well: what is mounted then gives EIO until
// it is mounted again (the test before this one).
testSerialNeeding({ root: true, fuse: true })(
  'with an index deleted under a running daemon, the mount goes on',
  async (t) => {
    const sandbox = await damageUnderDaemon(t, (file) => rmSync(file));
    (await sandbox.bento(['open', '--copy', 'cp-1', '../reference'])).ok();
    t.deepEqual(compareByWalk(sandbox.path('reference'), sandbox.path('mounted'), { ignore: OWN_FILES }), []);
  },
);
