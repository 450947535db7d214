import type { Checkpoint } from '../../store/checkpoint.ts';
import { shortDigest, type Digest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { defineCommand } from '../command.ts';
import { storeOf } from '../open-store.ts';
import { loadConfig } from '../../fs/workspace/config.ts';
import { oneLine } from '../terminal.ts';

export const list = defineCommand({
  name: 'list',
  summary: 'List the checkpoints of this workspace',
  usage: 'bento list',

  async run(ctx) {
    const { dir } = ctx;
    const { config } = await loadConfig(dir);
    const store = storeOf(config);
    const tags = config.id === undefined ? undefined : await store.layout(config.id).tags();
    const byDigest = new Map<Digest, string[]>();
    for (const [tag, { digest }] of tags ?? []) byDigest.set(digest, [...(byDigest.get(digest) ?? []), tag]);
    const loaded = await Promise.all(
      [...byDigest].map(async ([digest, names]) => {
        try {
          return [describe(await store.loadCheckpoint(digest), names)];
        } catch (error) {
          if (!(error instanceof BentoError)) throw error;
          ctx.note(`note: ${names.join(', ')} is left out: ${error.message}`);
          return []; // the others are whole, and this is where people look for them
        }
      }),
    );
    return loaded
      .flat()
      .sort((a, b) => compare(a, b))
      .map((row) => ({ ...row, head: row.digest === config.head }));
  },

  render(rows) {
    if (rows.length === 0) return 'No checkpoints found. Run `bento save` to create one.';
    const line = (tag: string, created: string, digest: string, message: string): string =>
      `${tag.padEnd(20)} ${created.padEnd(20)} ${digest.padEnd(22)} ${message}`.trimEnd();
    return [
      line('TAG', 'CREATED', 'DIGEST', 'MESSAGE'),
      ...rows.map((row) => line(row.tags.join(', '), row.created, shortDigest(row.digest), oneLine(row.message))),
    ].join('\n');
  },
});

function describe(checkpoint: Checkpoint, tags: string[]) {
  const { digest, sequence, created, parent, message, layers } = checkpoint;
  const sizeBytes = layers.reduce((sum, layer) => sum + layer.descriptor.size, 0);
  return { tags, sequence, created, digest, parent: parent ?? null, message, sizeBytes };
}

/** Oldest first; checkpoints of the same second in the order they were made. */
function compare(a: { created: string; sequence: number }, b: { created: string; sequence: number }): number {
  if (a.created !== b.created) return a.created < b.created ? -1 : 1;
  return a.sequence - b.sequence;
}
