import { mkdir } from 'node:fs/promises';

import { fromText } from '../../store/byte-string.ts';
import { BentoError } from '../../store/errors.ts';
import type { Store } from '../../store/store.ts';
import { mustBeSettled } from '../overlay/scratch-folder.ts';
import { askDaemon } from './daemon/daemon-client.ts';
import { mayMount } from './dev-fuse.ts';
import { bring, release } from './kernel-mount.ts';
import { mountedNowhere } from './mount.ts';
import { here } from './mount-record.ts';
import { MountTable, type ForkEngine, type MountRecord, type MountStatus } from './mount-table.ts';
import { inInitialUserNamespace } from './namespaces.ts';
import { writeNote } from './note-file.ts';
import { probe, type Answer } from './probe.ts';
import { checkMountPoint, refuseIfElsewhere } from './targets.ts';

/** One that could not be brought back. */
export interface NotRestored {
  target: string;
  error: Error;
}

export interface RestoreOptions {
  /** Directories; default: all that are not as they should be. */
  only?: readonly string[] | undefined;
  /** Forks are mounted with this engine, whatever they had. */
  engine?: ForkEngine | undefined;
}

/**
 * Mounts again what the table says should be there: after a reboot, after `unmount`, or when a daemon was killed. One that
 * fails does not keep the others back; what may be mounted in another namespace is left to that.
 *
 * @returns those that failed: DAEMON_FAILED when a server is there and does not answer, and what mounting throws
 */
export async function restoreMounts(store: Store, { only, engine }: RestoreOptions = {}): Promise<NotRestored[]> {
  const isWanted = ({ target, elsewhere, exec }: MountStatus): boolean =>
    exec === undefined && (only === undefined ? !elsewhere : only.includes(target));
  const records = (await new MountTable(store).list()).filter(isWanted).sort(outermostFirst);
  const mounted = records.filter((record) => record.mounted && record.engine !== 'copy');
  const answers = await probe(mounted.map(({ target }) => target));
  const isSilent = [...answers.values()].includes('silent');
  const failed: NotRestored[] = [];
  for (const record of records) {
    const { target } = record;
    const answer = answers.get(target);
    const wanted = engineFor(record, engine);
    if (record.engine === 'copy' ? only === undefined : answer === 'answers' && wanted === record.engine) continue;
    try {
      if (record.engine === 'copy') throw isCopy(record);
      if (isSilent) throw silentServer(record, answer); // asking it for another mount would hang
      await restoreMount(store, record, wanted);
    } catch (error) {
      failed.push({ target, error: error as Error });
    }
  }
  return failed;
}

function outermostFirst(a: MountRecord, b: MountRecord): number {
  return a.target.length - b.target.length;
}

function engineFor({ kind, engine }: MountRecord, wanted: ForkEngine | undefined): MountRecord['engine'] {
  return kind === 'fork' && engine !== 'copy' ? (wanted ?? engine) : engine;
}

/** @param found - not mounted, or without anybody who answers, or with another engine, a moment ago */
async function restoreMount(store: Store, found: MountStatus, engine: MountRecord['engine']): Promise<void> {
  const table = new MountTable(store);
  using _lock = await table.lock();
  const record = await table.at(found.target);
  if (record === undefined || record.mounted !== found.mounted) return; // another command was faster
  refuseIfElsewhere(record);
  const wanted = { ...mountedNowhere(record), engine };
  refuseIfNotReadable(wanted);
  const isChange = engine !== record.engine;
  if (record.mounted) await release(store, record, !isChange);
  await mkdir(record.target, { recursive: true });
  checkMountPoint(record.target);
  try {
    if (engine === 'overlay') await settle(store, wanted);
    await mountAgain(store, wanted);
  } catch (error) {
    if (isChange && record.mounted) await mountAgain(store, mountedNowhere(record));
    throw error;
  }
}

/** What our own engine left in the upper directory is made ready for the kernel's. Nothing has it mounted now. */
async function settle(
  store: Store,
  { id, manifest, keepOwners = false, userxattr = false }: MountRecord,
): Promise<void> {
  const forkDir = new MountTable(store).forkDir({ id });
  if (manifest === undefined || !mustBeSettled(fromText(forkDir))) return;
  await askDaemon(store, { op: 'settle', manifest, keepOwners, fork: id, userxattr });
}

async function mountAgain(store: Store, record: MountRecord): Promise<void> {
  await new MountTable(store).add({ ...record, ...here() });
  writeNote(record, store.root);
  await bring(store, record, { isCareful: true });
}

function silentServer({ kind, target }: MountRecord, answer: Answer | undefined): BentoError {
  const who = answer === 'silent' ? `whoever serves the ${kind} on ${target}` : 'the server of other mounts';
  return new BentoError('DAEMON_FAILED', `${who} does not answer`, {
    hint: 'try again, or let go of what does not answer: bento unmount --force',
  });
}

function isCopy({ target }: MountRecord): BentoError {
  return new BentoError('TARGET_INVALID', `${target} is a plain copy: there is nothing to mount`);
}

/** Root's own marks of what is hidden cannot be read by anybody else: deleted files would show again. */
function refuseIfNotReadable({ kind, engine, userxattr, target }: MountRecord): void {
  if (kind !== 'fork') return;
  if (userxattr !== true && !inInitialUserNamespace()) {
    throw new BentoError('PERMISSION_DENIED', `the fork ${target} was made outside this user namespace`, {
      hint: 'bring it back there',
    });
  }
  if (userxattr !== true && !mayMount()) {
    throw new BentoError('PERMISSION_DENIED', `the fork ${target} was made by root, whose marks nobody else can read`, {
      hint: 'bring it back as root',
    });
  }
  if (engine === 'overlay' && !mayMount()) {
    throw new BentoError('PERMISSION_DENIED', `only root may mount an overlay on ${target}`, {
      hint: 'bento mounts --restore --engine cow',
    });
  }
}
