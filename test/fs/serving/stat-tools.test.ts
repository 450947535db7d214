import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';

import { saveWorkspace } from '../../../fs/workspace/save.ts';
import type { Workspace } from '../../../fs/workspace/workspace.ts';
import { digestOf, hexOf } from '../../../store/digest.ts';
import { lsetxattr, mkfifo } from '../../../store/syscalls.ts';
import { testSerialNeeding } from '../../fixtures/external-tools.ts';
import { indexDraft } from '../../fixtures/layers.ts';
import { headOf, newFolder, newSource, newWorkspace } from '../../fixtures/workspaces.ts';
import { mountTree } from './kernel-mounts.ts';

const testMount = testSerialNeeding({ root: true, fuse: true });
const testRsync = testSerialNeeding({ root: true, fuse: true, tools: ['rsync'] });

interface MountedCheckpoint {
  /** The directory that was saved. */
  original: string;
  /** Where its checkpoint is mounted. */
  mounted: string;
}

async function mountCheckpoint(
  t: ExecutionContext,
  workspace: Workspace,
  options: { keepOwners?: boolean; xattrs?: boolean } = {},
): Promise<MountedCheckpoint> {
  const { digest: manifest } = (await headOf(workspace)).checkpoint;
  const shows = { kind: 'checkpoint', keepOwners: false, xattrs: true, ...options, manifest } as const;
  return { original: workspace.dir, mounted: mountTree(t, workspace.source, shows).dir };
}

/** A workspace in several layers, with what tools look at. */
async function oddWorkspace(t: ExecutionContext): Promise<Workspace> {
  const workspace = await newWorkspace(t);
  const at = (path: string): string => join(workspace.dir, path);
  for (const dir of ['src/deep/deeper', 'node_modules/a/b', 'node_modules/c', 'empty', '.claude']) {
    mkdirSync(at(dir), { recursive: true });
  }
  for (const sizeBytes of [0, 1, 511, 4095, 4096, 4097, 100_000])
    writeFileSync(at(`src/${sizeBytes}`), Buffer.alloc(sizeBytes, 1));
  writeFileSync(at('node_modules/a/index.js'), 'module.exports = 1;\n');
  linkSync(at('node_modules/a/index.js'), at('node_modules/c/linked.js'));
  linkSync(at('node_modules/a/index.js'), at('node_modules/c/again.js'));
  symlinkSync('../src', at('node_modules/short'));
  symlinkSync('x'.repeat(70), at('node_modules/long'));
  mkfifo(at('src/fifo'), 0o620);
  writeFileSync(at('src/tool'), '#!/bin/sh\n');
  chmodSync(at('src/tool'), 0o4751);
  chmodSync(at('empty'), 0o1770);
  writeFileSync(at('.claude/memory'), 'x');
  lsetxattr(at('src/tool'), 'user.note', Buffer.from([0, 255]));
  await saveWorkspace(workspace);
  rmSync(at('node_modules/c/again.js'));
  rmSync(at('node_modules/a/b'), { recursive: true });
  mkdirSync(at('src/deep/new'));
  lutimesSync(at('src/4096'), 1, -3_000_000_000.25);
  lutimesSync(at('node_modules/short'), 1, 1_700_000_000.123_456);
  await saveWorkspace(workspace);
  return workspace;
}

function run(command: string, cwd: string): string {
  const { status, stdout, stderr } = spawnSync('sh', ['-c', command], {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' },
  });
  if (status !== 0) throw new Error(`${command}: ${stderr}`);
  return stdout;
}

function isExt4(dir: string): boolean {
  return run('stat -f -c %T .', dir).trim() === 'ext2/ext3';
}

const SAME_EVERYWHERE: Record<string, string> = {
  'names, types, modes, links, times and targets': `find . -mindepth 1 ! -name bento.yaml -printf '%P %y %m %n %U %G %T@ %l\\n' | sort`,
  'sizes of files': `find . -type f ! -name bento.yaml -printf '%P %s\\n' | sort`,
  'one file behind several names': `find . -samefile node_modules/a/index.js | sort`,
  'ls -l': 'ls -lR --time-style=full-iso src node_modules | grep -v ^total',
  'du --apparent-size': 'du -al --apparent-size -B1 src node_modules | grep "\\.js$" | sort',
  contents: 'find . -type f ! -name bento.yaml -exec sha256sum {} + | sort',
};

testMount('stat, find, ls and du say of a mounted checkpoint what they said of the workspace', async (t) => {
  const { original, mounted } = await mountCheckpoint(t, await oddWorkspace(t));
  for (const [what, command] of Object.entries(SAME_EVERYWHERE))
    t.is(run(command, mounted), run(command, original), what);
  t.is(run('stat -c %n_%h_%a .', mounted), run('stat -c %n_%h_%a .', original), 'the root');
});

