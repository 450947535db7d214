import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { isBusy } from '../../fs/mounts/exec/processes.ts';
import { removeFork } from '../../fs/mounts/fork.ts';
import type { MountStatus } from '../../fs/mounts/mount-table.ts';
import { answers } from '../../fs/mounts/probe.ts';
import { refuseIfElsewhere } from '../../fs/mounts/targets.ts';
import { isWorthSaving } from '../../fs/workspace/plan-layers.ts';
import { diffWorkspace } from '../../fs/workspace/work-tree.ts';
import { openHead, readWorkTree } from '../../fs/workspace/workspace.ts';
import { toText } from '../../store/byte-string.ts';
import { BentoError } from '../../store/errors.ts';
import { defineCommand, type Context } from '../command.ts';
import { findMount } from '../find-mount.ts';
import { loadWorkspace } from '../open-store.ts';

/** How many unsaved paths are named before the rest is only counted. */
const NAMED_MAX = 20;

export const close = defineCommand({
  name: 'close',
  summary: 'End a fork',
  usage: 'bento close <dir> [--discard] [--force]',
  details: 'Refuses while there is unsaved work, and says what; --discard throws it away.',
  args: { min: 1, max: 1 },
  options: {
    discard: { type: 'boolean', help: 'throw unsaved work away' },
    force: { type: 'boolean', help: 'even while somebody uses the directory' },
  },

  async run(ctx) {
    const [written = ''] = ctx.args;
    const { store, record } = await findMount(written, ctx.dir);
    const path = record.target;
    if (record.kind !== 'fork') {
      throw new BentoError('TARGET_INVALID', `${path} is a mount, not a fork`, { hint: `bento unmount ${path}` });
    }
    refuseIfElsewhere(record);
    const isInUse = isBusy(record);
    if (isInUse !== undefined) {
      if (isInUse && !ctx.options.force) throw inUse(path);
      await removeFork(store, record, ctx.options.force);
      return { closed: path, discarded: [] };
    }
    const isReadable = await canBeLookedAt(record);
    if (!isReadable && !ctx.options.discard) throw unknownWork(record);
    const unsaved = isReadable ? await unsavedWork(record, ctx).catch(orNothing(ctx.options.discard)) : [];
    if (unsaved.length > 0 && !ctx.options.discard) {
      for (const line of named(unsaved)) ctx.note(line);
      throw refuse(path, unsaved.length);
    }
    await removeFork(store, record, ctx.options.force);
    return { closed: path, discarded: unsaved };
  },

  render: ({ closed, discarded }) =>
    [
      `Closed ${closed}`,
      ...(discarded.length > 0
        ? [`Discarded ${discarded.length} unsaved change${discarded.length === 1 ? '' : 's'}:`, ...named(discarded)]
        : []),
    ].join('\n'),
});

/** Paths that differ from the fork's head. */
async function unsavedWork(record: MountStatus, ctx: Context): Promise<string[]> {
  const workspace = await loadWorkspace(record.target, ctx);
  const head = await openHead(workspace);
  const changes = diffWorkspace(workspace.source, head?.tree, await readWorkTree(workspace));
  return changes
    .filter(isWorthSaving)
    .map(({ kind, path }) => `${{ added: '+', removed: '-', modified: '~' }[kind]} ${toText(path)}`);
}

/** What is thrown away need not be understood, a `bento.yaml` that somebody broke for one. */
function orNothing(isDiscarded: boolean): (error: unknown) => string[] {
  return (error) => {
    if (isDiscarded && error instanceof BentoError) return [];
    throw error;
  };
}

/** Not while it is not mounted, its daemon is gone, or its `bento.yaml`: its command was killed, or somebody removed it. */
async function canBeLookedAt({ engine, mounted, target }: MountStatus): Promise<boolean> {
  if (!mounted || (engine !== 'copy' && !(await answers(target)))) return false;
  return existsSync(join(target, 'bento.yaml'));
}

function inUse(path: string): BentoError {
  return new BentoError('MOUNT_POINT_BUSY', `a command of \`bento exec\` runs in ${path}`, {
    hint: 'end it; --force takes the directory from under it',
  });
}

function unknownWork({ target, mounted }: MountStatus): BentoError {
  const why = mounted ? 'its daemon or its bento.yaml is gone' : 'it is not mounted';
  return new BentoError('UNSAVED_CHANGES', `${target} may have unsaved changes: ${why}, so they were not looked at`, {
    hint: `bring it back (bento mounts --restore) or throw it away (bento close --discard ${target})`,
  });
}

function refuse(path: string, count: number): BentoError {
  return new BentoError('UNSAVED_CHANGES', `${path} has ${count} unsaved change${count === 1 ? '' : 's'}`, {
    hint: `save it (bento save --dir ${path}) or throw it away (bento close --discard ${path})`,
  });
}

function named(unsaved: readonly string[]): string[] {
  const rest = unsaved.length - NAMED_MAX;
  return [...unsaved.slice(0, NAMED_MAX).map((line) => `  ${line}`), ...(rest > 0 ? [`  … and ${rest} more`] : [])];
}
