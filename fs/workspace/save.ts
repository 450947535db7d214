import type { ByteString } from '../../store/byte-string.ts';
import type { CheckpointMeta } from '../../store/checkpoint-meta.ts';
import type { Checkpoint, CheckpointLayer } from '../../store/checkpoint.ts';
import { countOf, storeCheckpoint } from '../../store/checkpoint.ts';
import type { Digest } from '../../store/digest.ts';
import { faultPoint } from '../../store/fault-point.ts';
import { PackPool } from '../../store/layers/pack-pool.ts';
import type { CheckpointNode } from '../tree/checkpoint-tree.ts';
import type { Change } from '../tree/diff-trees.ts';
import { openTree } from '../tree/index-checkpoint.ts';
import { PathFinder } from '../tree/tree.ts';
import { updateConfig } from './config-file.ts';
import { readGitState } from './git-state.ts';
import { recordHead } from './heads.ts';
import { keepRootTime } from './new-workspace.ts';
import type { Skipped } from '../tree/disk-node.ts';
import { packLayer, type PackedLayer, type SaveEvent } from './pack-layers.ts';
import { isWorthSaving, planLayers, type LayerPlan } from './plan-layers.ts';
import { rememberPacked } from './remember-packed.ts';
import { Titles } from './titles.ts';
import { diffWorkspace, type WorkNode, type WorkTree } from './work-tree.ts';
import {
  isKnownUnchanged,
  loadHead,
  readWorkTree,
  rereadConfig,
  titledLayers,
  type OpenCheckpoint,
  type Workspace,
} from './workspace.ts';

/** A stack of this many layers under one title is written anew as one: container engines stack 127 layers at most. */
const STACK_HEIGHT_MAX = 40;
/** Deltas together heavier than their base, and than this, are written into it: much of them is out of date by then. */
const DELTA_BYTES_MIN = 32 * 1024 * 1024;

/** Number of files in a title's whole stack, on each of its deltas; a base says it with its own file count. */
const STACK_FILE_COUNT = 'dev.bento.layer.stack-file-count';

export interface SaveOptions {
  message?: string;
  /** Replaces `cp-N` as the checkpoint's tag. */
  tag?: string;
  /** One layer for each title, for readers that know nothing of stacks. */
  flat?: boolean;
  now?: Date;
  onEvent?: (event: SaveEvent) => void;
  /** Told once when another save of this workspace has to be waited for. */
  onWait?: () => void;
}

/** What a save did to one title. */
export interface TitleReport {
  title: string;
  fileCount: number;
  /** Compressed bytes of the title's layers. */
  sizeBytes: number;
  layerCount: number;
  status: 'empty' | 'changed' | 'unchanged';
}

export interface SaveResult {
  saved: boolean;
  digest: Digest | undefined;
  tags: string[];
  sequence: number;
  titles: TitleReport[];
  skipped: readonly Skipped[];
  /** Files that were being written all the while they were read. */
  unsteady: readonly ByteString[];
  /** Bytes of layers that were written. */
  addedBytes: number;
}

/** Saves a workspace if anything changed since its head, and moves the head. Other saves of the workspace wait. */
export async function saveWorkspace(workspace: Workspace, options: SaveOptions = {}): Promise<SaveResult> {
  await workspace.layout.ensure();
  using _lock = await workspace.layout.lockForSaving(options.onWait);
  await rereadConfig(workspace);
  const checkpoint = await loadHead(workspace);
  const tree = await readWorkTree(workspace);
  const mustFlatten = options.flat === true && checkpoint !== undefined && heightOf(checkpoint) > 1;
  if (checkpoint !== undefined && !mustFlatten && isKnownUnchanged(tree, checkpoint))
    return unchanged(checkpoint, tree);
  const head = checkpoint && { checkpoint, tree: await openTree(workspace.source, checkpoint) };
  const changes = diffWorkspace(workspace.source, head?.tree, tree);
  if (head !== undefined && !mustFlatten && !changes.some(isWorthSaving)) return unchanged(head.checkpoint, tree);
  const sequence = await workspace.layout.nextSequence();
  const made = await makeCheckpoint(workspace, { head, tree, changes, sequence, options });
  faultPoint('save.manifest-stored');
  const tags = [...new Set([options.tag ?? `cp-${sequence}`, 'latest'])];
  await workspace.layout.setTags(tags, made.manifest);
  faultPoint('save.tagged');
  await recordHead(workspace.layout, workspace.dir, made.manifest.digest);
  faultPoint('save.head-recorded');
  await updateConfig(workspace.dir, { head: made.manifest.digest });
  faultPoint('save.head-moved');
  keepRootTime(workspace.dir, tree);
  workspace.config.head = made.manifest.digest;
  return {
    saved: true,
    digest: made.manifest.digest,
    tags,
    sequence,
    titles: made.titles,
    skipped: [...tree.skipped, ...made.skipped],
    unsteady: made.unsteady,
    addedBytes: made.addedBytes,
  };
}

