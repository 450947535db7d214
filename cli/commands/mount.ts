import { mountCheckpoint } from '../../fs/mounts/mount.ts';
import { shareBlobs } from '../../store/blob-lock.ts';
import { defineCommand } from '../command.ts';
import { findConfig, resolveRef, storeOf } from '../open-store.ts';

export const mount = defineCommand({
  name: 'mount',
  summary: 'Look at a checkpoint as a read-only directory, at once',
  usage: 'bento mount <ref> <dir>',
  args: { min: 2, max: 2 },

  async run({ dir, args: [written = '', target = ''] }) {
    const config = await findConfig(dir);
    const store = storeOf(config);
    using _blobs = await shareBlobs(store.root);
    const { digest, label, layout } = await resolveRef(written, { store, config, dir });
    const record = await mountCheckpoint(store, { manifest: digest, ref: label, workspaceId: layout.id, target });
    return { target: record.target, ref: label, digest, engine: record.engine };
  },

  render: ({ ref, target }) => `Mounted ${ref} on ${target} (read-only)`,
});
