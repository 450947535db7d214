import { realpathSync } from 'node:fs';

import type { IndexedLayer } from '../../index/entries.ts';
import { fromText, type ByteString } from '../../store/byte-string.ts';
import type { Checkpoint } from '../../store/checkpoint.ts';
import { parseDigest, type Digest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import type { Layout } from '../../store/layout.ts';
import { MountTable, type MountStatus } from '../mounts/mount-table.ts';
import { OverlayTree } from '../overlay/overlay-tree.ts';
import type { CheckpointTree } from '../tree/checkpoint-tree.ts';
import { ContentReader } from '../tree/content-reader.ts';
import { openTree, type TreeSource } from '../tree/index-checkpoint.ts';
import type { Config } from './config-types.ts';
import { loadConfig } from './config.ts';
import { LiveTree } from './live-tree.ts';
import { compileIgnore, type LayerRule } from './patterns.ts';
import type { WorkTree } from './work-tree.ts';

/** What goes into which layer of a workspace, as its configuration and the extensions say. */
export interface LayerSetup {
  rules: LayerRule[];
  /** Everything that is left out. */
  ignore: string[];
  /** The part of it that the user wrote, which travels with the checkpoint. */
  ownIgnore: string[];
  extensions: string[];
}

/** A directory that bento tracks, with everything needed to look at it. */
export interface Workspace {
  /** Real absolute path. */
  dir: string;
  config: Config;
  id: string;
  layout: Layout;
  setup: LayerSetup;
  source: TreeSource;
  reader: ContentReader;
  table: MountTable;
  /** The record of the fork this directory is, if it is one and is mounted. */
  fork: MountStatus | undefined;
}

export interface OpenWorkspaceOptions {
  dir: string;
  config: Config;
  id: string;
  setup: LayerSetup;
}

export async function openWorkspace(source: TreeSource, options: OpenWorkspaceOptions): Promise<Workspace> {
  const dir = realpathSync(options.dir);
  const table = new MountTable(source.store);
  const record = await table.at(dir);
  const fork = record?.kind === 'fork' && record.engine === 'overlay' ? record : undefined;
  if (fork !== undefined && !fork.mounted) {
    throw new BentoError('NOT_MOUNTED', `${dir} is a fork that is not mounted`, { hint: 'bento mounts --restore' });
  }
  const layout = source.store.layout(options.id);
  return { ...options, dir, layout, source, reader: new ContentReader(source.store, source.entries), table, fork };
}

/** Another command may have moved the head while this one waited for the lock. */
export async function rereadConfig(workspace: Workspace): Promise<void> {
  workspace.config = (await loadConfig(workspace.dir)).config;
}

/** A checkpoint with its merged tree. */
export interface OpenCheckpoint {
  checkpoint: Checkpoint;
  tree: CheckpointTree;
}

export async function openCheckpoint(source: TreeSource, digest: Digest): Promise<OpenCheckpoint> {
  const checkpoint = await source.store.loadCheckpoint(digest);
  return { checkpoint, tree: await openTree(source, checkpoint) };
}

/** The checkpoint this directory is at: none before the first save, or when its manifest is not in the store any more. */
export async function openHead(workspace: Workspace): Promise<OpenCheckpoint | undefined> {
  const { config, source } = workspace;
  if (config.head === undefined) return undefined;
  const digest = parseDigest(config.head, 'head in bento.yaml');
  if (!(await source.store.blobs.has(digest))) return undefined;
  return await openCheckpoint(source, digest);
}

/** The workspace as it is now. A fork is read from its upper directory alone; anything else is scanned. */
export async function readWorkTree(workspace: Workspace): Promise<WorkTree> {
  const { dir, fork, setup, source, table } = workspace;
  const isIgnored = compileIgnore(setup.ignore);
  if (fork !== undefined) {
    const { tree } = await openCheckpoint(source, fork.manifest);
    return new OverlayTree(fromText(`${table.forkDir(fork)}/upper`), tree, isIgnored);
  }
  return LiveTree.scan(fromText(dir), { isIgnored, exclude: await placesToSkip(workspace) });
}

/** Directories inside the workspace that are not part of it: the store, and what bento mounted there. */
async function placesToSkip({ source, table }: Workspace): Promise<Set<ByteString>> {
  const records = await table.list();
  const targets = records.filter((record) => record.mounted).map((record) => record.target);
  return new Set([source.store.root, ...targets].map(fromText));
}

/** The layers of a checkpoint with their titles, lowest first. */
export function titledLayers({ checkpoint, tree }: OpenCheckpoint): { title: string; layer: IndexedLayer }[] {
  return checkpoint.layers.flatMap(({ title }, depth) => {
    const layer = tree.layers[depth];
    return layer === undefined ? [] : [{ title, layer }];
  });
}
