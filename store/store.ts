import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { BlobPool } from './blobs.ts';
import { loadCheckpoint, type Checkpoint } from './checkpoint.ts';
import type { Digest } from './digest.ts';
import { BentoError, errnoOf } from './errors.ts';
import { Layout } from './layout.ts';
import { ARTIFACT_TYPE } from './manifest.ts';
import type { Ref } from './ref.ts';

/** Folders of the store that are not workspaces. */
export const RESERVED_STORE_NAMES: readonly string[] = ['blobs', 'cache', 'forks', 'lazy', 'mounts', 'partial', 'thin'];

const STORE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** Whether a name can be a workspace id, that is: a folder under the store root. */
export function isStoreName(name: string): boolean {
  return STORE_NAME.test(name) && !RESERVED_STORE_NAMES.includes(name);
}

/** A resolved reference: which layout it was found in, under which tag if any. */
export interface ResolvedRef {
  layout: Layout;
  digest: Digest;
  tag: string | undefined;
}

/** A store root: one blob pool shared by any number of workspaces, each with a layout of its own. */
export class Store {
  readonly root: string;
  readonly blobs: BlobPool;

  constructor(root: string) {
    this.root = root;
    this.blobs = new BlobPool(root);
  }

  /** Everything in here may be deleted at any time; it is rebuilt. */
  get cacheDir(): string {
    return join(this.root, 'cache');
  }

  layout(id: string): Layout {
    return new Layout(this.root, id);
  }

  async loadCheckpoint(digest: Digest): Promise<Checkpoint> {
    return await loadCheckpoint(this.blobs, digest);
  }

  /** Ids of all workspaces that have a layout here. */
  async workspaceIds(): Promise<string[]> {
    const entries = await readdir(this.root, { withFileTypes: true }).catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    });
    return entries
      .filter(
        (entry) => entry.isDirectory() && !RESERVED_STORE_NAMES.includes(entry.name) && !entry.name.startsWith('.'),
      )
      .map((entry) => entry.name)
      .sort();
  }

  /**
   * Finds the manifest a tag, digest or digest prefix means.
   *
   * @param own - the layout that references without a store name are looked up in
   * @throws BentoError REF_NOT_FOUND or REF_INVALID
   */
  async resolve(ref: Exclude<Ref, { kind: 'head' | 'undo' }>, own: Layout | undefined): Promise<ResolvedRef> {
    const layout = ref.store === undefined ? own : this.layout(ref.store);
    if (layout === undefined) {
      throw new BentoError(
        'REF_NOT_FOUND',
        'this directory is no bento workspace, so a checkpoint needs its store name',
        {
          hint: 'write <workspace id>:<tag>, or run `bento init` first',
        },
      );
    }
    if (ref.kind === 'digest') return await this.#resolveDigest(layout, ref.digest);
    if (ref.kind === 'prefix') return await this.#resolvePrefix(layout, ref.prefix);
    const found = (await layout.tags()).get(ref.tag);
    if (found === undefined) throw notFound(ref.tag, ref.store);
    return { layout, digest: found.digest, tag: ref.tag };
  }

  /** A digest resolves when its blob is in the pool, tagged or not, in any workspace. */
  async #resolveDigest(layout: Layout, digest: Digest): Promise<ResolvedRef> {
    if (!(await this.blobs.has(digest))) throw notFound(digest);
    return { layout, digest, tag: undefined };
  }

  async #resolvePrefix(layout: Layout, prefix: string): Promise<ResolvedRef> {
    const listed = (await layout.manifests()).filter(
      ({ artifactType = ARTIFACT_TYPE }) => artifactType === ARTIFACT_TYPE,
    );
    const digests = new Set(listed.map((d) => d.digest).filter((digest) => digest.startsWith(prefix)));
    const [digest, second] = digests;
    if (digest === undefined) throw notFound(prefix);
    if (second !== undefined) {
      throw new BentoError('REF_INVALID', `invalid ref "${prefix}": ${digests.size} checkpoints begin like this`, {
        hint: 'write more digits',
      });
    }
    return { layout, digest, tag: undefined };
  }
}

function notFound(what: string, store?: string): BentoError {
  const where = store === undefined ? '' : ` in the store "${store}"`;
  return new BentoError('REF_NOT_FOUND', `loading checkpoint ${what}: tag "${what}" not found${where}`, {
    hint: '`bento list` shows the checkpoints there are',
  });
}
