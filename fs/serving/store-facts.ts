import { readdirSync, readFileSync, statSync, type BigIntStats, type Dirent } from 'node:fs';
import { join } from 'node:path';

import type { Digest } from '../../store/digest.ts';
import { BentoError, errnoOf } from '../../store/errors.ts';
import { isObject, KEYS, parseDescriptor, parseObject } from '../../store/manifest.ts';
import { RESERVED_STORE_NAMES } from '../../store/store.ts';

/** The most that is read of an `index.json`: a hundred thousand tags. */
const INDEX_BYTES_MAX = 32 << 20;
/** The most that is read of a record of a mount or a head. */
const RECORD_BYTES_MAX = 1 << 20;
/** A file changed more recently than this may change again without its times telling, in nanoseconds. */
const RACY_NSEC = 50_000_000n;
const NSEC_PER_MSEC = 1_000_000n;

/** What the files of one workspace's layout say. */
export interface WorkspaceFacts {
  id: string;
  /** Undefined when it has no `index.json`, and so no checkpoint. */
  tags: ReadonlyMap<string, Digest> | undefined;
  /** Why the tags cannot be told, when they cannot. */
  damage: Error | undefined;
  /** Directories of the workspace that are no forks, the likeliest to be known by first. */
  dirs: readonly string[];
  /** When its tags were changed last. */
  taggedNsec: bigint;
}

/**
 * Which workspaces and tags a store has, read synchronously and kept: looked at again, it costs a few stats for each
 * workspace, and only what changed is read.
 */
export class StoreFacts {
  readonly #root: string;
  readonly #ids: Watched<readonly string[]>;
  readonly #forks: Watched<ReadonlySet<string>>;
  #layouts: ReadonlyMap<string, WatchedLayout>;

  constructor(root: string) {
    this.#root = root;
    this.#ids = new Watched(root, () => workspaceIds(root));
    this.#forks = new Watched(join(root, 'mounts'), () => forkTargets(join(root, 'mounts')));
    this.#layouts = this.#openLayouts(new Map());
  }

