import { resolveExtensions } from '../../extensions/resolve.ts';
import { writeBentoignore } from '../../fs/workspace/bentoignore.ts';
import { createConfig, renderNewConfig } from '../../fs/workspace/config-file.ts';
import {
  assertStoreName,
  defaultStoreRoot,
  newWorkspaceId,
  parseStorePlace,
  resolveStoreRoot,
} from '../../fs/workspace/store-name.ts';
import { defineCommand } from '../command.ts';

export const init = defineCommand({
  name: 'init',
  summary: 'Start tracking this directory',
  usage: 'bento init [--task <text>] [--store <path>] [--id <id>]',
  details:
    'Writes bento.yaml and, if there is none, .bentoignore. Nothing else is touched; the store comes with the first save.\n' +
    'A store is a folder. --store oci://registry/path keeps checkpoints in that of this user, with the registry as remote.',
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
    const { store, remote } = placeOf(options.store);
    const { names } = resolveExtensions(dir, home);
    await createConfig(dir, renderNewConfig({ id, task: options.task, store, remote }));
    const createdIgnore = await writeBentoignore(dir);
    return {
      dir,
      id,
      store: resolveStoreRoot(store, dir),
      ...(remote !== undefined && { remote }),
      extensions: names,
      createdIgnore,
    };
  },

  render({ extensions, store, remote, createdIgnore }) {
    const lines = [`Detected extensions: ${extensions.join(', ')}`, 'Created bento.yaml', `Store: ${store} (local)`];
    const more = remote === undefined ? [] : [`Remote: ${remote}`];
    return [...lines, ...more, ...(createdIgnore ? ['Created .bentoignore'] : [])].join('\n');
  },
});

/** A path is relative to where the user stands, not to the workspace; `~` and `$VAR` stay for whoever opens it later. */
function placeOf(written: string | undefined): { store: string; remote: string | undefined } {
  if (written === undefined) return { store: defaultStoreRoot(), remote: undefined };
  if (/^[~$]/.test(written)) return { store: written, remote: undefined };
  const { root: store, remote } = parseStorePlace(written, process.cwd());
  return { store, remote };
}
