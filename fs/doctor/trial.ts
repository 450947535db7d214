import { closeSync, mkdirSync, mkdtempSync, readdirSync, readSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { fromText } from '../../store/byte-string.ts';
import { MNT_DETACH, umount2, UMOUNT_NOFOLLOW } from '../../store/syscalls.ts';
import { decodeRequest } from '../protocol/header.ts';
import { decodeInitIn, type InitIn } from '../protocol/init.ts';
import { mountAsRoot, mountAsUser, unmount } from '../mounts/dev-fuse.ts';
import { mountOverlay } from '../mounts/overlay-mount.ts';

/** The kernel refuses to be read with less. @see fuse.h, FUSE_MIN_READ_BUFFER */
const REQUEST_BYTES_MAX = 65_536;

/**
 * Mounts FUSE on a folder that nobody knows, reads what the kernel offers, and takes everything away again. Whether
 * something works is only known by doing it; kernels differ in what they have, whatever their version.
 *
 * @throws BentoError as `mountAsRoot` and `mountAsUser` do
 */
export function tryFuse(who: 'root' | 'user'): InitIn {
  const dir = mkdtempSync(join(tmpdir(), 'bento-doctor-'));
  try {
    const options = { target: fromText(dir), allowOther: false };
    const fd = who === 'root' ? mountAsRoot(options) : mountAsUser(options);
    try {
      return readOffer(fd);
    } finally {
      closeSync(fd); // first: whoever looks at the folder now gets an error instead of waiting
      unmount(fromText(dir), { lazy: true });
    }
  } finally {
    rmdirSync(dir);
  }
}

/** The first request is there when mount(2) returns. */
function readOffer(fd: number): InitIn {
  const request = Buffer.alloc(REQUEST_BYTES_MAX);
  const sizeBytes = readSync(fd, request, 0, request.length, null);
  return decodeInitIn(decodeRequest(request.subarray(0, sizeBytes)).bytes);
}

/**
 * Mounts an overlay as forks are, with its upper directory on the file system of `dir`, and changes something in it.
 *
 * @throws what making the folders or mounting throws; what is there then is taken away again
 */
export function tryOverlay(dir: string, { userxattr }: { userxattr: boolean }): void {
  const trial = mkdtempSync(join(dir, '.bento-doctor-'));
  try {
    const merged = join(trial, 'merged');
    for (const name of ['lower', 'upper', 'work', 'merged']) mkdirSync(join(trial, name));
    writeFileSync(join(trial, 'lower', 'deleted'), '');
    const [lower, upper, work] = [join(trial, 'lower'), join(trial, 'upper'), join(trial, 'work')];
    mountOverlay(merged, { lower, upper, work }, userxattr);
    try {
      writeFileSync(join(merged, 'new'), 'new');
      rmSync(join(merged, 'deleted')); // leaves a whiteout, which not every file system can hold
      if (readdirSync(merged).join() !== 'new') throw new Error('an overlay does not show what was changed in it');
    } finally {
      umount2(fromText(merged), MNT_DETACH | UMOUNT_NOFOLLOW);
    }
  } finally {
    rmSync(trial, { recursive: true, force: true });
  }
}
