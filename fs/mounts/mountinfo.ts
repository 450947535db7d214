import { randomBytes } from 'node:crypto';
import { lstatSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { errnoOf } from '../../store/errors.ts';

/** One line of `/proc/self/mountinfo`. */
export interface MountedFileSystem {
  target: string;
  /** Path within the file system that is mounted here: `/` unless it is a bind mount of a part. */
  root: string;
  deviceMajor: number;
  deviceMinor: number;
  fstype: string;
  source: string;
}

/** What is mounted in this process's mount namespace, in the order of mounting. @see proc_pid_mountinfo(5) */
export function mountedFileSystems(): MountedFileSystem[] {
  return readFileSync('/proc/self/mountinfo', 'utf8').split('\n').flatMap(parseLine);
}

function parseLine(line: string): MountedFileSystem[] {
  const [before, after] = line.split(' - ');
  const [, , device, root, target] = before?.split(' ') ?? [];
  const [fstype, source] = after?.split(' ') ?? [];
  if (device === undefined || root === undefined || target === undefined || fstype === undefined) return [];
  const [deviceMajor, deviceMinor] = device.split(':').map(Number);
  return [
    {
      target: unescape(target),
      root: unescape(root),
      deviceMajor: deviceMajor ?? 0,
      deviceMinor: deviceMinor ?? 0,
      fstype,
      source: unescape(source ?? ''),
    },
  ];
}

/** The uppermost mount at exactly this path. */
export function mountedAt(target: string): MountedFileSystem | undefined {
  return mountedFileSystems().findLast((mounted) => mounted.target === target);
}

/** What the kernel calls our FUSE mounts, and bind mounts of them. */
export const FUSE_TYPE = 'fuse.bento';

/** The daemon lays these over large files of a mount: bind mounts of a flat folder of numbered files, faster to read. */
export function isFileMount({ fstype, root }: MountedFileSystem): boolean {
  return fstype === FUSE_TYPE && /^\/\d{1,16}o?$/.test(root);
}

/** The daemon's file mounts inside a mount, the last one made first. */
export function fileMountsBelow(target: string): MountedFileSystem[] {
  const isInside = (mounted: MountedFileSystem): boolean => mounted.target.startsWith(`${target}/`);
  return mountedFileSystems()
    .filter((mounted) => isInside(mounted) && isFileMount(mounted))
    .reverse();
}

/**
 * Whether somebody still answers for a mount: its daemon may have been killed, which the mount table does not show. Asks
 * for a name that nobody asked for before, because what the kernel remembers it still tells. Waits for as long as the server
 * does: see `probe` for one that may hang.
 */
export function isServed(target: string): boolean {
  try {
    lstatSync(join(target, `.bento-probe-${randomBytes(8).toString('hex')}`), { throwIfNoEntry: false });
    return true;
  } catch (error) {
    if (!['ENOTCONN', 'ECONNABORTED', 'EIO', 'ESTALE'].includes(errnoOf(error) ?? '')) throw error;
    return false;
  }
}

/** The kernel writes blank, tab, newline and backslash as three octal digits. */
function unescape(text: string): string {
  const bytes = Buffer.from(text, 'utf8').toString('latin1');
  const raw = bytes.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
  return Buffer.from(raw, 'latin1').toString('utf8');
}