export interface CheckpointToMake {
  head: OpenCheckpoint | undefined;
  tree: WorkTree;
  changes: readonly Change<CheckpointNode, WorkNode>[];
  sequence: number;
  options: SaveOptions;
}

export interface MadeCheckpoint {
  manifest: { digest: Digest; size: number };
  titles: TitleReport[];
  /** What was there when the workspace was looked at and was gone when it was packed. */
  skipped: Skipped[];
  unsteady: ByteString[];
  addedBytes: number;
}

/** Packs the changes and stores the manifest. No tag and no head moves: until then nobody sees it. */
export async function makeCheckpoint(workspace: Workspace, make: CheckpointToMake): Promise<MadeCheckpoint> {
  const startMs = Date.now();
  const base = make.head !== undefined && mustRepack(make.head.checkpoint, make.options) ? undefined : make.head;
  const changes = base === make.head ? make.changes : diffWorkspace(workspace.source, undefined, make.tree);
  const stack = base === undefined ? [] : titledLayers(base);
  const titles = new Titles(workspace.source.entries, stack, workspace.setup.rules);
  const finder = new PathFinder(make.tree);
  const plans = planLayers(changes, {
    titles,
    titleOfDepth: (depth) => stack[depth]?.title ?? '',
    dirAt: base === undefined ? undefined : (path) => finder.find(path),
  });
  if (base !== make.head) markStored(plans, make);
  const packed = await packAll(workspace, make, withEmptyTitles(plans, titles, base));
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
    titles: reportTitles(layers, written),
    skipped: packed.flatMap(({ gone }) => gone).map((path) => ({ path, reason: 'it disappeared meanwhile' })),
    unsteady: packed.flatMap((layer) => layer.unsteady),
    addedBytes: sum(written.map((layer) => layer.descriptor.size)),
  };
}

async function packAll(
  workspace: Workspace,
  { tree, options }: CheckpointToMake,
  plans: readonly LayerPlan<WorkNode>[],
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
    packed.push(await packLayer(workspace.source, workspace.layout, plan, { tree, reader, pool, onEvent }));
  }
  return packed;
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
function mustRepack({ layers }: Checkpoint, { flat }: SaveOptions): boolean {
  const stacks = new Map<string, CheckpointLayer[]>();
  let previous: string | undefined;
  for (const layer of layers) {
    if (stacks.has(layer.title) && layer.title !== previous) return true;
    stacks.set(layer.title, [...(stacks.get(layer.title) ?? []), layer]);
    previous = layer.title;
  }
  const heightMax = flat === true ? 2 : STACK_HEIGHT_MAX;
  return [...stacks.values()].some((stack) => stack.length >= heightMax || isHeavy(stack));
}

function isHeavy([base, ...deltas]: readonly CheckpointLayer[]): boolean {
  const deltaBytes = sum(deltas.map(({ descriptor }) => descriptor.size));
  return deltaBytes > Math.max(base?.descriptor.size ?? 0, DELTA_BYTES_MIN);
}

/** Of the highest stack. */
function heightOf({ layers }: Checkpoint): number {
  return Math.max(...layers.map(({ title }) => layers.filter((other) => other.title === title).length), 0);
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

/** How many files the layers of one title show together. */
export function stackFileCount(stack: readonly CheckpointLayer[]): number {
  const top = stack.at(-1);
  const counted = top?.descriptor.annotations?.[STACK_FILE_COUNT];
  return counted === undefined ? (top?.fileCount ?? 0) : countOf(counted);
}

export function reportTitles(layers: readonly CheckpointLayer[], written: readonly CheckpointLayer[]): TitleReport[] {
  return [...new Set(layers.map((layer) => layer.title))].map((title) => {
    const stack = layers.filter((layer) => layer.title === title);
    const fileCount = stackFileCount(stack);
    const isChanged = written.some((layer) => layer.title === title);
    const status = fileCount === 0 && stack.length === 1 ? 'empty' : isChanged ? 'changed' : 'unchanged';
    return {
      title,
      fileCount,
      sizeBytes: sum(stack.map((layer) => layer.descriptor.size)),
      layerCount: stack.length,
      status,
    };
  });
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

function unchanged({ digest, sequence, layers }: Checkpoint, tree: WorkTree): SaveResult {
  return {
    saved: false,
    digest,
    tags: [],
    sequence,
    titles: reportTitles(layers, []),
    skipped: tree.skipped,
    unsteady: [],
    addedBytes: 0,
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
