import { realpathSync } from 'node:fs';

import { collectGarbage, type GcResult } from '../../fs/maintenance/gc.ts';
import { readPolicy } from '../../fs/maintenance/retention.ts';
import { loadConfig } from '../../fs/workspace/config.ts';
import { parseDigest, shortDigest } from '../../store/digest.ts';
import { defineCommand } from '../command.ts';
import { openSource, storeOf } from '../open-store.ts';
import { formatSize, oneLine } from '../terminal.ts';

export const gc = defineCommand({
  name: 'gc',
  summary: 'Delete old checkpoints, and blobs that nothing needs',
  usage: 'bento gc [--keep-last <n>] [--keep-tagged] [-n]',
  details:
    'Checkpoints of this workspace go by `retention` in bento.yaml: the newest `keep_last` stay, and what `tiers` keep.\n' +
    '--keep-last replaces both. `latest`, what any directory is at, undo slots and what is mounted always stay.\n' +
    'Blobs are collected for the whole store.',
  options: {
    keepLast: { type: 'number', value: 'n', help: 'keep only the newest n checkpoints' },
    keepTagged: { type: 'boolean', help: 'keep checkpoints that have a tag of yours' },
    dryRun: { type: 'boolean', short: 'n', help: 'show what would go, and delete nothing' },
    dropDamaged: { type: 'boolean', help: 'give up checkpoints whose manifest is missing or damaged' },
  },

  async run(ctx): Promise<GcResult> {
    const { keepLast, keepTagged, dryRun, dropDamaged } = ctx.options;
    const { dir, config } = await loadConfig(ctx.dir);
    const store = storeOf(config);
    const policy = await readPolicy(dir, config, { keepLast, keepTagged });
    const source = await openSource(store, ctx);
    const head = config.head === undefined ? undefined : parseDigest(config.head, 'head in bento.yaml');
    const result = await collectGarbage(source, {
      workspaceId: config.id ?? '',
      ...(head && { here: { dir: realpathSync(dir), head } }),
      policy,
      dryRun,
      dropDamaged,
      onEvent: ({ blobsDone, blobCount }) =>
        ctx.progress({ label: 'Deleting blobs', done: blobsDone, total: blobCount }),
      onWait: () => ctx.note('waiting for other commands that use this store...'),
    });
    for (const path of result.orphanForks) ctx.note(`note: ${path} is no fork's any more, but holds files: left alone`);
    return result;
  },

  render(result) {
    const { deleted, blobs, leftovers, dryRun } = result;
    if (deleted.length === 0 && blobs.length === 0 && leftovers.length === 0) return 'Nothing to clean up.';
    return (dryRun ? renderPlan(result) : renderDone(result)).join('\n');
  },
});

function renderDone({ deleted, blobs, freedBytes, leftovers, leftoverBytes }: GcResult): string[] {
  return [
    ...(deleted.length === 0 ? [] : [`Deleted ${deleted.length} checkpoint(s).`]),
    ...(blobs.length === 0 ? [] : [`Pruned ${blobs.length} blob(s), freed ${formatSize(freedBytes)}.`]),
    ...(leftovers.length === 0 ? [] : [`Removed ${leftovers.length} leftover(s), freed ${formatSize(leftoverBytes)}.`]),
  ];
}

function renderPlan({ deleted, blobs, freedBytes, leftovers, leftoverBytes }: GcResult): string[] {
  const checkpoints = deleted.map(({ tags, created, digest, message }) =>
    `  ${tags.join(', ').padEnd(20)} ${created.padEnd(20)} ${shortDigest(digest)} ${oneLine(message)}`.trimEnd(),
  );
  return [
    ...(deleted.length === 0 ? [] : [`Would delete ${deleted.length} checkpoint(s):`, ...checkpoints]),
    ...(blobs.length === 0
      ? []
      : [
          `Would prune ${blobs.length} blob(s), freeing ${formatSize(freedBytes)}:`,
          ...blobs.map(({ digest, sizeBytes }) => `  ${shortDigest(digest)} ${formatSize(sizeBytes)}`),
        ]),
    ...(leftovers.length === 0
      ? []
      : [
          `Would remove ${leftovers.length} leftover(s), freeing ${formatSize(leftoverBytes)}:`,
          ...leftovers.map(({ path }) => `  ${oneLine(path)}`),
        ]),
  ];
}
