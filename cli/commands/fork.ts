import { forkCheckpoint } from '../../fs/mounts/fork.ts';
import type { Mounted } from '../../fs/mounts/mount.ts';
import { FORK_ENGINES, type CheckpointRecord, type ForkEngine } from '../../fs/mounts/mount-table.ts';
import { describeNewWorkspace } from '../../fs/workspace/new-workspace.ts';
import { shareBlobs } from '../../store/blob-lock.ts';
import type { Checkpoint } from '../../store/checkpoint.ts';
import { BentoError } from '../../store/errors.ts';
import type { Store } from '../../store/store.ts';
import { defineCommand, type Context } from '../command.ts';
import { copyInto } from '../copy-checkpoint.ts';
import { findConfig, resolveRef, storeOf } from '../open-store.ts';

export const fork = defineCommand({
  name: 'fork',
  summary: 'Make a writable workspace from a checkpoint, at once',
  usage: 'bento fork <ref> <dir>... [-m <message>]',
  details:
    'It shares every unchanged byte with the checkpoint, has its own head, and is saved, diffed and opened like any\nworkspace. `bento close` ends it.',
  args: { min: 2, max: 1000 },
  options: {
    message: { type: 'string', short: 'm', value: 'message', help: 'what will be tried here' },
    engine: {
      type: 'string',
      value: FORK_ENGINES.join('|'),
      help: 'how it is made: kernel overlay, copy-on-write in the daemon, or a plain copy; default: the fastest that works',
    },
  },

  async run(ctx) {
    const [written = '', ...targets] = ctx.args;
    const engine = parseEngine(ctx.options.engine);
    const config = await findConfig(ctx.dir);
    const store = storeOf(config);
    using _blobs = await shareBlobs(store.root, () => ctx.note('waiting for a garbage collection...'));
    const { digest, label, layout } = await resolveRef(written, { store, config, dir: ctx.dir });
    const checkpoint = await store.loadCheckpoint(digest);
    const forks = [];
    for (const target of targets) {
      const { message } = ctx.options;
      const request = {
        manifest: digest,
        ref: label,
        workspaceId: layout.id,
        target,
        ...(message && { message }),
        ...(engine && { engine }),
      };
      const { record, copiedBecause } = await makeFork(store, request, checkpoint, ctx);
      if (copiedBecause !== undefined) ctx.note(`note: ${record.target} is a plain copy: ${copiedBecause}`);
      forks.push({ target: record.target, ref: label, digest, engine: record.engine });
    }
    return forks.length === 1 && forks[0] ? { ...forks[0], forks } : { ref: label, digest, forks };
  },

  render: ({ forks }) =>
    forks
      .map(({ ref, target, engine }) => `Forked ${ref} to ${target}${engine === 'copy' ? ' (copied)' : ''}`)
      .join('\n'),
});

/** @throws BentoError USAGE */
function parseEngine(written: string | undefined): ForkEngine | undefined {
  if (written === undefined || written === 'auto') return undefined;
  const engine = FORK_ENGINES.find((known) => known === written);
  if (engine !== undefined) return engine;
  throw new BentoError('USAGE', `there is no engine ${written}`, { hint: `one of auto, ${FORK_ENGINES.join(', ')}` });
}

async function makeFork(
  store: Store,
  request: Parameters<typeof forkCheckpoint>[1],
  checkpoint: Checkpoint,
  ctx: Context,
): Promise<Mounted> {
  return await forkCheckpoint(store, request, {
    prepare: async (record) => await describeFork(store, record, checkpoint),
    copy: async (record) => await copyInto(store, record, ctx, checkpoint),
  });
}

async function describeFork(
  store: Store,
  { target, workspaceId, manifest }: CheckpointRecord,
  checkpoint: Checkpoint,
): Promise<void> {
  await describeNewWorkspace(checkpoint, { dir: target, workspaceId, storeRoot: store.root, head: manifest });
}