testMount('room taken is what a fresh ext4 takes', async (t) => {
  const { original, mounted } = await mountCheckpoint(t, await oddWorkspace(t));
  if (!isExt4(original)) return t.pass('the workspace is on another filesystem');
  for (const command of [
    `find . -mindepth 1 ! -name bento.yaml -printf '%P %b %s\\n' | sort`,
    'du -al src node_modules empty | sort',
    'du -s --apparent-size src node_modules',
    'ls -sR src node_modules',
  ]) {
    t.is(run(command, mounted), run(command, original), command);
  }
});

testRsync('rsync finds no difference, hard links and attributes included', async (t) => {
  const { original, mounted } = await mountCheckpoint(t, await oddWorkspace(t));
  const compare = (from: string, to: string): string =>
    run(`rsync -aHXni --delete --exclude=/bento.yaml '${from}/' '${to}/'`, '/');
  t.is(compare(original, mounted), '');
  t.is(compare(mounted, original), '');
});

testMount('tar makes of a mount the same archive as of the workspace', async (t) => {
  const { original, mounted } = await mountCheckpoint(t, await oddWorkspace(t));
  const options = '--sort=name --xattrs --sparse --pax-option=delete=atime,delete=ctime';
  const archive = `tar ${options} -c src node_modules empty .claude | sha256sum`;
  t.is(run(archive, mounted), run(archive, original));
});

testMount('owners are those of the mounting user, or those that were recorded', async (t) => {
  const workspace = await newWorkspace(t);
  const at = (path: string): string => join(workspace.dir, path);
  mkdirSync(at('dir'));
  for (const name of ['mine', 'dir/theirs']) writeFileSync(at(name), name);
  chownSync(at('dir/theirs'), 1234, 5678);
  await saveWorkspace(workspace);
  const owners = `find . -mindepth 1 ! -name bento.yaml -printf '%P %U:%G\\n' | sort`;
  const mapped = await mountCheckpoint(t, workspace);
  t.is(run(owners, mapped.mounted), 'dir 0:0\ndir/theirs 0:0\nmine 0:0\n');
  const kept = await mountCheckpoint(t, workspace, { keepOwners: true });
  t.is(run(owners, kept.mounted), run(owners, workspace.dir));
});

testMount('df says how much a checkpoint holds, and that there is no room', async (t) => {
  const workspace = await newWorkspace(t);
  writeFileSync(join(workspace.dir, 'file'), Buffer.alloc(40_960));
  await saveWorkspace(workspace);
  const { mounted } = await mountCheckpoint(t, workspace);
  t.is(
    run('df -B1 --output=size,used,avail,pcent . | tail -1', mounted).trim().replace(/ +/g, ' '),
    '40960 40960 0 100%',
  );
});

testMount('extended attributes cost nothing where there are none: asked once, they are not supported', async (t) => {
  const { mounted } = await mountCheckpoint(t, await oddWorkspace(t), { xattrs: false });
  const { stderr, status } = spawnSync('setfattr', ['-n', 'user.x', '-v', '1', join(mounted, 'src/tool')], {
    encoding: 'utf8',
  });
  if (status === null) return t.pass('setfattr is not installed');
  t.regex(stderr, /Read-only file system/);
  t.is(run('ls -lR src >/dev/null && echo listed', mounted), 'listed\n');
  const copy = join(newFolder(t), 'copy');
  t.is(run(`cp -a --preserve=all src/tool ${copy} && echo copied`, mounted), 'copied\n');
});

testMount(
  'a folder that grows shows what came and went within seconds, however often it was listed before',
  async (t) => {
    const source = await newSource(t);
    const { dir } = mountTree(t, source, { kind: 'all' });
    const checkpoints: string[] = [];
    for (let i = 0; i < 3; i += 1) {
      t.deepEqual(await listingOf(dir, checkpoints), checkpoints);
      const manifest = digestOf(`checkpoint ${i}`);
      t.throws(() => lstatSync(join(dir, hexOf(manifest))), { code: 'ENOENT' });
      source.trees.register(manifest, [await indexDraft(source, { entries: [{ path: 'file', type: 'fifo' }] })]);
      t.true(lstatSync(join(dir, hexOf(manifest), 'file')).isFIFO(), 'a missing name is not remembered');
      checkpoints.push(hexOf(manifest));
      checkpoints.sort();
    }
    t.deepEqual(await listingOf(dir, checkpoints), checkpoints);
    source.index.db.exec('DELETE FROM trees WHERE number = (SELECT min(number) FROM trees)');
    const left = source.trees.manifests().map(hexOf).sort();
    t.is(left.length, 2);
    t.deepEqual(await listingOf(dir, left), left);
  },
);

/** The listing that comes to be as expected, or the last one that is not. */
async function listingOf(dir: string, expected: readonly string[]): Promise<string[]> {
  let names: string[] = [];
  for (let tries = 0; tries < 60; tries += 1) {
    names = readdirSync(dir).sort();
    if (names.join() === expected.join()) break;
    await setTimeout(250);
  }
  return names;
}
