import { chmodSync, statfsSync } from 'node:fs';
import path from 'node:path';

import { Sandbox } from '../../../fixtures/sandbox.ts';
import type { Origin } from './judge.ts';
import type { Group } from './check.ts';
import type { Engine } from './engines.ts';
import { endPartner } from './partner.ts';
import { makeFixtures, runGroup, type Observations } from './run-checks.ts';

const EXT4_MAGIC = 0xef53;

/** A control directory on the disk's own file system, a checkpoint with a fixture for every check, and forks of it. */
export class PosixWorld {
  readonly sandbox = new Sandbox();
  readonly #groups: readonly Group[];
  readonly #controls = new Map<string, Observations>();
  readonly #forks = new Map<string, Promise<string>>();
  #saved: Promise<void> | undefined;

  constructor(groups: readonly Group[]) {
    this.#groups = groups;
    chmodSync(this.sandbox.root, 0o711); // ordinary users must get to their checks
  }

  /** What the checks see on the disk's own file system. */
  control(group: Group): Observations {
    let seen = this.#controls.get(group.name);
    if (seen === undefined) {
      const root = this.sandbox.path('control');
      makeFixtures(root, group);
      seen = runGroup(root, group);
      this.#controls.set(group.name, seen);
    }
    return seen;
  }

  /** What they see in a fork, on objects of the checkpoint or on such that are made there. */
  async inFork(engine: Engine, origin: Origin, group: Group): Promise<Observations> {
    const root = path.join(await this.#forkFor(engine), origin);
    if (origin === 'fresh') makeFixtures(root, group);
    return runGroup(root, group);
  }

  async dispose(): Promise<void> {
    endPartner();
    await this.sandbox.dispose();
  }

  async #forkFor(engine: Engine): Promise<string> {
    this.#saved ??= this.#save();
    await this.#saved;
    const fork = this.#forks.get(engine.name) ?? this.#fork(engine);
    this.#forks.set(engine.name, fork);
    return await fork;
  }

  async #save(): Promise<void> {
    const { sandbox } = this;
    chmodSync(sandbox.workspace, 0o755);
    for (const group of this.#groups) makeFixtures(path.join(sandbox.workspace, 'checkpoint'), group);
    (await sandbox.bento(['init'])).ok();
    (await sandbox.bento(['save', '-m', 'fixtures'])).ok();
  }

  async #fork(engine: Engine): Promise<string> {
    const target = this.sandbox.path(engine.name);
    (await this.sandbox.bento(['fork', ...engine.forkOptions, 'cp-1', target])).ok();
    return target;
  }
}

/** What the control runs on must be what the expectations were written for. */
export function isExt4(dir: string): boolean {
  return statfsSync(dir).type === EXT4_MAGIC;
}
