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
  usage: 'bento gc [--keep-last <n>] [--keep-tagged] [--whole] [-n]',
  details:
    'Checkpoints of this workspace go by `retention` in bento.yaml: the newest `keep_last` stay, and what `tiers` keep.\n' +
    '--keep-last replaces both. `latest`, what any directory is at, undo slots and what is mounted always stay.\n' +
    'Blobs are collected for the whole store. A layer that shares most of a large file with another is kept as a recipe,\n' +
    'which skopeo and other OCI tools cannot read: --whole gives every layer a file of its own.',
  options: {
    keepLast: { type: 'number', value: 'n', help: 'keep only the newest n checkpoints' },
    keepTagged: { type: 'boolean', help: 'keep checkpoints that have a tag of yours' },
    whole: { type: 'boolean', help: 'give layers kept as recipes files of their own, for other programs' },
    dryRun: { type: 'boolean', short: 'n', help: 'show what would go, and delete nothing' },
    dropDamaged: { type: 'boolean', help: 'give up checkpoints whose manifest is missing or damaged' },
  },

  async run(ctx): Promise<GcResult> {
    const { keepLast, keepTagged, whole, dryRun, dropDamaged } = ctx.options;
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
      makeWhole: whole,
      onEvent: ({ blobsDone, blobCount }) =>
        ctx.progress({ label: 'Deleting blobs', done: blobsDone, total: blobCount }),
      onWait: () => ctx.note('waiting for other commands that use this store...'),
    });
    for (const path of result.orphanForks) ctx.note(`note: ${path} is no fork's any more, but holds files: left alone`);
    return result;
  },

  render(result) {
    const { deleted, blobs, leftovers, madeWhole, dryRun } = result;
    if ([deleted, blobs, leftovers, madeWhole].every(({ length }) => length === 0)) return 'Nothing to clean up.';
    return (dryRun ? renderPlan(result) : renderDone(result)).join('\n');
  },
});

function renderDone({ deleted, blobs, freedBytes, leftovers, leftoverBytes, madeWhole }: GcResult): string[] {
  return [
    ...(deleted.length === 0 ? [] : [`Deleted ${deleted.length} checkpoint(s).`]),
    ...(blobs.length === 0 ? [] : [`Pruned ${blobs.length} blob(s), freed ${formatSize(freedBytes)}.`]),
    ...(leftovers.length === 0 ? [] : [`Removed ${leftovers.length} leftover(s), freed ${formatSize(leftoverBytes)}.`]),
    ...(madeWhole.length === 0 ? [] : [`Made ${madeWhole.length} layer(s) whole, ${formatSize(sumSizes(madeWhole))}.`]),
  ];
}

function sumSizes(items: readonly { sizeBytes: number }[]): number {
  return items.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

function renderPlan({ deleted, blobs, freedBytes, leftovers, leftoverBytes, madeWhole }: GcResult): string[] {
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
    ...(madeWhole.length === 0
      ? []
      : [
          `Would make ${madeWhole.length} layer(s) whole, ${formatSize(sumSizes(madeWhole))}:`,
          ...madeWhole.map(({ digest, sizeBytes }) => `  ${shortDigest(digest)} ${formatSize(sizeBytes)}`),
        ]),
  ];
}
