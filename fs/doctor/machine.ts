import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { release, totalmem } from 'node:os';

import { IndexDatabase } from '../../index/database.ts';
import { errnoOf } from '../../store/errors.ts';
import { llistxattr } from '../../store/syscalls.ts';
import { checkThat, firstLine, type Check } from './check.ts';
import { isOnPath } from '../mounts/dev-fuse.ts';

/** As `engines` in package.json has it. */
const NODE_MIN = [20, 19] as const;
/** The oldest that bento is made for. What a kernel can do it is asked itself; this is about what is known to work. */
const KERNEL_MIN = [5, 15] as const;
const MEMORY_BYTES_MIN = 512 << 20;
/** A busy daemon and an `open` in place have some hundreds open. */
const DESCRIPTORS_MIN = 4096;
/** One for each directory that is watched. */
const INOTIFY_WATCHES_MIN = 65_536;
const INOTIFY_INSTANCES_MIN = 128;
const UNSHARE_TIMEOUT_MS = 5_000;
const KIB = 1024;
const MIB = 1024 ** 2;

/** What bento runs on: the system, its limits, what the user may do. Looks at no mount and no store. */
export function examineMachine(): Check[] {
  return [
    nodeCheck(),
    nativeCheck(),
    kernelCheck(),
    memoryCheck(),
    descriptorsCheck(),
    inotifyCheck(),
    userNamespaceCheck(),
    toolsCheck(),
  ];
}

export function nodeCheck(version = process.versions.node): Check {
  return checkThat('node', 'Node.js', (check) => {
    const facts = { version };
    if (isAtLeast(version, NODE_MIN)) return check.ok(version, { facts });
    const advice = `install Node.js ${NODE_MIN.join('.')} or newer`;
    return check.broken('FAILED', `${version} is too old`, { facts, advice });
  });
}

/** The parts that are not JavaScript: they may be missing, or made for another system. */
function nativeCheck(): Check {
  return checkThat('native-modules', 'Native modules', (check) => {
    const failures = [
      failureOf('better-sqlite3', () => IndexDatabase.scratch().close()),
      failureOf('koffi', () => llistxattr('/')),
    ].flatMap((failure) => failure ?? []);
    if (failures.length === 0) return check.ok('better-sqlite3 and koffi work');
    return check.broken('FAILED', failures.join('; '), { advice: 'install bento anew on this machine: npm ci' });
  });
}

function failureOf(name: string, use: () => void): string | undefined {
  try {
    use();
    return undefined;
  } catch (error) {
    return `${name}: ${firstLine(error)}`;
  }
}

export function kernelCheck(platform: string = process.platform, version = release()): Check {
  return checkThat('kernel', 'Kernel', (check) => {
    const facts = { platform, version };
    if (platform !== 'linux') {
      return check.limited(`${platform} ${version}`, {
        facts,
        advice: 'mounts need Linux; everything else works here',
      });
    }
    if (isAtLeast(version, KERNEL_MIN)) return check.ok(`Linux ${version}`, { facts });
    const advice = `bento is made for Linux ${KERNEL_MIN.join('.')} and newer`;
    return check.limited(`Linux ${version} is old`, { facts, advice });
  });
}

/** @param version - as in `6.18.44-generic` */
function isAtLeast(version: string, [major, minor]: readonly [number, number]): boolean {
  const [a = 0, b = 0] = version.split('.').map((part) => parseInt(part, 10));
  return a > major || (a === major && b >= minor);
}

function memoryCheck(): Check {
  return checkThat('memory', 'Memory', (check) => {
    const ofGroup = process.constrainedMemory(); // 0, or absurdly much, where the control group has no limit
    const totalBytes = ofGroup > 0 ? Math.min(ofGroup, totalmem()) : totalmem();
    const availableBytes = Math.min(availableMemory() ?? totalBytes, totalBytes);
    const finding = `${inMib(totalBytes)}, ${inMib(availableBytes)} of it available`;
    const facts = { totalBytes, availableBytes };
    if (availableBytes >= MEMORY_BYTES_MIN) return check.ok(finding, { facts });
    return check.limited(finding, { facts, advice: `large workspaces need ${inMib(MEMORY_BYTES_MIN)} and more` });
  });
}

function inMib(bytes: number): string {
  return `${Math.round(bytes / MIB)} MiB`;
}

