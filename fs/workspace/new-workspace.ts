import { lstatSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { fromText } from '../../store/byte-string.ts';
import type { Checkpoint } from '../../store/checkpoint.ts';
import type { Digest } from '../../store/digest.ts';
import { Layout } from '../../store/layout.ts';
import { utimensat } from '../../store/syscalls.ts';
import type { Tree } from '../tree/tree.ts';
import { createConfig, renderNewConfig, updateConfig } from './config-file.ts';
import { recordHead } from './heads.ts';

const IGNORE_NAME = '.bentoignore';
/** First line of a `.bentoignore` that was written here. */
export const IGNORE_HEADING = '# Bento ignore patterns (restored from checkpoint)';

export interface NewWorkspace {
  dir: string;
  workspaceId: string;
  storeRoot: string;
  head: Digest;
  /** Where to put the files for now, if not in `dir`: whoever asks moves them when all is ready. */
  preparedIn?: string;
}

/**
 * Writes the `bento.yaml` (and `.bentoignore`) of a directory that was made from a checkpoint: same workspace, same store,
 * a head of its own. What the checkpoint says about hooks or commands is not taken over.
 */
export async function describeNewWorkspace(checkpoint: Checkpoint, workspace: NewWorkspace): Promise<void> {
  const { meta } = checkpoint;
  const place = workspace.preparedIn ?? workspace.dir;
  await recordHead(new Layout(workspace.storeRoot, workspace.workspaceId), realpathSync(workspace.dir), workspace.head);
  await createConfig(
    place,
    renderNewConfig({ id: workspace.workspaceId, task: meta.task, store: workspace.storeRoot }),
  );
  await updateConfig(place, {
    head: workspace.head,
    remote: meta.remote,
    layers: meta.layers?.map(({ name, patterns, catchAll }) => ({
      name,
      patterns,
      ...(catchAll && { catch_all: true }),
    })),
  });
  const ignore = meta.ignore ?? [];
  if (ignore.length === 0 || lstatSync(join(workspace.dir, IGNORE_NAME), { throwIfNoEntry: false }) !== undefined)
    return;
  writeFileSync(join(place, IGNORE_NAME), [IGNORE_HEADING, '', ...ignore, ''].join('\n'));
}

/** Writing `bento.yaml` moved the time of the directory: it gets back the one that the checkpoint has. */
export function keepRootTime(dir: string, { root }: Pick<Tree, 'root'>): void {
  utimensat(fromText(dir), { mtime: { sec: root.mtimeSec, nsec: root.mtimeNsec } });
}
