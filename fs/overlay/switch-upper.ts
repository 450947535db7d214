import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';

import { parentPath, toFsPath, type ByteString } from '../../store/byte-string.ts';
import { isDigest, type Digest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import {
  changeMode,
  changeOwner,
  rename,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  setTimes,
  setXattr,
  statOf,
  xattrOf,
} from '../../store/file-calls.ts';
import { ErrnoError, need, succeed } from './errno-error.ts';
import type { LowerTree } from './lower-tree.ts';
import { isMark, TRUSTED_MARKS, USER_MARKS, type MarkNames } from './marks.ts';

/**
 * Putting another checkpoint below a workspace: it gets a new upper directory, into which goes what no checkpoint holds, and
 * the two change places in one step. What was there before is in a backup by then, and is thrown away.
 *
 * Before that step the plan lies in a file; a crash leaves the old directory in its place, and the plan is dropped, or the new
 * one, and the plan is carried out to its end when the workspace is next served.
 */
export interface SwitchPlan {
  to: Digest;
  /** Paths of the upper directory that go along. */
  keep: readonly ByteString[];
  /** Every path at which something else will show, directories that stay directories too. */
  changed: readonly ByteString[];
}

const PLAN_NAME = 'switch.json';
const NEXT_NAME = 'upper.next';
const TRASH_PREFIX = 'trash-';
const LEFT_PREFIX = 'left-';

export function upperOf(forkDir: ByteString): ByteString {
  return `${forkDir}/upper`;
}

/** The checkpoint that a fork was switched to last; undefined for one that never was. */
export function baseOf(forkDir: ByteString): Digest | undefined {
  for (const { base } of [TRUSTED_MARKS, USER_MARKS]) {
    const value = xattrOf(upperOf(forkDir), base);
    const text = typeof value === 'number' ? '' : value.toString('latin1');
    if (isDigest(text)) return text;
  }
  return undefined;
}

/** Durable, so that whoever finds the new directory knows what belongs in it. */
export function writePlan(forkDir: ByteString, plan: SwitchPlan): void {
  const temporary = `${forkDir}/${PLAN_NAME}.new`;
  writeFileSync(toFsPath(temporary), JSON.stringify(plan), { mode: 0o600 });
  syncPath(temporary);
  renameSync(toFsPath(temporary), toFsPath(`${forkDir}/${PLAN_NAME}`));
  syncPath(forkDir);
}

function syncPath(path: ByteString): void {
  const fd = openSync(toFsPath(path), 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** @throws BentoError FORMAT_INVALID */
export function readPlan(forkDir: ByteString): SwitchPlan | undefined {
  const path = toFsPath(`${forkDir}/${PLAN_NAME}`);
  if (!existsSync(path)) return undefined;
  const plan = JSON.parse(readFileSync(path, 'utf8')) as Partial<SwitchPlan>;
  const isPaths = (paths: unknown): paths is ByteString[] =>
    Array.isArray(paths) && paths.every((entry) => typeof entry === 'string');
  if (typeof plan.to === 'string' && isDigest(plan.to) && isPaths(plan.keep) && isPaths(plan.changed))
    return { to: plan.to, keep: plan.keep, changed: plan.changed };
  throw new BentoError('FORMAT_INVALID', `${forkDir}/${PLAN_NAME} is no plan to switch a fork`);
}

/** Makes the upper directory look as the root of its checkpoint does. */
export function dressRoot(upper: ByteString, lower: LowerTree): void {
  const { id, stat } = lower.root;
  changeOwner(upper, stat.uid, stat.gid);
  changeMode(upper, stat.mode & 0o7777);
  for (const [name, value] of lower.xattrs(id) ?? []) if (!isMark(name)) setXattr(upper, name, value);
  setTimes(upper, [stat.atimeSec, stat.atimeNsec], [stat.mtimeSec, stat.mtimeNsec]);
}

/** The step that counts: from here on the new directory is the upper one. @throws ErrnoError */
export function exchangeUpper(forkDir: ByteString, { to }: SwitchPlan, lower: LowerTree, marks: MarkNames): void {
  const next = `${forkDir}/${NEXT_NAME}`;
  rmSync(toFsPath(next), { recursive: true, force: true });
  mkdirSync(toFsPath(next), { mode: 0o700 });
  dressRoot(next, lower);
  succeed(setXattr(next, marks.base, Buffer.from(to)));
  syncPath(next);
  succeed(rename(next, upperOf(forkDir), RENAME_EXCHANGE));
  syncPath(forkDir);
}

/** Where the old directory lies between the exchange and the end. */
export function previousUpper(forkDir: ByteString): ByteString {
  return `${forkDir}/${NEXT_NAME}`;
}

/**
 * Moves what goes along, as far as it has not been moved.
 *
 * @param makeDir - makes a directory of the workspace be in the upper one
 * @returns what could not be moved, because something else is in the way
 */
export function moveKept(forkDir: ByteString, { keep }: SwitchPlan, makeDir: (path: ByteString) => void): ByteString[] {
  const left: ByteString[] = [];
  const root = need(statOf(upperOf(forkDir)));
  for (const path of keep) {
    const from = `${previousUpper(forkDir)}/${path}`;
    if (typeof statOf(from) === 'number') continue;
    try {
      makeDir(parentPath(path));
      succeed(rename(from, `${upperOf(forkDir)}/${path}`, RENAME_NOREPLACE));
    } catch (error) {
      if (!(error instanceof ErrnoError)) throw error;
      left.push(path);
    }
  }
  setTimes(upperOf(forkDir), [root.atimeSec, root.atimeNsec], [root.mtimeSec, root.mtimeNsec]);
  return left;
}

/**
 * The plan is carried out.
 *
 * @param left - what could not be moved: then the old directory is not thrown away
 * @returns what is left of it and can be deleted at leisure
 */
export function endPlan(forkDir: ByteString, left: readonly ByteString[]): ByteString | undefined {
  const previous = `${forkDir}/${left.length > 0 ? LEFT_PREFIX : TRASH_PREFIX}${Date.now()}`;
  succeed(rename(previousUpper(forkDir), previous));
  rmSync(toFsPath(`${forkDir}/${PLAN_NAME}`), { force: true });
  return left.length > 0 ? undefined : previous;
}

/** Nothing had come of it yet. */
export function dropPlan(forkDir: ByteString): void {
  rmSync(toFsPath(previousUpper(forkDir)), { recursive: true, force: true });
  rmSync(toFsPath(`${forkDir}/${PLAN_NAME}`), { force: true });
}

export function trashIn(forkDir: ByteString): ByteString[] {
  const names = readdirSync(toFsPath(forkDir), { encoding: 'latin1' });
  return names.filter((name) => name.startsWith(TRASH_PREFIX)).map((name) => `${forkDir}/${name}`);
}
