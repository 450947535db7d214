import { existsSync } from 'node:fs';
import { resolve } from 'node:path';

import { loadConfig } from '../fs/workspace/config.ts';
import { toText } from '../store/byte-string.ts';
import { BentoError } from '../store/errors.ts';
import type { Platform } from '../store/platform.ts';
import type { Store } from '../store/store.ts';
import type { Context } from './command.ts';
import type { LazyMode } from './lazy.ts';
import type { ForkOrigin } from './make-forks.ts';
import { findConfig, loadWorkspace, resolveRef, storeOf } from './open-store.ts';
import { resolveAnyRef } from './remote-checkpoint.ts';
import { isDirectoryArgument } from './sides.ts';

/** How what is in a registry is fetched. */
export interface Fetching {
  lazy?: LazyMode | undefined;
  /** Which image of a list of them. */
  platform?: Platform | undefined;
}

/** What forks shall be made from, as the user wrote it. */
export interface WantedOrigin {
  store: Store;
  /** Finds or makes the checkpoint. To be called, and kept from gc until forks refer to it, by who shares the blobs. */
  load: () => Promise<ForkOrigin>;
}

/** @param written - a reference, or the directory of a workspace; undefined: the one the command is run in */
export async function findOrigin(
  written: string | undefined,
  ctx: Context,
  { lazy = 'off', platform }: Fetching = {},
): Promise<WantedOrigin> {
  if (platform !== undefined && (written === undefined || isDirectoryArgument(written)))
    throw new BentoError('USAGE', '--platform is for images of a registry or a file, and none is named');
  if (written === undefined || isDirectoryArgument(written)) {
    const dir = resolve(written ?? ctx.dir);
    const { config } = await loadConfig(dir);
    return { store: storeOf(config), load: async () => await workspaceNow(dir, ctx) };
  }
  const store = storeOf(await findConfig(ctx.dir));
  return { store, load: async () => await namedCheckpoint(written, store, { ctx, lazy, platform }) };
}

async function namedCheckpoint(
  written: string,
  store: Store,
  { ctx, lazy, platform }: Fetching & { ctx: Context },
): Promise<ForkOrigin> {
  const config = await findConfig(ctx.dir);
  const { digest, label, layout, remote } = await resolveAnyRef(
    written,
    { store, config, dir: ctx.dir, platform },
    ctx,
    lazy,
  ).catch((error: unknown) => {
    throw existsSync(written) ? notARef(written, error) : error;
  });
  return { checkpoint: await store.loadCheckpoint(digest), label, workspaceId: layout.id, head: digest, remote };
}

function notARef(written: string, cause: unknown): BentoError {
  return new BentoError('REF_NOT_FOUND', `no checkpoint is called ${written}`, {
    hint: `for the workspace in that directory write ./${written}, for this one a dot`,
    cause,
  });
}

/** The workspace with what is not saved in it. */
async function workspaceNow(dir: string, ctx: Context): Promise<ForkOrigin> {
  const { checkpointNow } = await import('../fs/workspace/checkpoint-now.ts');
  const workspace = await loadWorkspace(dir, ctx);
  const { checkpoint, head, skipped, unsteady } = await checkpointNow(workspace, {
    message: 'unsaved work, taken along by a fork',
    onWait: () => ctx.note('waiting for another command in this workspace...'),
  });
  for (const { path, reason } of skipped) ctx.note(`note: ${toText(path)} does not come along: ${reason}`);
  for (const path of unsteady) ctx.note(`note: ${toText(path)} was being written all the while`);
  const { source, config } = workspace;
  const at = head === undefined ? undefined : (await resolveRef('head', { store: source.store, config, dir })).label;
  const label = checkpoint.digest === head ? at : [...(at === undefined ? [] : [at]), 'unsaved'].join('+');
  return { checkpoint, label: label ?? '', workspaceId: workspace.id, head };
}
