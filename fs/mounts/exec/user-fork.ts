import { join } from 'node:path';
import { mkdir, writeFile } from 'node:fs/promises';

import type { Store } from '../../../store/store.ts';
import { IGNORE_NAME } from '../../workspace/new-workspace.ts';
import { baseFromFolder, giveAttributes } from '../fork-base.ts';
import { detachLower, newForkRecord, tearDown } from '../fork.ts';
import type { ForkRequest } from '../fork-making.ts';
import { MountTable, type CheckpointRecord, type ProcessName } from '../mount-table.ts';
import { runInUserOverlay, serveLower, type UserCommandEnd, type UserRunOptions } from './user-overlay.ts';

/** A throw-away fork of an ordinary user: a kernel overlay that only its commands see, each in a namespace of its own. */
export class UserFork {
  readonly record: CheckpointRecord;
  readonly #store: Store;
  readonly #table: MountTable;

  private constructor(store: Store, record: CheckpointRecord) {
    this.#store = store;
    this.#table = new MountTable(store);
    this.record = record;
  }

  /** @throws BentoError FUSE_UNAVAILABLE or MOUNT_FAILED when the checkpoint cannot be shown; then nothing is left */
  static async make(store: Store, target: string, request: ForkRequest): Promise<UserFork> {
    const fork = new UserFork(store, newForkRecord({ ...request, target }, true));
    try {
      await fork.#prepare(request);
      return fork;
    } catch (error) {
      await fork.close();
      throw error;
    }
  }

  async #prepare({ files }: ForkRequest): Promise<void> {
    const { record } = this;
    using _lock = await this.#table.lock();
    await mkdir(record.target, { mode: 0o700 });
    this.#table.makeForkDirs(record);
    await this.#table.add(record);
    const base = baseFromFolder(await serveLower(this.#store, record));
    const upper = join(this.#table.forkDir(record), 'upper');
    await writeFile(join(upper, 'bento.yaml'), files.config);
    if (files.ignore !== undefined && !base.has(IGNORE_NAME)) await writeFile(join(upper, IGNORE_NAME), files.ignore);
    giveAttributes(upper, { ...base, owner: undefined });
  }

  async run(command: readonly string[], options: Omit<UserRunOptions, 'forkDir' | 'cwd'>): Promise<UserCommandEnd> {
    const cwd = this.record.target;
    return await runInUserOverlay(command, { ...options, cwd, forkDir: this.#table.forkDir(this.record) });
  }

  async note(exec: readonly ProcessName[]): Promise<void> {
    await this.#table.add({ ...this.record, exec });
  }

  /** From now on it is a fork like any other that is not mounted. */
  async leave(): Promise<void> {
    const { exec: _exec, ...record } = this.record;
    detachLower(this.#table.lowerDir(record));
    await this.#table.add({ ...record, engine: 'cow' }); // the one that can show it to everybody
  }

  async close(): Promise<void> {
    await tearDown(this.#store, this.record);
  }
}
