import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';

import test from 'ava';

import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { Random } from '../fixtures/random.ts';
import { CLI_PATH, newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const OWN_FILES = ['bento.yaml', '.bentoignore', '.git'];
const LINES = [
  'alpha',
  'beta',
  'gamma',
  '',
  'delta \xff\xfe',
  '--- a/x',
  '+++ b/x',
  '@@ -1 +1 @@',
  '\ttab',
  '\\ No newline',
];
/** Bytes, also such as are no UTF-8, and everything git puts in quotes. */
const NAMES = ['a', 'b.txt', 'with blank', 'zażółć', 'no\xffutf8', 'quote"back\\slash', 'tab\there', 'line\nbreak'];

/** Every regular file and symlink with what a patch says of it. */
function describe(dir: string, below = ''): string[] {
  return readdirSync(Buffer.from(path.join(dir, below), 'latin1'), { encoding: 'latin1' })
    .sort()
    .flatMap((name) => {
      const at = below === '' ? name : `${below}/${name}`;
      if (OWN_FILES.includes(at)) return [];
      const raw = Buffer.from(`${dir}/${at}`, 'latin1');
      const stat = lstatSync(raw);
      if (stat.isDirectory()) return describe(dir, at);
      if (stat.isSymbolicLink()) return [`${at} -> ${readlinkSync(raw, 'latin1')}`];
      return [`${at} ${(stat.mode & 0o100).toString(8)} ${readFileSync(raw, 'latin1')}`];
    });
}

function raw(dir: string, name: string): Buffer {
  return Buffer.from(`${dir}/${name}`, 'latin1');
}

function randomText(random: Random): string {
  const lines = Array.from({ length: random.below(30) }, () => random.pick(LINES));
  return lines.join('\n') + (random.chance(0.7) ? '\n' : '');
}

function randomPath(random: Random): string {
  const folder = random.pick(['', '', 'dir/', 'dir/deep/', 'other dir/']);
  return folder + random.pick(NAMES);
}

/** Some files come, change, go, move, become links or executable. */
function change(dir: string, random: Random): void {
  for (let i = 0; i < 14; i += 1) {
    const name = randomPath(random);
    mkdirSync(path.dirname(path.join(dir, name.split('/').slice(0, -1).join('/'), 'x')), { recursive: true });
    const file = raw(dir, name);
    const stat = lstatSync(file, { throwIfNoEntry: false });
    if (stat?.isDirectory()) continue;
    switch (random.weighted({ write: 5, edit: 5, remove: 2, rename: 2, link: 1, mode: 1 })) {
      case 'write':
        rmSync(file, { force: true });
        writeFileSync(file, randomText(random), 'latin1');
        break;
      case 'edit':
        if (stat?.isFile() !== true) break;
        writeFileSync(file, edited(readFileSync(file, 'latin1'), random), 'latin1');
        break;
      case 'remove':
        rmSync(file, { force: true });
        break;
      case 'rename':
        if (stat !== undefined) renameSync(file, raw(dir, `moved-${i}`));
        break;
      case 'link':
        rmSync(file, { force: true });
        symlinkSync(Buffer.from(random.pick(['a', 'nowhere/at all', 'b\xff']), 'latin1'), file);
        break;
      case 'mode':
        if (stat?.isFile() === true) chmodSync(file, random.pick([0o644, 0o755]));
        break;
    }
  }
}

function edited(text: string, random: Random): string {
  const lines = text.split('\n');
  lines.splice(random.below(lines.length + 1), random.below(3), random.pick(LINES), random.pick(LINES));
  return lines.join('\n');
}

/** Node's own `cpSync` loses names that are not UTF-8. */
function copy(from: string, to: string): void {
  const { status, stderr } = spawnSync('cp', ['-a', from, to]);
  if (status !== 0) throw new Error(stderr.toString());
}

/** The patch as bytes: it is no text. */
function patchOf(sandbox: Sandbox, args: readonly string[]): Buffer {
  const { stdout, stderr, status } = spawnSync(process.execPath, [CLI_PATH, 'diff', ...args], {
    cwd: sandbox.workspace,
    env: sandbox.env,
    maxBuffer: 1 << 28,
  });
  if (status !== 0) throw new Error(stderr.toString());
  return stdout;
}

function run(cwd: string, command: string, args: readonly string[], input: Buffer): string {
  const { status, stderr, stdout } = spawnSync(command, args, { cwd, input });
  return status === 0 ? '' : `${command} failed: ${stderr.toString('latin1')}${stdout.toString('latin1')}`;
}

testSerialNeeding({ tools: ['git', 'patch'] })(
  'diff --patch makes patches that git apply and patch turn one random tree into the other with',
  async (t) => {
    const sandbox = newSandbox(t);
    const { workspace } = sandbox;
    (await sandbox.bento(['init'])).ok();
    writeFileSync(path.join(workspace, '.bentoignore'), '');
    const copies: string[] = [];
    for (let seed = 0; seed < 9; seed += 1) {
      change(workspace, new Random(seed));
      writeFileSync(path.join(workspace, 'always'), String(seed)); // so that every save has something to save
      (await sandbox.bento(['save'])).ok();
      const target = sandbox.path(`copy-${seed}`);
      copy(workspace, target);
      copies.push(target);
    }
    for (let seed = 1; seed < copies.length; seed += 1) {
      const [from, to] = [copies[seed - 1] ?? '', copies[seed] ?? ''];
      for (const flags of [[], ['--no-renames']]) {
        const patch = patchOf(sandbox, [`cp-${seed}`, `cp-${seed + 1}`, '-p', ...flags]);
        const applied = sandbox.path('applied');
        copy(from, applied);
        t.is(run(applied, 'git', ['apply', '--whitespace=nowarn', '-'], patch), '', `seed ${seed}`);
        t.deepEqual(describe(applied), describe(to), `git apply, seed ${seed}`);
        rmSync(applied, { recursive: true });
      }
      const back = sandbox.path('back');
      copy(to, back);
      const patch = patchOf(sandbox, [`cp-${seed}`, `cp-${seed + 1}`, '-p']);
      t.is(run(back, 'git', ['apply', '--whitespace=nowarn', '-R', '-'], patch), '', `backwards, seed ${seed}`);
      t.deepEqual(describe(back), describe(from), `git apply -R, seed ${seed}`);
      rmSync(back, { recursive: true });
    }
  },
);

testSerialNeeding({ tools: ['patch'] })(
  'diff --patch makes patches that patch -p1 applies, odd names included',
  async (t) => {
    const sandbox = newSandbox(t);
    const { workspace } = sandbox;
    (await sandbox.bento(['init'])).ok();
    for (const name of ['a', 'with blank', 'no\xffutf8', 'quote"back\\slash'])
      writeFileSync(raw(workspace, name), `${name}\n1\n2\n`, 'latin1');
    (await sandbox.bento(['save'])).ok();
    const old = sandbox.path('old');
    copy(workspace, old);
    for (const name of ['a', 'with blank', 'no\xffutf8', 'quote"back\\slash'])
      writeFileSync(raw(workspace, name), `${name}\n1\nnew \xff\n2`, 'latin1');
    writeFileSync(raw(workspace, 'fresh'), 'fresh\n');
    rmSync(raw(workspace, 'a'));
    t.is(run(old, 'patch', ['-p1', '-s'], patchOf(sandbox, ['--patch'])), '');
    t.deepEqual(describe(old), describe(workspace));
  },
);

test.serial('diff --patch writes what git writes for modes, links, renames, empty and binary files', async (t) => {
  const sandbox = newSandbox(t);
  const { workspace } = sandbox;
  (await sandbox.bento(['init'])).ok();
  const write = (name: string, text: string | Buffer) => writeFileSync(path.join(workspace, name), text);
  write('script', '#!/bin/sh\n');
  write('gone', 'one\ntwo');
  write('old name', 'some text\n');
  write('data', Buffer.from([0, 1, 2]));
  symlinkSync('here', path.join(workspace, 'link'));
  (await sandbox.bento(['save'])).ok();
  chmodSync(path.join(workspace, 'script'), 0o755);
  rmSync(path.join(workspace, 'gone'));
  renameSync(path.join(workspace, 'old name'), path.join(workspace, 'new name'));
  write('data', Buffer.from([0, 1, 2, 3]));
  write('empty', '');
  rmSync(path.join(workspace, 'link'));
  symlinkSync('there', path.join(workspace, 'link'));
  mkdirSync(path.join(workspace, 'void'));
  const { stdout, stderr } = (await sandbox.bento(['diff', '--patch'])).ok();
  t.is(
    stdout,
    [
      'diff --git a/data b/data',
      'Binary files a/data and b/data differ',
      'diff --git a/empty b/empty',
      'new file mode 100644',
      'diff --git a/gone b/gone',
      'deleted file mode 100644',
      '--- a/gone',
      '+++ /dev/null',
      '@@ -1,2 +0,0 @@',
      '-one',
      '-two',
      '\\ No newline at end of file',
      'diff --git a/link b/link',
      '--- a/link',
      '+++ b/link',
      '@@ -1,1 +1,1 @@',
      '-here',
      '\\ No newline at end of file',
      '+there',
      '\\ No newline at end of file',
      'diff --git a/old name b/new name',
      'similarity index 100%',
      'rename from old name',
      'rename to new name',
      'diff --git a/script b/script',
      'old mode 100644',
      'new mode 100755',
      '',
    ].join('\n'),
  );
  t.regex(stderr, /^note: 1 change is of another kind/, 'the empty directory is not passed over in silence');
  t.is((await sandbox.bento(['diff', '--patch', '--file', 'script'])).ok().stdout.split('\n').length, 4);
  t.is(
    (await sandbox.bento(['diff', '--stat'])).ok().stdout,
    [
      ' data                 | Bin 3 -> 4 bytes',
      ' empty                |   0',
      ' gone                 |   2 --',
      ' link                 |   2 +-',
      ' old name => new name |   0',
      ' script               |   0',
      ' 6 files changed, 1 insertion(+), 3 deletions(-)',
      '',
    ].join('\n'),
  );
});

test.serial('diff --patch --json has the bytes of a patch that is no UTF-8', async (t) => {
  const sandbox = newSandbox(t);
  (await sandbox.bento(['init'])).ok();
  writeFileSync(path.join(sandbox.workspace, 'latin'), 'caf\xe9\n', 'latin1');
  (await sandbox.bento(['save'])).ok();
  writeFileSync(path.join(sandbox.workspace, 'latin'), 'caf\xe8\n', 'latin1');
  const { patch, patchBase64 } = (await sandbox.bento(['diff', '-p', '--json']))
    .ok()
    .json<{ patch: string; patchBase64: string }>();
  t.true(patch.includes('+caf\ufffd\n'));
  t.deepEqual(Buffer.from(patchBase64, 'base64'), patchOf(sandbox, ['-p']));
  t.true(Buffer.from(patchBase64, 'base64').includes(Buffer.from('-caf\xe9\n+caf\xe8\n', 'latin1')));
});
