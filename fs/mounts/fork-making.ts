import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import type { Digest } from '../../store/digest.ts';
import { isTemporary, writeFilesDurably, type DurableFile, type DurableWrite } from '../../store/durable.ts';
import { BentoError, describeSystemError, errnoOf } from '../../store/errors.ts';
import { faultPoint } from '../../store/fault-point.ts';
import type { Lock } from '../../store/lock.ts';
import type { Store } from '../../store/store.ts';
import type { CheckpointTree } from '../tree/checkpoint-tree.ts';
import { createConfig } from '../workspace/config-file.ts';
import { headFile, makeHeadsFolder } from '../workspace/heads.ts';
import { IGNORE_NAME, type WorkspaceFiles } from '../workspace/new-workspace.ts';
import { fuseAvailability } from './dev-fuse.ts';
import { baseFromFolder, baseFromTree, giveAttributes, type ForkBase } from './fork-base.ts';
import { bring, detach, findLower, fuseMissing, mountKernelOverlay } from './kernel-mount.ts';
import type { CopyCheckpoint, Mounted } from './mount.ts';
import type { MountRequest } from './mount-record.ts';
import { FORK_ENGINES, MountTable, type CheckpointRecord, type ForkEngine } from './mount-table.ts';
import { removeNote, writeNote } from './note-file.ts';
import { removeTree } from './remove-tree.ts';

/** What forks are made of, before anything has been done about it. */
export interface ForkRequest extends Omit<MountRequest, 'target'> {
  /** Where their heads are: their own checkpoint, or the one that a workspace with unsaved work was forked at. */
  head: Digest | undefined;
  /** What makes each a workspace. */
  files: WorkspaceFiles;
  /** This engine and no other. */
  engine?: ForkEngine | undefined;
}

export interface ForkSteps {
  /** The checkpoint's tree, for engines that show none. */
  openTree: () => Promise<CheckpointTree>;
  /** Absent: a plain copy is no way to do it. */
  copy?: CopyCheckpoint;
}

export interface ForksToMake {
  records: CheckpointRecord[];
  request: ForkRequest;
  steps: ForkSteps;
  /** Of the table; a copy does not need it while it is written. */
  lock: Lock;
}

/** Some forks while they are made. */
export class ForkMaking {
  /** As they are on record by now. */
  records: CheckpointRecord[];
  readonly #store: Store;
  readonly #table: MountTable;
  readonly #request: ForkRequest;
  readonly #steps: ForkSteps;
  readonly #lock: Lock;

  constructor(store: Store, { records, request, steps, lock }: ForksToMake) {
    this.#store = store;
    this.#table = new MountTable(store);
    this.records = records;
    this.#request = request;
    this.#steps = steps;
    this.#lock = lock;
  }

