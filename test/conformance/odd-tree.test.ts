import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import type { ExecutionContext } from 'ava';
import { assertTidy, readManifest } from '../fixtures/command-checks.ts';
import { compareByWalk, compareWithRsync, describeTree } from '../fixtures/compare-trees.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { makeOddTree } from '../fixtures/odd-tree.ts';
import { newSandbox, type Sandbox } from '../fixtures/sandbox.ts';

const OWN_FILES = ['bento.yaml', '.bentoignore'];
const NEEDS = { root: true, tools: ['rsync', 'setfattr', 'setfacl'] };

/** The odd tree as a workspace with one checkpoint, and what was there at that moment. */
interface OddWorkspace {
  sandbox: Sandbox;
  /** What a comparison with it leaves out: the root's own time moved when the save wrote bento.yaml. */
  ignore: string[];
  /** What lstat said of the root when it was saved. */
  root: Record<string, string | undefined>;
}

async function saveOddWorkspace(t: ExecutionContext): Promise<OddWorkspace> {
  const sandbox = newSandbox(t);
  const { workspace } = sandbox;
  (await sandbox.bento(['init'])).ok();
  const ignored = readFileSync(path.join(workspace, '.bentoignore'), 'utf8');
  writeFileSync(path.join(workspace, '.bentoignore'), ignored.replace('bin/**\n', ''));
  const { sockets, leftOut } = await makeOddTree(workspace);
  for (const line of leftOut) t.log(`not covered: ${line}`);
  const root = rootOf(workspace);
  const { skipped } = (await sandbox.bento(['save', '--json'])).ok().json<{ skipped: { path: string }[] }>();
  t.deepEqual(
    skipped.map((skip) => skip.path),
    sockets,
    'sockets are left out, and said to be',
  );
  return { sandbox, ignore: ['.', ...OWN_FILES, ...sockets], root };
}

function rootOf(dir: string): Record<string, string | undefined> {
  return { ...describeTree(dir, { contents: false }).get('.') };
}

/** By rsync, which also compares ACLs and xattrs, and by our own walk, which tells more. */
async function assertEqual(t: ExecutionContext, expected: string, actual: string, ignore: string[]): Promise<void> {
  t.deepEqual(compareByWalk(expected, actual, { ignore }), []);
  t.deepEqual(await compareWithRsync(expected, actual, { ignore }), []);
}

const test = testSerialNeeding(NEEDS);
const testMounting = testSerialNeeding({ ...NEEDS, fuse: true });

test('save and open into a new directory: the odd tree equals itself', async (t) => {
  const { sandbox, ignore, root } = await saveOddWorkspace(t);
  const target = sandbox.path('opened');
  (await sandbox.bento(['open', '--copy', 'cp-1', target])).ok();
  await assertEqual(t, sandbox.workspace, target, ignore);
  t.deepEqual(rootOf(target), root);
  for (const name of ['contents/sparse', 'contents/sparse-hole-only']) {
    const { size, blocks } = lstatSync(path.join(target, name));
    t.true(blocks * 512 < size / 8, `${name} is still sparse: ${blocks} blocks for ${size} bytes`);
  }
  const again = await sandbox.bento(['save', '--dir', target]);
  t.is(again.ok().stdout, 'No changes detected, skipping checkpoint.\n', 'what was opened is unchanged');
});

testMounting('save and mount, save and fork: the odd tree equals itself', async (t) => {
  const { sandbox, ignore, root } = await saveOddWorkspace(t);
  const [mounted, fork] = [sandbox.makeFolder('mounted'), sandbox.path('fork')];
  (await sandbox.bento(['mount', '--owners', 'cp-1', mounted])).ok();
  await assertEqual(t, sandbox.workspace, mounted, [...ignore, ...OWN_FILES]);
  t.deepEqual(rootOf(mounted), root);
  (await sandbox.bento(['fork', 'cp-1', fork])).ok();
  await assertEqual(t, sandbox.workspace, fork, ignore);
  t.deepEqual(rootOf(fork), root);
  t.is((await sandbox.bento(['save', '--dir', fork])).ok().stdout, 'No changes detected, skipping checkpoint.\n');
  for (const args of [
    ['close', fork],
    ['unmount', mounted],
  ])
    (await sandbox.bento(args)).ok();
  assertTidy(t, sandbox);
});

