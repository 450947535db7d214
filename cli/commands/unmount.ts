import { stopDaemon } from '../../fs/mounts/daemon/daemon-client.ts';
import { removeAbandoned } from '../../fs/mounts/exec/throw-away.ts';
import { clearRuntime } from '../../fs/mounts/kernel-mount.ts';
import { unmountRecord } from '../../fs/mounts/mount.ts';
import { daemonHealth } from '../../fs/mounts/mount-states.ts';
import { MountTable, type MountStatus } from '../../fs/mounts/mount-table.ts';
import { BentoError } from '../../store/errors.ts';
import type { Store } from '../../store/store.ts';
import { defineCommand } from '../command.ts';
import { findMount } from '../find-mount.ts';
import { findConfig, storeOf } from '../open-store.ts';

export const unmount = defineCommand({
  name: 'unmount',
  summary: 'End a mount; a fork keeps its changes',
  usage: 'bento unmount <dir> [--force] | bento unmount --all [--force]',
  details:
    'A fork can be mounted again with `bento mounts --restore`; `bento close` ends it for good. A mount that is a plain copy,\n' +
    'because FUSE is missing, is removed, unless somebody wrote into it.',
  args: { min: 0, max: 1 },
  options: {
    all: { type: 'boolean', help: 'everything of this store, and stop its daemon' },
    force: {
      type: 'boolean',
      help: 'even while somebody uses it: gone at once, ended when the last user leaves; a copy even with changes',
    },
  },

  async run({ dir, args: [target], options }) {
    if (options.all) return { unmounted: await unmountAll(storeOf(await findConfig(dir)), options.force) };
    if (target === undefined) throw new BentoError('USAGE', 'accepts 1 arg(s), received 0', { hint: 'or use --all' });
    const { store, record } = await findMount(target, dir);
    if (record.exec !== undefined) throw isThrowAway(record);
    await unmountRecord(store, record, options.force);
    return { unmounted: [record.target] };
  },

  render: ({ unmounted }) =>
    unmounted.length === 0 ? 'Nothing was mounted.' : unmounted.map((target) => `Unmounted ${target}`).join('\n'),
});

/** One that is in use keeps its daemon, but not the others their mounts. */
async function unmountAll(store: Store, force: boolean): Promise<string[]> {
  await removeAbandoned(store);
  const records = (await new MountTable(store).list()).filter(isToEnd).sort(innermostFirst);
  const failures: unknown[] = [];
  for (const record of records) {
    await unmountRecord(store, record, force).catch((error: unknown) => failures.push(error));
  }
  if (failures.length > 0) throw failures[0];
  await endDaemon(store);
  return records.map((record) => record.target);
}

/** What is mounted here, and read-only mounts that a reboot took; of copied forks there is nothing to unmount. */
function isToEnd({ kind, engine, mounted, elsewhere }: MountStatus): boolean {
  return !elsewhere && (kind === 'mount' || (mounted && engine !== 'copy'));
}

function isThrowAway({ target }: MountStatus): BentoError {
  return new BentoError('TARGET_INVALID', `${target} is a fork of \`bento exec\`, which ends with its command`, {
    hint: `bento close ${target}`,
  });
}

function innermostFirst(a: MountStatus, b: MountStatus): number {
  return b.target.length - a.target.length;
}

async function endDaemon(store: Store): Promise<void> {
  switch (await daemonHealth(store)) {
    case 'none':
      clearRuntime(store);
      return;
    case 'silent':
      throw new BentoError(
        'DAEMON_FAILED',
        `everything is unmounted, but the mount daemon of ${store.root} does not answer`,
        {
          hint: 'kill its process (bento, supervisor), and run the command again',
        },
      );
    default:
      await stopDaemon(store);
  }
}
