import { lstatSync, mkdirSync } from 'node:fs';

import { parentPath, toFsPath, type ByteString } from '../../../store/byte-string.ts';
import { faultPoint } from '../../../store/fault-point.ts';
import { utimensat } from '../../../store/syscalls.ts';
import type { CheckpointTree } from '../../tree/checkpoint-tree.ts';
import { ownerOf, stampOf } from '../../tree/disk-node.ts';
import type { TreeNode } from '../../tree/tree.ts';
import { carryOut, removeStaging, syncObjects, type CarriedOut } from './carry-out.ts';
import { writeContext } from './fresh.ts';
import { writeJournal, type DirAttributes, type Expected, type Journal, type Step } from './journal.ts';
import { NewObjects, type ContentSource } from './new-objects.ts';
import type { RestorePlan } from './plan.ts';
import { stagingOf } from './recover.ts';

/** After so many objects the threads that write are given what has come together. */
const SLICE_OBJECTS = 192;
/** For so many files it pays to look up where all files of their layers lie. */
const MANY_OBJECTS = 2000;

export interface InPlaceOptions {
  source: ContentSource;
  tree: CheckpointTree;
  /** Absolute path of the workspace. */
  target: ByteString;
  head: Journal['head'];
  moveHead: (head: Journal['head']) => Promise<void>;
}

/**
 * Brings a workspace to a planned state, so that a crash at any moment leaves the old state or the new one after the next
 * command: all new contents are complete, verified and durable in the staging folder first, then the journal of what is left
 * to do is, and only then the first name changes hands.
 */
export async function restoreInPlace(plan: RestorePlan, options: InPlaceOptions): Promise<CarriedOut> {
  const { tree, target, head } = options;
  const steps = stepsOf(plan);
  const journal: Journal = {
    steps,
    dirs: dirsOf(plan, steps, tree),
    owner: ownerOf(lstatSync(toFsPath(target), { bigint: true })),
    ...(head !== undefined && { head }),
  };
  const staging = stagingOf(target);
  const refused = steps.length === 0 ? [] : await prepare(plan, journal, staging, options);
  const done = await carryOut(target, staging, journal, options.moveHead);
  return { ...done, refused: [...refused, ...done.refused] };
}

/** Until this returns, nothing but the staging folder exists, and when it throws not even that. */
async function prepare(
  plan: RestorePlan,
  journal: Journal,
  staging: ByteString,
  options: InPlaceOptions,
): Promise<string[]> {
  const { target } = options;
  const before = stampOf(lstatSync(toFsPath(target), { bigint: true }));
  removeStaging(staging);
  try {
    mkdirSync(toFsPath(staging), 0o700);
    const refused = await stage(plan, staging, options);
    faultPoint('open.staged');
    writeJournal(staging, journal);
    syncObjects(target, [staging, target]);
    faultPoint('open.journal-written');
    return refused;
  } catch (error) {
    removeStaging(staging);
    utimensat(target, { mtime: { sec: before.mtimeSec, nsec: before.mtimeNsec } });
    throw error;
  }
}

async function stage(plan: RestorePlan, staging: ByteString, { source, target }: InPlaceOptions): Promise<string[]> {
  const refused: string[] = [];
  const onRefused = (path: ByteString, what: string): void => void refused.push(`${path}: ${what}`);
  const wantsAll = plan.write.length > MANY_OBJECTS;
  await using objects = new NewObjects({ source, context: writeContext(staging, target), onRefused, wantsAll });
  const files: ByteString[] = [];
  for (const [i, { path, node }] of plan.write.entries()) {
    if (node.type === 'dir') continue;
    if (node.type === 'file') files.push(`${staging}/${i}`);
    objects.add(`${staging}/${i}`, path, node);
    if (i % SLICE_OBJECTS === SLICE_OBJECTS - 1) await objects.room();
  }
  await objects.finish();
  syncObjects(staging, [...files, staging]);
  return refused;
}

function stepsOf(plan: RestorePlan): Step[] {
  const removals = plan.remove
    .toReversed()
    .map(({ path, node }): Step => ({ op: 'remove', path, expected: expectedOf(node) }));
  const writes = plan.write.flatMap(({ path, node, before }, from): Step[] => {
    const expected = before && expectedOf(before);
    if (node.type !== 'dir') return [{ op: 'put', path, from, expected }];
    return before?.type === 'dir' || path === '' ? [] : [{ op: 'dir', path, expected }];
  });
  return [...removals, ...writes];
}

function expectedOf({ type, sizeBytes, mtimeSec, mtimeNsec }: TreeNode): Expected {
  return { type, sizeBytes, mtimeSec, mtimeNsec };
}

/** Directories that change themselves, or in which something comes or goes. */
function dirsOf(plan: RestorePlan, steps: readonly Step[], tree: CheckpointTree): DirAttributes[] {
  const changed = plan.write.filter(({ node }) => node.type === 'dir').map(({ path }) => path);
  const paths = new Set(['', ...changed, ...steps.map(({ path }) => parentPath(path))]);
  return [...paths]
    .sort()
    .reverse()
    .flatMap((path) => {
      const node = tree.find(path);
      if (node?.type !== 'dir') return [];
      const { mode, uid, gid, mtimeSec, mtimeNsec, xattrs } = node;
      return [{ path, attributes: { mode, uid, gid, mtimeSec, mtimeNsec, ...(xattrs && { xattrs }) } }];
    });
}
