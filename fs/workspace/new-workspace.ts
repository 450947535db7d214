import { lstatSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { fromText } from '../../store/byte-string.ts';
import type { Checkpoint } from '../../store/checkpoint.ts';
import type { Digest } from '../../store/digest.ts';
import { Layout } from '../../store/layout.ts';
import { utimensat } from '../../store/syscalls.ts';
import type { Tree } from '../tree/tree.ts';
import { checkConfigText, createConfig, renderNewConfig } from './config-file.ts';
import { recordHead } from './heads.ts';

export const IGNORE_NAME = '.bentoignore';
/** First line of a `.bentoignore` that was written here. */
export const IGNORE_HEADING = '# Bento ignore patterns (restored from checkpoint)';

export interface NewWorkspace {
  dir: string;
  workspaceId: string;
  storeRoot: string;
  head: Digest;
  /** Where it was opened from, `registry/path`; undefined: what the checkpoint says. */
  remote?: string | undefined;
  /** Where to put the files for now, if not in `dir`: whoever asks moves them when all is ready. */
  preparedIn?: string;
}

/** What makes a directory a workspace. */
export interface WorkspaceFiles {
  /** Text of its `bento.yaml`. */
  config: string;
  /** Of its `.bentoignore`, if there is something to ignore. */
  ignore: string | undefined;
}

/**
 * The `bento.yaml` (and `.bentoignore`) of a directory that is made from a checkpoint: same workspace, same store, a head of
 * its own; `remote:` is where the checkpoint came from, which need not be where its maker pushed it. What the checkpoint says about hooks or commands is not taken over.
 *
 * @throws BentoError CONFIG_INVALID when a checkpoint of somebody else's making asks for what cannot be
 */
export function newWorkspaceFiles(
  { meta }: Pick<Checkpoint, 'meta'>,
  {
    workspaceId,
    storeRoot,
    head,
    remote,
  }: Pick<NewWorkspace, 'workspaceId' | 'storeRoot' | 'remote'> & { head: Digest | undefined },
): WorkspaceFiles {
  const config = renderNewConfig({
    id: workspaceId,
    head,
    task: meta.task,
    store: storeRoot,
    remote: remote ?? meta.remote,
    layers: meta.layers?.map(({ name, patterns, catchAll }) => ({
      name,
      patterns,
      ...(catchAll && { catch_all: true }),
    })),
  });
  checkConfigText(config);
  const ignore = meta.ignore ?? [];
  return { config, ignore: ignore.length === 0 ? undefined : [IGNORE_HEADING, '', ...ignore, ''].join('\n') };
}

/** Makes a directory that was filled from a checkpoint a workspace. */
export async function describeNewWorkspace(checkpoint: Checkpoint, workspace: NewWorkspace): Promise<void> {
  const place = workspace.preparedIn ?? workspace.dir;
  const { config, ignore } = newWorkspaceFiles(checkpoint, workspace);
  await recordHead(new Layout(workspace.storeRoot, workspace.workspaceId), realpathSync(workspace.dir), workspace.head);
  await createConfig(place, config);
  if (ignore === undefined) return;
  if (lstatSync(join(workspace.dir, IGNORE_NAME), { throwIfNoEntry: false }) !== undefined) return;
  writeFileSync(join(place, IGNORE_NAME), ignore);
}

/** Writing `bento.yaml` moved the time of the directory: it gets back the one that the checkpoint has. */
export function keepRootTime(dir: string, { root }: Pick<Tree, 'root'>): void {
  utimensat(fromText(dir), { mtime: { sec: root.mtimeSec, nsec: root.mtimeNsec } });
}
