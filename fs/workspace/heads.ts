import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { shareBlobs } from '../../store/blob-lock.ts';
import { parseDigest, type Digest } from '../../store/digest.ts';
import { syncDir, writeFileDurably, type DurableFile } from '../../store/durable.ts';
import { BentoError, describeSystemError, errnoOf } from '../../store/errors.ts';
import { faultPoint } from '../../store/fault-point.ts';
import type { Layout } from '../../store/layout.ts';
import { parseObject } from '../../store/manifest.ts';

/**
 * Which directories belong to a workspace and where each one is: `<store>/<id>/heads/<key>.json`. The truth is `head` in the
 * directory's own `bento.yaml`; this says where to look for it, and stands in for it while the directory is away.
 */
export interface HeadRecord {
  /** Absolute, without symlinks. */
  dir: string;
  /** Absent when the directory is at no checkpoint. */
  head?: Digest;
  /** RFC 3339: when a garbage collection first found the directory gone. */
  missingSince?: string;
}

/** A directory's name among those of its workspace: the first 8 hex digits of its path's SHA-256, as in its undo tag. */
export function directoryKey(dir: string): string {
  return createHash('sha256').update(dir).digest('hex').slice(0, 8);
}

/**
 * Notes that a directory is about to be at a checkpoint. Durable before `bento.yaml` says so, or gc could miss it. The
 * caller shares the store's blobs (`shareBlobs`).
 */
export async function recordHead(layout: Layout, dir: string, head: Digest | undefined): Promise<void> {
  await writeHeadRecord(layout, { dir, ...(head && { head }) });
  faultPoint('head.recorded');
}

export async function writeHeadRecord(layout: Layout, record: HeadRecord): Promise<void> {
  try {
    await makeHeadsFolder(layout);
    const { path, data } = headFile(layout, record);
    await writeFileDurably(path, data);
  } catch (error) {
    throw describeSystemError(error, `writing ${headsDir(layout)}`);
  }
}

/** Where records of heads go. */
export async function makeHeadsFolder(layout: Layout): Promise<void> {
  if ((await mkdir(headsDir(layout), { recursive: true })) !== undefined) await syncDir(layout.dir);
}

/** The record as a file, for who writes many things at once. */
export function headFile(layout: Layout, record: HeadRecord): DurableFile {
  return { path: pathOf(layout, record.dir), data: `${JSON.stringify(record, undefined, 2)}\n`, mode: 0o644 };
}

/**
 * Notes that a directory was ended on purpose: nothing is kept for it. Where it has an undo slot, a record stays until gc has
 * taken that away.
 */
export async function giveUpHead(layout: Layout, dir: string): Promise<void> {
  if (!existsSync(pathOf(layout, dir))) return;
  using _blobs = await shareBlobs(layout.storeRoot); // gc takes an unfinished file for a leftover
  if (await hasUndoSlot(layout, dir)) await writeHeadRecord(layout, { dir, missingSince: new Date(0).toISOString() });
  else await removeHeadRecord(layout, dir);
}

/** Also when nobody can tell. */
async function hasUndoSlot(layout: Layout, dir: string): Promise<boolean> {
  try {
    return (await layout.tags()).has(undoTag(dir));
  } catch {
    return true;
  }
}

/** The tag of the one slot that all directories of a workspace share in checkpoints of the original. */
export const SHARED_UNDO_TAG = 'pre-open';

/** Every directory has an undo slot of its own, even when several share a workspace id. */
export function undoTag(dir: string): string {
  return `pre-open-${directoryKey(dir)}`;
}

/** Whether a tag is an undo slot: that of one directory, or the one that all share in stores of the original. */
export function isUndoTag(tag: string): boolean {
  return /^pre-open(?:-[0-9a-f]{8})?$/.test(tag);
}

export async function removeHeadRecord(layout: Layout, dir: string): Promise<void> {
  await rm(pathOf(layout, dir), { force: true });
  if (existsSync(headsDir(layout))) await syncDir(headsDir(layout));
}

/** @throws BentoError FORMAT_INVALID naming the file that is damaged */
export async function readHeadRecords(layout: Layout): Promise<HeadRecord[]> {
  const names = await readdir(headsDir(layout)).catch((error: unknown) => {
    if (['ENOENT', 'ENOTDIR'].includes(errnoOf(error) ?? '')) return [];
    throw error;
  });
  const paths = names.filter((name) => name.endsWith('.json')).map((name) => join(headsDir(layout), name));
  return await Promise.all(paths.sort().map(async (path) => parseRecord(await readFile(path), path)));
}

function parseRecord(bytes: Buffer, path: string): HeadRecord {
  const { dir, head, missingSince } = parseObject(bytes, path);
  if (typeof dir !== 'string') throw new BentoError('FORMAT_INVALID', `${path} names no directory`);
  return {
    dir,
    ...(head !== undefined && { head: parseDigest(head, `head in ${path}`) }),
    ...(typeof missingSince === 'string' && { missingSince }),
  };
}

function headsDir(layout: Layout): string {
  return join(layout.dir, 'heads');
}

function pathOf(layout: Layout, dir: string): string {
  return join(headsDir(layout), `${directoryKey(dir)}.json`);
}
