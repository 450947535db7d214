import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';

import { pruneIndex } from '../../index/prune.ts';
import { lockBlobs } from '../../store/blob-lock.ts';
import type { Digest } from '../../store/digest.ts';
import { syncDir } from '../../store/durable.ts';
import { faultPoint } from '../../store/fault-point.ts';
import type { Layout } from '../../store/layout.ts';
import type { Lock } from '../../store/lock.ts';
import type { Store } from '../../store/store.ts';
import type { TreeSource } from '../tree/index-checkpoint.ts';
import { recordHead, removeHeadRecord, writeHeadRecord } from '../workspace/heads.ts';
import { planGc, type DeletedCheckpoint, type GcPlan, type PlannedBlob } from './gc-plan.ts';
import type { RetentionPolicy } from './retention.ts';

/** Something worth telling while blobs are deleted. */
export interface GcEvent {
  kind: 'deleting';
  blobsDone: number;
  blobCount: number;
}

export interface GcOptions {
  /** The workspace whose checkpoints the policy judges; blobs are collected for the whole store. */
  workspaceId: string;
  /** The directory that asks, which may be older than the notes about directories: it is noted now. */
  here?: { dir: string; head: Digest };
  policy: RetentionPolicy;
  /** Finds out what would go, and touches nothing. */
  dryRun: boolean;
  /** Gives up checkpoints whose manifest is missing or damaged, instead of refusing to run. */
  dropDamaged: boolean;
  /** Gives thin blobs that stay files of their own, for programs that know nothing of recipes. */
  makeWhole?: boolean;
  now?: Date;
  onEvent?: (event: GcEvent) => void;
  /** Told once when saves or opens have to be waited for. */
  onWait?: () => void;
}

export interface GcResult {
  dryRun: boolean;
  /** Checkpoints that lost their tags, newest first. */
  deleted: DeletedCheckpoint[];
  blobs: PlannedBlob[];
  /** Sum of the sizes of `blobs`. */
  freedBytes: number;
  /** Temporary files of killed commands, resume points of layers that are gone, empty folders of forks. */
  leftovers: { path: string; sizeBytes: number }[];
  leftoverBytes: number;
  /** Thin blobs that got files of their own. */
  madeWhole: { digest: Digest; sizeBytes: number }[];
  /** Directories that have been gone for so long that their heads and undo slots were given up. */
  forgottenDirs: string[];
  /** Folders of forks that no record mentions but that hold somebody's work: left alone. */
  orphanForks: string[];
}

const NOTHING: Omit<GcResult, 'dryRun'> = {
  deleted: [],
  blobs: [],
  freedBytes: 0,
  leftovers: [],
  leftoverBytes: 0,
  madeWhole: [],
  forgottenDirs: [],
  orphanForks: [],
};

/**
 * Deletes the checkpoints that the policy does not keep, and then every blob of the store that nothing refers to: no tag of
 * any workspace, no head of any directory, no undo slot, no mount or fork. Waits until nobody saves or opens.
 *
 * References go before what they refer to, so that after a crash there are blobs too many and never one too few; the next
 * run finds them.
 *
 * @throws BentoError FORMAT_INVALID, BLOB_MISSING or DIGEST_MISMATCH, with nothing deleted, when an index, a record or a
 *   manifest cannot be read and so nobody knows what it needs
 */
export async function collectGarbage(source: TreeSource, options: GcOptions): Promise<GcResult> {
  const { store } = source;
  if (!existsSync(store.root)) return { dryRun: options.dryRun, ...NOTHING };
  using _blobs = await lockBlobs(store.root, options.onWait);
  using _saves = await lockAllSaves(store, options.onWait);
  const heads = options.here === undefined ? [] : [options.here.head];
  const plan = await planGc(store, { ...options, heads, now: options.now ?? new Date() });
  if (!options.dryRun) {
    if (options.here !== undefined) await noteDirectory(store.layout(options.workspaceId), options.here, plan);
    await carryOut(source, plan, options.onEvent ?? (() => undefined));
  }
  const madeWhole = options.makeWhole === true ? await makeWhole(store, plan, options.dryRun) : [];
  return {
    dryRun: options.dryRun,
    deleted: plan.deleted,
    blobs: plan.blobs,
    freedBytes: sumSizes(plan.blobs),
    leftovers: plan.leftovers,
    leftoverBytes: sumSizes(plan.leftovers),
    madeWhole,
    forgottenDirs: plan.directories.filter(({ isForgotten }) => isForgotten).map(({ dir }) => dir),
    orphanForks: plan.orphanForks,
  };
}

