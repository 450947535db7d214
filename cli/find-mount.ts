import { realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';

import { MountTable, type MountStatus } from '../fs/mounts/mount-table.ts';
import { BentoError } from '../store/errors.ts';
import type { Store } from '../store/store.ts';
import { findConfig, storeOf } from './open-store.ts';

/** A mount on record, and the store it is of. */
export interface FoundMount {
  store: Store;
  record: MountStatus;
}

/**
 * Finds the record of a mounted directory: in the store of the workspace the command is run in, in the user's own, else in
 * the store the directory itself names (a fork does). The directory is not looked into before, for whoever serves it may not
 * answer.
 *
 * @param written - as the user gave it
 * @throws BentoError NOT_MOUNTED
 */
export async function findMount(written: string, dir: string): Promise<FoundMount> {
  const path = resolve(written);
  return (
    (await search(storeOf(await findConfig(dir)), path)) ??
    (await search(storeOf(undefined), path)) ??
    (await searchNamed(path)) ??
    notMounted(path)
  );
}

async function searchNamed(path: string): Promise<FoundMount | undefined> {
  const config = await findConfig(path).catch(() => undefined);
  return config && (await search(storeOf(config), path));
}

async function search(store: Store, path: string): Promise<FoundMount | undefined> {
  const records = await new MountTable(store).list();
  for (const nameIt of NAMES) {
    const name = nameIt(path);
    const record = records.find(({ target }) => target === name);
    if (record !== undefined) return { store, record };
  }
  return undefined;
}

/** What a path may go by in the table: the ways that do not touch the mount itself first. */
const NAMES: readonly ((path: string) => string | undefined)[] = [
  (path) => path,
  (path) => realPath(dirname(path), basename(path)),
  (path) => realPath(path),
];

function realPath(path: string, name = ''): string | undefined {
  try {
    return join(realpathSync(path), name);
  } catch {
    return undefined; // it is not there, or inside a mount that is broken
  }
}

function notMounted(path: string): never {
  throw new BentoError('NOT_MOUNTED', `nothing of bento's is mounted on ${path}`, {
    hint: '`bento mounts` lists what is',
  });
}
