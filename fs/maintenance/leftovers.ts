import { existsSync, lstatSync, readdirSync, type Stats } from 'node:fs';
import { join } from 'node:path';

import { lazyDir, partialDir } from '../../store/blob-paths.ts';
import type { Digest } from '../../store/digest.ts';
import { errnoOf } from '../../store/errors.ts';
import { resumeDir } from '../../store/layers/resume-points.ts';
import type { Layout } from '../../store/layout.ts';
import type { Store } from '../../store/store.ts';
import { isAbandoned } from '../contents/cache-folder.ts';
import { contentsDir } from '../contents/cached-content.ts';
import { firstReadsDir } from '../contents/first-reads.ts';
import { isOwnForkFile } from '../mounts/fork-making.ts';
import { isConfigTemporary } from '../workspace/config-file.ts';
import { forkIds } from './roots.ts';

export interface Leftover {
  path: string;
  sizeBytes: number;
}

/** Files that others than we may still be writing are left alone for so long. */
const FOREIGN_FILE_AGE_MS = 86_400_000;
const TEMPORARY = /^\.tmp-/;
const HEX = /^[0-9a-f]{64}$/;
const LAZY_NAME = /^([0-9a-f]{64})(?:\.map|\.json)?$/;
/** What a file takes on disk is counted in these. @see stat(2), st_blocks */
const STAT_BLOCK_BYTES = 512;

/**
 * What killed commands left in a store, and caches of what is gone. Only while nobody else writes: what looks half-written
 * then is.
 */
export function findLeftovers(
  store: Store,
  layouts: readonly Layout[],
  alive: ReadonlySet<Digest>,
  now: Date,
): Leftover[] {
  const isTemporary = (name: string): boolean => TEMPORARY.test(name);
  const isOld = ({ mtimeMs }: Stats): boolean => now.getTime() - mtimeMs > FOREIGN_FILE_AGE_MS;
  const isDead = (name: string): boolean => HEX.test(name) && !alive.has(`sha256:${name}`);
  const contents = contentsDir(store.cacheDir);
  const isDeadCache = (name: string, stat: Stats): boolean => (isTemporary(name) ? isOld(stat) : isDead(name));
  return [
    ...filesIn(store.blobs.dir, isTemporary),
    // A recipe of a blob that has become whole is the last to go.
    ...filesIn(store.blobs.thinDir, (name) => isTemporary(name) || existsSync(join(store.blobs.dir, name))),
    ...filesIn(join(store.root, 'mounts'), isTemporary),
    // Downloads that broke: the next pull goes on with them, if it comes soon.
    ...filesIn(partialDir(store.root), (_name, stat) => isOld(stat)),
    // Daemons may be fetching into them: they notice.
    ...filesIn(lazyDir(store.root), (name) => isTemporary(name) || isDeadPart(store, alive, name)),
    // Written without a lock, by commands that only look; other programs have other names for what they are writing.
    ...filesIn(resumeDir(store.cacheDir), isDeadCache),
    ...filesIn(firstReadsDir(store.cacheDir), isDeadCache),
    ...unpackedLayers(store),
    // Daemons write here at any time; each holds a lock on what it writes.
    ...filesIn(contents, (name) => isTemporary(name) && isAbandoned(join(contents, name))),
    ...layouts.flatMap(({ dir, ingestDir }) => [
      ...filesIn(dir, isTemporary),
      ...filesIn(join(dir, 'heads'), isTemporary),
      ...filesIn(ingestDir, (name, stat) => isTemporary(name) || isOld(stat)),
    ]),
  ];
}

/** Of what is here of a blob in part: nobody needs it, or it has become whole. */
function isDeadPart(store: Store, alive: ReadonlySet<Digest>, name: string): boolean {
  const hex = LAZY_NAME.exec(name)?.[1];
  return hex !== undefined && (!alive.has(`sha256:${hex}`) || existsSync(join(store.blobs.dir, hex)));
}

/** Foreign layers as earlier versions unpacked them: the folder as a whole, which nobody reads any more. */
function unpackedLayers(store: Store): Leftover[] {
  const path = join(store.cacheDir, 'unpacked');
  if (!existsSync(path)) return [];
  const files = filesIn(join(path, 'sha256'), () => true);
  return [{ path, sizeBytes: files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) }];
}

/** What was killed while it wrote a `bento.yaml`. A directory that cannot be listed is left alone. */
export function findHalfWrittenConfigs(dirs: readonly string[]): Leftover[] {
  return dirs.flatMap((dir) => {
    try {
      return filesIn(dir, isConfigTemporary);
    } catch {
      return []; // not a directory any more, or the mount of a daemon that is gone
    }
  });
}

/** Folders of forks without a record, as a crash between the two leaves them; `isEmpty` when nobody worked in them. */
export function findOrphanForks(store: Store, recorded: ReadonlySet<string>): { path: string; isEmpty: boolean }[] {
  return forkIds(store)
    .filter((id) => !recorded.has(id))
    .map((id) => join(store.root, 'forks', id))
    .map((path) => ({ path, isEmpty: namesIn(join(path, 'upper')).every(isOwnForkFile) }));
}

function filesIn(dir: string, isLeftover: (name: string, stat: Stats) => boolean): Leftover[] {
  return namesIn(dir).flatMap((name) => {
    const path = join(dir, name);
    const stat = lstatSync(path, { throwIfNoEntry: false });
    return stat?.isFile() === true && isLeftover(name, stat)
      ? [{ path, sizeBytes: Math.min(stat.size, stat.blocks * STAT_BLOCK_BYTES) }]
      : [];
  });
}

function namesIn(dir: string): string[] {
  if (!existsSync(dir)) return [];
  try {
    return readdirSync(dir);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}
