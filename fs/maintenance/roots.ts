import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';

import { parseDigest, type Digest } from '../../store/digest.ts';
import { BentoError, errnoOf } from '../../store/errors.ts';
import type { Layout } from '../../store/layout.ts';
import { KEYS, parseObject, type Descriptor } from '../../store/manifest.ts';
import type { Store } from '../../store/store.ts';
import { WHOLE_STORE } from '../mounts/mount-table.ts';
import { configPath } from '../workspace/config-file.ts';
import { directoryKey, readHeadRecords, type HeadRecord } from '../workspace/heads.ts';

/** How long a directory that is not there any more still keeps its head and its undo slot, in days. */
export const MISSING_DIRECTORY_DAYS = 30;

const DAY_MS = 86_400_000;

/** One workspace of a store: what its `index.json` lists, and where its directories are. */
export interface LayoutRoots {
  layout: Layout;
  entries: Descriptor[];
  directories: DirectoryRoots[];
}

/** A directory of a workspace and the checkpoints it is at. */
export interface DirectoryRoots extends HeadRecord {
  /** What stands in its `bento.yaml` now, and what was noted last: usually the same. */
  heads: Digest[];
  isMissing: boolean;
  /** Missing for so long that nothing is kept for it. */
  isForgotten: boolean;
}

/** A mount or fork on record. */
export interface MountRoot {
  file: string;
  id: string;
  kind: string;
  target: string;
  /** Undefined for a view of the whole store, which keeps nothing: it shows what there is. */
  manifest: Digest | undefined;
  /** What a fork is being switched to. */
  switching: Digest | undefined;
}

/** Everything that keeps a checkpoint, wherever in the store it is said. */
export interface StoreRoots {
  layouts: LayoutRoots[];
  mounts: MountRoot[];
  /** Digests in the `bento.yaml` of forks, mounted or not. */
  forkHeads: Digest[];
}

/**
 * Reads all roots of a store.
 *
 * @throws BentoError FORMAT_INVALID naming the file that cannot be understood: what it may keep is not known
 */
export async function readRoots(store: Store, now: Date): Promise<StoreRoots> {
  const mounts = mountFiles(store).flatMap((file) => readMount(file) ?? []);
  const targets = new Set(mounts.map(({ target }) => target));
  const layouts = await Promise.all(
    (await store.workspaceIds()).map(async (id) => {
      const layout = store.layout(id);
      const [entries, records] = await Promise.all([layout.manifests(), readHeadRecords(layout)]);
      return { layout, entries, directories: records.map((record) => readDirectory(record, targets, now)) };
    }),
  );
  return { layouts, mounts, forkHeads: readForkHeads(store) };
}

/** Tag of an entry of `index.json`, if it has one. */
export function tagOf(entry: Descriptor): string | undefined {
  return entry.annotations?.[KEYS.refName];
}

/** The tags of directories that are forgotten: their undo slots. */
export function forgottenTags({ directories }: LayoutRoots): Set<string> {
  return new Set(
    directories.filter(({ isForgotten }) => isForgotten).map(({ dir }) => `pre-open-${directoryKey(dir)}`),
  );
}

function readDirectory(record: HeadRecord, mountTargets: ReadonlySet<string>, now: Date): DirectoryRoots {
  const { dir, head, missingSince } = record;
  const found = readDigests(configPath(dir));
  // A fork that is not mounted is an empty directory, but far from gone.
  const isMissing = found === undefined && !mountTargets.has(dir);
  const sinceMs = missingSince === undefined ? NaN : Date.parse(missingSince);
  return {
    ...record,
    heads: [...new Set([...(head === undefined ? [] : [head]), ...(found ?? [])])],
    isMissing,
    isForgotten: isMissing && now.getTime() - sinceMs > MISSING_DIRECTORY_DAYS * DAY_MS,
  };
}

/**
 * Every digest in a `bento.yaml`. The file is not parsed: one that a person is just editing must not cost its head.
 *
 * @returns undefined when there is no such file; none when it cannot be read, so that it counts as being there
 */
function readDigests(path: string): Digest[] | undefined {
  try {
    return (readFileSync(path, 'latin1').match(/sha256:[0-9a-f]{64}/g) ?? []) as Digest[];
  } catch (error) {
    return ['ENOENT', 'ENOTDIR'].includes(errnoOf(error) ?? '') ? undefined : [];
  }
}

/** The records of mounts and forks. */
export function mountFiles(store: Store): string[] {
  const dir = join(store.root, 'mounts');
  if (!existsSync(dir)) return [];
  const names = readdirSync(dir).filter((name) => name.endsWith('.json'));
  return names.sort().map((name) => join(dir, name));
}

/**
 * @returns undefined when it is not there any more
 * @throws BentoError FORMAT_INVALID naming the file
 */
export function readMount(file: string): MountRoot | undefined {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined; // closed meanwhile
    throw error;
  }
  const { kind, ref, target, manifest, switching } = parseObject(bytes, file);
  if (typeof target !== 'string') throw new BentoError('FORMAT_INVALID', `${file} names no directory`);
  const id = basename(file, '.json');
  const isWholeStore = kind === 'mount' && ref === WHOLE_STORE && manifest === undefined;
  const kept = isWholeStore ? undefined : parseDigest(manifest, `manifest in ${file}`);
  const next = switching === undefined ? undefined : parseDigest(switching, `switching in ${file}`);
  return { file, id, kind: String(kind), target, manifest: kept, switching: next };
}

function readForkHeads(store: Store): Digest[] {
  return forkIds(store).flatMap((id) => readDigests(configPath(join(store.root, 'forks', id, 'upper'))) ?? []);
}

/** The folders below `<store>/forks`. */
export function forkIds(store: Store): string[] {
  const dir = join(store.root, 'forks');
  if (!existsSync(dir)) return [];
  return readdirSync(dir).filter((name) => statSync(join(dir, name)).isDirectory());
}