function availableMemory(): number | undefined {
  const kib = /^MemAvailable:\s+(\d+) kB$/m.exec(readText('/proc/meminfo') ?? '')?.[1];
  return kib === undefined ? undefined : Number(kib) * KIB;
}

function descriptorsCheck(): Check {
  return checkThat('descriptors', 'Open files', (check) => {
    const limits = /^Max open files\s+(\d+|unlimited)\s+(\d+|unlimited)/m.exec(readText('/proc/self/limits') ?? '');
    if (limits === null) return check.unknown('the limit cannot be read');
    const [soft = null, hard = null] = limits.slice(1).map((text) => (text === 'unlimited' ? null : Number(text)));
    const finding = `up to ${soft ?? 'any number of them'} in one process`;
    const facts = { soft, hard };
    if (soft === null || soft >= DESCRIPTORS_MIN) return check.ok(finding, { facts });
    return check.limited(finding, { facts, advice: `raise the limit: ulimit -n ${DESCRIPTORS_MIN}, or LimitNOFILE=` });
  });
}

function inotifyCheck(): Check {
  return checkThat('inotify', 'inotify', (check) => {
    const watches = readNumber('/proc/sys/fs/inotify/max_user_watches');
    const instances = readNumber('/proc/sys/fs/inotify/max_user_instances');
    if (watches === undefined || instances === undefined) return check.unknown('the limits cannot be read');
    const finding = `${watches} directories in ${instances} watchers`;
    const facts = { watches, instances };
    if (watches >= INOTIFY_WATCHES_MIN && instances >= INOTIFY_INSTANCES_MIN) return check.ok(finding, { facts });
    const advice =
      'to watch large workspaces: sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512';
    return check.limited(finding, { facts, advice });
  });
}

/** Tried, because what forbids them differs from one distribution to the next. */
function userNamespaceCheck(): Check {
  return checkThat('user-namespaces', 'User namespaces', (check) => {
    const facts = { maximum: readNumber('/proc/sys/user/max_user_namespaces') ?? null };
    const tried = spawnSync('unshare', ['-Ur', 'true'], { stdio: 'ignore', timeout: UNSHARE_TIMEOUT_MS });
    if (tried.status === 0) return check.ok('may be made', { facts });
    if (tried.error !== undefined && facts.maximum !== 0) {
      if (errnoOf(tried.error) !== 'ENOENT') return check.unknown(firstLine(tried.error), { facts });
      const advice = 'install util-linux to find out';
      return check.unknown('there is no unshare(1) to try it with', { facts, advice });
    }
    const { finding, advice } = namespaceSwitch() ?? { finding: 'the kernel refuses them', advice: undefined };
    const need = 'only needed to mount without root and fusermount3';
    return check.missing(finding, { facts, advice: advice === undefined ? need : `${need}: ${advice}` });
  });
}

const NAMESPACE_SWITCHES = [
  { name: 'user.max_user_namespaces', off: 0, on: 15_000 },
  { name: 'kernel.unprivileged_userns_clone', off: 0, on: 1 },
  { name: 'kernel.apparmor_restrict_unprivileged_userns', off: 1, on: 0 },
];

function namespaceSwitch(): { finding: string; advice: string } | undefined {
  const found = NAMESPACE_SWITCHES.find(({ name, off }) => readNumber(`/proc/sys/${name.replace('.', '/')}`) === off);
  return found && { finding: `${found.name} is ${found.off}`, advice: `sysctl ${found.name}=${found.on}` };
}

/** Useful beside bento; it needs none of them. */
const TOOLS = [
  { name: 'skopeo', use: 'copies checkpoints from and to registries' },
  { name: 'fuser', use: 'shows who uses a mount' },
];

function toolsCheck(): Check {
  return checkThat('tools', 'Other tools', (check) => {
    const found = TOOLS.filter(({ name }) => isOnPath(name)).map(({ name }) => name);
    const absent = TOOLS.filter(({ name }) => !found.includes(name)).map(({ name, use }) => `no ${name}, which ${use}`);
    return check.ok([...found, ...absent].join(', '), { facts: { found } });
  });
}

function readNumber(path: string): number | undefined {
  const text = readText(path)?.trim();
  return text === undefined || !/^\d+$/.test(text) ? undefined : Number(text);
}

/** A file of /proc or /etc; undefined where it is missing, or not for us. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return undefined;
  }
}
