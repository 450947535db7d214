import { lstatSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { fromText } from '../../store/byte-string.ts';
import type { Checkpoint } from '../../store/checkpoint.ts';
import type { Digest } from '../../store/digest.ts';
import { utimensat } from '../../store/syscalls.ts';
import type { Tree } from '../tree/tree.ts';
import { createConfig, renderNewConfig, updateConfig } from './config-file.ts';

export interface NewWorkspace {
  dir: string;
  workspaceId: string;
  storeRoot: string;
  head: Digest;
}

/**
 * Writes the `bento.yaml` (and `.bentoignore`) of a directory that was made from a checkpoint: same workspace, same store,
 * a head of its own. What the checkpoint says about hooks or commands is not taken over.
 */
export async function describeNewWorkspace(checkpoint: Checkpoint, workspace: NewWorkspace): Promise<void> {
  const { meta } = checkpoint;
  await createConfig(
    workspace.dir,
    renderNewConfig({ id: workspace.workspaceId, task: meta.task, store: workspace.storeRoot }),
  );
  await updateConfig(workspace.dir, {
    head: workspace.head,
    remote: meta.remote,
    layers: meta.layers?.map(({ name, patterns, catchAll }) => ({
      name,
      patterns,
      ...(catchAll && { catch_all: true }),
    })),
  });
  const ignore = meta.ignore ?? [];
  const path = join(workspace.dir, '.bentoignore');
  if (ignore.length === 0 || lstatSync(path, { throwIfNoEntry: false }) !== undefined) return;
  writeFileSync(path, ['# Bento ignore patterns (restored from checkpoint)', '', ...ignore, ''].join('\n'));
}

/** Writing `bento.yaml` moved the time of the directory: it gets back the one that the checkpoint has. */
export function keepRootTime(dir: string, { root }: Pick<Tree, 'root'>): void {
  utimensat(fromText(dir), { mtime: { sec: root.mtimeSec, nsec: root.mtimeNsec } });
}