  /** With the first engine that works. @throws what the last one throws, unless that is a copy */
  async run(): Promise<Mounted[]> {
    const { usable, reason } = fuseAvailability();
    let obstacle = usable === undefined ? fuseMissing(reason) : undefined;
    for (const engine of enginesToTry(this.#request.engine)) {
      if (engine !== 'copy' && usable === undefined) continue;
      if (engine === 'copy' && this.#steps.copy === undefined) continue;
      this.records = this.records.map((record) => ({ ...record, engine }));
      try {
        if (engine === 'copy') await this.#copyAll(this.#steps.copy ?? NO_COPY);
        else await this.#mountAll(engine);
        return this.#made(engine === 'copy' ? (obstacle?.message ?? 'it was asked for') : undefined);
      } catch (error) {
        if (!(error instanceof BentoError && IS_ABOUT_THE_ENGINE.has(error.code))) throw error;
        obstacle = error;
        this.#unmountAll();
      }
    }
    throw obstacle ?? fuseMissing(reason);
  }

  #made(copiedBecause: string | undefined): Mounted[] {
    return this.records.map((record) => ({ record, copiedBecause }));
  }

  async #mountAll(engine: ForkEngine): Promise<void> {
    const [first] = this.records;
    if (first === undefined) return;
    const lower = engine === 'overlay' ? await findLower(this.#store, first) : undefined;
    const base = lower === undefined ? baseFromTree(await this.#steps.openTree()) : baseFromFolder(lower);
    await this.#prepareAll(base);
    for (const record of this.records) {
      if (lower === undefined) await bring(this.#store, record);
      else mountKernelOverlay(lower, record, this.#table.forkDir(record));
    }
    faultPoint('fork.mounted');
  }

  /** All that has to survive is durable before the first mount. Records come last: a fork on record is whole. */
  async #prepareAll(base: ForkBase): Promise<void> {
    for (const record of this.records) this.#table.makeForkDirs(record);
    faultPoint('fork.dirs-made');
    const uppers = this.records.map((record) => join(this.#table.forkDir(record), 'upper'));
    await this.#write(
      uppers.flatMap((upper) => this.#filesIn(upper, base)),
      {
        folders: uppers.flatMap((upper) => [dirname(upper), dirname(dirname(upper))]),
        onRenamed: () => uppers.forEach((upper) => giveAttributes(upper, base)),
      },
    );
    faultPoint('fork.described');
    await this.#recordAll();
    for (const record of this.records) writeNote(record, this.#store.root);
    faultPoint('fork.recorded');
  }

  async #recordAll(): Promise<void> {
    const { workspaceId, head } = this.#request;
    const layout = this.#store.layout(workspaceId);
    this.#table.ensure();
    await makeHeadsFolder(layout);
    const records = this.records.map((record) => this.#table.fileOf(record));
    const heads = this.records.map(({ target }) => headFile(layout, { dir: target, ...(head && { head }) }));
    await this.#write([...records, ...heads]);
  }

  async #write(files: readonly DurableFile[], more?: DurableWrite): Promise<void> {
    try {
      await writeFilesDurably(files, more);
    } catch (error) {
      throw describeSystemError(error, `writing ${this.#store.root}`);
    }
  }

  #filesIn(place: string, base: ForkBase): DurableFile[] {
    const { config, ignore } = this.#request.files;
    if (base.has('bento.yaml')) throw new BentoError('FAILED', 'the checkpoint has a bento.yaml of its own');
    const ignoring = ignore === undefined || base.has(IGNORE_NAME) ? [] : [{ name: IGNORE_NAME, data: ignore }];
    const files = [{ name: 'bento.yaml', data: config }, ...ignoring];
    return files.map(({ name, data }) => ({ path: join(place, name), data, mode: 0o644 }));
  }

  #unmountAll(): void {
    for (const record of this.records) detach(record);
  }

  async #copyAll(copy: CopyCheckpoint): Promise<void> {
    for (const record of this.records) {
      removeNote(record.target);
      await removeTree(this.#table.forkDir(record));
    }
    await this.#recordAll();
    this.#lock.release();
    const { config, ignore } = this.#request.files;
    for (const record of this.records) {
      await copy(record);
      await createConfig(record.target, config);
      if (ignore !== undefined) await createIgnore(record.target, ignore);
    }
  }
}

/** Of a fork in which nobody has worked; or a command was killed while it was made. */
export function isOwnForkFile(name: string): boolean {
  return ['bento.yaml', IGNORE_NAME].includes(name) || isTemporary(name);
}

const NO_COPY = (): Promise<void> => Promise.reject(new RangeError('no copy without a way to make it'));

const IS_ABOUT_THE_ENGINE = new Set(['MOUNT_FAILED', 'FUSE_UNAVAILABLE']);

/** One that the checkpoint has stays. */
async function createIgnore(dir: string, text: string): Promise<void> {
  await writeFile(join(dir, IGNORE_NAME), text, { flag: 'wx' }).catch((error: unknown) => {
    if (errnoOf(error) !== 'EEXIST') throw error;
  });
}

function enginesToTry(wanted: ForkEngine | undefined): readonly ForkEngine[] {
  if (wanted !== undefined) return [wanted];
  const { usable } = fuseAvailability();
  if (usable === undefined) return ['copy'];
  return usable === 'root' ? FORK_ENGINES : ['cow', 'copy'];
}
