import { lstatSync } from 'node:fs';

import { shareBlobs } from '../../store/blob-lock.ts';
import { BentoError } from '../../store/errors.ts';
import { defineCommand } from '../command.ts';
import { findOrigin } from '../fork-origin.ts';
import { LAZY_OPTION, parseLazy } from '../lazy.ts';
import { ENGINE_OPTION, makeForks, parseEngine } from '../make-forks.ts';
import { PLATFORM_OPTION, platformOf } from '../platform-option.ts';

const COUNT_MAX = 1000;

export const fork = defineCommand({
  name: 'fork',
  summary: 'Make a writable workspace from a checkpoint, or of this one as it is now, at once',
  usage: 'bento fork [<ref>|<workspace>] <dir>... [-n <count>] [-m <message>] [--engine <engine>] [--lazy <how>]',
  fetches: true,
  details:
    'It shares every unchanged byte with the checkpoint, has its own head, and is saved, diffed and opened like any\n' +
    'workspace. `bento close` ends it. Of several directories all are made, or none.\n' +
    'With one argument, or a directory in place of the reference (`bento fork . ../a ../b`), the workspace is forked as it\n' +
    'is now: what is not saved comes along, and is not saved in the fork either. Ignored files stay behind.',
  args: { min: 1, max: COUNT_MAX + 1 },
  options: {
    count: { type: 'number', short: 'n', value: 'count', help: 'so many forks, <dir>-1, <dir>-2 and so on' },
    message: { type: 'string', short: 'm', value: 'message', help: 'what will be tried here' },
    engine: ENGINE_OPTION,
    lazy: LAZY_OPTION,
    platform: PLATFORM_OPTION,
  },

  async run(ctx) {
    const { written, targets } = parse(ctx.args, ctx.options.count);
    const { message } = ctx.options;
    const engine = parseEngine(ctx.options.engine);
    const { lazy, platform } = ctx.options;
    const fetching = { lazy: parseLazy(lazy), platform: platformOf(platform) };
    const { store, load } = await findOrigin(written, ctx, fetching);
    using _blobs = await shareBlobs(store.root, () => ctx.note('waiting for a garbage collection...'));
    const origin = await load();
    const made = await makeForks(store, origin, targets, { message, engine }, ctx);
    const { label, checkpoint, head = null } = origin;
    const forks = made.map(({ record, copiedBecause }) => {
      if (copiedBecause !== undefined) ctx.note(`note: ${record.target} is a plain copy: ${copiedBecause}`);
      return { target: record.target, ref: label, digest: checkpoint.digest, head, engine: record.engine };
    });
    return forks.length === 1 && forks[0] ? { ...forks[0], forks } : { ref: label, digest: checkpoint.digest, forks };
  },

  render: ({ forks }) =>
    forks
      .map(({ ref, target, engine }) => `Forked ${ref} to ${target}${engine === 'copy' ? ' (copied)' : ''}`)
      .join('\n'),
});

/** @throws BentoError USAGE, or TARGET_NOT_EMPTY when one of the numbered directories is there */
function parse(
  args: readonly string[],
  count: number | undefined,
): { written: string | undefined; targets: readonly string[] } {
  const [written, targets] = args.length === 1 ? [undefined, args] : [args[0], args.slice(1)];
  if (count === undefined) return { written, targets };
  const [target = '', ...more] = targets;
  if (more.length > 0) throw new BentoError('USAGE', `-n takes one directory, not ${targets.length}`);
  if (count < 1 || count > COUNT_MAX) throw new BentoError('USAGE', `-n must be from 1 to ${COUNT_MAX}, not ${count}`);
  const base = target.replace(/(?<=.)\/+$/, '');
  const numbered = Array.from({ length: count }, (_, at) => `${base}-${at + 1}`);
  const taken = numbered.find((dir) => lstatSync(dir, { throwIfNoEntry: false }) !== undefined);
  if (taken === undefined) return { written, targets: numbered };
  throw new BentoError('TARGET_NOT_EMPTY', `${taken} exists already, so nothing was made`, {
    hint: 'choose another name, or close what is there',
  });
}
