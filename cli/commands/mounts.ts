import { restoreMount } from '../../fs/mounts/mount.ts';
import { isServed } from '../../fs/mounts/mountinfo.ts';
import { MountTable, type MountStatus } from '../../fs/mounts/mount-table.ts';
import { defineCommand } from '../command.ts';
import { findConfig, storeOf } from '../open-store.ts';
import { oneLine } from '../terminal.ts';

export const mounts = defineCommand({
  name: 'mounts',
  summary: 'List what is mounted and forked',
  usage: 'bento mounts [--restore]',
  details:
    'All mounts and forks of the store, mounted or not (after a reboot or `unmount`), or broken (their daemon was killed).',
  options: { restore: { type: 'boolean', help: 'mount again what is not mounted or broken' } },

  async run(ctx) {
    const { dir, options } = ctx;
    const store = storeOf(await findConfig(dir));
    const table = new MountTable(store);
    if (options.restore) {
      for (const record of await table.list()) {
        await restoreMount(store, record).catch((error: unknown) => ctx.note(`note: ${(error as Error).message}`));
      }
    }
    return (await table.list()).map((record) => ({ ...record, state: stateOf(record) }));
  },

  render(records) {
    if (records.length === 0) return 'Nothing is mounted.';
    const line = (...cells: string[]): string =>
      cells.map((cell, i) => (i < 5 ? cell.padEnd([6, 16, 8, 10, 21][i] ?? 0) : cell)).join(' ');
    return [
      line('KIND', 'CHECKPOINT', 'ENGINE', 'STATE', 'SINCE', 'WHERE'),
      ...records.map(({ kind, ref, engine, state, created, target, message }) =>
        line(kind, ref, engine, state, created.slice(0, 19), oneLine(message ? `${target}  (${message})` : target)),
      ),
    ].join('\n');
  },
});

function stateOf({ engine, mounted, target }: MountStatus): 'mounted' | 'broken' | 'unmounted' {
  if (!mounted) return 'unmounted';
  return engine === 'copy' || isServed(target) ? 'mounted' : 'broken';
}
