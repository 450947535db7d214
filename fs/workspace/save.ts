import type { CheckpointMeta } from '../../store/checkpoint-meta.ts';
import type { CheckpointLayer } from '../../store/checkpoint.ts';
import { countOf, storeCheckpoint } from '../../store/checkpoint.ts';
import type { Digest } from '../../store/digest.ts';
import type { CheckpointNode } from '../tree/checkpoint-tree.ts';
import type { Change } from '../tree/diff-trees.ts';
import { PathFinder } from '../tree/tree.ts';
import { updateConfig } from './config-file.ts';
import { readGitState } from './git-state.ts';
import { keepRootTime } from './new-workspace.ts';
import type { Skipped } from '../tree/disk-node.ts';
import { packLayer, type PackedLayer, type SaveEvent } from './pack-layers.ts';
import { isWorthSaving, planLayers, type LayerPlan } from './plan-layers.ts';
import { rememberPacked } from './remember-packed.ts';
import { Titles } from './titles.ts';
import { diffWorkspace, openContent, type WorkNode, type WorkTree } from './work-tree.ts';
import {
  openHead,
  readWorkTree,
  rereadConfig,
  titledLayers,
  type OpenCheckpoint,
  type Workspace,
} from './workspace.ts';

/** A stack of this many layers under one title is written anew as one: container engines stack 127 layers at most. */
const STACK_HEIGHT_MAX = 40;

/** Number of files in a title's whole stack, on each of its deltas; a base says it with its own file count. */
const STACK_FILE_COUNT = 'dev.bento.layer.stack-file-count';

export interface SaveOptions {
  message?: string;
  /** Replaces `cp-N` as the checkpoint's tag. */
  tag?: string;
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
  /** Bytes of layers that were written. */
  addedBytes: number;
}

/** Saves a workspace if anything changed since its head, and moves the head. Other saves of the workspace wait. */
export async function saveWorkspace(workspace: Workspace, options: SaveOptions = {}): Promise<SaveResult> {
  await workspace.layout.ensure();
  using _lock = await workspace.layout.lockForSaving(options.onWait);
  await rereadConfig(workspace);
  const head = await openHead(workspace);
  const tree = await readWorkTree(workspace);
  const changes = diffWorkspace(workspace.source, head?.tree, tree);
  if (head !== undefined && !changes.some(isWorthSaving)) return unchanged(head, tree);
  const sequence = await workspace.layout.nextSequence();
  const made = await makeCheckpoint(workspace, { head, tree, changes, sequence, options });
  const tags = [...new Set([options.tag ?? `cp-${sequence}`, 'latest'])];
  await workspace.layout.setTags(tags, made.manifest);
  await updateConfig(workspace.dir, { head: made.manifest.digest });
  keepRootTime(workspace.dir, tree);
  workspace.config.head = made.manifest.digest;
  return {
    saved: true,
    digest: made.manifest.digest,
    tags,
    sequence,
    titles: made.titles,
    skipped: [...tree.skipped, ...made.skipped],
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
  addedBytes: number;
}

/** Packs the changes and stores the manifest. No tag and no head moves: until then nobody sees it. */
export async function makeCheckpoint(workspace: Workspace, make: CheckpointToMake): Promise<MadeCheckpoint> {
  const startMs = Date.now();
  const base = make.head !== undefined && isStackUnusable(make.head) ? undefined : make.head;
  const changes = base === make.head ? make.changes : diffWorkspace(workspace.source, undefined, make.tree);
  const stack = base === undefined ? [] : titledLayers(base);
  const titles = new Titles(workspace.source.entries, stack, workspace.setup.rules);
  const finder = new PathFinder(make.tree);
  const plans = planLayers(changes, {
    titles,
    titleOfDepth: (depth) => stack[depth]?.title ?? '',
    dirAt: base === undefined ? undefined : (path) => finder.find(path),
  });
  const packed: PackedLayer[] = [];
  for (const plan of withEmptyTitles(plans, titles, base)) {
    packed.push(
      await packLayer(workspace.source, workspace.layout, plan, {
        openContent: (node) => openContent(make.tree, node, workspace.reader),
        onEvent: make.options.onEvent ?? (() => undefined),
      }),
    );
  }
  rememberPacked(workspace.source, make.tree, plans, packed, startMs);
  const layers = stackLayers(base, packed, plans, titles);
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
    addedBytes: sum(written.map((layer) => layer.descriptor.size)),
  };
}

/** Too high to be read quickly; or, in a checkpoint of somebody else's making, with another title's layer in between. */
function isStackUnusable({ checkpoint }: OpenCheckpoint): boolean {
  const heights = new Map<string, number>();
  let previous: string | undefined;
  for (const { title } of checkpoint.layers) {
    if (heights.has(title) && title !== previous) return true;
    heights.set(title, (heights.get(title) ?? 0) + 1);
    previous = title;
  }
  return [...heights.values()].some((height) => height >= STACK_HEIGHT_MAX);
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

function unchanged(head: OpenCheckpoint, tree: WorkTree): SaveResult {
  const { digest, sequence, layers } = head.checkpoint;
  return {
    saved: false,
    digest,
    tags: [],
    sequence,
    titles: reportTitles(layers, []),
    skipped: tree.skipped,
    addedBytes: 0,
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
