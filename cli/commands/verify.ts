import { verifyStore, type Damage, type VerifyEvent, type VerifyResult } from '../../fs/maintenance/verify.ts';
import { shortDigest } from '../../store/digest.ts';
import { ERRORS } from '../../store/errors.ts';
import { defineCommand } from '../command.ts';
import { findConfig, resolveRef, storeOf } from '../open-store.ts';
import { formatSize, oneLine, type ProgressEvent } from '../terminal.ts';

export const verify = defineCommand({
  name: 'verify',
  summary: 'Check checkpoints down to the last byte',
  usage: 'bento verify [<ref>...] [--quick] [--repair]',
  details:
    'Without a reference, everything in the store: blobs, layers, files, the index, tags, heads and mounts. Exits with 12\n' +
    'when something is damaged and not repaired, and names the checkpoints that need it.',
  args: { min: 0, max: 1000 },
  options: {
    quick: { type: 'boolean', help: 'only whether everything is there and as long as it should be' },
    repair: { type: 'boolean', help: 'mend the index and caches, and blobs that there is another copy of' },
  },

  async run(ctx): Promise<VerifyResult> {
    const { dir, args, options } = ctx;
    const config = await findConfig(dir);
    const store = storeOf(config);
    const only = [];
    for (const written of args) only.push(await resolveRef(written, { store, config, dir }));
    return await verifyStore(store, {
      ...(only.length > 0 && { only }),
      dir,
      workspaceId: config?.id,
      isQuick: options.quick,
      isRepair: options.repair,
      onEvent: (event) => ctx.progress(progressOf(event)),
      onWait: () => ctx.note('waiting for a garbage collection...'),
    });
  },

  exitCode: ({ damages }) => (damages.every(({ repaired }) => repaired) ? 0 : ERRORS.DIGEST_MISMATCH.exitCode),

  render({ checkpointCount, blobCount, sizeBytes, remoteCount, damages }) {
    const remote = remoteCount === 0 ? '' : ` (${remoteCount} layer(s) are partly in a registry, and were not)`;
    const verified = `Verified ${checkpointCount} checkpoint(s), ${blobCount} blob(s), ${formatSize(sizeBytes)}${remote}`;
    if (damages.length === 0) return `${verified}: no damage found.`;
    const repairedCount = damages.filter(({ repaired }) => repaired).length;
    const repaired = repairedCount === 0 ? '' : `, ${repairedCount} repaired`;
    return [...damages.map(renderDamage), `${verified}: ${damages.length} damage(s) found${repaired}.`].join('\n');
  },
});

function renderDamage({ where, what, digest, affects, files, repaired }: Damage): string {
  const named = digest === null ? '' : ` (${shortDigest(digest)})`;
  const hit = files.length === 0 ? '' : `; files: ${files.join(', ')}`;
  const needed = affects.length === 0 ? '' : `; affects ${affects.join(', ')}`;
  return oneLine(`${where}${named}: ${what}${hit}${needed}${repaired ? ' - repaired' : ''}`);
}

function progressOf(event: VerifyEvent): ProgressEvent {
  switch (event.kind) {
    case 'hashing':
      return { label: 'Verifying', done: event.bytesDone, unit: 'bytes' };
    case 'checking-layer':
      return { label: 'Checking layers', done: event.layersDone, total: event.layerCount };
  }
}
