import { existsSync, realpathSync } from 'node:fs';
import { join, resolve } from 'node:path';

import { OPEN_MODES, type Config, type OpenMode } from '../../fs/workspace/config-types.ts';
import type { Engine } from '../../fs/mounts/mount-table.ts';
import type { OpenResult, TitleFilter } from '../../fs/workspace/open.ts';
import { STAGING_NAME } from '../../fs/workspace/patterns.ts';
import { shareBlobs } from '../../store/blob-lock.ts';
import { toText } from '../../store/byte-string.ts';
import { BentoError } from '../../store/errors.ts';
import type { Store } from '../../store/store.ts';
import { defineCommand, type Context } from '../command.ts';
import { completeCheckpoint, LAZY_OPTION, parseLazy } from '../lazy.ts';
import { makeForks } from '../make-forks.ts';
import { findConfig, loadWorkspace, openSource, storeOf, type NamedCheckpoint } from '../open-store.ts';
import { PLATFORM_OPTION, platformOf } from '../platform-option.ts';
import { resolveAnyRef } from '../remote-checkpoint.ts';

interface OpenOptions {
  layers: string | undefined;
  skipLayers: string | undefined;
  lazy: string | undefined;
  copy: boolean;
  noBackup: boolean;
  force: boolean;
}

/** What became of the directory; `copy` is plain files. */
interface Opened extends OpenResult {
  sequence: number;
  engine: Engine;
}

export const open = defineCommand({
  name: 'open',
  summary: 'Restore a checkpoint here, or open it in a directory',
  usage:
    'bento open <ref>|undo [<dir>] [--copy] [--layers <names>] [--skip-layers <names>] [--lazy <how>] [--no-backup [--force]]',
  fetches: true,
  details:
    'In a workspace, backs up what is there and touches only what differs; `bento open undo` takes it back. Files that no\n' +
    'checkpoint holds stay. A new or empty directory becomes a workspace of its own, which is mounted: it is there at once,\n' +
    'shares what it does not change, and `bento close` ends it. With --copy (or BENTO_OPEN=copy, or `open: copy` in\n' +
    'bento.yaml), with only some layers, and where nothing can be mounted, it gets plain files.',
  args: { min: 1, max: 2 },
  options: {
    copy: { type: 'boolean', help: 'write plain files into a new directory' },
    layers: { type: 'string', value: 'a,b', help: 'restore only these layers' },
    skipLayers: { type: 'string', value: 'a,b', help: 'restore all but these layers' },
    lazy: LAZY_OPTION,
    platform: PLATFORM_OPTION,
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
    const dir = existsSync(target) ? realpathSync(target) : target;
    const isWorkspace = existsSync(join(target, 'bento.yaml'));
    const { options } = ctx;
    const lazy = parseLazy(options.lazy);
    const isMounted = !isWorkspace && mayMount(options, config);
    const context = { store, config, dir, platform: platformOf(options.platform) };
    const named = await resolveAnyRef(written, context, ctx, isMounted ? lazy : 'off');
    const opened = isWorkspace
      ? await openHere(store, named, target, { ...ctx, options })
      : isMounted
        ? await openMounted(store, named, target, { ...ctx, options })
        : await openCopied(store, named, target, { ...ctx, options });
    tellRefused(opened.refused, ctx);
    tellKept(opened.kept, ctx);
    return { ref: named.label, ...opened };
  },

  render({ ref, sequence, dir, canUndo }) {
    const lines = [`Restoring checkpoint ${ref} (sequence ${sequence})...`, `Restored to ${dir}`];
    return [...lines, ...(canUndo ? ['', '  To undo: bento open undo'] : [])].join('\n');
  },
});

type OpenContext = Context & { options: OpenOptions };

/** Restores into the workspace that is there. */
async function openHere(store: Store, named: NamedCheckpoint, target: string, ctx: OpenContext): Promise<Opened> {
  const { openInPlace } = await import('../../fs/workspace/open.ts');
  const { openCheckpoint } = await import('../../fs/workspace/workspace.ts');
  const { label, digest, isUndo } = named;
  const { layers, skipLayers, noBackup, force } = ctx.options;
  const workspace = await loadWorkspace(target, ctx);
  refuseOtherStore(workspace.source.store.root, store.root, target);
  const opened = await openCheckpoint(workspace.source, digest);
  const result = await openInPlace(workspace, opened, {
    includes: titleFilter(layers, skipLayers),
    label,
    isUndo,
    backup: !noBackup,
    force,
    onWait: () => ctx.note('waiting for another command in this workspace...'),
  });
  return { ...result, sequence: opened.checkpoint.sequence, engine: workspace.fork?.engine ?? 'copy' };
}

/** Writes plain files into a new directory. */
async function openCopied(
  store: Store,
  { digest, remote }: NamedCheckpoint,
  target: string,
  ctx: OpenContext,
): Promise<Opened> {
  const { openInto } = await import('../../fs/workspace/open.ts');
  const { openCheckpoint } = await import('../../fs/workspace/workspace.ts');
  const source = await openSource(store, ctx);
  const opened = await openCheckpoint(source, digest);
  const { layers, skipLayers } = ctx.options;
  const result = await openInto(source, opened, target, { includes: titleFilter(layers, skipLayers), remote });
  return { ...result, sequence: opened.checkpoint.sequence, engine: 'copy' };
}

/** Mounts a fork on a new directory; where nothing can be mounted, says so and copies. */
async function openMounted(store: Store, named: NamedCheckpoint, target: string, ctx: OpenContext): Promise<Opened> {
  const { prepareMountOn } = await import('../../fs/workspace/open.ts');
  await prepareMountOn(target, async () => await openSource(store, ctx));
  const { digest, label, layout, remote } = named;
  const checkpoint = await store.loadCheckpoint(digest);
  const origin = { checkpoint, label, workspaceId: layout.id, head: digest, remote };
  try {
    const [made] = await makeForks(store, origin, [target], { mustMount: true }, ctx);
    if (made === undefined) throw new RangeError('one fork was asked for');
    const { target: dir, engine } = made.record;
    const nothingWritten = { written: 0, removed: 0, canUndo: false, refused: [], kept: [] };
    return { dir, digest, ...nothingWritten, sequence: checkpoint.sequence, engine };
  } catch (error) {
    if (!(error instanceof BentoError && ['FUSE_UNAVAILABLE', 'MOUNT_FAILED'].includes(error.code))) throw error;
    ctx.note(`note: ${target} gets plain files: ${error.message}`);
    await completeCheckpoint(store, digest, ctx);
    return await openCopied(store, named, target, ctx);
  }
}

/** A mount shows all layers. */
function mayMount({ copy, layers, skipLayers }: OpenOptions, config: Config | undefined): boolean {
  if (copy || layers !== undefined || skipLayers !== undefined) return false;
  return (modeInEnvironment() ?? config?.open ?? 'mount') === 'mount';
}

function modeInEnvironment(): OpenMode | undefined {
  const written = process.env['BENTO_OPEN'];
  const mode = OPEN_MODES.find((known) => known === written);
  if (mode === undefined && written) throw new BentoError('USAGE', `BENTO_OPEN is ${written}, not mount or copy`);
  return mode;
}

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
