import type { ByteString } from '../../store/byte-string.ts';
import type { CheckpointMeta } from '../../store/checkpoint-meta.ts';
import { storeCheckpoint, type CheckpointLayer } from '../../store/checkpoint.ts';
import type { Digest } from '../../store/digest.ts';
import { PackPool } from '../../store/layers/pack-pool.ts';
import type { Store } from '../../store/store.ts';
import type { CheckpointNode } from '../tree/checkpoint-tree.ts';
import type { Change } from '../tree/diff-trees.ts';
import type { Skipped } from '../tree/disk-node.ts';
import { PathFinder } from '../tree/tree.ts';
import { FirstOrder } from './first-order.ts';
import { readGitState } from './git-state.ts';
import { markEarlier } from './moved-files.ts';
import { packLayer, type PackedLayer } from './pack-layers.ts';
import { planLayers, type LayerPlan } from './plan-layers.ts';
import { rememberPacked } from './remember-packed.ts';
import type { SaveOptions } from './save.ts';
import { reportTitles, STACK_FILE_COUNT, stackFileCount, type TitleReport } from './title-report.ts';
import { Titles } from './titles.ts';
import { compareWorkspace, type WorkNode, type WorkTree } from './work-tree.ts';
import { titledLayers, type OpenCheckpoint, type Workspace } from './workspace.ts';

/** A stack of this many layers under one title is written anew as one: container engines stack 127 layers at most. */
const STACK_HEIGHT_MAX = 40;
/** Layers that together are heavier than the heaviest one of their stack, and than this: much of them is out of date by then. */
const DELTA_BYTES_MIN = 32 * 1024 * 1024;

export interface CheckpointToMake {
  head: OpenCheckpoint | undefined;
  tree: WorkTree;
  changes: readonly Change<CheckpointNode, WorkNode>[];
  sequence: number;
  options: SaveOptions;
}

export interface MadeCheckpoint {
  manifest: { digest: Digest; size: number };
  /** Lowest first. */
  layers: readonly CheckpointLayer[];
  titles: TitleReport[];
  /** What was there when the workspace was looked at and was gone when it was packed. */
  skipped: Skipped[];
  unsteady: ByteString[];
  addedBytes: number;
}

/** Packs the changes and stores the manifest. No tag and no head moves: until then nobody sees it. */
export async function makeCheckpoint(workspace: Workspace, make: CheckpointToMake): Promise<MadeCheckpoint> {
  const startMs = Date.now();
  const base = (await mustRepack(workspace, make)) ? undefined : make.head;
  const changes = base === make.head ? make.changes : compareWorkspace(workspace.source, undefined, make.tree).changes;
  const stack = base === undefined ? [] : titledLayers(base);
  const titles = new Titles(workspace.source.entries, stack, workspace.setup.rules);
  const finder = new PathFinder(make.tree);
  const plans = planLayers(changes, {
    titles,
    titleOfDepth: (depth) => stack[depth]?.title ?? '',
    dirAt: base === undefined ? undefined : (path) => finder.find(path),
  });
  if (base === make.head) markEarlier(plans, changes);
  else markStored(plans, make);
  markMoved(plans);
  const mayBeThin = base !== undefined && make.options.flat !== true && mayStoreThin();
  const order = await FirstOrder.of(workspace.source, { ...make, isRepack: base !== make.head });
  const packed = await packAll(workspace, make, { plans: withEmptyTitles(plans, titles, base), mayBeThin, order });
  const layers = stackLayers(base, packed, plans, titles);
  const digests = layers.map((layer) => layer.descriptor.digest);
  rememberPacked(workspace.source, make.tree, { plans, packed, layers: digests, startMs });
  const manifest = await storeCheckpoint(workspace.source.store.blobs, {
    layers,
    meta: await describeCheckpoint(workspace, make),
    parent: make.head?.checkpoint.digest,
  });
  const written = packed.map(({ layer }) => layer);
  return {
    manifest,
    layers,
    titles: reportTitles(layers, written),
    skipped: packed.flatMap(({ gone }) => gone).map((path) => ({ path, reason: 'it disappeared meanwhile' })),
    unsteady: packed.flatMap((layer) => layer.unsteady),
    addedBytes: sum(packed.map(({ storedBytes }) => storedBytes)),
  };
}

async function packAll(
  workspace: Workspace,
  { tree, options }: CheckpointToMake,
  { plans, mayBeThin, order }: { plans: readonly LayerPlan<WorkNode>[]; mayBeThin: boolean; order: FirstOrder },
): Promise<PackedLayer[]> {
  const planned = plans.flatMap((plan) => plan.entries);
  await using pool = PackPool.for({
    entryCount: planned.length,
    sizeBytes: sum(planned.map(({ entry }) => entry.sizeBytes)),
  });
  const { reader } = workspace;
  const onEvent = options.onEvent ?? (() => undefined);
  const packed: PackedLayer[] = [];
  for (const plan of plans) {
    const options = { tree, reader, pool, mayBeThin, rankOf: order.ranksOf(plan), onEvent };
    packed.push(await packLayer(workspace.source, workspace.layout, plan, options));
  }
  return packed;
}

/** Files of a directory that was renamed in a fork are where they were, in the layers below it. */
function markMoved(plans: readonly LayerPlan<WorkNode>[]): void {
  for (const planned of plans.flatMap((plan) => plan.entries)) {
    const { stamp, lower } = planned.content ?? {};
    if (stamp === undefined && lower?.type === 'file') planned.stored = lower;
  }
}

