import { loadConfig } from '../../fs/workspace/config.ts';
import { shareBlobs } from '../../store/blob-lock.ts';
import { BentoError } from '../../store/errors.ts';
import { isTag } from '../../store/ref.ts';
import { defineCommand } from '../command.ts';
import { resolveRef, storeOf } from '../open-store.ts';

export const tag = defineCommand({
  name: 'tag',
  summary: 'Point a new tag at a checkpoint',
  usage: 'bento tag <ref> <new-tag>',
  args: { min: 2, max: 2 },

  async run({ dir, args: [from = '', to = ''] }) {
    if (!isTag(to)) {
      throw new BentoError('REF_INVALID', `"${to}" is not a valid tag`, {
        hint: 'letters, digits, ".", "_" and "-", at most 128',
      });
    }
    if (/^cp-\d+$/.test(to) || to === 'latest' || to === 'head' || to === 'undo') {
      throw new BentoError('REF_INVALID', `"${to}" is a name bento gives itself`, { hint: 'choose another tag' });
    }
    const { config } = await loadConfig(dir);
    const store = storeOf(config);
    using _blobs = await shareBlobs(store.root);
    const found = await resolveRef(from, { store, config, dir });
    const { size } = await store.loadCheckpoint(found.digest);
    const layout = config.id === undefined ? found.layout : store.layout(config.id);
    const before = (await layout.tags()).get(to)?.digest ?? null;
    await layout.setTags([to], { digest: found.digest, size });
    return { from: found.label, to, digest: found.digest, moved: before !== null && before !== found.digest };
  },

  render: ({ from, to }) => `Tagged ${from} as ${to}`,
});
