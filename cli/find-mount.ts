import { MountTable, type MountStatus } from '../fs/mounts/mount-table.ts';
import { BentoError } from '../store/errors.ts';
import type { Store } from '../store/store.ts';
import { findConfig, storeOf } from './open-store.ts';

/**
 * Finds the record of a mounted directory: in the store of the workspace the command is run in, in the store the directory
 * itself names (a fork does), else in the user's own.
 *
 * @throws BentoError NOT_MOUNTED
 */
export async function findMount(path: string, dir: string): Promise<{ store: Store; record: MountStatus }> {
  const tried = new Set<string>();
  for (const config of [await findConfig(dir), await findConfig(path).catch(() => undefined), undefined]) {
    const store = storeOf(config);
    if (tried.has(store.root)) continue;
    tried.add(store.root);
    const record = await new MountTable(store).at(path);
    if (record !== undefined) return { store, record };
  }
  throw new BentoError('NOT_MOUNTED', `nothing of bento's is mounted on ${path}`, {
    hint: '`bento mounts` lists what is',
  });
}
