import { createHash } from 'node:crypto';
import { existsSync, mkdirSync } from 'node:fs';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { fromText } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import { syncDir, writeFileDurably, type DurableFile } from '../../store/durable.ts';
import { describeSystemError, errnoOf } from '../../store/errors.ts';
import { lockFile, type Lock } from '../../store/lock.ts';
import type { Store } from '../../store/store.ts';
import { baseOf } from '../overlay/switch-upper.ts';
import { FUSE_TYPE, mountedFileSystems } from './mountinfo.ts';
import { bootId, mayBeInUse, mountNamespace } from './namespaces.ts';

/**
 * How a mount is made: `bind` of the daemon's tree, a FUSE mount of its own (`fuse`), kernel overlayfs over the daemon's
 * tree (`overlay`), copy-on-write in the daemon itself (`cow`), or a plain copy where nothing can be mounted.
 */
export type Engine = 'bind' | 'fuse' | ForkEngine;

/** What makes a directory writable, the fastest first. All but `copy` keep changes in the same format. */
export const FORK_ENGINES = ['overlay', 'cow', 'copy'] as const;
export type ForkEngine = (typeof FORK_ENGINES)[number];

/** What a view of the whole store goes by, in place of a reference. */
export const WHOLE_STORE = 'all';

/** One mount or fork, as kept in `<store>/mounts/<id>.json` from before it is made until it is closed. */
interface CommonRecord {
  id: string;
  engine: Engine;
  /** Absolute path. */
  target: string;
  /** What the user called it; WHOLE_STORE for a view of all. */
  ref: string;
  workspaceId: string;
  /** RFC 3339. */
  created: string;
  user: string;
  message?: string;
  /** The target did not exist before; closing removes it again. */
  madeTarget: boolean;
  /** Recorded owners are shown; otherwise everything belongs to the user who mounts. */
  keepOwners?: boolean;
  /** Other users may look, too. Always so for what root mounts. */
  allowOther?: boolean;
  /** A fork whose marks are `user.` attributes, as they are for whoever is not root of the machine. */
  userxattr?: boolean;
  /** When and where it was mounted last: no mount outlives its boot, and another mount namespace does not see it. */
  bootId?: string;
  namespace?: string;
  /** Of a throw-away fork: the processes it is there for. When none of them runs any more, it may go. */
  exec?: readonly ProcessName[];
  /** Of a read-only copy: when the last file was written, RFC 3339. Missing while, or because, it is not complete. */
  copied?: string;
  /** Of a read-only copy: the permissions the directory had before. */
  targetMode?: number;
}

/** A process that cannot be taken for another one that got its number later. */
export interface ProcessName {
  pid: number;
  /** When it was started, in clock ticks since the machine was. @see proc_pid_stat(5), starttime */
  startTicks: number;
}

/** A view of one checkpoint. */
export interface CheckpointRecord extends CommonRecord {
  kind: 'mount' | 'fork';
  manifest: Digest;
  /** A fork is being switched to this one, or was, by a command that was killed: its upper directory says which. */
  switching?: Digest;
  /** Where its head goes with that; null for none. */
  switchingHead?: Digest | null;
}

/** A view of every workspace and tag of a store, as folders. */
export interface StoreRecord extends CommonRecord {
  kind: 'mount';
  manifest?: undefined;
}

export type MountRecord = CheckpointRecord | StoreRecord;

export type MountStatus = MountRecord & {
  /** A copy counts as mounted as long as it is there. */
  mounted: boolean;
  /** It is not mounted here, but perhaps in another mount namespace, in which processes still run. */
  elsewhere: boolean;
};

