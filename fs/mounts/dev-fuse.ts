import { spawnSync } from 'node:child_process';
import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  type Stats,
  writeFileSync,
} from 'node:fs';
import { delimiter, join } from 'node:path';

import { type ByteString, isUtf8, toBytes, toText } from '../../store/byte-string.ts';
import { BentoError, errnoOf } from '../../store/errors.ts';
import * as syscalls from '../../store/syscalls.ts';

export const DEVICE = '/dev/fuse';
export const FUSERMOUNT = 'fusermount3';

// Whether mounting can work here

export interface FuseAvailability {
  /** Who mounts: we ourselves, or fusermount3 on our behalf; undefined when neither can. */
  usable: 'root' | 'user' | undefined;
  /** Why neither can, in one line. */
  reason?: string;
}

/** Asks the device and our rights, without mounting anything. */
export function fuseAvailability(device = DEVICE): FuseAvailability {
  const who = mayMount() ? 'root' : 'user';
  const reason = deviceObstacle(device) ?? (who === 'root' ? undefined : fusermountObstacle());
  return reason === undefined ? { usable: who } : { usable: undefined, reason };
}

/** Why the device cannot be opened; fusermount3 opens it as the user who calls, so that it needs it too. */
export function deviceObstacle(device: string): string | undefined {
  try {
    const fd = openSync(device, 'r+');
    const isFuse = isFuseDevice(fstatSync(fd));
    closeSync(fd);
    return isFuse ? undefined : `${device} is not the FUSE device`;
  } catch (error) {
    return explainDevice(error, device);
  }
}

/** Containers like to put /dev/null in place of what they take away. @see Linux Documentation/admin-guide/devices.txt, 10:229 */
function isFuseDevice(stat: Stats): boolean {
  const FUSE_RDEV = (10 << 8) | 229;
  return stat.isCharacterDevice() && stat.rdev === FUSE_RDEV;
}

function explainDevice(error: unknown, device: string): string {
  switch (errnoOf(error)) {
    case 'ENOENT':
      return `${device} does not exist: the fuse module is not loaded, or the container was started without it`;
    case 'EACCES':
      return `${device} may not be opened by this user`;
    case 'EPERM':
      return `${device} is closed to this container`;
    default:
      return `${device} cannot be opened: ${(error as Error).message}`;
  }
}

const CAP_SYS_ADMIN = 21n;

/** Being root is not enough: containers take CAP_SYS_ADMIN away. Inside an own user namespace it is there again. */
export function mayMount(): boolean {
  const capabilities = /^CapEff:\s*([0-9a-f]+)$/m.exec(ownStatus())?.[1] ?? '0';
  return ((BigInt(`0x${capabilities}`) >> CAP_SYS_ADMIN) & 1n) === 1n;
}

/** fusermount3 is setuid root, which a process that may not gain privileges cannot use, nor root without its rights. */
export function fusermountObstacle(): string | undefined {
  if (process.geteuid?.() === 0) return 'root lacks CAP_SYS_ADMIN here';
  if (/^NoNewPrivs:\s*1$/m.test(ownStatus())) return `${FUSERMOUNT} cannot work where privileges may not be gained`;
  return isOnPath(FUSERMOUNT) ? undefined : `${FUSERMOUNT} is not installed`;
}

function ownStatus(): string {
  return readFileSync('/proc/self/status', 'latin1');
}

export function isOnPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => isExecutable(join(folder, program)));
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

// Mounting

export interface MountOptions {
  /** An existing directory, as an absolute path. */
  target: ByteString;
  /** What `/proc/mounts` shows first. */
  source?: string;
  /** `/proc/mounts` shows `fuse.<subtype>`. */
  subtype?: string;
  readOnly?: boolean;
  nosuid?: boolean;
  nodev?: boolean;
  noatime?: boolean;
  /** Lets users other than the one who mounts in; an ordinary user needs `user_allow_other` in /etc/fuse.conf. */
  allowOther?: boolean;
  /** Lets the kernel check mode bits, so that we need not. */
  defaultPermissions?: boolean;
}

const DEFAULTS = {
  source: 'bento',
  subtype: 'bento',
  readOnly: true,
  nosuid: true,
  nodev: true,
  noatime: true,
  allowOther: true,
  defaultPermissions: true,
};

