import { chmodSync, chownSync, existsSync, lstatSync } from 'node:fs';
import { join } from 'node:path';

import { fromText, toFsPath } from '../../store/byte-string.ts';
import { errnoOf } from '../../store/errors.ts';
import { mtimeOf } from '../../store/regular-file.ts';
import { lsetxattr, readXattrs, utimensat, type Timestamp } from '../../store/syscalls.ts';
import type { CheckpointTree } from '../tree/checkpoint-tree.ts';
import { childOf } from '../tree/tree.ts';

/** What the root directory of a checkpoint looks like. */
export interface ForkBase {
  mode: number;
  /** Undefined: whoever makes the fork. */
  owner: { uid: number; gid: number } | undefined;
  mtime: Timestamp;
  xattrs: Iterable<[string, Buffer]>;
  /** Whether something of this name is in it. */
  has(name: string): boolean;
}

/** As the daemon's tree shows it. */
export function baseFromFolder(folder: string): ForkBase {
  const stat = lstatSync(folder, { bigint: true });
  const { mtimeSec, mtimeNsec } = mtimeOf(stat);
  return {
    mode: Number(stat.mode & 0o7777n),
    owner: { uid: Number(stat.uid), gid: Number(stat.gid) },
    mtime: { sec: mtimeSec, nsec: mtimeNsec },
    xattrs: readXattrs(fromText(folder)) ?? [],
    has: (name) => existsSync(join(folder, name)),
  };
}

/** As the index knows it, for who has no tree to look at. */
export function baseFromTree(tree: CheckpointTree): ForkBase {
  const { mode, mtimeSec, mtimeNsec, xattrs } = tree.root;
  return {
    mode: mode & 0o7777,
    owner: undefined,
    mtime: { sec: mtimeSec, nsec: mtimeNsec },
    xattrs: xattrs ?? [],
    has: (name) => childOf(tree, tree.root, fromText(name)) !== undefined,
  };
}

/** A fork's root shows the attributes of its upper directory: these are made the checkpoint's. To be done last: the time. */
export function giveAttributes(upper: string, { mode, owner, mtime, xattrs }: ForkBase): void {
  const path = fromText(upper);
  if (owner !== undefined) chownSync(toFsPath(path), owner.uid, owner.gid);
  for (const [name, value] of xattrs) {
    try {
      lsetxattr(path, name, value);
    } catch (error) {
      if (owner !== undefined || errnoOf(error) !== 'EPERM') throw error; // an ordinary user may not set all of them
    }
  }
  chmodSync(toFsPath(path), mode);
  utimensat(path, { mtime });
}
