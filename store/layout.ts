import { existsSync } from 'node:fs';
import { mkdir, readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';

import { shareBlobs } from './blob-lock.ts';
import type { Digest } from './digest.ts';
import { removeTemporaries, writeFileDurably } from './durable.ts';
import { BentoError, errnoOf } from './errors.ts';
import { faultPoint } from './fault-point.ts';
import { lockFile, tryLockFile, type Lock } from './lock.ts';
import { indexEntry, KEYS, MEDIA_TYPES, parseDescriptor, parseObject, type Descriptor } from './manifest.ts';

const OCI_LAYOUT = '{"imageLayoutVersion":"1.0.0"}';
const SEQUENCE_MAX = 1e9;
const SEQUENCE_TAG = /^cp-([1-9][0-9]{0,14})$/;

/**
 * One workspace's OCI image layout: `<store>/<id>/` with `oci-layout`, `index.json`, `blobs` (a link to the shared pool)
 * and `ingest/` for blobs being written. `index.json` maps tags to manifests; one that lost its last tag stays listed. What is
 * attached to a checkpoint is listed without a tag (`find-attachments.ts`).
 *
 * @see OCI image-spec v1.1, image-layout.md
 */
export class Layout {
  readonly storeRoot: string;
  readonly id: string;
  readonly dir: string;

  constructor(storeRoot: string, id: string) {
    this.storeRoot = storeRoot;
    this.id = id;
    this.dir = join(storeRoot, id);
  }

  get ingestDir(): string {
    return join(this.dir, 'ingest');
  }

  /** Makes the folder and its fixed files if they are not there. */
  async ensure(): Promise<void> {
    await mkdir(this.ingestDir, { recursive: true });
    await mkdir(join(this.dir, '..', 'blobs', 'sha256'), { recursive: true });
    const marker = join(this.dir, 'oci-layout');
    if (!existsSync(marker)) await writeFileDurably(marker, OCI_LAYOUT);
    try {
      await symlink('../blobs', join(this.dir, 'blobs'));
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
    }
  }

  /**
   * Serialises everything that makes a checkpoint of this workspace; taken before anything is read. No blob is collected
   * meanwhile. Whoever gets it clears away what a killed save left half-written.
   */
  async lockForSaving(onWait?: () => void): Promise<Lock> {
    const blobs = await shareBlobs(this.storeRoot, onWait); // before the save lock, as everywhere: no circle of waiting
    let lock: Lock | undefined;
    try {
      lock = await this.lockSaves(onWait);
      await removeTemporaries(this.ingestDir); // layers are written under this lock alone
      return bothLocks(lock, blobs);
    } catch (error) {
      lock?.release();
      blobs.release();
      throw error;
    }
  }

  /** The save lock alone: keeps out the saves of programs that know no other. */
  async lockSaves(onWait?: () => void): Promise<Lock> {
    return await lockFile(join(this.dir, '.save-lock'), onWait);
  }

  /** The save lock at once, or undefined when a command of this workspace holds it. */
  async tryLockSaves(): Promise<Lock | undefined> {
    return await tryLockFile(join(this.dir, '.save-lock'));
  }

  /** The listed manifests as they stand in `index.json`; empty for a workspace without checkpoints. */
  async manifests(): Promise<Descriptor[]> {
    const path = join(this.dir, 'index.json');
    let bytes: Buffer;
    try {
      bytes = await readFile(path);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    }
    const json = parseObject(bytes, path);
    if (!Array.isArray(json['manifests'])) throw new BentoError('FORMAT_INVALID', `${path} lists no manifests`);
    return json['manifests'].map((value, i) => parseDescriptor(value, `${path} manifest ${i}`));
  }

  /** Tag -> manifest, in ascending byte order of the tags. */
  async tags(): Promise<Map<string, Descriptor>> {
    const tagged = (await this.manifests()).flatMap((descriptor): [string, Descriptor][] => {
      const tag = descriptor.annotations?.[KEYS.refName];
      return tag === undefined ? [] : [[tag, descriptor]];
    });
    return new Map(tagged.sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /**
   * One more than the highest N among the tags `cp-N`.
   *
   * @param after - of the head, whose tag may be in a registry only
   */
  async nextSequence(after = 0): Promise<number> {
    let highest = after <= SEQUENCE_MAX ? after : 0; // somebody else may have written it
    for (const tag of (await this.tags()).keys()) highest = Math.max(highest, Number(SEQUENCE_TAG.exec(tag)?.[1] ?? 0));
    return highest + 1;
  }

  /** Points tags at a manifest, in one durable step. A manifest that thereby loses its last tag stays listed. */
  async setTags(
    tags: readonly string[],
    manifest: { digest: Digest; size: number; mediaType?: string },
  ): Promise<void> {
    await this.ensure();
    using _blobs = await shareBlobs(this.storeRoot);
    using _lock = await lockFile(join(this.dir, '.index-lock'));
    const before = await this.manifests();
    const moved = (d: Descriptor): boolean => tags.includes(d.annotations?.[KEYS.refName] ?? '');
    const kept = before.filter((d) => !moved(d) && d.digest !== manifest.digest);
    const others = before.filter((d) => !moved(d) && d.digest === manifest.digest && d.annotations?.[KEYS.refName]);
    const displaced = before.filter(
      (d) => moved(d) && d.digest !== manifest.digest && !kept.some((other) => other.digest === d.digest),
    );
    const mediaType = manifest.mediaType ?? MEDIA_TYPES.manifest;
    const entry = { mediaType, digest: manifest.digest, size: manifest.size };
    await this.#write([
      ...kept,
      ...uniqueByDigest(displaced).map((entry) => indexEntry(entry, undefined)),
      ...others,
      ...[...new Set(tags)].map((tag) => indexEntry(entry, tag)),
    ]);
    faultPoint('tag.written');
  }

  /**
   * Takes entries off the list, in one durable step. What they name is garbage then, which only a collection may delete.
   *
   * @returns how many went
   */
  async removeEntries(isRemoved: (entry: Descriptor) => boolean): Promise<number> {
    let removedCount = 0;
    await this.changeEntries((before) => {
      const kept = before.filter((entry) => !isRemoved(entry));
      removedCount = before.length - kept.length;
      return removedCount > 0 ? kept : undefined;
    });
    return removedCount;
  }

  /**
   * Changes the list in one durable step, with nobody else changing it between the look and the step. Whoever adds entries
   * shares the store's blobs: what they name is in the pool.
   *
   * @param change - gives the new list; undefined leaves it as it is
   */
  async changeEntries(
    change: (before: readonly Descriptor[]) => Promise<Descriptor[] | undefined> | Descriptor[] | undefined,
  ): Promise<void> {
    using _lock = await lockFile(join(this.dir, '.index-lock'));
    const after = await change(await this.manifests());
    if (after !== undefined) await this.#write(after);
  }

  async #write(manifests: Descriptor[]): Promise<void> {
    const index = { schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests };
    await writeFileDurably(join(this.dir, 'index.json'), JSON.stringify(index));
  }
}

function uniqueByDigest(descriptors: readonly Descriptor[]): Descriptor[] {
  return [...new Map(descriptors.map((d) => [d.digest, d])).values()];
}

function bothLocks(first: Lock, second: Lock): Lock {
  const release = (): void => {
    first.release();
    second.release();
  };
  return { release, [Symbol.dispose]: release };
}
