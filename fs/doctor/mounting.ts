import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

import { BentoError, errnoOf } from '../../store/errors.ts';
import type { InitIn } from '../protocol/init.ts';
import { checkThat, firstLine, type Check } from './check.ts';
import {
  DEVICE,
  deviceObstacle,
  fuseAvailability,
  FUSERMOUNT,
  fusermountObstacle,
  isOnPath,
  mayMount,
  type FuseAvailability,
} from '../mounts/dev-fuse.ts';
import { readText } from './machine.ts';
import type { Engine } from '../mounts/mount-table.ts';
import { inInitialUserNamespace } from '../mounts/namespaces.ts';
import { tryFuse, tryOverlay } from './trial.ts';

const FUSE_CONFIG = '/etc/fuse.conf';
const VERSION_TIMEOUT_MS = 5_000;

/** How a command will make its mounts here. */
export interface EngineChoice {
  /** `none`: it will fail. */
  engine: Engine | 'none';
  /** In one line. */
  why: string;
}

export interface Mounting {
  checks: Check[];
  /** Of `bento mount`. */
  mount: EngineChoice;
  /** Of `bento fork`. */
  fork: EngineChoice;
}

/** What came of mounting FUSE on trial. */
export type FuseTrial = { offer: InitIn } | { obstacle: BentoError };

/**
 * Finds out what can be mounted here by mounting it, where nobody looks; nothing is left of that.
 *
 * @param upperPlace - a writable folder on the file system that holds what forks change; undefined when there is none
 */
export function examineMounting(upperPlace: string | undefined): Mounting {
  const availability = fuseAvailability();
  const trial = availability.usable && tryFuseNow(availability.usable);
  const offer = trial && 'offer' in trial ? trial.offer : undefined;
  const overlay = overlayCheck(upperPlace);
  const mount = mountEngine(availability, trial);
  const checks = [
    deviceCheck(),
    rightsCheck(),
    fusermountCheck(),
    allowOtherCheck(),
    fuseCheck(availability, trial),
    passthroughCheck(offer, mayMount() && inInitialUserNamespace()),
    resendCheck(offer),
    overlay,
  ];
  return { checks, mount, fork: forkEngine(mount, overlay) };
}

function tryFuseNow(who: 'root' | 'user'): FuseTrial {
  try {
    return { offer: tryFuse(who) };
  } catch (error) {
    if (error instanceof BentoError) return { obstacle: error };
    return { obstacle: new BentoError('MOUNT_FAILED', firstLine(error), { cause: error }) };
  }
}

// The device and the rights

export function deviceCheck(device = DEVICE): Check {
  return checkThat('fuse-device', device, (check) => {
    const obstacle = deviceObstacle(device);
    if (obstacle === undefined) return check.ok('may be opened');
    const remedy = existsSync(device) ? `let root allow it: chmod a+rw ${device}` : 'modprobe fuse';
    return check.missing(obstacle, { advice: `${remedy}; a container needs --device ${device}` });
  });
}

function rightsCheck(): Check {
  return checkThat('mount-rights', 'Right to mount', (check) => {
    const facts = { sysAdmin: mayMount(), initialUserNamespace: inInitialUserNamespace() };
    if (facts.sysAdmin && facts.initialUserNamespace) return check.ok('CAP_SYS_ADMIN on this machine', { facts });
    if (facts.sysAdmin) {
      const advice = 'root of the machine can have large files read at full speed';
      return check.limited('CAP_SYS_ADMIN, but only inside a user namespace', { facts, advice });
    }
    if (process.geteuid?.() === 0) {
      return check.missing('root without CAP_SYS_ADMIN', { facts, advice: 'a container needs --cap-add SYS_ADMIN' });
    }
    const advice = 'for root, all mounts share one cache, and forks are kernel overlays';
    return check.limited(`none of its own: an ordinary user mounts through ${FUSERMOUNT}`, { facts, advice });
  });
}

function fusermountCheck(): Check {
  return checkThat('fusermount3', FUSERMOUNT, (check) => {
    const version = isOnPath(FUSERMOUNT) ? fusermountVersion() : undefined;
    const facts = { version: version ?? null };
    if (mayMount()) return check.ok(`${version ?? 'not installed'}, and not needed`, { facts });
    const obstacle = fusermountObstacle();
    if (obstacle === undefined) return check.ok(version ?? '', { facts });
    const advice = version === undefined ? 'install fuse3' : 'allow gaining privileges (no-new-privileges)';
    return check.missing(obstacle, { facts, advice });
  });
}

function fusermountVersion(): string {
  const { stdout } = spawnSync(FUSERMOUNT, ['--version'], { encoding: 'utf8', timeout: VERSION_TIMEOUT_MS });
  return /\d+(?:\.\d+)+/.exec(stdout)?.[0] ?? 'of unknown version';
}

