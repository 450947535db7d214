import { lstatSync, realpathSync } from 'node:fs';
import { join } from 'node:path';

import type { IndexedLayer } from '../../index/entries.ts';
import { fromText, type ByteString } from '../../store/byte-string.ts';
import type { Checkpoint } from '../../store/checkpoint.ts';
import { digestOf, parseDigest, type Digest } from '../../store/digest.ts';
import { BentoError, errnoOf } from '../../store/errors.ts';
import type { Layout } from '../../store/layout.ts';
import { MountTable, type CheckpointRecord, type MountStatus } from '../mounts/mount-table.ts';
import { isVacant } from '../mounts/note-file.ts';
import { OverlayTree } from '../overlay/overlay-tree.ts';
import type { CheckpointTree } from '../tree/checkpoint-tree.ts';
import { ContentReader } from '../contents/content-reader.ts';
import { openTree, type TreeSource } from '../tree/index-checkpoint.ts';
import type { Config } from './config-types.ts';
import { loadConfig } from './config.ts';
import { withLook } from './fork-look.ts';
import { LiveTree, type ScanPlace } from './live-tree.ts';
import { compileIgnore, STAGING_NAME, type LayerRule } from './patterns.ts';
import { scanFile } from './scan-place.ts';
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
  readonly reader: ContentReader;
  table: MountTable;
  /** The record of the fork this directory is, if it is one and is mounted. */
  fork: (MountStatus & CheckpointRecord) | undefined;
  note?: (line: string) => void;
}

export interface OpenWorkspaceOptions {
  dir: string;
  config: Config;
  id: string;
  setup: LayerSetup;
  /** Told in one line what an interrupted `open` left, and what became of it. */
  note?: (line: string) => void;
}

/** What an `open` that was killed began in the directory is finished or taken back first. */
export async function openWorkspace(source: TreeSource, options: OpenWorkspaceOptions): Promise<Workspace> {
  const dir = realpathSync(options.dir);
  const table = new MountTable(source.store);
  const fork = await findFork(table, dir);
  if (fork !== undefined && !fork.mounted) {
    throw new BentoError('NOT_MOUNTED', `${dir} is a fork that is not mounted`, { hint: 'bento mounts --restore' });
  }
  const layout = source.store.layout(options.id);
  const isUnsettled = hasStaging(dir) || fork?.switching !== undefined;
  const wasInterrupted = isUnsettled && (await settleUnlessRunning({ dir, layout, table }, options.note));
  const config = wasInterrupted ? (await loadConfig(dir)).config : options.config;
  let reader: ContentReader | undefined;
  return {
    ...options,
    config,
    dir,
    layout,
    source,
    get reader() {
      return (reader ??= new ContentReader(source.store, source.entries));
    },
    table,
    fork: wasInterrupted ? await findFork(table, dir) : fork,
  };
}

async function findFork(table: MountTable, dir: string): Promise<Workspace['fork']> {
  const record = await table.at(dir);
  return record?.kind === 'fork' && record.engine !== 'copy' ? record : undefined;
}

/**
 * To be called under the save lock: another command may have moved the head while this one waited for it, or may have been
 * killed in the middle of an `open`.
 */
export async function rereadConfig(workspace: Workspace): Promise<void> {
  await settle(workspace, workspace.note);
  if (workspace.fork !== undefined) workspace.fork = await findFork(workspace.table, workspace.dir);
  workspace.config = (await loadConfig(workspace.dir)).config;
}

function hasStaging(dir: string): boolean {
  try {
    return lstatSync(join(dir, STAGING_NAME), { throwIfNoEntry: false }) !== undefined;
  } catch (error) {
    if (errnoOf(error) === 'ENOTCONN') return false; // the mount of a daemon that is gone: the caller says so
    throw error;
  }
}

/** @returns whether the directory is now another than it was found; false also while another command is at work there */
async function settleUnlessRunning(place: UnsettledPlace, note: OpenWorkspaceOptions['note']): Promise<boolean> {
  using lock = await place.layout.tryLockSaves();
  return lock !== undefined && (await settle(place, note));
}

type UnsettledPlace = Pick<Workspace, 'dir' | 'layout' | 'table'>;

