import { ensureId } from '../../fs/workspace/config.ts';
import { isUndoTag } from '../../fs/workspace/heads.ts';
import { shortDigest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import type { PulledTag } from '../../store/transfer/merge-tags.ts';
import { defineCommand } from '../command.ts';
import { storeOf } from '../open-store.ts';
import { noteSkipped } from '../attachments.ts';
import { reportAttachment } from '../report-attachment.ts';
import { PLATFORM_OPTION, platformOf } from '../platform-option.ts';
import { chooseRemote, during, rememberRemote } from '../remote-of.ts';
import { formatSize } from '../terminal.ts';
import { showPull, TransferProgress } from '../transfer-progress.ts';

export const pull = defineCommand({
  name: 'pull',
  summary: 'Fetch checkpoints from a registry, a folder or an archive',
  usage: 'bento pull [remote] [--tag <tag>] [--platform <os/arch>]',
  details:
    'Fetches what is missing, and goes on where an earlier pull broke. The directory stays as it is. A tag that names another\n' +
    'checkpoint here moves only to one that came from it; else it stays, and the other is called <tag>-remote-<digits>. What\n' +
    'is attached to the checkpoints comes with them.',
  args: { min: 0, max: 1 },
  options: {
    tag: { type: 'string', value: 'tag', help: 'only this tag (default: all of them)' },
    platform: PLATFORM_OPTION,
  },

  async run(ctx) {
    const chosen = await chooseRemote(ctx, ctx.options.tag);
    const { name, shown, reference, loaded } = chosen;
    const platform = platformOf(ctx.options.platform);
    if (platform !== undefined && reference === undefined)
      throw new BentoError('USAGE', '--platform goes with one tag or digest', { hint: '`bento pull --tag <tag>`' });
    const store = storeOf(loaded.config);
    const layout = store.layout(await ensureId(loaded));
    const progress = new TransferProgress(ctx, 'Pulling');
    const { openRegistries } = await import('../open-registry.ts');
    const { pullTags } = await import('../../store/transfer/pull.ts');
    const registries = openRegistries(ctx);
    try {
      const result = await pullTags({ store, layout }, registries.repository(name), {
        reference,
        platform,
        isWanted: (tag) => !isUndoTag(tag),
        signal: ctx.signal,
        onEvent: (event) => showPull(event, progress, ctx),
        onWait: () => ctx.note('waiting for another command that uses this store...'),
      });
      for (const { tag, reason } of result.skipped) ctx.note(`note: ${tag} is no checkpoint: ${reason}`);
      for (const one of result.skippedReferrers) noteSkipped(one, ctx);
      return {
        remote: shown,
        reference: reference ?? null,
        remembered: await rememberRemote(chosen),
        ...result,
        attachments: result.attachments.map(reportAttachment),
      };
    } catch (error) {
      throw during('pull failed', error);
    } finally {
      await registries.close();
    }
  },

  render({ remote, reference, remembered, tags, attachments, fetchedCount, fetchedBytes }) {
    const first = `${reference === null ? 'Pulling' : `Pulling ${reference}`} from ${remote}...`;
    const remoteLine = remembered ? [`Remote: ${remote}`] : [];
    if (tags.length === 0) return [first, 'No checkpoints found on remote.', ...remoteLine].join('\n');
    return [
      first,
      ...tags.flatMap(renderTag),
      ...(attachments.length === 0 ? [] : [`  pulled ${attachments.length} attachment(s)`]),
      ...(fetchedCount === 0 ? [] : [`  ${fetchedCount} blob(s) fetched (${formatSize(fetchedBytes)})`]),
      ...remoteLine,
      'Done.',
      '',
      'Use `bento list` to see checkpoints, `bento open <ref>` to restore.',
    ].join('\n');
  },
});

function renderTag({ tag, digest, before, outcome, keptAs }: PulledTag): string[] {
  switch (outcome) {
    case 'new':
    case 'forward':
      return [`  pulled ${tag}`];
    case 'same':
      return [`  unchanged ${tag}`];
    case 'ahead':
      return [`  kept ${tag}: the one here came after the remote's`];
    case 'diverged':
      return [
        `  diverged ${tag}: it stays ${shortDigest(before ?? '')} here`,
        `    the remote's (${shortDigest(digest)}) is ${keptAs ?? ''}`,
      ];
  }
}
