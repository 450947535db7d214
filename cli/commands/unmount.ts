import { existsSync, realpathSync } from 'node:fs';
import { resolve } from 'node:path';

import { stopDaemon } from '../../fs/mounts/daemon-client.ts';
import { unmountRecord } from '../../fs/mounts/mount.ts';
import { MountTable } from '../../fs/mounts/mount-table.ts';
import { BentoError } from '../../store/errors.ts';
import { defineCommand } from '../command.ts';
import { storeOf } from '../open-store.ts';
import { findMount } from '../find-mount.ts';
import { findConfig } from '../open-store.ts';

export const unmount = defineCommand({
  name: 'unmount',
  summary: 'End a mount; a fork keeps its changes',
  usage: 'bento unmount <dir> [--force] | bento unmount --all',
  details: 'A fork can be mounted again with `bento mounts --restore`; `bento close` ends it for good.',
  args: { min: 0, max: 1 },
  options: {
    all: { type: 'boolean', help: 'everything of this store, and stop its daemon' },
    force: { type: 'boolean', help: 'even while somebody uses it: gone at once, ended when the last user leaves' },
  },

  async run({ dir, args: [target], options }) {
    if (options.all) {
      const store = storeOf(await findConfig(dir));
      const records = (await new MountTable(store).list()).filter(
        (record) => record.mounted && record.engine !== 'copy',
      );
      const failures: unknown[] = [];
      for (const record of records) {
        await unmountRecord(store, record, options.force).catch((error: unknown) => failures.push(error));
      }
      if (failures.length > 0) throw failures[0]; // one that is in use keeps its daemon, not the others their mounts
      await stopDaemon(store);
      return { unmounted: records.map((record) => record.target) };
    }
    if (target === undefined) throw new BentoError('USAGE', 'accepts 1 arg(s), received 0', { hint: 'or use --all' });
    const path = existsSync(target) ? realpathSync(target) : resolve(target);
    const { store, record } = await findMount(path, dir);
    await unmountRecord(store, record, options.force);
    return { unmounted: [record.target] };
  },

  render: ({ unmounted }) =>
    unmounted.length === 0 ? 'Nothing was mounted.' : unmounted.map((target) => `Unmounted ${target}`).join('\n'),
});
