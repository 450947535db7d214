import { lstatSync, realpathSync, statSync, type Stats } from 'node:fs';
import { mkdir, readdir, rm, rmdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';

import { BentoError, describeSystemError, errnoOf } from '../../store/errors.ts';
import type { MountStatus, MountTable } from './mount-table.ts';
import { mountedAt, mountedFileSystems } from './mountinfo.ts';
import { isVacant } from './note-file.ts';

/**
 * @returns the real absolute path of an empty directory on which nothing is mounted; a note of ours counts as nothing
 * @throws BentoError MOUNT_POINT_MISSING, MOUNT_POINT_BUSY, TARGET_INVALID, TARGET_NOT_EMPTY
 */
export function checkMountPoint(written: string): string {
  const path = resolve(written);
  refuseMountPoint(path, written); // before it is looked at: whoever serves what is mounted there may not answer
  const stat = look(statSync, path);
  if (stat === undefined)
    throw new BentoError('MOUNT_POINT_MISSING', `mount point ${path} does not exist`, { hint: `mkdir -p ${path}` });
  if (!stat.isDirectory())
    throw new BentoError('TARGET_INVALID', `mount point ${path} is not a directory`, {
      hint: 'choose an empty directory',
    });
  const target = realpathSync(path);
  refuseMountPoint(target, written);
  refuseIfNotEmpty(target);
  return target;
}

function refuseMountPoint(target: string, written: string): void {
  if (mountedAt(target) === undefined) return;
  throw new BentoError('MOUNT_POINT_BUSY', `${target} is a mount point already`, { hint: `bento unmount ${written}` });
}

/** What is at a path; a file on the way to it cannot be mended with mkdir. */
function look(
  stat: (path: string, options: { throwIfNoEntry: false }) => Stats | undefined,
  path: string,
): Stats | undefined {
  try {
    return stat(path, { throwIfNoEntry: false });
  } catch (error) {
    if (['ENOTCONN', 'ECONNABORTED'].includes(errnoOf(error) ?? '')) throw insideDeadMount(path, error);
    if (errnoOf(error) !== 'ENOTDIR') throw describeSystemError(error, `looking at ${path}`);
    throw new BentoError('TARGET_INVALID', `${dirname(path)} is not a directory, so nothing can be below it`, {
      hint: 'choose an empty directory',
    });
  }
}

function insideDeadMount(path: string, cause: unknown): BentoError {
  return new BentoError('NOT_MOUNTED', `${path} is inside a mount whose daemon is gone`, {
    hint: '`bento mounts` names it, `bento mounts --restore` brings it back',
    cause,
  });
}

function refuseIfNotEmpty(target: string): void {
  if (isFree(target)) return;
  throw new BentoError('TARGET_NOT_EMPTY', `${target} is not empty`, {
    hint: 'choose an empty directory, or a new name',
  });
}

function isFree(target: string): boolean {
  try {
    return isVacant(target);
  } catch (error) {
    throw describeSystemError(error, `looking at ${target}`);
  }
}

export interface ForkTarget {
  /** Real absolute path. */
  target: string;
  /** It was not there before. */
  made: boolean;
}

/** Makes the directory of a fork if it is not there; its parent must be. */
async function makeForkTarget(written: string): Promise<ForkTarget> {
  const path = resolve(written);
  if (look(lstatSync, path) !== undefined) return { target: checkMountPoint(written), made: false };
  try {
    await mkdir(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw describeSystemError(error, `making ${path}`);
    throw new BentoError(
      'MOUNT_POINT_MISSING',
      `${dirname(path)} does not exist, so ${basename(path)} cannot be made in it`,
      {
        hint: `mkdir -p ${dirname(path)}`,
      },
    );
  }
  return { target: realpathSync(path), made: true };
}

/** Makes the directories of forks that are not there, or none. @throws what `makeForkTarget` throws for the first that cannot be */
export async function makeForkTargets(written: readonly string[]): Promise<ForkTarget[]> {
  const made: ForkTarget[] = [];
  try {
    for (const one of written) {
      const next = await makeForkTarget(one);
      if (made.some(({ target }) => target === next.target)) throw new BentoError('USAGE', `${one} is named twice`);
      made.push(next);
    }
    return made;
  } catch (error) {
    await removeMade(made);
    throw error;
  }
}

/** What somebody put something into meanwhile stays. */
export async function removeMade(targets: readonly ForkTarget[]): Promise<void> {
  for (const { target, made } of targets.toReversed()) if (made) await rmdir(target).catch(() => undefined);
}

/** A directory has one mount or fork of ours at most, mounted or not. To be called under the table's lock. */
export async function refuseIfTaken(table: MountTable, target: string): Promise<void> {
  await refuseIfAnyTaken(table, [target]);
}

/** {@link refuseIfTaken} for many. */
export async function refuseIfAnyTaken(table: MountTable, targets: readonly string[]): Promise<void> {
  const wanted = new Set(targets);
  const taken = (await table.list()).filter(({ target }) => wanted.has(target));
  for (const record of taken) await refuseUnlessGone(table, record);
}

async function refuseUnlessGone(table: MountTable, taken: MountStatus): Promise<void> {
  const { target } = taken;
  const { kind, ref, mounted, elsewhere } = taken;
  const isGone = kind === 'mount' && !mounted && !elsewhere; // with a reboot, or its directory
  if (isGone) {
    await table.remove(taken);
    return;
  }
  throw new BentoError('MOUNT_POINT_BUSY', `${target} belongs to a ${kind} of ${ref}${elsewhere ? ' elsewhere' : ''}`, {
    hint: busyHint(taken),
  });
}

function busyHint({ kind, target, mounted, elsewhere }: MountStatus): string {
  if (elsewhere) return 'it may be mounted in another mount namespace; end it there';
  if (mounted) return `bento ${kind === 'fork' ? 'close' : 'unmount'} ${target}`;
  return 'bento mounts --restore, or bento close';
}

/** @throws BentoError NOT_MOUNTED for what is mounted where this process cannot see it */
export function refuseIfElsewhere({ elsewhere, kind, target }: MountStatus): void {
  if (!elsewhere) return;
  throw new BentoError('NOT_MOUNTED', `the ${kind} on ${target} may be mounted in another mount namespace`, {
    hint: 'run the command there (nsenter), or end the processes that are in it',
  });
}

/** Deleting a directory goes through the mounts inside it, into what somebody else keeps there. */
export function refuseIfMountedInside(dir: string): void {
  const inside = mountedFileSystems().find(({ target }) => target.startsWith(`${dir}/`));
  if (inside === undefined) return;
  throw new BentoError('MOUNT_POINT_BUSY', `${inside.target} is mounted inside ${dir}`, { hint: 'unmount it first' });
}

/** Removes what is in a directory that was empty before. */
export async function emptyDirectory(dir: string): Promise<void> {
  const names = await readdir(dir).catch(() => []);
  for (const name of names) await rm(join(dir, name), { recursive: true, force: true });
}
