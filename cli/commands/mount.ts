import { mountCheckpoint, mountWholeStore } from '../../fs/mounts/mount.ts';
import { shareBlobs } from '../../store/blob-lock.ts';
import { BentoError } from '../../store/errors.ts';
import type { Store } from '../../store/store.ts';
import { defineCommand, type Context } from '../command.ts';
import { copyInto } from '../copy-checkpoint.ts';
import { LAZY_OPTION, parseLazy } from '../lazy.ts';
import { findConfig, storeOf, type RefContext } from '../open-store.ts';
import { PLATFORM_OPTION, platformOf } from '../platform-option.ts';
import { resolveAnyRef } from '../remote-checkpoint.ts';

const OPTIONS = {
  all: { type: 'boolean', help: 'every workspace and tag of the store, a folder each; it grows with the store' },
  owners: { type: 'boolean', help: 'show the owners that the checkpoint records; default: all belongs to you' },
  allowOther: { type: 'boolean', help: 'let other users look, too; always so for root' },
  lazy: LAZY_OPTION,
  platform: PLATFORM_OPTION,
} as const;

export const mount = defineCommand({
  name: 'mount',
  summary: 'Look at a checkpoint as a read-only directory, at once',
  usage:
    'bento mount <ref> <dir> [--owners] [--allow-other] [--lazy <how>] [--platform <os/arch>] | bento mount --all <dir> [--allow-other]',
  details: 'Where FUSE is missing, it is a plain copy, which `bento unmount` removes again.',
  args: { min: 1, max: 2 },
  options: OPTIONS,

  async run(ctx) {
    const config = await findConfig(ctx.dir);
    const store = storeOf(config);
    return ctx.options.all
      ? await mountAll(store, ctx)
      : await mountOne({ store, config, dir: ctx.dir, platform: platformOf(ctx.options.platform) }, ctx);
  },

  render: ({ ref, target, digest, engine }) =>
    digest === undefined
      ? `Mounted all checkpoints on ${target} (read-only)`
      : `Mounted ${ref} on ${target} (${engine === 'copy' ? 'a copy' : 'read-only'})`,
});

interface Result {
  target: string;
  ref: string;
  /** Of the checkpoint; none for all of them. */
  digest?: string;
  engine: string;
  /** Why it is a copy and no mount. */
  copiedBecause?: string;
}

async function mountOne(place: RefContext, ctx: Context<typeof OPTIONS>): Promise<Result> {
  const [written = '', target] = ctx.args;
  if (target === undefined) throw wrongCount(2, 1);
  const { store } = place;
  using _blobs = await shareBlobs(store.root);
  const { digest, label, layout } = await resolveAnyRef(written, place, ctx, parseLazy(ctx.options.lazy));
  const { owners: keepOwners, allowOther } = ctx.options;
  const { record, copiedBecause } = await mountCheckpoint(
    store,
    { manifest: digest, ref: label, workspaceId: layout.id, target, keepOwners, allowOther },
    async (copied) => await copyInto(store, copied, ctx),
  );
  if (copiedBecause !== undefined) ctx.note(`note: ${record.target} is a plain copy: ${copiedBecause}`);
  const result = { target: record.target, ref: label, digest, engine: record.engine };
  return copiedBecause === undefined ? result : { ...result, copiedBecause };
}

async function mountAll(store: Store, ctx: Context<typeof OPTIONS>): Promise<Result> {
  const [target = '', ...more] = ctx.args;
  if (more.length > 0) throw wrongCount(1, 2);
  const { owners, platform } = ctx.options;
  if (owners || platform !== undefined) {
    const flag = owners ? '--owners' : '--platform';
    throw new BentoError('USAGE', `${flag} goes with one checkpoint, not with --all`, {
      hint: `Usage: ${mount.usage}`,
    });
  }
  const record = await mountWholeStore(store, { target, allowOther: ctx.options.allowOther });
  return { target: record.target, ref: record.ref, engine: record.engine };
}

function wrongCount(wanted: number, received: number): BentoError {
  return new BentoError('USAGE', `accepts ${wanted} arg(s), received ${received}`, { hint: `Usage: ${mount.usage}` });
}
