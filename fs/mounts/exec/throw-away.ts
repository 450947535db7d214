import type { Store } from '../../../store/store.ts';
import { removeFork } from '../fork.ts';
import { MountTable, type MountRecord, type MountStatus } from '../mount-table.ts';
import { isBusy } from './processes.ts';

/**
 * Clears away what an `exec` that was killed has left. What somebody is still in stays.
 *
 * @returns what is gone
 */
export async function removeAbandoned(store: Store): Promise<MountRecord[]> {
  const table = new MountTable(store);
  if (!(await table.list()).some(isAbandoned)) return [];
  using _lock = await table.lock();
  const removed: MountRecord[] = [];
  for (const record of (await table.list()).filter(isAbandoned)) {
    try {
      await removeFork(store, record, false);
      removed.push(record);
    } catch {
      // in use, or in another namespace: a later command finds it again
    }
  }
  return removed;
}

function isAbandoned(record: MountStatus): boolean {
  return isBusy(record) === false && !record.elsewhere;
}
