import { lstat, mkdir, open, readdir, readFile, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { hexOf, type Digest } from '../digest.ts';
import { isTemporary, syncDir, temporaryBeside, writeFileDurably } from '../durable.ts';
import { BentoError } from '../errors.ts';
import { lockFile } from '../lock.ts';
import { isObject, KEYS, MANIFEST_BYTES_MAX, MEDIA_TYPES, parseObject, type Descriptor } from '../manifest.ts';

export const OCI_LAYOUT = '{"imageLayoutVersion":"1.0.0"}';
export const BLOBS_DIR = 'blobs/sha256';

/** A file that nobody has written to for so long belongs to somebody who was killed. */
const LEFTOVER_MS = 24 * 3_600_000;

/**
 * A layout folder outside of the store that is written to, perhaps by several at once, perhaps on a stick or a server. All is
 * durable when it returns: blobs first, then what lists them.
 *
 * @see OCI image-spec v1.1, image-layout.md
 */
export class LayoutFolder {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /**
   * Makes sure that a folder is a layout; a new one is so from the start, so that whoever was killed can try again.
   *
   * @throws BentoError TARGET_NOT_EMPTY, TARGET_INVALID, FORMAT_INVALID
   */
  static async prepare(path: string): Promise<LayoutFolder> {
    await mkdir(path, { recursive: true });
    const names = await visibleIn(path);
    if (names.length === 0) await writeFileDurably(join(path, 'oci-layout'), OCI_LAYOUT);
    else if (!names.includes('oci-layout')) {
      throw new BentoError('TARGET_NOT_EMPTY', `${path} is neither empty nor an image layout`, {
        hint: 'choose a new folder',
      });
    }
    const blobs = await lstat(join(path, 'blobs')).catch(() => undefined);
    if (blobs?.isSymbolicLink() === true) {
      throw new BentoError('TARGET_INVALID', `${path} shares its blobs with others: it belongs to a store of bento`, {
        hint: 'choose a new folder',
      });
    }
    await readIndex(path); // one that is broken is said before anything is written
    const dir = join(path, BLOBS_DIR);
    await mkdir(dir, { recursive: true });
    await removeLeftovers(dir);
    return new LayoutFolder(path);
  }

  /** Whether nothing is in it that anybody would miss. */
  static async isEmpty(path: string): Promise<boolean> {
    return (await visibleIn(path)).length === 0;
  }

  /** @returns whether a file of this name and size is there */
  async hasBlob({ digest, size }: { digest: Digest; size: number }): Promise<boolean> {
    const there = await lstat(this.#blobPath(digest)).catch(() => undefined);
    return there?.isFile() === true && there.size === size;
  }

  /**
   * Writes a blob; its name is durable once something lists it.
   *
   * @param write - writes all of it, and throws when it is not what its digest says: then nothing of it stays
   */
  async putBlob(digest: Digest, write: (handle: FileHandle) => Promise<void>): Promise<void> {
    await writeNewFile(this.#blobPath(digest), write);
  }

  /** Lists manifests that are here with all they need (`indexEntry`, `entryOf`); tags of the same names move. */
  async list(added: readonly Descriptor[]): Promise<void> {
    const dir = join(this.path, BLOBS_DIR);
    for (const changed of [dir, dirname(dir), this.path, dirname(this.path)]) await syncDir(changed);
    using _lock = await lockFile(join(this.path, '.index-lock'));
    const index = await readIndex(this.path);
    const before = Array.isArray(index['manifests']) ? index['manifests'] : [];
    await writeFileDurably(join(this.path, 'index.json'), encodeIndex(merge(before, added), index));
  }

  /** Takes a manifest off the list, under whichever tags, and then away. What it needs stays: others may need it, too. */
  async removeManifest(digest: Digest): Promise<void> {
    using _lock = await lockFile(join(this.path, '.index-lock'));
    const index = await readIndex(this.path);
    const before = Array.isArray(index['manifests']) ? index['manifests'] : [];
    const kept = before.filter((value) => !isObject(value) || value['digest'] !== digest);
    await writeFileDurably(join(this.path, 'index.json'), encodeIndex(kept, index));
    await rm(this.#blobPath(digest), { force: true });
  }

  #blobPath(digest: Digest): string {
    return join(this.path, BLOBS_DIR, hexOf(digest));
  }
}

/** What is in a new file system, and what somebody left who was killed here, is not in the way. */
const IN_NOBODYS_WAY = /^(?:lost\+found|\.Trash-\d+|\.index-lock)$/;

async function visibleIn(path: string): Promise<string[]> {
  return (await readdir(path)).filter((name) => !isTemporary(name) && !IN_NOBODYS_WAY.test(name));
}

/** Text of an `index.json`. @param rest - what else it said before */
export function encodeIndex(manifests: readonly unknown[], rest: Record<string, unknown> = {}): string {
  return JSON.stringify({ ...rest, schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests });
}

/** What was listed before, but for tags that move, and what is new. */
function merge(before: readonly unknown[], added: readonly Descriptor[]): unknown[] {
  const isReplaced = (value: unknown): boolean => {
    const name = nameIn(value);
    const digest = isObject(value) ? value['digest'] : undefined;
    return added.some((one) => (name === undefined ? digest === one.digest : name === nameIn(one)));
  };
  const kept = before.filter((value) => !isReplaced(value));
  const isListed = ({ digest }: Descriptor): boolean => kept.some((one) => isObject(one) && one['digest'] === digest);
  return [...kept, ...added.filter((one) => nameIn(one) !== undefined || !isListed(one))];
}

function nameIn(value: unknown): unknown {
  const annotations = isObject(value) && isObject(value['annotations']) ? value['annotations'] : {};
  return annotations[KEYS.refName];
}

/** @returns empty where there is none */
async function readIndex(folder: string): Promise<Record<string, unknown>> {
  const path = join(folder, 'index.json');
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) return {};
  if (found.size > MANIFEST_BYTES_MAX) {
    throw new BentoError('FORMAT_INVALID', `${path} is ${found.size} bytes, limit ${MANIFEST_BYTES_MAX}`);
  }
  const index = parseObject(await readFile(path), path);
  if (Array.isArray(index['manifests'])) return index;
  throw new BentoError('FORMAT_INVALID', `${path} lists no manifests`);
}

async function removeLeftovers(dir: string): Promise<void> {
  for (const name of (await readdir(dir)).filter(isTemporary)) {
    const found = await lstat(join(dir, name)).catch(() => undefined); // somebody finishes it just now
    if (found !== undefined && Date.now() - found.mtimeMs > LEFTOVER_MS) await rm(join(dir, name), { force: true });
  }
}

/** Temporary file, fsync, rename; the folder is the caller's. */
export async function writeNewFile(path: string, write: (handle: FileHandle) => Promise<void>): Promise<void> {
  const temporary = temporaryBeside(path);
  try {
    const handle = await open(temporary, 'wx', 0o644);
    try {
      await write(handle);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
