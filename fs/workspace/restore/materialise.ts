import { mkdirSync, rmSync } from 'node:fs';

import { toFsPath, toText, type ByteString } from '../../../store/byte-string.ts';
import { BentoError } from '../../../store/errors.ts';
import type { TreeSource } from '../../tree/index-checkpoint.ts';
import type { CheckpointNode, CheckpointTree } from '../../tree/checkpoint-tree.ts';
import { STAGING_NAME } from '../patterns.ts';
import { createNode } from '../write-node.ts';
import { writeContext } from './fresh.ts';
import { NewObjects, type OnRefused } from './new-objects.ts';

/** After so many objects the threads that write are given what has come together. */
const SLICE_OBJECTS = 192;

export interface MaterialiseOptions {
  source: TreeSource;
  /** A folder of our own in the target, for trying out what new files look like there. */
  scratch: ByteString;
  onRefused?: OnRefused | undefined;
  /** Which nodes belong to what is asked for; directories on the way to them always do. Default: all. */
  includes?: ((node: CheckpointNode) => boolean) | undefined;
}

/**
 * Writes a whole checkpoint into an empty directory. Every directory a file goes into was made here, so no symlink of an
 * archive leads anywhere. Nothing is synced, as little as by `tar x`: what a power cut may take is still in the store.
 *
 * @param target - absolute
 * @returns how many objects were written
 * @throws BentoError naming the file; what is half-made is the caller's to remove, once this has returned
 */
export async function materialise(
  tree: CheckpointTree,
  target: ByteString,
  options: MaterialiseOptions,
): Promise<number> {
  const { source, scratch, onRefused } = options;
  const context = writeContext(scratch, target);
  await using objects = new NewObjects({ source, context, onRefused, wantsAll: true });
  const walk = new Walk(tree, target, options, objects);
  const advance = source.index.db.transaction(() => walk.advance(SLICE_OBJECTS)); // one lock instead of one a directory
  while (advance()) await objects.room();
  await objects.finish();
  walk.describeDirs();
  return walk.writtenCount;
}

/** A whole checkpoint as a plain copy, where nothing can be mounted. */
export async function copyCheckpoint(tree: CheckpointTree, target: ByteString, source: TreeSource): Promise<void> {
  const scratch = `${target}/${STAGING_NAME}`;
  mkdirSync(toFsPath(scratch), 0o700);
  try {
    await materialise(tree, target, { source, scratch });
  } finally {
    rmSync(toFsPath(scratch), { recursive: true, force: true });
  }
}

class Walk {
  writtenCount = 0;
  readonly #tree: CheckpointTree;
  readonly #target: ByteString;
  readonly #options: MaterialiseOptions;
  readonly #objects: NewObjects;
  readonly #steps: Generator<void>;
  /** Made so far, parents first. */
  readonly #dirs: { path: ByteString; node: CheckpointNode }[] = [];

  constructor(tree: CheckpointTree, target: ByteString, options: MaterialiseOptions, objects: NewObjects) {
    this.#tree = tree;
    this.#target = target;
    this.#options = options;
    this.#objects = objects;
    this.#steps = this.#visit({ path: '', node: tree.root, isMade: true, parent: undefined });
  }

  /** @returns whether there is more */
  advance(objectCount: number): boolean {
    for (let i = 0; i < objectCount; i += 1) if (this.#steps.next().done === true) return false;
    return true;
  }

  /** Deepest first, so that no directory is written to after its time was set. */
  describeDirs(): void {
    for (const { path, node } of this.#dirs.toReversed()) this.#objects.describe(this.#place(path), path, node);
    this.#objects.describe(this.#target, '', this.#tree.root);
  }

  *#visit(dir: Visited): Generator<void> {
    const { includes } = this.#options;
    for (const node of this.#tree.children(dir.node)) {
      if (dir.path === '' && node.name === STAGING_NAME) continue; // it would be taken for a restore to be finished
      checkName(node.name, dir.path);
      const path = dir.path === '' ? node.name : `${dir.path}/${node.name}`;
      const isIncluded = includes?.(node) ?? true;
      const child = { path, node, isMade: false, parent: dir };
      if (isIncluded) this.#write(child);
      yield;
      if (node.type === 'dir') yield* this.#visit(child);
    }
  }

  #write(visited: Visited): void {
    const { path, node, parent } = visited;
    this.writtenCount += 1;
    if (node.type === 'dir') {
      this.#makeDir(visited);
      return;
    }
    if (parent !== undefined) this.#makeDir(parent);
    this.#objects.add(this.#place(path), path, node);
  }

  #makeDir(dir: Visited): void {
    if (dir.isMade) return;
    if (dir.parent !== undefined) this.#makeDir(dir.parent);
    createNode(this.#place(dir.path), dir.node, []);
    this.#dirs.push(dir);
    dir.isMade = true;
  }

  #place(path: ByteString): ByteString {
    return `${this.#target}/${path}`;
  }
}

/** A node with the way to it. */
interface Visited {
  path: ByteString;
  node: CheckpointNode;
  isMade: boolean;
  parent: Visited | undefined;
}

/** Layers are checked when they are read; here is where a name that leads elsewhere would do harm. */
function checkName(name: ByteString, dir: ByteString): void {
  if (name !== '' && name !== '.' && name !== '..' && !/[/\0]/.test(name)) return;
  throw new BentoError('FORMAT_INVALID', `a layer has the name "${toText(name)}" in ${toText(dir) || 'its root'}`);
}
