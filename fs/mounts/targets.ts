import { lstatSync, readdirSync, realpathSync, statSync, type Stats } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { basename, dirname, resolve } from 'node:path';

import { BentoError, describeSystemError, errnoOf } from '../../store/errors.ts';
import type { MountTable } from './mount-table.ts';
import { mountedAt } from './mountinfo.ts';

/** @returns the real absolute path of an empty directory on which nothing of ours is mounted */
export function checkMountPoint(written: string): string {
  const path = resolve(written);
  const stat = look(statSync, path);
  if (stat === undefined)
    throw new BentoError('MOUNT_POINT_MISSING', `mount point ${path} does not exist`, { hint: `mkdir -p ${path}` });
  if (!stat.isDirectory())
    throw new BentoError('TARGET_INVALID', `mount point ${path} is not a directory`, {
      hint: 'choose an empty directory',
    });
  const target = realpathSync(path);
  if (mountedAt(target) !== undefined) {
    throw new BentoError('MOUNT_POINT_BUSY', `${target} is a mount point already`, {
      hint: `bento unmount ${written}`,
    });
  }
  refuseIfNotEmpty(target);
  return target;
}

/** What is at a path; a file on the way to it cannot be mended with mkdir. */
function look(
  stat: (path: string, options: { throwIfNoEntry: false }) => Stats | undefined,
  path: string,
): Stats | undefined {
  try {
    return stat(path, { throwIfNoEntry: false });
  } catch (error) {
    if (errnoOf(error) !== 'ENOTDIR') throw describeSystemError(error, `looking at ${path}`);
    throw new BentoError('TARGET_INVALID', `${dirname(path)} is not a directory, so nothing can be below it`, {
      hint: 'choose an empty directory',
    });
  }
}

function refuseIfNotEmpty(target: string): void {
  if (readdirSync(target).length === 0) return;
  throw new BentoError('TARGET_NOT_EMPTY', `${target} is not empty`, {
    hint: 'choose an empty directory, or a new name',
  });
}

/** Makes the directory of a fork if it is not there; its parent must be. */
export async function makeForkTarget(written: string): Promise<{ target: string; made: boolean }> {
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

/** A directory has one mount or fork of ours at most, mounted or not. */
export async function refuseIfTaken(table: MountTable, target: string): Promise<void> {
  const taken = await table.at(target);
  if (taken === undefined) return;
  if (!taken.mounted && taken.kind === 'mount') {
    await table.remove(taken); // gone with a reboot
    return;
  }
  throw new BentoError('MOUNT_POINT_BUSY', `${target} belongs to a ${taken.kind} of ${taken.ref}`, {
    hint: taken.mounted
      ? `bento ${taken.kind === 'fork' ? 'close' : 'unmount'} ${target}`
      : 'bento mounts --restore, or bento close',
  });
}
