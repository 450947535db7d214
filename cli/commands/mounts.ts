import { restoreMount } from '../../fs/mounts/mount.ts';
import { MountTable } from '../../fs/mounts/mount-table.ts';
import { defineCommand } from '../command.ts';
import { findConfig, storeOf } from '../open-store.ts';
import { oneLine } from '../terminal.ts';

export const mounts = defineCommand({
  name: 'mounts',
  summary: 'List what is mounted and forked',
  usage: 'bento mounts [--restore]',
  details: 'All mounts and forks of the store, mounted or not (after a reboot or `unmount`).',
  options: { restore: { type: 'boolean', help: 'mount again what is not mounted' } },

  async run({ dir, options, note }) {
    const store = storeOf(await findConfig(dir));
    const table = new MountTable(store);
    if (options.restore) {
      for (const record of await table.list()) {
        await restoreMount(store, record).catch((error: unknown) => note(`note: ${(error as Error).message}`));
      }
    }
    return await table.list();
  },

  render(records) {
    if (records.length === 0) return 'Nothing is mounted.';
    const line = (...cells: string[]): string =>
      cells.map((cell, i) => (i < 5 ? cell.padEnd([6, 16, 8, 10, 21][i] ?? 0) : cell)).join(' ');
    return [
      line('KIND', 'CHECKPOINT', 'ENGINE', 'STATE', 'SINCE', 'WHERE'),
      ...records.map(({ kind, ref, engine, mounted, created, target, message }) =>
        line(
          kind,
          ref,
          engine,
          mounted ? 'mounted' : 'unmounted',
          created.slice(0, 19),
          oneLine(message ? `${target}  (${message})` : target),
        ),
      ),
    ].join('\n');
  },
});
