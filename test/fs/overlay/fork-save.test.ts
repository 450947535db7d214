import { chmodSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { forkCheckpoint, removeFork } from '../../../fs/mounts/fork.ts';
import { stopDaemon } from '../../../fs/mounts/daemon/daemon-client.ts';
import { MountTable } from '../../../fs/mounts/mount-table.ts';
import { OverlayTree } from '../../../fs/overlay/overlay-tree.ts';
import { newWorkspaceFiles } from '../../../fs/workspace/new-workspace.ts';
import { isWorthSaving } from '../../../fs/workspace/plan-layers.ts';
import { saveWorkspace } from '../../../fs/workspace/save.ts';
import { diffWorkspace } from '../../../fs/workspace/work-tree.ts';
import { isKnownUnchanged, readWorkTree, type Workspace } from '../../../fs/workspace/workspace.ts';
import { errnoOf } from '../../../store/errors.ts';
import { testSerialNeeding } from '../../fixtures/external-tools.ts';
import { changeDirectory } from '../../fixtures/random-directory.ts';
import { Random } from '../../fixtures/random.ts';
import { compareFacts, factsOfCheckpoint, factsOnDisk, withoutDirTimes } from '../../fixtures/tree-facts.ts';
import { headOf, newFolder, newWorkspace, reopenWorkspace } from '../../fixtures/workspaces.ts';

const STEPS = Number(process.env['BENTO_RANDOM_STEPS'] ?? 40);
const SEEDS = (process.env['BENTO_RANDOM_SEEDS'] ?? '1,2,3').split(',').map(Number);

for (const [engine, seed] of (['overlay', 'cow'] as const).flatMap((name) =>
  SEEDS.map((seed) => [name, seed] as const),
)) {
  testSerialNeeding({ root: true, fuse: true })(
    `saveWorkspace() of a fork (${engine}) shows exactly what its processes see, after every random change (seed ${seed})`,
    async (t) => {
      const random = new Random(seed);
      const base = await newWorkspace(t);
      for (let i = 0; i < 30; i += 1) changeSurely(base.dir, random);
      await saveWorkspace(base);
      for (let i = 0; i < 10; i += 1) changeSurely(base.dir, random);
      await saveWorkspace(base); // the fork stands on a stack, not on a single layer
      const fork = await forkOf(t, base, engine);
      t.true((await readWorkTree(fork)) instanceof OverlayTree);
      for (let step = 1; step <= STEPS; step += 1) {
        for (let i = 0; i <= random.below(5); i += 1) changeSurely(fork.dir, random);
        const asSeen = engine === 'overlay' ? withoutLinks : (facts: Facts): Facts => facts;
        const wanted = asSeen(withoutDirTimes(factsOnDisk(fork.dir)));
        await saveWorkspace(fork);
        const { tree } = await headOf(fork);
        const shown = asSeen(withoutDirTimes(factsOfCheckpoint(tree, fork.reader, fork.dir)));
        const differences = compareFacts(wanted, shown);
        if (differences.length > 0) return t.fail(`step ${step}:\n${differences.join('\n')}`);
        const again = await changesOf(fork);
        if (again.length > 0) return t.fail(`step ${step}: still different after the save\n${again.join('\n')}`);
      }
    },
  );
}

const CHANGES: Record<string, (dir: string) => void> = {
  'a file is written': (dir) => writeFileSync(join(dir, 'kept/b'), 'B'),
  'a file of the checkpoint is removed': (dir) => rmSync(join(dir, 'kept/a')),
  'a directory of the checkpoint is made anew': (dir) => {
    rmSync(join(dir, 'kept'), { recursive: true });
    mkdirSync(join(dir, 'kept'));
  },
  'a mode changes': (dir) => chmodSync(join(dir, 'own/c'), 0o600),
  'a file moves': (dir) => renameSync(join(dir, 'own/c'), join(dir, 'own/d')),
};

for (const [what, change] of Object.entries(CHANGES)) {
  testSerialNeeding({ root: true, fuse: true })(
    `a saved fork is known to be clean without a walk, until ${what}`,
    async (t) => {
      const base = await newWorkspace(t);
      mkdirSync(join(base.dir, 'kept'));
      for (const name of ['kept/a', 'kept/b']) writeFileSync(join(base.dir, name), name);
      await saveWorkspace(base);
      writeFileSync(join(base.dir, 'kept/b'), 'second');
      await saveWorkspace(base);
      const fork = await forkOf(t, base, 'overlay');
      t.false(await isKnownClean(fork), 'nobody has looked yet');
      mkdirSync(join(fork.dir, 'own'));
      writeFileSync(join(fork.dir, 'own/c'), 'c');
      await saveWorkspace(fork);
      // What changed just before a look is looked at once more.
      for (let tries = 0; tries < 100 && !(await isKnownClean(fork)); tries += 1) await changesOf(fork);
      t.true(await isKnownClean(fork));
      fork.setup.ignore.push('own');
      t.false(await isKnownClean(fork), 'what is ignored has changed');
      fork.setup.ignore.pop();
      t.true(await isKnownClean(fork));
      change(fork.dir);
      t.false(await isKnownClean(fork));
      t.not((await changesOf(fork)).length, 0);
      t.true((await saveWorkspace(fork)).saved);
      t.deepEqual(await changesOf(fork), []);
    },
  );
}

async function isKnownClean(fork: Workspace): Promise<boolean> {
  return isKnownUnchanged(await readWorkTree(fork), (await headOf(fork)).checkpoint);
}

type Facts = ReadonlyMap<string, string>;

/**
 * The kernel's overlayfs gives two numbers to a file that it copied up and that got another name then: its names do not look
 * like one file, which they are.
 */
function withoutLinks(facts: Facts): Facts {
  return new Map([...facts].map(([path, fact]) => [path, fact.replace(/ = .*$/, '')]));
}

async function changesOf(fork: Workspace): Promise<string[]> {
  const { tree } = await headOf(fork);
  const changes = diffWorkspace(fork.source, tree, await readWorkTree(fork)).filter(isWorthSaving);
  return changes.map(({ path, kind, differences }) => `${path} ${kind} ${differences.join('+')}`);
}

/** A directory of a lower layer cannot be renamed (overlayfs says EXDEV, and `mv` then copies): the next change is tried. */
function changeSurely(dir: string, random: Random): void {
  try {
    changeDirectory(dir, random, 1);
  } catch (error) {
    if (errnoOf(error) !== 'EXDEV') throw error;
  }
}

async function forkOf(
  t: Parameters<typeof newFolder>[0],
  base: Workspace,
  engine: 'overlay' | 'cow',
): Promise<Workspace> {
  const folder = newFolder(t);
  const { store } = base.source;
  process.env['XDG_RUNTIME_DIR'] = join(folder, 'run');
  mkdirSync(process.env['XDG_RUNTIME_DIR'], { mode: 0o700 });
  const { checkpoint, tree } = await headOf(base);
  const files = newWorkspaceFiles(checkpoint, {
    workspaceId: base.id,
    storeRoot: store.root,
    head: checkpoint.digest,
  });
  const request = {
    manifest: checkpoint.digest,
    head: checkpoint.digest,
    ref: 'cp-2',
    workspaceId: base.id,
    files,
    engine,
  };
  const [made] = await forkCheckpoint(store, [join(folder, 'fork')], request, {
    openTree: () => Promise.resolve(tree),
  });
  if (made === undefined) throw new Error('no fork');
  const { record } = made;
  (t.teardown as (run: () => Promise<void>) => void)(async () => {
    const mounted = await new MountTable(store).at(record.target);
    if (mounted !== undefined) await removeFork(store, mounted, true);
    await stopDaemon(store);
  });
  return await reopenWorkspace(t, base.source, { dir: record.target });
}
