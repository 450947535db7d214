import type { LoadedConfig } from '../../fs/workspace/config.ts';
import { isUndoTag } from '../../fs/workspace/heads.ts';
import { shortDigest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import type { Layout } from '../../store/layout.ts';
import { isTag } from '../../store/ref.ts';
import { archiveIsClosed, parseLocalPlace } from '../../store/registry/local-ref.ts';
import { parseRemoteRef } from '../../store/registry/remote-ref.ts';
import type { RepositoryName } from '../../store/registry/repository.ts';
import { isConflictTag } from '../../store/transfer/merge-tags.ts';
import type { PushEvent } from '../../store/transfer/push.ts';
import { defineCommand } from '../command.ts';
import { noCheckpoints, storeOf } from '../open-store.ts';
import { reportAttachment } from '../report-attachment.ts';
import { chooseRemote, during, rememberRemote } from '../remote-of.ts';
import { formatSize } from '../terminal.ts';
import { TransferProgress } from '../transfer-progress.ts';

export const push = defineCommand({
  name: 'push',
  summary: 'Send checkpoints to a registry or a folder',
  usage: 'bento push [remote] [--tag <tag>] [--force]',
  fetches: true,
  details:
    'Sends what the registry does not have, and goes on where an earlier push broke; file:///<folder> is an OCI layout that is\n' +
    'used like one, for example on a stick. A tag that points at a checkpoint which ours did not come from is left alone, and\n' +
    'nothing is sent: --force moves it. Undo slots stay here. What is attached to these checkpoints goes with them.',
  args: { min: 0, max: 1 },
  options: {
    tag: { type: 'string', value: 'tag', help: 'only this tag (default: all of them)' },
    force: { type: 'boolean', help: 'move tags that point at checkpoints which ours did not come from' },
  },

  async run(ctx) {
    const [written] = ctx.args;
    if (written !== undefined && parseLocalPlace(written)?.kind === 'archive') throw archiveIsClosed(written);
    const chosen = await chooseRemote(ctx, ctx.options.tag);
    const { name, shown, reference, loaded } = chosen;
    const store = storeOf(loaded.config);
    const layout = store.layout(loaded.config.id ?? '');
    if (loaded.config.id === undefined) throw noCheckpoints();
    const tags = await tagsToPush(layout, reference);
    const progress = new TransferProgress(ctx, 'Pushing');
    const { openRegistries } = await import('../open-registry.ts');
    const { pushTags } = await import('../../store/transfer/push.ts');
    const registries = openRegistries(ctx);
    try {
      const result = await pushTags({ store, layout }, registries.repository(name), {
        tags,
        force: ctx.options.force,
        mountFrom: siblingsOf(name, loaded),
        signal: ctx.signal,
        onEvent: (event) => show(event, progress),
        onWait: () => ctx.note('waiting for a garbage collection...'),
      });
      return {
        remote: shown,
        remembered: await rememberRemote(chosen),
        ...result,
        attachments: result.attachments.map(reportAttachment),
      };
    } catch (error) {
      throw during('push failed', error);
    } finally {
      await registries.close();
    }
  },

  render({ remote, remembered, tags, attachments, sentCount, sentBytes, thereCount }) {
    const rows = tags.map(({ tag, digest, outcome }) => {
      const what = outcome === 'same' ? 'unchanged' : 'pushed';
      return `  ${what} ${tag} (${shortDigest(digest)})`;
    });
    const blobs = `  ${sentCount} blob(s) sent (${formatSize(sentBytes)}), ${thereCount} were there`;
    const hasMoved = attachments.length > 0 || tags.some(({ outcome }) => outcome !== 'same');
    return [
      `Pushing to ${remote}...`,
      ...rows,
      ...(attachments.length === 0 ? [] : [`  pushed ${attachments.length} attachment(s)`]),
      ...(hasMoved ? [blobs] : []),
      ...(remembered ? [`Remote: ${remote}`] : []),
      'Done.',
    ].join('\n');
  },
});

/** The remote of this workspace, when another repository of its registry is pushed to: what is there need not be sent. */
function siblingsOf(name: RepositoryName, { config: { remote }, dir }: LoadedConfig): string[] {
  if (!remote) return [];
  const { registry, repository } = parseRemoteRef(remote, dir);
  return registry === name.registry && repository !== name.repository ? [repository] : [];
}

async function tagsToPush(layout: Layout, reference: string | undefined): Promise<string[]> {
  if (reference !== undefined) {
    if (isTag(reference)) return [reference];
    throw new BentoError('REF_INVALID', `"${reference}" is not a valid tag`, { hint: '`bento push --tag <tag>`' });
  }
  const tags = [...(await layout.tags()).keys()].filter((tag) => isTag(tag) && !isUndoTag(tag) && !isConflictTag(tag));
  if (tags.length === 0) throw noCheckpoints();
  return tags;
}

function show(event: PushEvent, progress: TransferProgress): void {
  if (event.kind === 'planned') progress.plan(event.sizeBytes);
  if (event.kind !== 'blob') return;
  if (event.outcome === undefined || event.outcome === 'sent') progress.advance(event.digest, event.sentBytes);
  else progress.leaveOut(event.sizeBytes);
}
