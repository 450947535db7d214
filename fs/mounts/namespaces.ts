import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';

import { errnoOf } from '../../store/errors.ts';

/** The user namespace that the machine starts with. @see include/uapi/linux/nsfs.h, USER_NS_INIT_INO */
const INITIAL_USER_NAMESPACE = '4026531837';
const FIRST_PROCESS = '1';
/** A map that gives a container all ordinary users has this many ids. */
const ALL_USERS_MIN = 65_536;

/** Whether root here is root of the machine. Inside a user namespace (`unshare -Ur`, rootless containers) it is not. */
export function inInitialUserNamespace(): boolean {
  return (namespaceId('self', 'user') ?? INITIAL_USER_NAMESPACE) === INITIAL_USER_NAMESPACE;
}

/** The mount namespace of this process; what is mounted in one is not seen in another. Undefined where /proc cannot tell. */
export function mountNamespace(): string | undefined {
  return namespaceId('self', 'mnt');
}

/** The mount namespace when it is one of our own: in a user namespace, or another than that of the first process. */
export function separateMountNamespace(): string | undefined {
  const own = mountNamespace();
  if (!inInitialUserNamespace()) return own;
  const first = namespaceId(FIRST_PROCESS, 'mnt'); // only root may ask, and not everywhere
  return first === undefined || first === own ? undefined : own;
}

/**
 * Whether somebody may be in a mount namespace. Processes of this user that do not let themselves be asked may be: from
 * inside a user namespace nobody outside can be asked.
 */
export function mayBeInUse(namespace: string): boolean {
  const uid = process.getuid?.();
  return processIds().some((pid) => {
    const found = askNamespace(pid, 'mnt');
    return found === HIDDEN ? pid !== FIRST_PROCESS && ownerOf(pid) === uid : found === namespace;
  });
}

/**
 * Whether nobody but these processes is in a mount namespace that is this process's own: then its mounts are of no use to
 * anybody, and whoever serves them keeps the namespace alive for nothing. Always false outside of such a namespace.
 */
export function isAloneInNamespace(own: readonly number[]): boolean {
  const namespace = separateMountNamespace();
  if (namespace === undefined) return false;
  const others = processIds().filter((pid) => !own.includes(Number(pid)));
  return !others.some((pid) => namespaceId(pid, 'mnt') === namespace);
}

function processIds(): string[] {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name));
}

function ownerOf(pid: string): number | undefined {
  return statSync(join('/proc', pid), { throwIfNoEntry: false })?.uid;
}

function namespaceId(pid: string, kind: 'mnt' | 'user'): string | undefined {
  const found = askNamespace(pid, kind);
  return found === HIDDEN ? undefined : found;
}

/** What stands for the namespaces of a process that does not let itself be asked. */
const HIDDEN = 'hidden';

/** @returns 4026531832 of `mnt:[4026531832]`, or HIDDEN; undefined of a process that has ended */
function askNamespace(pid: string, kind: 'mnt' | 'user'): string | undefined {
  try {
    return /\[(\d+)\]/.exec(readlinkSync(`/proc/${pid}/ns/${kind}`))?.[1];
  } catch (error) {
    return ['EACCES', 'EPERM'].includes(errnoOf(error) ?? '') ? HIDDEN : undefined;
  }
}

/** The user's id as the machine knows it, for names that all namespaces share. */
export function outerUid(): number {
  const uid = process.getuid?.() ?? 0;
  const line = uidMap().find(({ inside, count }) => uid >= inside && uid < inside + count);
  return line === undefined ? uid : line.outside + uid - line.inside;
}

/** Whether the owners that checkpoints record can be shown and set here: a namespace of one user has no others. */
export function hasAllUsers(): boolean {
  return uidMap().some(({ inside, count }) => inside === 0 && count >= ALL_USERS_MIN);
}

/** @see user_namespaces(7), "User and group ID mappings" */
function uidMap(): { inside: number; outside: number; count: number }[] {
  const lines = readFileSync('/proc/self/uid_map', 'latin1').trim().split('\n');
  return lines.map((line) => {
    const [inside = 0, outside = 0, count = 0] = line.trim().split(/\s+/).map(Number);
    return { inside, outside, count };
  });
}

/** Names the time since the machine was started; undefined where /proc cannot tell. @see proc_sys_kernel(5) */
export function bootId(): string | undefined {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  } catch {
    return undefined;
  }
}