/**
 * Opens the device and mounts it with mount(2), as root or in a user namespace of our own.
 *
 * Nobody answers yet: until `serve` runs on the descriptor, whoever touches the target waits.
 *
 * @returns the device; the mount lives until it is unmounted or every copy of this descriptor is closed
 * @throws BentoError FUSE_UNAVAILABLE, MOUNT_POINT_MISSING, TARGET_INVALID, MOUNT_FAILED
 */
export function mountAsRoot(options: MountOptions): number {
  const settings = { ...DEFAULTS, ...options };
  const fd = openDevice();
  try {
    const { source, target, subtype } = settings;
    syscalls.mount(source, target, `fuse.${subtype}`, mountFlags(settings), mountData(settings, fd));
    return fd;
  } catch (error) {
    closeSync(fd);
    throw explainMount(error, settings.target);
  }
}

function openDevice(): number {
  try {
    return openSync(DEVICE, 'r+');
  } catch (error) {
    throw unavailable(explainDevice(error, DEVICE), error);
  }
}

function mountFlags({ readOnly, nosuid, nodev, noatime }: typeof DEFAULTS): number {
  return (
    (readOnly ? syscalls.MS_RDONLY : 0) |
    (nosuid ? syscalls.MS_NOSUID : 0) |
    (nodev ? syscalls.MS_NODEV : 0) |
    (noatime ? syscalls.MS_NOATIME : 0)
  );
}

/** `rootmode` is octal, of a directory; `user_id` and `group_id` are who may enter without `allow_other`. */
function mountData({ defaultPermissions, allowOther }: typeof DEFAULTS, fd: number): string {
  const owner = `user_id=${process.geteuid?.() ?? 0},group_id=${process.getegid?.() ?? 0}`;
  const switches = [...(defaultPermissions ? ['default_permissions'] : []), ...(allowOther ? ['allow_other'] : [])];
  return [`fd=${fd}`, 'rootmode=40000', owner, ...switches].join(',');
}

function explainMount(error: unknown, target: ByteString): unknown {
  const place = toText(target);
  switch (errnoOf(error)) {
    case 'ENOENT':
      return new BentoError('MOUNT_POINT_MISSING', `${place} does not exist`, {
        hint: `mkdir -p ${place}`,
        cause: error,
      });
    case 'ENOTDIR':
      return new BentoError('TARGET_INVALID', `${place} is not a directory`, { cause: error });
    case 'EBUSY':
      return new BentoError('MOUNT_POINT_BUSY', `${place} is in use`, {
        hint: `see who: fuser -vm ${place}`,
        cause: error,
      });
    case 'EPERM':
    case 'EACCES':
      return unavailable(`the kernel does not let us mount on ${place}`, error);
    default:
      return new BentoError('MOUNT_FAILED', `mounting on ${place} failed: ${(error as Error).message}`, {
        cause: error,
      });
  }
}

function unavailable(reason: string, cause?: unknown): BentoError {
  return new BentoError('FUSE_UNAVAILABLE', reason, {
    hint: 'in a container: --device /dev/fuse --cap-add SYS_ADMIN; elsewhere: install fuse3',
    cause,
  });
}

/** The stdio slot, and so the descriptor number, where fusermount3 finds its socket. */
const COMM_FD = 3;

/**
 * Has fusermount3, which is setuid root, mount for an ordinary user, and receives the device from it. It always adds
 * `nosuid` and `nodev`.
 *
 * @returns as mountAsRoot
 * @throws BentoError FUSE_UNAVAILABLE, TARGET_INVALID, MOUNT_FAILED
 */
export function mountAsUser(options: MountOptions): number {
  const settings = { ...DEFAULTS, ...options };
  const { ours, theirs } = syscalls.socketpair();
  try {
    runFusermount(['-o', fusermountOptions(settings), '--', toArgument(settings.target)], theirs);
    return syscalls.recvFd(ours); // sent before fusermount3 ended, so it waits in the socket
  } finally {
    closeSync(ours);
    closeSync(theirs);
  }
}

