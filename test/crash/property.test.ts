import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { collectGarbage } from '../../fs/maintenance/gc.ts';
import { verifyStore } from '../../fs/maintenance/verify.ts';
import { stopDaemon } from '../../fs/mounts/daemon/daemon-client.ts';
import { MountTable } from '../../fs/mounts/mount-table.ts';
import { mountCheckpoint, unmountRecord } from '../../fs/mounts/mount.ts';
import { diffTrees, type Change } from '../../fs/tree/diff-trees.ts';
import { openInto } from '../../fs/workspace/open.ts';
import { isWorthSaving } from '../../fs/workspace/plan-layers.ts';
import { saveWorkspace } from '../../fs/workspace/save.ts';
import { diffWorkspace } from '../../fs/workspace/work-tree.ts';
import { openCheckpoint, readWorkTree, type Workspace } from '../../fs/workspace/workspace.ts';
import type { Digest } from '../../store/digest.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { changeDirectory } from '../fixtures/random-directory.ts';
import { Random } from '../fixtures/random.ts';
import {
  compareFacts,
  factsOfCheckpoint,
  factsOnDisk,
  withoutDirTimes,
  type TreeFacts,
} from '../fixtures/tree-facts.ts';
import { newFolder, newWorkspace } from '../fixtures/workspaces.ts';

const SEEDS = (process.env['BENTO_RANDOM_SEEDS'] ?? '31,32').split(',').map(Number);
/** More than a stack may be high, so that some save writes it anew. */
const SAVES = Math.max(45, Number(process.env['BENTO_RANDOM_STEPS'] ?? 0));
const OPENED = 8;
const DIFFED = 30;
const KEEP_LAST = 20;
const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];

/** A checkpoint and what was in the directory when it was made. */
interface Recorded {
  digest: Digest;
  facts: TreeFacts;
  layerCount: number;
}

type Check = (t: ExecutionContext, workspace: Workspace, history: readonly Recorded[], random: Random) => Promise<void>;

async function saveOnce(workspace: Workspace, flat = false): Promise<Recorded[]> {
  const facts = factsOf(workspace.dir);
  const { saved, digest } = await saveWorkspace(workspace, { flat });
  if (!saved || digest === undefined) return [];
  const { checkpoint } = await openCheckpoint(workspace.source, digest);
  return [{ digest, facts, layerCount: checkpoint.layers.length }];
}

function factsOf(dir: string): TreeFacts {
  return factsOnDisk(dir, OWN_FILES);
}

/** Saves again and again, then flat, then collects: after each of these, every checkpoint must be what was recorded. */
async function saveAndCheck(t: ExecutionContext, seed: number, check: Check): Promise<void> {
  const random = new Random(seed);
  const workspace = await newWorkspace(t);
  let history: Recorded[] = [];
  while (history.length < SAVES) {
    changeDirectory(workspace.dir, random);
    history.push(...(await saveOnce(workspace)));
  }
  const isRepacked = history.some(({ layerCount }, at) => layerCount < (history[at - 1]?.layerCount ?? 0));
  t.true(isRepacked, 'some stack was written anew');
  await check(t, workspace, history, random);

  const [flat] = await saveOnce(workspace, true);
  if (flat === undefined) return t.fail('a stack was not made flat');
  history.push(flat);
  await check(t, workspace, history.slice(-3), random);

  changeDirectory(workspace.dir, random);
  history.push(...(await saveOnce(workspace)));
  await collect(workspace);
  history = history.slice(-KEEP_LAST);
  await check(t, workspace, history, random);
  const { damages } = await verifyStore(workspace.source.store, {
    dir: workspace.dir,
    workspaceId: workspace.id,
    isQuick: false,
    isRepair: false,
  });
  t.deepEqual(damages, []);
}

async function collect(workspace: Workspace): Promise<void> {
  const policy = { keepLast: KEEP_LAST, keepTagged: false };
  const options = { workspaceId: workspace.id, policy, dryRun: false, dropDamaged: false };
  const { deleted } = await collectGarbage(workspace.source, options);
  if (deleted.length === 0) throw new Error('there was nothing to collect');
}

