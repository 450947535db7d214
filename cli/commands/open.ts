import { existsSync, realpathSync } from 'node:fs';
import { join, resolve } from 'node:path';

import { openInPlace, openInto, type OpenResult, type TitleFilter } from '../../fs/workspace/open.ts';
import { STAGING_NAME } from '../../fs/workspace/patterns.ts';
import { openCheckpoint } from '../../fs/workspace/workspace.ts';
import { shareBlobs } from '../../store/blob-lock.ts';
import { toText } from '../../store/byte-string.ts';
import { BentoError } from '../../store/errors.ts';
import { defineCommand, type Context } from '../command.ts';
import { findConfig, loadWorkspace, openSource, resolveRef, storeOf } from '../open-store.ts';

export const open = defineCommand({
  name: 'open',
  summary: 'Restore a checkpoint here, or into a directory',
  usage: 'bento open <ref>|undo [<dir>] [--layers <names>] [--skip-layers <names>] [--no-backup [--force]]',
  details:
    'In a workspace, backs up what is there and touches only what differs; `bento open undo` takes it back. Files that no\n' +
    'checkpoint holds stay. A new or empty directory becomes a workspace of its own.',
  args: { min: 1, max: 2 },
  options: {
    layers: { type: 'string', value: 'a,b', help: 'restore only these layers' },
    skipLayers: { type: 'string', value: 'a,b', help: 'restore all but these layers' },
    noBackup: { type: 'boolean', help: 'make no backup: open undo will not work' },
    force: { type: 'boolean', help: 'with --no-backup: overwrite even what no checkpoint holds' },
  },

  async run(ctx) {
    const [written = '', targetArgument] = ctx.args;
    await settleBefore(ctx);
    const config = await findConfig(ctx.dir);
    const store = storeOf(config);
    using _blobs = await shareBlobs(store.root, () => ctx.note('waiting for a garbage collection...'));
    const target = targetArgument === undefined ? ctx.dir : resolve(targetArgument);
    const named = await resolveRef(written, { store, config, dir: existsSync(target) ? realpathSync(target) : target });
    const includes = titleFilter(ctx.options.layers, ctx.options.skipLayers);
    const isWorkspace = existsSync(join(target, 'bento.yaml'));
    const { label, digest, isUndo } = named;
    let result: OpenResult & { sequence: number };
    if (isWorkspace) {
      const workspace = await loadWorkspace(target, ctx);
      refuseOtherStore(workspace.source.store.root, store.root, target);
      const opened = await openCheckpoint(workspace.source, digest);
      const options = {
        includes,
        label,
        isUndo,
        backup: !ctx.options.noBackup,
        force: ctx.options.force,
        onWait: () => ctx.note('waiting for another command in this workspace...'),
      };
      result = { ...(await openInPlace(workspace, opened, options)), sequence: opened.checkpoint.sequence };
    } else {
      const source = await openSource(store, ctx);
      const opened = await openCheckpoint(source, digest);
      result = { ...(await openInto(source, opened, target, includes)), sequence: opened.checkpoint.sequence };
    }
    tellRefused(result.refused, ctx);
    tellKept(result.kept, ctx);
    return { ref: label, ...result };
  },

  render({ ref, sequence, dir, canUndo }) {
    const lines = [`Restoring checkpoint ${ref} (sequence ${sequence})...`, `Restored to ${dir}`];
    return [...lines, ...(canUndo ? ['', '  To undo: bento open undo'] : [])].join('\n');
  },
});

function titleFilter(layers: string | undefined, skipped: string | undefined): TitleFilter {
  const names = (text: string): string[] => text.split(',').map((name) => name.trim());
  if (layers !== undefined) return (title) => names(layers).includes(title);
  if (skipped !== undefined) return (title) => !names(skipped).includes(title);
  return undefined;
}

function refuseOtherStore(targetStore: string, sourceStore: string, target: string): void {
  if (targetStore === sourceStore) return;
  throw new BentoError('TARGET_INVALID', `${target} is a workspace of another store (${targetStore})`, {
    hint: 'open into a new directory',
  });
}

/** What an earlier `open` was killed in the middle of is ended first: it decides where `head` and `undo` are. */
async function settleBefore(ctx: Context): Promise<void> {
  if (existsSync(join(ctx.dir, STAGING_NAME)) && existsSync(join(ctx.dir, 'bento.yaml')))
    await loadWorkspace(ctx.dir, ctx);
}

/** Somebody was quicker than the restore: their files stay, and show as changes. */
function tellKept(kept: readonly string[], ctx: Pick<Context, 'note'>): void {
  const [first] = kept;
  if (first === undefined) return;
  const files = kept.length === 1 ? 'one path changed' : `${kept.length} paths changed`;
  ctx.note(`note: ${files} meanwhile and stayed as it was, first ${toText(first)}`);
}

/** As an ordinary user, owners and some attributes cannot be set: worth one line, not one a file. */
function tellRefused(refused: readonly string[], ctx: Pick<Context, 'note'>): void {
  const [first] = refused;
  if (first === undefined) return;
  ctx.note(
    `note: ${refused.length} attribute${refused.length === 1 ? '' : 's'} could not be set, first ${toText(first)}`,
  );
}