export function allowOtherCheck(config = FUSE_CONFIG, isNeeded = !mayMount()): Check {
  return checkThat('user-allow-other', 'user_allow_other', (check) => {
    const lines = readText(config)?.split('\n') ?? [];
    const facts = { set: lines.some((line) => line.trim() === 'user_allow_other') };
    if (!isNeeded) return check.ok(`${facts.set ? 'set' : 'not set'}, and not needed`, { facts });
    if (facts.set) return check.ok(`set in ${config}`, { facts });
    const advice = `let root add the line user_allow_other to ${config}`;
    return check.limited('not set: nobody else, root included, can look into your mounts', { facts, advice });
  });
}

// What FUSE can do here

export function fuseCheck({ reason }: FuseAvailability, trial: FuseTrial | undefined): Check {
  return checkThat('fuse', 'FUSE mount', (check) => {
    if (trial === undefined) {
      const advice = 'mounts are plain copies here, until what is missing above is there';
      return check.missing(reason ?? 'not possible', { advice });
    }
    if ('offer' in trial) {
      const { major, minor, flags } = trial.offer;
      return check.ok(`works, protocol ${major}.${minor}`, { facts: { protocol: `${major}.${minor}`, flags } });
    }
    const { code, message, hint } = trial.obstacle;
    const details = hint === undefined ? {} : { advice: hint };
    return code === 'FUSE_UNAVAILABLE' ? check.missing(message, details) : check.broken(code, message, details);
  });
}

/** Never judged by the kernel's version: distributions take things out and put things in. */
export function passthroughCheck(offer: InitIn | undefined, mayRegister: boolean): Check {
  return checkThat('fuse-passthrough', 'FUSE passthrough', (check) => {
    if (offer === undefined) return check.unknown('only a mount can tell');
    const facts = { offered: offer.flags.includes('PASSTHROUGH') };
    if (facts.offered && mayRegister) return check.ok('offered: large files are read at full speed', { facts });
    const advice = 'large files are read through the daemon, which takes longer';
    if (facts.offered) return check.limited('offered to root of the machine only', { facts, advice });
    return check.limited('not offered', { facts, advice: `${advice}; Linux 6.9 and newer may have it` });
  });
}

export function resendCheck(offer: InitIn | undefined): Check {
  return checkThat('fuse-resend', 'FUSE resend', (check) => {
    if (offer === undefined) return check.unknown('only a mount can tell');
    const facts = { offered: offer.flags.includes('HAS_RESEND') };
    if (facts.offered) return check.ok('offered: who reads does not notice that a server died', { facts });
    const advice = 'who reads when a server dies waits until the mount is ended; Linux 6.9 and newer may have it';
    return check.limited('not offered', { facts, advice });
  });
}

// Overlays

function overlayCheck(upperPlace: string | undefined): Check {
  return checkThat('overlay', 'overlayfs', (check) => {
    const facts = { inKernel: /\toverlay$/m.test(readText('/proc/filesystems') ?? '') };
    if (!mayMount())
      return check.limited('only root may mount it', { facts, advice: 'forks are copy-on-write in the mount daemon' });
    if (upperPlace === undefined) return check.unknown('nowhere to try it', { facts });
    try {
      tryOverlay(upperPlace, { userxattr: !inInitialUserNamespace() });
      return check.ok('works', { facts: { inKernel: true } });
    } catch (error) {
      const details = { facts, advice: `forks are copy-on-write in the mount daemon; ${overlayRemedy(error)}` };
      return check.missing(`cannot be mounted: ${firstLine(error)}`, details);
    }
  });
}

function overlayRemedy(error: unknown): string {
  switch (errnoOf(error)) {
    case 'ENODEV':
      return 'try modprobe overlay';
    case 'EPERM':
    case 'EACCES':
      return 'a container needs --cap-add SYS_ADMIN and a profile that allows mounting';
    default:
      return 'a store on ext4, xfs, btrfs or tmpfs can hold overlays (`store:` in bento.yaml)';
  }
}

// What commands will do

export function mountEngine({ usable, reason }: FuseAvailability, trial: FuseTrial | undefined): EngineChoice {
  if (trial === undefined) return { engine: 'copy', why: reason ?? 'FUSE is missing' };
  if ('obstacle' in trial) {
    const { code, message } = trial.obstacle;
    return { engine: code === 'FUSE_UNAVAILABLE' ? 'copy' : 'none', why: message };
  }
  if (usable === 'root') return { engine: 'bind', why: 'this user may mount' };
  return { engine: 'fuse', why: `${FUSERMOUNT} mounts for this user` };
}

export function forkEngine(mount: EngineChoice, overlay: Pick<Check, 'state' | 'finding'>): EngineChoice {
  if (mount.engine === 'fuse') return { engine: 'cow', why: 'only root may mount overlays' };
  if (mount.engine !== 'bind') return { engine: 'copy', why: mount.why };
  if (overlay.state === 'ok') return { engine: 'overlay', why: 'overlays can be mounted here' };
  return { engine: 'cow', why: `overlayfs ${overlay.finding}` };
}
