import fs, {
  chmodSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import test from 'ava';

import { diffTrees } from '../../../fs/tree/diff-trees.ts';
import { hashFile } from '../../../fs/tree/disk-file.ts';
import { LiveTree } from '../../../fs/workspace/live-tree.ts';
import { isWorthSaving } from '../../../fs/workspace/plan-layers.ts';
import { rowOfNode } from '../../../fs/workspace/scan-rows.ts';
import { saveWorkspace } from '../../../fs/workspace/save.ts';
import { readStatus } from '../../../fs/workspace/status.ts';
import { loadHead, readWorkTree, type Workspace } from '../../../fs/workspace/workspace.ts';
import { FLAG_RACY } from '../../../index/scan-cache.ts';
import { fromText } from '../../../store/byte-string.ts';
import { lsetxattr, utimensat } from '../../../store/syscalls.ts';
import { changeDirectory } from '../../fixtures/random-directory.ts';
import { Random } from '../../fixtures/random.ts';
import { headOf, newWorkspace } from '../../fixtures/workspaces.ts';

/** Longer than a change may be trusted to have a stamp of its own. */
const SETTLE_MS = 80;
const STEPS = Number(process.env['BENTO_RANDOM_STEPS'] ?? 40);
const OLD = new Date('2020-01-01T00:00:00Z');

const FILES = { 'a.txt': 'one', 'b.txt': 'two', 'src/c.txt': 'three', 'src/deep/d.txt': 'four', 'kept/e.txt': 'five' };

/** A workspace with a checkpoint, looked at when all its stamps were old enough to be trusted. */
async function settledWorkspace(
  t: Parameters<typeof newWorkspace>[0],
  options: { ignore?: string[]; files?: Record<string, string> } = {},
): Promise<Workspace> {
  const workspace = await newWorkspace(t, options);
  for (const [name, text] of Object.entries(options.files ?? FILES)) {
    mkdirSync(dirname(join(workspace.dir, name)), { recursive: true });
    writeFileSync(join(workspace.dir, name), text);
  }
  await sleep(SETTLE_MS);
  await saveWorkspace(workspace);
  await sleep(SETTLE_MS); // the save itself wrote bento.yaml
  await readStatus(workspace);
  return workspace;
}

async function changedPaths(workspace: Workspace): Promise<string[]> {
  const { tree } = await headOf(workspace);
  const now = await readWorkTree(workspace);
  const changes = diffTrees(tree, now, {
    sameContent: (path, before, after) => (after.digest ?? hashFile(now.absolute(path))) === before.digest,
  });
  return changes.filter(isWorthSaving).map(({ path, kind }) => `${kind} ${path}`);
}

async function isKnownClean(workspace: Workspace): Promise<boolean> {
  const head = await loadHead(workspace);
  const tree = await readWorkTree(workspace);
  return head !== undefined && tree.isUnchangedSince?.(head.layers.map((layer) => layer.descriptor.digest)) === true;
}

async function scanOf(workspace: Workspace): Promise<LiveTree> {
  const tree = await readWorkTree(workspace);
  if (!(tree instanceof LiveTree)) throw new Error('a fork');
  return tree;
}

function scanFile({ source }: Workspace): string {
  const dir = join(source.store.cacheDir, 'scans');
  return join(dir, fs.readdirSync(dir)[0] ?? 'none');
}

/** The paths that some calls of node:fs get while a function runs. */
async function watchCalls(
  names: ('readdirSync' | 'openSync' | 'readlinkSync')[],
  run: () => Promise<unknown>,
): Promise<string[]> {
  const seen: string[] = [];
  const originals = names.map((name) => [name, fs[name]] as const);
  for (const [name, original] of originals) {
    Object.assign(fs, {
      [name]: (path: string | Buffer, ...rest: unknown[]) => {
        seen.push(path.toString());
        return (original as (...args: unknown[]) => unknown)(path, ...rest);
      },
    });
  }
  syncBuiltinESMExports();
  try {
    await run();
  } finally {
    for (const [name, original] of originals) Object.assign(fs, { [name]: original });
    syncBuiltinESMExports();
  }
  return seen;
}

test.serial('readStatus() of an unchanged workspace lists no directory and opens no file (weakness P1)', async (t) => {
  const workspace = await settledWorkspace(t);
  const inside = (path: string): boolean => path.startsWith(workspace.dir) && !path.endsWith('bento.yaml');
  const calls = await watchCalls(['readdirSync', 'openSync'], async () => {
    t.deepEqual((await readStatus(workspace)).changes, { added: 0, removed: 0, modified: 0 });
    t.false((await saveWorkspace(workspace)).saved);
  });
  t.deepEqual(calls.filter(inside), []);
  writeFileSync(join(workspace.dir, 'src/c.txt'), 'THREE');
  const changed = await watchCalls(['readdirSync', 'openSync'], async () => {
    t.deepEqual((await readStatus(workspace)).changes, { added: 0, removed: 0, modified: 1 });
  });
  t.deepEqual(changed.filter(inside), [join(workspace.dir, 'src/c.txt')], 'one changed file is read, and no other');
});

test.serial('an ignored directory is not entered, the first time or later (weakness P7)', async (t) => {
  const files = { 'a.txt': 'one', 'logs/x.log': 'x', 'src/logs/y.log': 'y', 'src/c.txt': 'three' };
  const calls = await watchCalls(['readdirSync'], async () => {
    const workspace = await settledWorkspace(t, { files, ignore: ['logs/'] });
    writeFileSync(join(workspace.dir, 'logs/z.log'), 'z');
    writeFileSync(join(workspace.dir, 'src/new.txt'), 'new');
    t.deepEqual(await changedPaths(workspace), ['added src/new.txt']);
  });
  t.true(calls.some((path) => path.endsWith('/src')));
  t.deepEqual(
    calls.filter((path) => path.endsWith('/logs')),
    [],
  );
});

/** Gives a file back the times it had, to the nanosecond; its ctime is beyond anybody's reach. */
function keepTime(file: string, change: () => void, changed = file): void {
  const { mtimeNs } = lstatSync(file, { bigint: true });
  change();
  utimensat(fromText(changed), {
    mtime: { sec: Number(mtimeNs / 1_000_000_000n), nsec: Number(mtimeNs % 1_000_000_000n) },
  });
}

const SNEAKY: Record<string, (dir: string) => void> = {
  'same size and time': (dir) => {
    keepTime(join(dir, 'a.txt'), () => writeFileSync(join(dir, 'a.txt'), 'ONE'));
  },
  'another inode, same size and time': (dir) => {
    const replace = (): void => {
      rmSync(join(dir, 'a.txt'));
      writeFileSync(join(dir, 'a.txt'), 'ONE');
    };
    keepTime(dir, () => keepTime(join(dir, 'a.txt'), replace));
  },
  'a file that takes the place of another, with its time': (dir) => {
    keepTime(join(dir, 'a.txt'), () => writeFileSync(join(dir, 'new'), 'ONE'), join(dir, 'new'));
    renameSync(join(dir, 'new'), join(dir, 'a.txt'));
  },
  'two files that changed places': (dir) => {
    renameSync(join(dir, 'a.txt'), join(dir, 'x'));
    renameSync(join(dir, 'b.txt'), join(dir, 'a.txt'));
    renameSync(join(dir, 'x'), join(dir, 'b.txt'));
  },
  'a time in the future': (dir) => {
    writeFileSync(join(dir, 'a.txt'), 'ONE');
    utimesSync(join(dir, 'a.txt'), new Date(Date.now() + 3_600_000), new Date(Date.now() + 3_600_000));
  },
  'a time before 1970': (dir) => {
    utimesSync(join(dir, 'a.txt'), -12345.678, -12345.678);
  },
  'only the mode': (dir) => {
    chmodSync(join(dir, 'a.txt'), 0o600);
  },
  'only an attribute': (dir) => {
    lsetxattr(fromText(join(dir, 'a.txt')), 'user.bento', Buffer.from('x'));
  },
  'a directory that became a file': (dir) => {
    rmSync(join(dir, 'src/deep'), { recursive: true });
    writeFileSync(join(dir, 'src/deep'), 'file');
    utimesSync(join(dir, 'src'), OLD, OLD);
  },
  'the mode of a directory': (dir) => {
    chmodSync(join(dir, 'src/deep'), 0o700);
  },
};

for (const [what, change] of Object.entries(SNEAKY)) {
  test(`a scan notices ${what}`, async (t) => {
    const workspace = await settledWorkspace(t);
    t.true(await isKnownClean(workspace));
    change(workspace.dir);
    t.false(await isKnownClean(workspace));
    t.true((await saveWorkspace(workspace)).saved);
    t.deepEqual(await changedPaths(workspace), []);
    await sleep(SETTLE_MS);
    t.false((await saveWorkspace(workspace)).saved);
  });
}

test('a file with a time ahead of the clock is read again, one that is older is not', async (t) => {
  const workspace = await settledWorkspace(t);
  const future = new Date(Date.now() + 3_600_000);
  utimesSync(join(workspace.dir, 'a.txt'), future, future); // as after the clock was put back
  await saveWorkspace(workspace);
  const tree = await scanOf(workspace);
  const known = new Map(tree.children(tree.root).map((node) => [node.name, node.digest !== undefined]));
  t.deepEqual([known.get('a.txt'), known.get('b.txt')], [false, true]);
  t.deepEqual(await changedPaths(workspace), []);
});

test('rowOfNode() trusts no stamp whose mtime or ctime is newer than it may be', async (t) => {
  const workspace = await settledWorkspace(t);
  const tree = await scanOf(workspace);
  const [node] = tree.children(tree.root).filter(({ type }) => type === 'file');
  if (node === undefined) return t.fail('no file');
  const quiet = { ...node.stamp, mtimeSec: 1000, mtimeNsec: 0, ctimeSec: 1000, ctimeNsec: 0 };
  const isRacy = (stamp: typeof quiet): boolean => (rowOfNode({ ...node, stamp }, 1_000_000).flags & FLAG_RACY) !== 0;
  t.false(isRacy(quiet));
  t.true(isRacy({ ...quiet, mtimeNsec: 1_000_000 }));
  t.true(isRacy({ ...quiet, ctimeNsec: 1_000_000 }));
  t.true(isRacy({ ...quiet, ctimeSec: 1001 }));
  return undefined;
});

test('a changed ignore rule is heeded in directories that have not changed', async (t) => {
  const workspace = await settledWorkspace(t, { ignore: ['*.log'], files: { ...FILES, 'src/x.log': 'log' } });
  workspace.setup.ignore = [];
  t.deepEqual(await changedPaths(workspace), ['added src/x.log']);
  workspace.setup.ignore = ['*.log', 'deep/'];
  t.deepEqual(await changedPaths(workspace), ['removed src/deep', 'removed src/deep/d.txt']);
  await readStatus(workspace);
  workspace.setup.ignore = ['*.log'];
  t.deepEqual(await changedPaths(workspace), []);
});

test('an ignored file that comes and goes leaves a workspace clean without a comparison', async (t) => {
  const workspace = await settledWorkspace(t, { ignore: ['*.log'] });
  const { mtime } = lstatSync(join(workspace.dir, 'src'));
  writeFileSync(join(workspace.dir, 'src/x.log'), 'log');
  utimesSync(join(workspace.dir, 'src'), mtime, mtime);
  t.true(await isKnownClean(workspace));
  rmSync(join(workspace.dir, 'src/x.log'));
  mkdirSync(join(workspace.dir, 'src/x.txt'));
  t.deepEqual(await changedPaths(workspace), ['added src/x.txt']);
});

test('a damaged cache of a scan is left aside and made anew', async (t) => {
  const workspace = await settledWorkspace(t);
  const whole = readFileSync(scanFile(workspace));
  const flipped = Buffer.from(whole);
  const middle = whole.length >> 1;
  flipped[middle] = (whole[middle] ?? 0) ^ 1;
  const wrongs = [
    flipped,
    whole.subarray(0, middle),
    whole.subarray(0, 9),
    Buffer.alloc(0),
    Buffer.from('nonsense'.repeat(99)),
  ];
  for (const wrong of wrongs) {
    writeFileSync(scanFile(workspace), wrong);
    t.false(await isKnownClean(workspace));
    t.deepEqual((await readStatus(workspace)).changes, { added: 0, removed: 0, modified: 0 });
    t.true(await isKnownClean(workspace), 'made anew');
  }
});

test('a workspace whose head was moved to other contents is not taken for clean', async (t) => {
  const workspace = await settledWorkspace(t);
  const first = workspace.config.head;
  writeFileSync(join(workspace.dir, 'a.txt'), 'changed');
  await saveWorkspace(workspace);
  await sleep(SETTLE_MS);
  t.deepEqual(await changedPaths(workspace), []);
  workspace.config.head = first;
  t.deepEqual(await changedPaths(workspace), ['modified a.txt']);
});

test('a scan notices a hard link that was cut', async (t) => {
  const workspace = await newWorkspace(t);
  for (const name of ['one', 'two', 'three']) mkdirSync(join(workspace.dir, name));
  writeFileSync(join(workspace.dir, 'one/x'), 'same');
  linkSync(join(workspace.dir, 'one/x'), join(workspace.dir, 'two/y'));
  writeFileSync(join(workspace.dir, 'three/z'), 'other');
  await sleep(SETTLE_MS);
  await saveWorkspace(workspace);
  await sleep(SETTLE_MS);
  t.deepEqual(await changedPaths(workspace), []);
  const { mtime } = lstatSync(join(workspace.dir, 'two/y'));
  rmSync(join(workspace.dir, 'two/y'));
  writeFileSync(join(workspace.dir, 'two/y'), 'same');
  utimesSync(join(workspace.dir, 'two/y'), mtime, mtime);
  t.deepEqual(await changedPaths(workspace), ['modified two/y']);
});

for (const seed of [11, 12, 13]) {
  test(`a scan with a cache finds after every random change what one without finds (seed ${seed})`, async (t) => {
    const random = new Random(seed);
    const workspace = await newWorkspace(t);
    const isIgnored = (path: string): boolean => path === 'bento.yaml';
    for (let step = 1; step <= STEPS; step += 1) {
      if (random.chance(0.7)) changeDirectory(workspace.dir, random);
      if (random.chance(0.8)) await sleep(SETTLE_MS);
      if (workspace.config.head !== undefined) {
        const { tree } = await headOf(workspace);
        const plain = LiveTree.scan(fromText(workspace.dir), { isIgnored, exclude: new Set() });
        const cached = await readWorkTree(workspace);
        const [wanted, found] = [plain, cached].map((now) =>
          diffTrees(tree, now, {
            sameContent: (path, before, after) => (after.digest ?? hashFile(now.absolute(path))) === before.digest,
          }).map(({ path, kind, differences }) => `${kind} ${path} ${differences.join()}`),
        );
        t.deepEqual(found, wanted, `step ${step}`);
        t.false((await isKnownClean(workspace)) && wanted?.some((line) => !/ mtime$/.test(line)), `step ${step}`);
      }
      if (random.chance(0.4)) await readStatus(workspace).catch(() => undefined);
      if (random.chance(0.4) || workspace.config.head === undefined) await saveWorkspace(workspace);
    }
  });
}