/** A bit of everything that a delta layer must carry. */
function change(dir: string): void {
  const at = (name: string): string => path.join(dir, name);
  const run = (tool: string, ...args: string[]): void => void execFileSync(tool, args, { cwd: dir });
  // content, size, new and gone
  appendFileSync(at('contents/small'), 'and a few more\n');
  truncateSync(at('contents/two-and-a-half-chunks'), 5_000_000);
  writeFileSync(at('contents/new'), 'new\n');
  unlinkSync(at('contents/block'));
  rmSync(at('contents/only'), { recursive: true });
  mkdirSync(at('new-directory/below'), { recursive: true });
  // metadata alone
  chmodSync(at('contents/one-byte'), 0o711);
  chownSync(at('contents/zeros'), 7, 8);
  utimesSync(at('contents/chunk'), 1, -1);
  run('setfattr', '-n', 'user.new', '-v', 'value', 'contents/every-byte');
  run('setfattr', '-x', 'user.text', 'attributes/user');
  run('setfacl', '-b', 'attributes/acl');
  chmodSync(at('modes/private-directory'), 0o2750);
  // one kind of file becomes another
  rmSync(at('links/to-file'));
  symlinkSync('far/other-directory', at('links/to-file'));
  rmSync(at('special/fifo'));
  run('mknod', 'special/fifo', 'c', '1', '5');
  // a directory that is removed and made again must not show what it held
  rmSync(at('node_modules/left-pad'), { recursive: true });
  mkdirSync(at('node_modules/left-pad'));
  writeFileSync(at('node_modules/left-pad/index.mjs'), 'export default 1;\n');
  // names, links, reserved names
  run('mv', 'names/directories', 'moved');
  renameSync(at('CLAUDE.md'), at('NOTES.md'));
  linkSync(at('contents/new'), at('new-directory/hard-link'));
  unlinkSync(at('.wh.foo'));
  unlinkSync(at('stargz.index.json'));
  writeFileSync(at('.wh.new'), 'not a whiteout\n');
  writeFileSync(at('reserved/.wh..wh..opq'), 'changed\n');
  run('touch', '-d', '1969-07-20 20:17:40.123456789 UTC', 'contents', 'new-directory/below');
}

/** A directory becomes a file, and a file a directory. */
function swapKinds(dir: string): void {
  rmSync(path.join(dir, 'contents/empty'));
  mkdirSync(path.join(dir, 'contents/empty'));
  writeFileSync(path.join(dir, 'contents/empty/inside'), 'a directory now\n');
  rmSync(path.join(dir, '.claude'), { recursive: true });
  writeFileSync(path.join(dir, '.claude'), 'a file now\n');
}

testMounting('fork, change, save, open: a delta equals the fork it was saved from', async (t) => {
  const { sandbox, ignore } = await saveOddWorkspace(t);
  const [fork, opened, mounted] = [sandbox.path('fork'), sandbox.path('opened'), sandbox.makeFolder('mounted')];
  (await sandbox.bento(['fork', 'cp-1', fork])).ok();
  change(fork);
  swapKinds(fork);
  (await sandbox.bento(['save', '--dir', fork])).ok();
  t.is((await sandbox.bento(['save', '--dir', fork])).ok().stdout, 'No changes detected, skipping checkpoint.\n');
  (await sandbox.bento(['open', '--copy', 'cp-2', opened])).ok();
  await assertEqual(t, fork, opened, ignore);
  (await sandbox.bento(['mount', '--owners', 'cp-2', mounted])).ok();
  await assertEqual(t, opened, mounted, ignore);
  (await sandbox.bento(['close', fork])).ok();
});

test('change, save, open in place and undo: the workspace equals what it was each time', async (t) => {
  const { sandbox, ignore } = await saveOddWorkspace(t);
  const { workspace } = sandbox;
  const first = describeTree(workspace, { ignore });
  change(workspace);
  swapKinds(workspace);
  const second = describeTree(workspace, { ignore });
  (await sandbox.bento(['save'])).ok();
  const opened = sandbox.path('opened');
  (await sandbox.bento(['open', '--copy', 'cp-2', opened])).ok();
  await assertEqual(t, workspace, opened, ignore);

  (await sandbox.bento(['open', 'cp-1'])).ok();
  t.deepEqual(describeTree(workspace, { ignore }), first);
  (await sandbox.bento(['open', '--copy', 'cp-1', sandbox.path('first')])).ok();
  await assertEqual(t, sandbox.path('first'), workspace, ignore);
  (await sandbox.bento(['open', 'undo'])).ok();
  t.deepEqual(describeTree(workspace, { ignore }), second);
});

test('two copies of a tree under two owners give the same layers', async (t) => {
  const source = newSandbox(t);
  await makeOddTree(source.workspace);
  const digests = [];
  for (const [owner, env] of [
    ['1234:1234', { TZ: 'Asia/Tokyo', LANG: 'C' }],
    ['40000:50000', { USER: 'somebody', LANG: 'C.UTF-8' }],
  ] as const) {
    const sandbox = newSandbox(t);
    execFileSync('cp', ['-a', `${source.workspace}/.`, sandbox.workspace]);
    execFileSync('chown', ['-R', '-h', owner, sandbox.workspace]);
    (await sandbox.bento(['init'], { env })).ok();
    execFileSync('touch', ['-d', '2001-01-01 UTC', sandbox.workspace]); // init moved the root's time
    const { digest } = (await sandbox.bento(['save', '--json'], { env })).ok().json<{ digest: string }>();
    digests.push(readManifest(sandbox, digest).layers.map((layer) => layer.digest));
  }
  t.is(digests[0]?.length, 3);
  t.deepEqual(digests[0], digests[1]);
});
