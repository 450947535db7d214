import { saveWorkspace } from '../../fs/workspace/save.ts';
import type { TitleReport } from '../../fs/workspace/title-report.ts';
import type { SaveEvent } from '../../fs/workspace/pack-layers.ts';
import { toText } from '../../store/byte-string.ts';
import { BentoError } from '../../store/errors.ts';
import { isTag } from '../../store/ref.ts';
import { defineCommand } from '../command.ts';
import { noteSkipped } from '../skipped.ts';
import { loadWorkspace } from '../open-store.ts';
import { describeFailure } from '../report.ts';
import { formatSize, type ProgressEvent } from '../terminal.ts';

export const save = defineCommand({
  name: 'save',
  summary: 'Checkpoint the workspace',
  usage: 'bento save [-m <message>] [--tag <tag>] [--flat]',
  fetches: true,
  details: 'Writes what changed since the checkpoint this directory is at. In a fork only its own changes are read.',
  options: {
    message: { type: 'string', short: 'm', value: 'message', help: 'what this checkpoint is' },
    tag: { type: 'string', value: 'tag', help: 'tag it with this instead of cp-N' },
    flat: { type: 'boolean', help: 'one layer for each title, for readers that expect exactly that' },
  },

  async run(ctx) {
    const { tag } = ctx.options;
    if (tag !== undefined && !isTag(tag)) throw new BentoError('REF_INVALID', `"${tag}" is not a valid tag`);
    const workspace = await loadWorkspace(ctx.dir, ctx);
    const message = ctx.options.message ?? workspace.fork?.message;
    const result = await saveWorkspace(workspace, {
      ...(message && { message }),
      ...(tag && { tag }),
      flat: ctx.options.flat,
      onEvent: (event) => ctx.progress(progressOf(event)),
      onWait: () => ctx.note('waiting for another save of this workspace...'),
    }).catch((error: unknown) => {
      throw describeFailure(error, `saving ${workspace.dir} to ${workspace.source.store.root}`);
    });
    const skipped = result.skipped.map(({ path, reason }) => ({ path: toText(path), reason }));
    noteSkipped(skipped, ctx);
    const unsteady = result.unsteady.map(toText);
    for (const path of unsteady)
      ctx.note(`note: ${path} was being written all the while; what is saved may be in between`);
    const { saved, digest, tags, sequence, titles: layers, addedBytes } = result;
    return {
      saved,
      tag: tags[0] ?? null,
      tags,
      digest: digest ?? null,
      sequence,
      addedBytes,
      layers,
      skipped,
      unsteady,
    };
  },

  render({ saved, tags, layers }) {
    if (!saved) return 'No changes detected, skipping checkpoint.';
    return ['Scanning workspace...', ...layers.map(renderTitle), `Tagged: ${tags.join(', ')}`].join('\n');
  },
});

function renderTitle({ title, fileCount, sizeBytes, status }: TitleReport): string {
  const shown = status === 'unchanged' ? 'unchanged, reusing' : status;
  return `  ${`${title}:`.padEnd(10)} ${fileCount} files, ${formatSize(sizeBytes)} (${shown})`;
}

function progressOf(event: SaveEvent): ProgressEvent {
  switch (event.kind) {
    case 'packing':
      return {
        label: `Packing ${event.title}`,
        done: event.bytesDone,
        total: event.sizeBytes,
        unit: 'bytes',
        remark: `${event.entriesDone}/${event.entryCount} entries`,
      };
    case 'packed':
      return { label: `Packed ${event.title}`, done: event.sizeBytes, unit: 'bytes' };
  }
}