/** Other programs' saves know only this lock; ours are kept out already. */
async function lockAllSaves(store: Store, onWait: (() => void) | undefined): Promise<Lock> {
  const locks: Lock[] = [];
  const release = (): void => locks.forEach((lock) => lock.release());
  try {
    for (const layout of (await store.workspaceIds()).map((id) => store.layout(id))) {
      if (existsSync(join(layout.dir, 'oci-layout'))) locks.push(await layout.lockSaves(onWait));
    }
  } catch (error) {
    release();
    throw error;
  }
  return { release, [Symbol.dispose]: release };
}

async function carryOut(source: TreeSource, plan: GcPlan, onEvent: (event: GcEvent) => void): Promise<void> {
  const { store, index } = source;
  for (const { layout } of plan.layouts) {
    if ((await layout.removeEntries((entry) => plan.isRemoved(layout.id, entry))) > 0) faultPoint('gc.untagged');
  }
  await rememberDirectories(plan);
  await deleteBlobs(store, plan.blobs, onEvent);
  pruneIndex(index, (digest) => plan.alive.has(digest));
  for (const { path } of plan.leftovers) {
    await rm(path, { recursive: true, force: true });
    faultPoint('gc.leftover-deleted');
  }
}

/** Last, when all that can go is gone: whole blobs take the room that recipes saved. */
async function makeWhole(store: Store, { alive }: GcPlan, dryRun: boolean): Promise<GcResult['madeWhole']> {
  const madeWhole: GcResult['madeWhole'] = [];
  for (const digest of await store.blobs.listThin()) {
    if (!alive.has(digest) || !(await store.blobs.isThin(digest))) continue;
    madeWhole.push({ digest, sizeBytes: (await store.blobs.sizeOf(digest)) ?? 0 });
    if (!dryRun) await store.blobs.makeWhole(digest);
  }
  return madeWhole;
}

async function noteDirectory(layout: Layout, here: { dir: string; head: Digest }, plan: GcPlan): Promise<void> {
  const isNoted = plan.directories.some(({ dir, head }) => dir === here.dir && head === here.head);
  if (!isNoted) await recordHead(layout, here.dir, here.head);
}

/** Gives up those that have been gone for long, notes since when others are, and that some are back. */
async function rememberDirectories({ directories, now }: GcPlan): Promise<void> {
  for (const { layout, dir, head, missingSince, isMissing, isForgotten } of directories) {
    if (isForgotten) {
      await removeHeadRecord(layout, dir);
      faultPoint('gc.forgotten');
    } else if (isMissing && missingSince === undefined) {
      await writeHeadRecord(layout, { dir, ...(head && { head }), missingSince: now.toISOString() });
    } else if (!isMissing && missingSince !== undefined) {
      await writeHeadRecord(layout, { dir, ...(head && { head }) });
    }
  }
}

/** Manifests first: of a checkpoint that is half gone nobody can ask for the rest. */
async function deleteBlobs(
  store: Store,
  blobs: readonly PlannedBlob[],
  onEvent: (event: GcEvent) => void,
): Promise<void> {
  const ordered = [...blobs].sort((a, b) => Number(b.kind === 'manifest') - Number(a.kind === 'manifest'));
  for (const [blobsDone, { digest }] of ordered.entries()) {
    onEvent({ kind: 'deleting', blobsDone, blobCount: blobs.length });
    await store.blobs.remove(digest);
    faultPoint('gc.blob-deleted');
  }
  for (const dir of [store.blobs.dir, store.blobs.thinDir]) if (blobs.length > 0 && existsSync(dir)) await syncDir(dir);
}

function sumSizes(items: readonly { sizeBytes: number }[]): number {
  return items.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}
