import { existsSync, realpathSync, statSync } from 'node:fs';
import { join } from 'node:path';

import { MountTable } from '../fs/mounts/mount-table.ts';
import type { TreeSource } from '../fs/tree/index-checkpoint.ts';
import { checkpointSide, directorySide, workSide, type Side } from '../fs/workspace/compare.ts';
import { openCheckpoint, readWorkTree, type Workspace } from '../fs/workspace/workspace.ts';
import { fromText } from '../store/byte-string.ts';
import type { Context } from './command.ts';
import {
  findConfig,
  loadWorkspace,
  resolveDefault,
  resolveRef,
  storeOf,
  type NamedCheckpoint,
  type RefContext,
} from './open-store.ts';

/** Turns the arguments of a comparison into its sides. */
export class SideFinder {
  readonly #source: TreeSource;
  readonly #context: RefContext;
  readonly #ctx: Context;

  constructor(source: TreeSource, context: RefContext, ctx: Context) {
    this.#source = source;
    this.#context = context;
    this.#ctx = ctx;
  }

  /** A reference, or a directory: what is mounted there, the workspace it is, or simply its files. */
  async find(written: string): Promise<Side> {
    if (!isDirectoryArgument(written)) return await this.#checkpoint(await resolveRef(written, this.#context));
    const dir = realpathSync(written);
    const mounted = await new MountTable(this.#source.store).at(dir);
    if (mounted?.kind === 'mount') {
      return checkpointSide(this.#source, written, await openCheckpoint(this.#source, mounted.manifest));
    }
    if (existsSync(join(dir, 'bento.yaml'))) return await this.workspace(dir, written);
    return directorySide(this.#source, fromText(dir), written);
  }

  async workspace(dir: string, label: string): Promise<Side> {
    const workspace = await loadWorkspace(dir, this.#ctx);
    return await workspaceSide(workspace, label);
  }

  async head(): Promise<Side> {
    return await this.#checkpoint(await resolveDefault(this.#context));
  }

  async #checkpoint({ digest, label }: NamedCheckpoint): Promise<Side> {
    return checkpointSide(this.#source, label, await openCheckpoint(this.#source, digest));
  }
}

async function workspaceSide(workspace: Workspace, label: string): Promise<Side> {
  const { source, setup } = workspace;
  return workSide(source, await readWorkTree(workspace), { label, rules: setup.rules });
}

/** Whether an argument that may be a reference or a directory is meant as a directory. */
function isDirectoryArgument(written: string): boolean {
  const looksLikePath = written.includes('/') || written === '.' || written === '..';
  return looksLikePath && existsSync(written) && statSync(written).isDirectory();
}

/** Where references of a command that is run in `dir` are looked up. */
export async function refContext(dir: string): Promise<RefContext> {
  const config = await findConfig(dir);
  return { store: storeOf(config), config, dir };
}
