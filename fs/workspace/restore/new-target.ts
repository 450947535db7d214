import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
  type Stats,
} from 'node:fs';
import { dirname, join } from 'node:path';

import { fromText, toFsPath, type ByteString } from '../../../store/byte-string.ts';
import { isDigest, type Digest } from '../../../store/digest.ts';
import { BentoError, describeSystemError, errnoOf } from '../../../store/errors.ts';
import { tryLockFile, type Lock } from '../../../store/lock.ts';
import { typeOf } from '../../tree/disk-node.ts';
import type { CheckpointNode } from '../../tree/checkpoint-tree.ts';
import { walkTree, type Tree } from '../../tree/tree.ts';
import { IGNORE_HEADING } from '../new-workspace.ts';
import { STAGING_NAME } from '../patterns.ts';

/** In the staging folder of a directory that is being made: which checkpoint goes into it. Locked while that goes on. */
const MARKER_NAME = 'new';
const CONFIG_NAME = 'bento.yaml';
const IGNORE_NAME = '.bentoignore';

/** Finds the tree of a checkpoint; undefined when it is not in the store any more. */
export type FindTree = (manifest: Digest) => Promise<Tree<CheckpointNode> | undefined>;

/**
 * A directory that a checkpoint is being written into. Until it is finished it is no workspace, and a marker says whose work
 * it is: when the process is killed, the next `open` into it clears that away and begins anew.
 */
export class NewTarget {
  /** Absolute, without symlinks. */
  readonly path: string;
  /** The same as bytes. */
  readonly dir: ByteString;
  readonly staging: string;
  readonly #made: boolean;
  readonly #lock: Lock;

  private constructor(path: string, made: boolean, lock: Lock) {
    this.path = path;
    this.dir = fromText(path);
    this.staging = join(path, STAGING_NAME);
    this.#made = made;
    this.#lock = lock;
  }

  /**
   * @param path - missing, an empty directory, or one that an `open` was killed in
   * @throws BentoError TARGET_NOT_EMPTY or TARGET_INVALID, before anything is written
   */
  static async take(path: string, manifest: Digest, findTree: FindTree): Promise<NewTarget> {
    const made = makeDirectoryIfMissing(path);
    if (!made && readdirSync(path).length > 0) await clearHalfMade(path, findTree);
    const dir = realpathSync(path);
    const lock = await mark(dir, manifest);
    return new NewTarget(dir, made, lock);
  }

  /** The directory becomes a workspace: what was prepared in the staging folder is moved to its place, bento.yaml last. */
  finish(): void {
    const dir = this.path;
    if (existsSync(join(dir, CONFIG_NAME))) throw new BentoError('FAILED', `bento.yaml already exists in ${dir}`);
    const hasIgnore = lstatSync(join(dir, IGNORE_NAME), { throwIfNoEntry: false }) !== undefined;
    if (!hasIgnore && existsSync(join(this.staging, IGNORE_NAME))) {
      renameSync(join(this.staging, IGNORE_NAME), join(dir, IGNORE_NAME));
    }
    renameSync(join(this.staging, CONFIG_NAME), join(dir, CONFIG_NAME));
    rmSync(this.staging, { recursive: true, force: true });
    this.#lock.release();
  }