/** The mounts and forks of a store: one small file each, so that it survives everything that a mount does not. */
export class MountTable {
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  get dir(): string {
    return join(this.#store.root, 'mounts');
  }

  /** Where a fork keeps what it changed: `upper/` and overlayfs's `work/`. */
  forkDir(record: { id: string }): string {
    return join(this.#store.root, 'forks', record.id);
  }

  /** Where the daemon shows the checkpoint of a fork that is mounted in a namespace of its own. */
  lowerDir(record: { id: string }): string {
    return join(this.forkDir(record), 'lower');
  }

  /** Guards the time from finding a directory free to having mounted on it: two mounts would lie one upon the other. */
  async lock(): Promise<Lock> {
    this.#makeFolders('mounts');
    return await lockFile(join(this.dir, '.lock'));
  }

  async add(record: MountRecord): Promise<void> {
    this.#makeFolders('mounts');
    const { path, data, mode } = this.fileOf(record);
    await writeFileDurably(path, data, mode);
  }

  /** The record as a file, for who writes many things at once. */
  fileOf(record: MountRecord): DurableFile {
    return { path: this.#path(record.id), data: `${JSON.stringify(record, undefined, 2)}\n`, mode: 0o600 };
  }

  async remove(record: MountRecord): Promise<void> {
    await rm(this.#path(record.id), { force: true });
    if (existsSync(this.dir)) await syncDir(this.dir);
  }

  /** Makes `upper/` and `work/` of a fork. */
  makeForkDirs(record: { id: string }): void {
    this.#makeFolders('forks', record.id);
    for (const name of ['upper', 'work']) this.#makeFolder(join(this.forkDir(record), name));
  }

  /** Makes the folder of the records. */
  ensure(): void {
    this.#makeFolders('mounts');
  }

  async list(): Promise<MountStatus[]> {
    const mounted = new Set(mountedFileSystems().map(({ target, fstype }) => `${fstype} ${target}`));
    const inUse = new Map<string, boolean>();
    const records = await Promise.all((await this.#files()).map(async (name) => await this.#read(name)));
    return records
      .flatMap((record) => record ?? [])
      .map((record) =>
        withStatus(record, isCopyThere(record) || mounted.has(`${fstypeOf(record)} ${record.target}`), inUse),
      )
      .sort((a, b) => (a.created < b.created ? -1 : 1));
  }

  /** The mount or fork at exactly this directory. */
  async at(target: string): Promise<MountStatus | undefined> {
    return (await this.list()).find((record) => record.target === target);
  }

  async #files(): Promise<string[]> {
    try {
      return (await readdir(this.dir)).filter((name) => name.endsWith('.json'));
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    }
  }

  async #read(name: string): Promise<MountRecord | undefined> {
    try {
      return this.#withBase(JSON.parse(await readFile(join(this.dir, name), 'utf8')) as MountRecord);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || error instanceof SyntaxError) return undefined; // closed meanwhile
      throw error;
    }
  }

  /** What lies below a fork that was being switched when its command was killed. */
  #withBase(record: MountRecord): MountRecord {
    if (record.manifest === undefined || record.switching === undefined) return record;
    const base = baseOf(fromText(this.forkDir(record)));
    return base === record.switching ? { ...record, manifest: base } : record;
  }

  /** Not `recursive`: where the file system is read-only, Node's mkdir then says ENOENT. */
  #makeFolders(...names: string[]): void {
    let dir = this.#store.root;
    for (const name of names) this.#makeFolder((dir = join(dir, name)));
  }

  /** Not on a thread of the pool: that takes longer than the call. */
  #makeFolder(dir: string): void {
    try {
      mkdirSync(dir, { mode: 0o700 });
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw describeSystemError(error, `making ${dir}`);
    }
  }

  #path(id: string): string {
    return join(this.dir, `${id}.json`);
  }
}

/** The file system that `/proc/self/mountinfo` shows for a record. */
export function fstypeOf({ engine }: MountRecord): string {
  return engine === 'overlay' ? 'overlay' : FUSE_TYPE;
}

function isCopyThere({ engine, target }: MountRecord): boolean {
  return engine === 'copy' && existsSync(target);
}

/** @param inUse - other mount namespaces that were asked about already */
function withStatus(record: MountRecord, mounted: boolean, inUse: Map<string, boolean>): MountStatus {
  return { ...record, mounted, elsewhere: !mounted && isElsewhere(record, inUse) };
}

function isElsewhere({ engine, namespace, bootId: boot }: MountRecord, inUse: Map<string, boolean>): boolean {
  if (engine === 'copy' || namespace === undefined || boot === undefined || boot !== bootId()) return false;
  if (namespace === mountNamespace()) return false;
  const isInUse = inUse.get(namespace) ?? mayBeInUse(namespace);
  inUse.set(namespace, isInUse);
  return isInUse;
}

/** One target has one record: its id is the hash of the path. */
export function recordId(target: string): string {
  return createHash('sha256').update(target).digest('hex').slice(0, 16);
}
