import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import { FIRST_FILE_BYTES_MAX, firstReadsDir, loadFirstReads } from '../../../../fs/contents/first-reads.ts';
import { FirstReadsKeeper } from '../../../../fs/mounts/daemon/first-reads-keeper.ts';
import { FIRST_READS_MS, newReadLogMemory, ReadLog } from '../../../../fs/serving/read-log.ts';
import { PathFinder } from '../../../../fs/tree/tree.ts';
import { saveWorkspace } from '../../../../fs/workspace/save.ts';
import { entryId, positionOf } from '../../../../index/rows.ts';
import type { Digest } from '../../../../store/digest.ts';
import { headOf, newWorkspace } from '../../../fixtures/workspaces.ts';

interface Kept {
  log: ReadLog;
  keeper: FirstReadsKeeper;
  cacheDir: string;
  layer: Digest;
  idOf: (path: string) => number;
  /** Milliseconds. */
  clock: { now: number };
}

async function keep(t: ExecutionContext): Promise<Kept> {
  const workspace = await newWorkspace(t);
  const files = { a: 'a', b: 'b', c: 'c', 'dir/d': 'd', empty: '', huge: Buffer.alloc(FIRST_FILE_BYTES_MAX + 1) };
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(workspace.dir, path)), { recursive: true });
    writeFileSync(join(workspace.dir, path), content);
  }
  await saveWorkspace(workspace);
  const { checkpoint, tree } = await headOf(workspace);
  const finder = new PathFinder(tree);
  const layer = checkpoint.layers.find(({ title }) => title === 'project')?.descriptor.digest;
  if (layer === undefined) throw new Error('no project layer');
  const log = new ReadLog(newReadLogMemory());
  const clock = { now: 0 };
  return {
    log,
    keeper: new FirstReadsKeeper(workspace.source, log, () => clock.now),
    cacheDir: workspace.source.store.cacheDir,
    layer,
    idOf: (path) => finder.find(path)?.id ?? 0,
    clock,
  };
}

test('collect() keeps the files of a layer that were read, not what nobody would fetch ahead', async (t) => {
  const { log, keeper, cacheDir, layer, idOf } = await keep(t);
  keeper.collect();
  t.deepEqual(loadFirstReads(cacheDir, layer), []);
  for (const path of ['c', 'huge', 'dir', 'empty', 'a']) log.add(idOf(path));
  log.add(entryId(90_000, 2)); // of a layer that the index has forgotten
  keeper.collect();
  t.deepEqual(
    loadFirstReads(cacheDir, layer),
    ['c', 'a'].map((path) => positionOf(idOf(path))),
  );
  log.add(idOf('b'));
  keeper.collect();
  t.deepEqual(
    loadFirstReads(cacheDir, layer),
    ['c', 'a', 'b'].map((path) => positionOf(idOf(path))),
  );
});

test('collect() puts what is read in a later use before what was read in an earlier one', async (t) => {
  const { log, keeper, cacheDir, layer, idOf, clock } = await keep(t);
  for (const path of ['a', 'b']) log.add(idOf(path));
  keeper.collect();
  clock.now += FIRST_READS_MS + 1;
  keeper.collect();
  for (const path of ['dir/d', 'b']) log.add(idOf(path));
  keeper.collect();
  t.deepEqual(
    loadFirstReads(cacheDir, layer),
    ['dir/d', 'b', 'a'].map((path) => positionOf(idOf(path))),
  );
});

test('collect() says once what cannot be written, and goes on with what comes later', async (t) => {
  const { log, keeper, cacheDir, layer, idOf } = await keep(t);
  writeFileSync(firstReadsDir(cacheDir), 'a file where the folder should be');
  log.add(idOf('a'));
  t.throws(() => keeper.collect());
  t.notThrows(() => keeper.collect());
  rmSync(firstReadsDir(cacheDir));
  log.add(idOf('b'));
  keeper.collect();
  t.deepEqual(
    loadFirstReads(cacheDir, layer),
    ['a', 'b'].map((path) => positionOf(idOf(path))),
  );
});
