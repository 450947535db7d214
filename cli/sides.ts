import { existsSync, realpathSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';

import { MountTable, type MountStatus } from '../fs/mounts/mount-table.ts';
import { openTree, type TreeSource } from '../fs/tree/index-checkpoint.ts';
import { nodeAt } from '../fs/tree/tree.ts';
import { checkpointSide, partOf, type Side } from '../fs/workspace/compare.ts';
import { fromText } from '../store/byte-string.ts';
import type { Digest } from '../store/digest.ts';
import type { Context } from './command.ts';
import {
  findConfig,
  loadWorkspace,
  openSource,
  resolveDefault,
  storeOf,
  type NamedCheckpoint,
  type RefContext,
} from './open-store.ts';
import { resolveAnyRef } from './remote-checkpoint.ts';

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

  /**
   * A reference, or a directory: what is mounted there, the workspace it is, a part of either, or simply its files. What
   * bento mounted is answered from the index; nobody walks through the mount.
   */
  async find(written: string): Promise<Side> {
    if (!isDirectoryArgument(written))
      return await this.#checkpoint(await resolveAnyRef(written, this.#context, this.#ctx, 'look'));
    const dir = realpathSync(written);
    const mounted = await this.#mountAround(dir);
    if (mounted?.record.kind === 'mount') {
      const { target, manifest } = mounted.record;
      const side = manifest && part(await checkpointOf(mounted.source, written, manifest), target, dir);
      return side ?? (await this.#directory(dir, written));
    }
    const root = workspaceAround(dir, mounted?.record.target);
    const side = root === undefined ? undefined : part(await this.workspace(root, written), root, dir);
    return side ?? (await this.#directory(dir, written));
  }

  async workspace(dir: string, label: string): Promise<Side> {
    const { readWorkTree } = await import('../fs/workspace/workspace.ts');
    const { workSide } = await import('../fs/workspace/work-side.ts');
    const workspace = await loadWorkspace(dir, this.#ctx);
    const { source, setup } = workspace;
    return workSide(source, await readWorkTree(workspace), { label, rules: setup.rules });
  }

  async head(): Promise<Side> {
    return await this.#checkpoint(await resolveDefault(this.#context));
  }

  async #checkpoint({ digest, label }: NamedCheckpoint): Promise<Side> {
    return await checkpointOf(this.#source, label, digest);
  }

  async #directory(dir: string, label: string): Promise<Side> {
    const { directorySide } = await import('../fs/workspace/work-side.ts');
    return directorySide(this.#source, fromText(dir), label);
  }

  /** The innermost mount or fork a directory is in, of the store at hand or of the user's own. */
  async #mountAround(dir: string): Promise<{ source: TreeSource; record: MountStatus } | undefined> {
    const own = innermost(await new MountTable(this.#source.store).list(), dir);
    if (own !== undefined) return { source: this.#source, record: own };
    const other = storeOf(undefined);
    if (other.root === this.#source.store.root || !existsSync(other.root)) return undefined;
    const record = innermost(await new MountTable(other).list(), dir);
    return record && { source: await openSource(other, this.#ctx), record };
  }
}

async function checkpointOf(source: TreeSource, label: string, digest: Digest): Promise<Side> {
  const checkpoint = await source.store.loadCheckpoint(digest);
  return checkpointSide(source, label, { checkpoint, tree: await openTree(source, checkpoint) });
}

/** What of a side is in a directory at or below its root; undefined when the side leaves that out. */
function part(side: Side, root: string, dir: string): Side | undefined {
  const path = fromText(relative(root, dir));
  if (path === '') return side;
  const node = nodeAt(side.tree, path);
  return node?.type === 'dir' ? partOf(side, path, node) : undefined;
}

function innermost(records: readonly MountStatus[], dir: string): MountStatus | undefined {
  const around = records.filter(({ target }) => dir === target || dir.startsWith(`${target}/`));
  return around.sort((a, b) => b.target.length - a.target.length)[0];
}

/** The nearest directory upwards that is a workspace. A fork is one even when it is not mounted and so looks empty. */
function workspaceAround(dir: string, fork: string | undefined): string | undefined {
  if (existsSync(join(dir, 'bento.yaml')) || dir === fork) return dir;
  return dirname(dir) === dir ? undefined : workspaceAround(dirname(dir), fork);
}

/** Whether an argument that may be a reference or a directory is meant as a directory. */
export function isDirectoryArgument(written: string): boolean {
  const looksLikePath = written.includes('/') || written === '.' || written === '..';
  return looksLikePath && existsSync(written) && statSync(written).isDirectory();
}

/** Where references of a command that is run in `dir` are looked up. */
export async function refContext(dir: string): Promise<RefContext> {
  const config = await findConfig(dir);
  return { store: storeOf(config), config, dir };
}