/** What does it is loaded only when there is something to settle. */
async function settle(place: UnsettledPlace, note: OpenWorkspaceOptions['note']): Promise<boolean> {
  const fork = await findFork(place.table, place.dir);
  const lines = [
    hasStaging(place.dir) ? await settleRestore(place) : undefined,
    fork?.switching === undefined ? undefined : await settleFork(place, fork),
  ].filter((line) => line !== undefined);
  for (const line of lines) note?.(line);
  return lines.length > 0;
}

async function settleRestore({ dir, layout }: UnsettledPlace): Promise<string | undefined> {
  const { settleInterrupted } = await import('./restore/recover.ts');
  return await settleInterrupted(dir, layout);
}

async function settleFork(place: UnsettledPlace, fork: NonNullable<Workspace['fork']>): Promise<string> {
  const { settleSwitch } = await import('./switch-fork.ts');
  return await settleSwitch(place, fork);
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
export async function loadHead({ config, source }: Workspace): Promise<Checkpoint | undefined> {
  if (config.head === undefined) return undefined;
  const digest = parseDigest(config.head, 'head in bento.yaml');
  return (await source.store.blobs.has(digest)) ? await source.store.loadCheckpoint(digest) : undefined;
}

/** `loadHead` with its tree. */
export async function openHead(workspace: Workspace): Promise<OpenCheckpoint | undefined> {
  const checkpoint = await loadHead(workspace);
  return checkpoint && { checkpoint, tree: await openTree(workspace.source, checkpoint) };
}

/**
 * Whether a workspace has nothing worth saving, known from `stat` alone: it was compared with the same layers before, and
 * every stamp is what it was then. When it is not known, the trees must be compared.
 */
export function isKnownUnchanged(tree: WorkTree, { layers }: Checkpoint): boolean {
  const isKnown = tree.isUnchangedSince?.(layers.map((layer) => layer.descriptor.digest)) === true;
  if (isKnown) (tree.remember ?? tree.rememberLook)?.();
  return isKnown;
}

/** The workspace as it is now. A fork is read from its upper directory alone; anything else is scanned. */
export async function readWorkTree(workspace: Workspace): Promise<WorkTree> {
  const { dir, fork, setup, source, table } = workspace;
  const isIgnored = compileIgnore(setup.ignore);
  if (fork !== undefined) {
    const { tree } = await openCheckpoint(source, fork.manifest);
    const upper = `${table.forkDir(fork)}/upper`;
    return withLook(new OverlayTree(fromText(upper), tree, { isIgnored, mounted: fromText(dir) }), {
      isIgnored,
      place: scanPlace(workspace, upper, new Set()),
      manifest: fork.manifest,
    });
  }
  const exclude = await placesToSkip(workspace);
  return LiveTree.scan(fromText(dir), { isIgnored, exclude }, scanPlace(workspace, dir, exclude));
}

/** Where the scan of a directory is kept, and what it depends on besides the directory itself. */
function scanPlace({ setup, source }: Workspace, dir: string, exclude: ReadonlySet<ByteString>): ScanPlace {
  const rules = digestOf(JSON.stringify([setup.ignore, [...exclude].sort()]));
  return { file: scanFile(source.store.cacheDir, dir), rules };
}

/**
 * Directories inside the workspace that are not part of it: the store, and what bento mounted there; also after a reboot, as
 * long as nobody put anything into the empty directory.
 */
async function placesToSkip({ source, table }: Workspace): Promise<Set<ByteString>> {
  const records = await table.list();
  const targets = records.filter((record) => record.mounted || isEmptyTarget(record)).map((record) => record.target);
  return new Set([source.store.root, ...targets].map(fromText));
}

function isEmptyTarget({ target }: MountStatus): boolean {
  try {
    return isVacant(target);
  } catch {
    return false; // gone, or not ours to look at: the scan will say
  }
}

/** The layers of a checkpoint with their titles, lowest first. */
export function titledLayers({ checkpoint, tree }: OpenCheckpoint): { title: string; layer: IndexedLayer }[] {
  return checkpoint.layers.flatMap(({ title }, depth) => {
    const layer = tree.layers[depth];
    return layer === undefined ? [] : [{ title, layer }];
  });
}