const throughItsTree: Check = async (t, workspace, history) => {
  for (const { digest, facts } of history) {
    const { tree } = await openCheckpoint(workspace.source, digest);
    const found = new Map(factsOfCheckpoint(tree, workspace.reader, workspace.dir));
    for (const name of OWN_FILES) found.delete(name);
    assertSame(t, facts, found, digest);
  }
};

const throughOpen: Check = async (t, workspace, history, random) => {
  for (const { digest, facts } of someOf(history, random, OPENED)) {
    const dir = join(newFolder(t), 'opened');
    await openInto(workspace.source, await openCheckpoint(workspace.source, digest), dir);
    assertSame(t, facts, factsOf(dir), digest);
    rmSync(dir, { recursive: true });
  }
};

const throughDiff: Check = async (t, workspace, history, random) => {
  for (let i = 0; i < DIFFED; i += 1) {
    const [from, to] = [random.pick(history), random.pick(history)];
    const before = (await openCheckpoint(workspace.source, from.digest)).tree;
    const after = (await openCheckpoint(workspace.source, to.digest)).tree;
    const changes = diffTrees(before, after, { sameContent: (_, b, a) => b.digest === a.digest });
    t.deepEqual(linesOf(changes), expectedLines(from.facts, to.facts), `${from.digest} to ${to.digest}`);
    const unsaved = diffWorkspace(workspace.source, before, await readWorkTree(workspace));
    t.deepEqual(linesOf(unsaved), expectedLines(from.facts, factsOf(workspace.dir)), `${from.digest} to the workspace`);
  }
};

const throughMount: Check = async (t, workspace, history, random) => {
  const { store } = workspace.source;
  const target = join(newFolder(t), 'mounted');
  mkdirSync(target);
  const table = new MountTable(store);
  const unmountIfMounted = async (): Promise<void> => {
    const record = await table.at(target);
    if (record !== undefined) await unmountRecord(store, record, true);
  };
  try {
    for (const { digest, facts } of someOf(history, random, OPENED)) {
      await mountCheckpoint(store, { manifest: digest, ref: digest, workspaceId: workspace.id, target });
      assertSame(t, facts, factsOf(target), digest);
      await unmountIfMounted();
    }
  } finally {
    await unmountIfMounted();
    await stopDaemon(store);
  }
};

/** What a comparison says, without the times of directories and which names are one file, which are not one path's own. */
function linesOf(changes: readonly Change[]): string[] {
  return changes
    .filter((change) => isWorthSaving(change) && change.differences.join() !== 'links')
    .map(({ kind, path }) => `${kind} ${path}`)
    .sort();
}

function expectedLines(before: TreeFacts, after: TreeFacts): string[] {
  const [was, is] = [plain(before), plain(after)];
  return [...new Set([...was.keys(), ...is.keys()])]
    .filter((path) => was.get(path) !== is.get(path))
    .map((path) => `${was.has(path) ? (is.has(path) ? 'modified' : 'removed') : 'added'} ${path}`)
    .sort();
}

function plain(facts: TreeFacts): TreeFacts {
  return new Map([...withoutDirTimes(facts)].map(([path, line]) => [path, line.replace(/ = .*/, '')]));
}

function assertSame(t: ExecutionContext, expected: TreeFacts, found: TreeFacts, what: string): void {
  t.deepEqual(compareFacts(expected, found), [], what);
}

/** The first and the last, and some of those between. */
function someOf(history: readonly Recorded[], random: Random, count: number): Recorded[] {
  const some = Array.from({ length: count }, () => random.pick(history));
  return [...new Set([...history.slice(0, 1), ...some, ...history.slice(-1)])];
}

for (const seed of SEEDS) {
  test.serial(
    `every checkpoint of a random history is what was saved, by its tree, opened and compared (seed ${seed})`,
    async (t) => {
      await saveAndCheck(t, seed, async (...args) => {
        for (const check of [throughItsTree, throughOpen, throughDiff]) await check(...args);
      });
    },
  );

  testSerialNeeding({ root: true, fuse: true })(
    `every checkpoint of a random history is what was saved when it is mounted (seed ${seed})`,
    async (t) => {
      process.env['XDG_RUNTIME_DIR'] = join(newFolder(t), 'run');
      mkdirSync(process.env['XDG_RUNTIME_DIR'], { mode: 0o700 });
      await saveAndCheck(t, seed, throughMount);
    },
  );
}
