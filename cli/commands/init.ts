import { resolve } from 'node:path';
import { resolveExtensions } from '../../extensions/resolve.ts';
import { writeBentoignore } from '../../fs/workspace/bentoignore.ts';
import { createConfig, renderNewConfig } from '../../fs/workspace/config-file.ts';
import { assertStoreName, defaultStoreRoot, newWorkspaceId, resolveStoreRoot } from '../../fs/workspace/store-name.ts';
import { defineCommand } from '../command.ts';

export const init = defineCommand({
  name: 'init',
  summary: 'Start tracking this directory',
  usage: 'bento init [--task <text>] [--store <path>] [--id <id>]',
  details:
    'Writes bento.yaml and, if there is none, .bentoignore. Nothing else is touched; the store comes with the first save.',
  options: {
    task: { type: 'string', value: 'text', help: 'what this workspace is for' },
    store: { type: 'string', value: 'path', help: 'where checkpoints are kept (default: the store of this user)' },
    id: {
      type: 'string',
      value: 'id',
      help: 'workspace id, to share checkpoints between directories (default: a new one)',
    },
  },

  async run({ dir, home, options }) {
    const id = options.id ?? newWorkspaceId();
    assertStoreName(id);
    const store = options.store === undefined ? defaultStoreRoot() : asGiven(options.store);
    const { names } = resolveExtensions(dir, home);
    await createConfig(dir, renderNewConfig({ id, task: options.task, store }));
    const createdIgnore = await writeBentoignore(dir);
    return { dir, id, store: resolveStoreRoot(store, dir), extensions: names, createdIgnore };
  },

  render({ extensions, store, createdIgnore }) {
    const lines = [`Detected extensions: ${extensions.join(', ')}`, 'Created bento.yaml', `Store: ${store} (local)`];
    return [...lines, ...(createdIgnore ? ['Created .bentoignore'] : [])].join('\n');
  },
});

/** A path is relative to where the user stands, not to the workspace; `~` and `$VAR` stay for whoever opens it later. */
function asGiven(store: string): string {
  return /^[~$]/.test(store) ? store : resolve(store);
}