function fusermountOptions(settings: typeof DEFAULTS): string {
  const { readOnly, noatime, defaultPermissions, allowOther } = settings;
  return [
    `fsname=${escapeOption(settings.source)}`,
    `subtype=${escapeOption(settings.subtype)}`,
    readOnly ? 'ro' : 'rw',
    ...(noatime ? ['noatime'] : []),
    ...(defaultPermissions ? ['default_permissions'] : []),
    ...(allowOther ? ['allow_other'] : []),
  ].join(',');
}

/** Node passes arguments as UTF-8 and nothing else. */
function toArgument(path: ByteString): string {
  if (isUtf8(path)) return toBytes(path).toString('utf8');
  throw new BentoError('TARGET_INVALID', `${toText(path)} is not UTF-8, so ${FUSERMOUNT} cannot be given it`);
}

function escapeOption(value: string): string {
  return value.replace(/[\\,]/g, '\\$&');
}

/** @throws BentoError with what fusermount3 wrote to stderr, which is one line */
function runFusermount(args: readonly string[], commFd?: number): void {
  const result = spawnSync(FUSERMOUNT, args, {
    stdio: ['ignore', 'ignore', 'pipe', ...(commFd === undefined ? [] : [commFd])],
    env: { ...process.env, LC_ALL: 'C', _FUSE_COMMFD: String(COMM_FD) },
    encoding: 'utf8',
  });
  if (result.error !== undefined) throw unavailable(`${FUSERMOUNT} cannot be run`, result.error);
  if (result.status !== 0) throw explainFusermount(result.stderr.trim());
}

function explainFusermount(complaint: string): BentoError {
  if (/not mounted|not found in/i.test(complaint)) return new BentoError('NOT_MOUNTED', complaint);
  if (/busy/i.test(complaint)) {
    return new BentoError('MOUNT_POINT_BUSY', complaint, { hint: 'leave the directory first, or use --force' });
  }
  const needsConfig = complaint.includes('user_allow_other');
  return new BentoError('MOUNT_FAILED', complaint === '' ? `${FUSERMOUNT} failed` : complaint, {
    ...(needsConfig ? { hint: 'let root add the line user_allow_other to /etc/fuse.conf' } : {}),
  });
}

// Unmounting

/**
 * Ends a mount; the loop that serves it then sees ENODEV and returns.
 *
 * @param options.lazy - gone from the tree at once even when in use; ended when its last user leaves
 * @throws BentoError NOT_MOUNTED, MOUNT_POINT_BUSY, MOUNT_FAILED
 */
export function unmount(target: ByteString, { lazy = false }: { lazy?: boolean } = {}): void {
  if (mayMount()) unmountAsRoot(target, lazy);
  else runFusermount(['-u', ...(lazy ? ['-z'] : []), '--', toArgument(target)]);
}

function unmountAsRoot(target: ByteString, lazy: boolean): void {
  try {
    syscalls.umount2(target, syscalls.UMOUNT_NOFOLLOW | (lazy ? syscalls.MNT_DETACH : 0));
  } catch (error) {
    throw explainUnmount(error, toText(target));
  }
}

function explainUnmount(error: unknown, place: string): unknown {
  switch (errnoOf(error)) {
    case 'EINVAL':
    case 'ENOENT':
      return new BentoError('NOT_MOUNTED', `nothing is mounted on ${place}`, { cause: error });
    case 'EBUSY':
      return new BentoError('MOUNT_POINT_BUSY', `${place} is in use`, {
        hint: `leave the directory first, or use --force; fuser -vm ${place} shows who uses it`,
        cause: error,
      });
    default:
      return new BentoError('MOUNT_FAILED', `unmounting ${place} failed: ${(error as Error).message}`, {
        cause: error,
      });
  }
}

// Speed

/**
 * Lets the kernel read ahead further than the 128 KiB that INIT can agree on, so that READs grow to 1 MiB.
 *
 * The numbers come from the mount table (mountinfo.ts); a stat would wait for whoever serves the mount.
 *
 * @returns whether it worked; it is only about speed, needs root and a writable /sys
 */
export function raiseReadAhead(major: number, minor: number, kib: number): boolean {
  try {
    writeFileSync(`/sys/class/bdi/${major}:${minor}/read_ahead_kb`, `${kib}\n`);
    return true;
  } catch {
    return false;
  }
}