/** Files that are as the head has them need not be read: their bytes are copied from its layers. */
function markStored(plans: readonly LayerPlan<WorkNode>[], { head, changes }: CheckpointToMake): void {
  if (head === undefined) return;
  const isNew = (change: Change): boolean =>
    change.before?.type !== 'file' || change.differences.some((difference) => difference === 'content');
  const fresh = new Set(changes.filter(isNew).map((change) => change.path));
  const finder = new PathFinder(head.tree);
  for (const planned of plans.flatMap((plan) => plan.entries)) {
    if (planned.content === undefined || fresh.has(planned.entry.path)) continue;
    const stored = finder.find(planned.entry.path);
    if (stored?.type === 'file' && stored.sizeBytes === planned.content.sizeBytes) planned.stored = stored;
  }
}

/**
 * Whether a checkpoint's stacks are to be written anew: because that is wanted, they are too high or too heavy to be read
 * quickly, or, in a checkpoint of somebody else's making, another title's layer lies in between.
 */
async function mustRepack({ source }: Workspace, { head, options }: CheckpointToMake): Promise<boolean> {
  const stacks = new Map<string, CheckpointLayer[]>();
  let previous: string | undefined;
  for (const layer of head?.checkpoint.layers ?? []) {
    if (stacks.has(layer.title) && layer.title !== previous) return true;
    stacks.set(layer.title, [...(stacks.get(layer.title) ?? []), layer]);
    previous = layer.title;
  }
  const heightMax = options.flat === true ? 1 : STACK_HEIGHT_MAX;
  for (const stack of stacks.values())
    if (stack.length >= heightMax || (await isHeavy(source.store, stack))) return true;
  return false;
}

/**
 * By what the layers take in the store: a thin delta costs what it changed, however large the file is. The heaviest one is
 * what the others are compared with, be it the base or not: a large file that came later is no reason to write it again.
 */
async function isHeavy(store: Store, stack: readonly CheckpointLayer[]): Promise<boolean> {
  const stored = stack.map(async ({ descriptor }) => (await store.blobs.storedSizeOf(descriptor.digest)) ?? 0);
  const sizes = await Promise.all(stored);
  const heaviest = Math.max(0, ...sizes);
  return sum(sizes) - heaviest > Math.max(heaviest, DELTA_BYTES_MIN);
}

/** Who hands the store's folder to programs that know nothing of recipes says so. */
function mayStoreThin(): boolean {
  return process.env['BENTO_THIN'] !== 'off';
}

/** Every title has a layer from the first checkpoint on, even an empty one: readers expect to find it. */
function withEmptyTitles(
  plans: readonly LayerPlan<WorkNode>[],
  titles: Titles,
  base: OpenCheckpoint | undefined,
): LayerPlan<WorkNode>[] {
  const present = new Set(base?.checkpoint.layers.map((layer) => layer.title));
  return titles.order.flatMap((title) => {
    const plan = plans.find((candidate) => candidate.title === title);
    if (plan !== undefined && plan.entries.length > 0) return [plan];
    return present.has(title) ? [] : [{ title, entries: [], fileCountChange: 0 }];
  });
}

/** Puts each new layer right above the layers of its title. */
function stackLayers(
  base: OpenCheckpoint | undefined,
  packed: readonly PackedLayer[],
  plans: readonly LayerPlan<WorkNode>[],
  titles: Titles,
): CheckpointLayer[] {
  return titles.order.flatMap((title) => {
    const below = base?.checkpoint.layers.filter((layer) => layer.title === title) ?? [];
    const mine = packed.filter(({ layer }) => layer.title === title);
    const added = mine.map(({ layer }) => layer);
    const change = plans.find((plan) => plan.title === title)?.fileCountChange ?? 0;
    if (below.length === 0) return added;
    const count = stackFileCount(below) + change - sum(mine.map(({ gone }) => gone.length));
    if (added.length > 0) return [...below, ...added.map((layer) => withStackCount(layer, count))];
    return below.map((layer, i) => (change !== 0 && i === below.length - 1 ? withStackCount(layer, count) : layer));
  });
}

function withStackCount(layer: CheckpointLayer, count: number): CheckpointLayer {
  const annotations = { ...layer.descriptor.annotations, [STACK_FILE_COUNT]: String(count) };
  return { ...layer, descriptor: { ...layer.descriptor, annotations } };
}

async function describeCheckpoint(
  { config, setup, dir, id }: Workspace,
  { head, sequence, options }: CheckpointToMake,
): Promise<CheckpointMeta> {
  const created = (options.now ?? new Date()).toISOString().replace(/\.\d+Z$/, 'Z');
  const repo = await readGitState(dir);
  return {
    schemaVersion: '1.0.0',
    workspaceId: id,
    ...(setup.extensions.length > 0 && { extensions: setup.extensions }),
    ...(config.task && { task: config.task }),
    ...(options.message && { message: options.message }),
    ...(config.remote && { remote: config.remote }),
    ...(head && { parentCheckpoint: head.checkpoint.digest }),
    checkpoint: sequence,
    created,
    status: 'paused',
    ...(repo && { repos: [repo] }),
    environment: { os: process.platform, arch: process.arch === 'x64' ? 'amd64' : process.arch },
    ...(config.layers && {
      layers: config.layers.map(({ name, patterns, catchAll }) => ({ name, patterns, ...(catchAll && { catchAll }) })),
    }),
    ...(setup.ownIgnore.length > 0 && { ignore: setup.ownIgnore }),
    retention: { keepLast: config.retention.keepLast, keepTagged: config.retention.keepTagged },
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