  /** Looks whether anything changed since the last time. @throws what listing the store's folder throws */
  refresh(): boolean {
    let isChanged = this.#ids.refresh(); // first, because it alone may throw: then nothing that was seen is lost
    if (isChanged) this.#layouts = this.#openLayouts(this.#layouts);
    isChanged = this.#forks.refresh() || isChanged;
    for (const layout of this.#layouts.values()) isChanged = layout.refresh() || isChanged;
    return isChanged;
  }

  #openLayouts(known: ReadonlyMap<string, WatchedLayout>): Map<string, WatchedLayout> {
    return new Map(this.#ids.value.map((id) => [id, known.get(id) ?? new WatchedLayout(join(this.#root, id))]));
  }

  /** In ascending order of their ids. */
  get workspaces(): WorkspaceFacts[] {
    return [...this.#layouts].map(([id, { index, heads }]) => ({
      id,
      ...index.value,
      dirs: likeliestFirst(heads.value.filter(({ dir }) => !this.#forks.value.has(dir))),
      taggedNsec: index.mtimeNsec,
    }));
  }

  /** The newest time of all that was looked at: whatever changes what `workspaces` says, moves it. */
  get changedNsec(): bigint {
    const watched = [...this.#layouts.values()].flatMap(({ index, heads }) => [index, heads]);
    return [this.#ids, this.#forks, ...watched].reduce(
      (newest, { mtimeNsec }) => (mtimeNsec > newest ? mtimeNsec : newest),
      0n,
    );
  }
}

class WatchedLayout {
  readonly index: Watched<Pick<WorkspaceFacts, 'tags' | 'damage'>>;
  readonly heads: Watched<readonly Head[]>;

  constructor(dir: string) {
    this.index = new Watched(join(dir, 'index.json'), () => readTags(join(dir, 'index.json')));
    this.heads = new Watched(join(dir, 'heads'), () => readHeads(join(dir, 'heads')));
  }

  refresh(): boolean {
    const isTagged = this.index.refresh();
    return this.heads.refresh() || isTagged;
  }
}

/** Something read from a file or folder, and read again when that changed. */
class Watched<Value> {
  readonly #path: string;
  readonly #read: () => Value;
  /** Undefined when the file may change once more without a new stamp. */
  #stamp: string | undefined;
  value: Value;
  mtimeNsec: bigint;

  constructor(path: string, read: () => Value) {
    const stat = look(path);
    this.#path = path;
    this.#read = read;
    this.#stamp = stampOf(stat);
    this.mtimeNsec = stat?.mtimeNs ?? 0n;
    this.value = read();
  }

  /** @returns whether it was read again */
  refresh(): boolean {
    const stat = look(this.#path);
    const stamp = stampOf(stat);
    if (stamp !== undefined && stamp === this.#stamp) return false;
    this.value = this.#read(); // after the look: what changes in between shows next time
    this.mtimeNsec = stat?.mtimeNs ?? 0n;
    this.#stamp = stamp;
    return true;
  }
}

/** Undefined for what cannot be looked at, too: reading it tells why. */
function look(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true, throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

/** Undefined when the file was changed so recently that the next change could leave the same times. */
function stampOf(stat: BigIntStats | undefined): string | undefined {
  if (stat === undefined) return 'missing';
  if (BigInt(Date.now()) * NSEC_PER_MSEC - stat.ctimeNs <= RACY_NSEC) return undefined;
  return [stat.dev, stat.ino, stat.size, stat.mtimeNs, stat.ctimeNs].join();
}

function workspaceIds(root: string): string[] {
  return listIfAny(root)
    .filter((entry) => entry.isDirectory() && !RESERVED_STORE_NAMES.includes(entry.name) && !entry.name.startsWith('.'))
    .map(({ name }) => name)
    .sort();
}

function listIfAny(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}

function readTags(path: string): Pick<WorkspaceFacts, 'tags' | 'damage'> {
  try {
    const bytes = readIfAny(path, INDEX_BYTES_MAX);
    return { tags: bytes && parseTags(bytes, path), damage: undefined };
  } catch (error) {
    return { tags: new Map(), damage: error instanceof Error ? error : new Error(String(error)) };
  }
}

/** @throws BentoError FORMAT_INVALID */
function parseTags(bytes: Buffer, path: string): Map<string, Digest> {
  const { manifests } = parseObject(bytes, path);
  if (!Array.isArray(manifests)) throw new BentoError('FORMAT_INVALID', `${path} lists no manifests`);
  const tags = new Map<string, Digest>();
  manifests.forEach((value, i) => {
    const { digest, annotations } = parseDescriptor(value, `${path} manifest ${i}`);
    const tag = annotations?.[KEYS.refName];
    if (tag !== undefined) tags.set(tag, digest);
  });
  return tags;
}

/** A directory of a workspace, as `<id>/heads/` has it. */
interface Head {
  dir: string;
  isMissing: boolean;
}

function readHeads(folder: string): Head[] {
  return readRecords(folder).flatMap(({ dir, missingSince }) =>
    typeof dir === 'string' ? [{ dir, isMissing: missingSince !== undefined }] : [],
  );
}

/** Which of a workspace's directories it is known by is a guess, but always the same one. */
function likeliestFirst(heads: readonly Head[]): string[] {
  const sorted = [...heads].sort((a, b) => Number(a.isMissing) - Number(b.isMissing) || (a.dir < b.dir ? -1 : 1));
  return sorted.map(({ dir }) => dir);
}

function forkTargets(folder: string): Set<string> {
  return new Set(
    readRecords(folder).flatMap(({ kind, target }) => (kind === 'fork' && typeof target === 'string' ? [target] : [])),
  );
}

/** The JSON objects in a folder. What cannot be read costs a name, and nothing else. */
function readRecords(folder: string): Record<string, unknown>[] {
  const names = orElse(() => readdirSync(folder), []).filter((name) => name.endsWith('.json'));
  return names.sort().flatMap((name) => {
    const bytes = orElse(() => readIfAny(join(folder, name), RECORD_BYTES_MAX), undefined);
    const record = orElse<unknown>(() => JSON.parse(bytes?.toString('utf8') ?? '') as unknown, undefined);
    return isObject(record) ? [record] : [];
  });
}

function orElse<Value>(read: () => Value, otherwise: Value): Value {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

/** @returns undefined when there is no such file @throws BentoError FORMAT_INVALID when it is too large */
function readIfAny(path: string, bytesMax: number): Buffer | undefined {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  if (stat.size > bytesMax) throw new BentoError('FORMAT_INVALID', `${path} is longer than ${bytesMax} bytes`);
  try {
    return readFileSync(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