  /** Everything in a directory that was empty when we began is ours. */
  discard(): void {
    const dir = this.path;
    for (const name of readdirSync(dir)) rmSync(join(dir, name), { recursive: true, force: true });
    if (this.#made) rmSync(dir, { recursive: true, force: true });
    this.#lock.release();
  }
}

/** @returns whether the directory was made here */
function makeDirectoryIfMissing(dir: string): boolean {
  if (isDirectoryThere(dir)) return false;
  makeDirectory(dir);
  return true;
}

/** @throws BentoError TARGET_INVALID when it cannot be made either */
function isDirectoryThere(dir: string): boolean {
  const stat = statIfAny(dir);
  if (stat?.isDirectory() === true) return true;
  if (stat !== undefined)
    throw new BentoError('TARGET_INVALID', `${dir} is not a directory`, { hint: 'choose another name' });
  if (!existsSync(dirname(dir))) {
    throw new BentoError('TARGET_INVALID', `${dirname(dir)} does not exist`, { hint: `mkdir -p ${dirname(dir)}` });
  }
  return false;
}

/**
 * Sees to it that something can be mounted on a new or empty directory; what an `open` was killed in is cleared away.
 *
 * @throws BentoError TARGET_NOT_EMPTY or TARGET_INVALID
 */
export async function clearForMount(dir: string, findTree: FindTree): Promise<void> {
  if (isDirectoryThere(dir) && existsSync(join(dir, STAGING_NAME))) await clearHalfMade(dir, findTree);
}

/** @throws BentoError TARGET_INVALID when something on the way is no directory */
function statIfAny(dir: string): Stats | undefined {
  try {
    return statSync(dir, { throwIfNoEntry: false });
  } catch (error) {
    if (errnoOf(error) !== 'ENOTDIR') throw describeSystemError(error, `looking at ${dir}`);
    throw new BentoError('TARGET_INVALID', `${dir} cannot be made: a part of the path is a file`, {
      hint: 'choose another place',
    });
  }
}

function makeDirectory(dir: string): void {
  try {
    mkdirSync(dir);
  } catch (error) {
    const described = describeSystemError(error, `making ${dir}`);
    if (described instanceof BentoError) throw described;
    throw new BentoError('TARGET_INVALID', `${dir} cannot be made: ${(error as Error).message}`, {
      hint: 'choose another place',
      cause: error,
    });
  }
}

async function mark(dir: string, manifest: Digest): Promise<Lock> {
  const staging = join(dir, STAGING_NAME);
  try {
    mkdirSync(staging, 0o700);
    const lock = await tryLockFile(join(staging, MARKER_NAME));
    if (lock === undefined) throw busy(dir);
    writeFileSync(join(staging, MARKER_NAME), JSON.stringify({ manifest }));
    return lock;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') throw busy(dir);
    throw describeSystemError(error, `writing ${dir}`);
  }
}

/** Takes away what an `open` that was killed had made, and nothing else. */
async function clearHalfMade(dir: string, findTree: FindTree): Promise<void> {
  const staging = join(dir, STAGING_NAME);
  const isHalfMade = lstatSync(staging, { throwIfNoEntry: false })?.isDirectory() === true;
  if (!isHalfMade || existsSync(join(dir, CONFIG_NAME))) throw notEmpty(dir);
  using lock = await tryLockFile(join(staging, MARKER_NAME));
  if (lock === undefined) throw busy(dir);
  const manifest = markedManifest(join(staging, MARKER_NAME));
  const tree = manifest && (await findTree(manifest));
  if (tree !== undefined) removeNodesOf(tree, fromText(realpathSync(dir)));
  const ignore = join(dir, IGNORE_NAME);
  if (isOwnIgnore(ignore)) unlinkSync(ignore);
  if (readdirSync(dir).some((name) => name !== STAGING_NAME)) throw notEmpty(dir);
  rmSync(staging, { recursive: true, force: true });
}

function markedManifest(path: string): Digest | undefined {
  const text = readFileSync(path, 'utf8');
  const manifest = /^\{"manifest":"([^"]*)"\}$/.exec(text)?.[1];
  return manifest !== undefined && isDigest(manifest) ? manifest : undefined;
}

function isOwnIgnore(path: string): boolean {
  if (lstatSync(path, { throwIfNoEntry: false })?.isFile() !== true) return false;
  return readFileSync(path, 'utf8').startsWith(IGNORE_HEADING);
}

/** Directories that hold more than the checkpoint does stay. */
function removeNodesOf(tree: Tree<CheckpointNode>, dir: ByteString): void {
  const dirs: ByteString[] = [];
  const isReal = new Set(['']);
  for (const [path, node] of walkTree(tree)) {
    if (!isReal.has(path.slice(0, Math.max(0, path.lastIndexOf('/'))))) continue;
    const place = `${dir}/${path}`;
    const stat = lstatSync(toFsPath(place), { bigint: true, throwIfNoEntry: false });
    if (stat === undefined || typeOf(stat) !== node.type) continue;
    if (node.type === 'dir') {
      dirs.push(place);
      isReal.add(path);
    } else unlinkSync(toFsPath(place));
  }
  for (const place of dirs.reverse()) {
    try {
      rmdirSync(toFsPath(place));
    } catch (error) {
      if (errnoOf(error) !== 'ENOTEMPTY') throw error;
    }
  }
}

function notEmpty(dir: string): BentoError {
  return new BentoError('TARGET_NOT_EMPTY', `${dir} is not empty and is no bento workspace`, {
    hint: 'choose a new or empty directory; nothing was changed',
  });
}

function busy(dir: string): BentoError {
  return new BentoError('TARGET_NOT_EMPTY', `another command is opening a checkpoint into ${dir} just now`, {
    hint: 'choose another directory, or wait for it',
  });
}
