import { closeSync, lstatSync, openSync, readFileSync, rmSync } from 'node:fs';

import { toFsPath, type ByteString } from '../../../store/byte-string.ts';
import { llistxattr } from '../../../store/syscalls.ts';
import { ownerOf } from '../../tree/disk-node.ts';
import type { FreshObjects, WriteContext } from './file-job.ts';

/**
 * Learns what new files in a directory look like by making one: whom they belong to (setgid directories, mounts that map
 * owners) and whether their mode is the one asked for (default ACLs). What is so anyway need not be set on each file.
 *
 * @param folder - of our own, in the place being restored to
 * @param target - whose owner stands for the checkpoint's 0
 */
export function writeContext(folder: ByteString, target: ByteString): WriteContext {
  const owner = ownerOf(lstatSync(toFsPath(target), { bigint: true }));
  return { owner, fresh: probe(`${folder}/probe`), isRoot: process.getuid?.() === 0 };
}

function probe(path: ByteString): FreshObjects {
  const umask = ownUmask();
  closeSync(openSync(toFsPath(path), 'wx', 0o666));
  try {
    const { uid, gid, mode } = lstatSync(toFsPath(path));
    const isPlain = umask !== undefined && (mode & 0o7777) === (0o666 & ~umask) && !hasOwnXattrs(path);
    return { uid, gid, umask: umask ?? 0o777, isPlain };
  } finally {
    rmSync(toFsPath(path));
  }
}

/** A security label is set by the machine and stays. */
function hasOwnXattrs(path: ByteString): boolean {
  return llistxattr(path).some((name) => !name.startsWith('security.'));
}

/** Asking `process.umask()` sets it for a moment, in all threads. Undefined where /proc does not tell. */
function ownUmask(): number | undefined {
  const umask = /^Umask:\s*([0-7]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1];
  return umask === undefined ? undefined : parseInt(umask, 8);
}
