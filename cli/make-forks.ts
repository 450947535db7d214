import { forkCheckpoint } from '../fs/mounts/fork.ts';
import type { ForkRequest } from '../fs/mounts/fork-making.ts';
import type { Mounted } from '../fs/mounts/mount.ts';
import { FORK_ENGINES, type ForkEngine, type ProcessName } from '../fs/mounts/mount-table.ts';
import { newWorkspaceFiles } from '../fs/workspace/new-workspace.ts';
import type { Checkpoint } from '../store/checkpoint.ts';
import type { Digest } from '../store/digest.ts';
import { BentoError } from '../store/errors.ts';
import type { Store } from '../store/store.ts';
import type { Context, OptionSpec } from './command.ts';
import { copyInto } from './copy-checkpoint.ts';
import { openSource } from './open-store.ts';

/** What forks are made from. */
export interface ForkOrigin {
  checkpoint: Checkpoint;
  /** What the user calls it. */
  label: string;
  workspaceId: string;
  /** Where the forks' heads are. */
  head: Digest | undefined;
  /** Where it was found, `registry/path`; undefined: in the store. */
  remote?: string | undefined;
}

export interface MakeForksOptions {
  message?: string | undefined;
  engine?: ForkEngine | undefined;
  /** Where nothing can be mounted, it is no fork. */
  mustMount?: boolean;
  exec?: readonly ProcessName[] | undefined;
}

export function forkRequest(
  { root }: Pick<Store, 'root'>,
  { checkpoint, label, workspaceId, head, remote }: ForkOrigin,
  { message, engine, exec }: MakeForksOptions,
): ForkRequest {
  return {
    manifest: checkpoint.digest,
    ref: label,
    workspaceId,
    head,
    files: newWorkspaceFiles(checkpoint, { workspaceId, storeRoot: root, head, remote }),
    ...(message && { message }),
    ...(exec && { exec }),
    engine,
  };
}

/** Makes forks at these directories; all or none. */
export async function makeForks(
  store: Store,
  origin: ForkOrigin,
  targets: readonly string[],
  options: MakeForksOptions,
  ctx: Context,
): Promise<Mounted[]> {
  const { checkpoint } = origin;
  return await forkCheckpoint(store, targets, forkRequest(store, origin, options), {
    openTree: async () => {
      const { openTree } = await import('../fs/tree/index-checkpoint.ts');
      return await openTree(await openSource(store, ctx), checkpoint);
    },
    ...(options.mustMount !== true && { copy: async (record) => await copyInto(store, record, ctx, checkpoint) }),
  });
}

export const ENGINE_OPTION = {
  type: 'string',
  value: FORK_ENGINES.join('|'),
  help: 'how it is made: kernel overlay, copy-on-write in the daemon, or a plain copy; default: the fastest that works',
} as const satisfies OptionSpec;

/** @throws BentoError USAGE */
export function parseEngine(
  written: string | undefined,
  known: readonly ForkEngine[] = FORK_ENGINES,
): ForkEngine | undefined {
  if (written === undefined || written === 'auto') return undefined;
  const engine = known.find((one) => one === written);
  if (engine !== undefined) return engine;
  throw new BentoError('USAGE', `there is no engine ${written}, but auto, ${known.join(', ')}`);
}
