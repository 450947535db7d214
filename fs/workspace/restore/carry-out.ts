import {
  closeSync,
  constants,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  renameSync,
  rmdirSync,
  rmSync,
  unlinkSync,
} from 'node:fs';

import { parentPath, toFsPath, toText, type ByteString } from '../../../store/byte-string.ts';
import { errnoOf } from '../../../store/errors.ts';
import { faultPoint } from '../../../store/fault-point.ts';
import { syncfs } from '../../../store/syscalls.ts';
import { stampOf, typeOf } from '../../tree/disk-node.ts';
import { applyAttributes } from '../write-node.ts';
import { journalPath, type Expected, type Journal, type Step } from './journal.ts';

/** Up to so many objects are synced one by one; for more, one call for the whole file system costs less. */
const SYNCED_SINGLY_MAX = 32;

/** What did not go as planned. A restore goes on all the same: stopping halfway would leave more of a mixture. */
export interface CarriedOut {
  /** Objects that somebody changed since the restore was planned: they stay as they are. */
  kept: ByteString[];
  /** Paths that could not be changed, with the reason. */
  failed: string[];
  /** Attributes of directories that could not be set. */
  refused: string[];
}

/**
 * Does what a journal says, from wherever an earlier attempt was stopped. Each name changes hands at once: a reader sees the
 * old file or the new one.
 *
 * @param target - the workspace
 * @param moveHead - called when everything is in its place and durable, before the journal goes
 */
export async function carryOut(
  target: ByteString,
  staging: ByteString,
  journal: Journal,
  moveHead: (head: Journal['head']) => Promise<void>,
): Promise<CarriedOut> {
  const work = new Work(target, staging);
  for (const step of journal.steps) {
    work.attempt(step);
    faultPoint('open.step');
  }
  work.describeDirs(journal);
  syncObjects(
    target,
    [...new Set(journal.steps.map(({ path }) => parentPath(path)))].map((dir) => `${target}/${dir}`),
  );
  await moveHead(journal.head);
  faultPoint('open.head-moved');
  removeStaging(staging);
  work.describeRoot(journal); // the staging folder's going moved its time
  faultPoint('open.cleaned');
  return work.result;
}

/** The journal goes first: what is left without one is taken for a restore that never began. */
export function removeStaging(staging: ByteString): void {
  rmSync(toFsPath(journalPath(staging)), { force: true });
  rmSync(toFsPath(staging), { recursive: true, force: true });
}

/** Makes files and directories durable, the latter with the names in them. What is neither by now is left out. */
export function syncObjects(root: ByteString, paths: readonly ByteString[]): void {
  if (paths.length > SYNCED_SINGLY_MAX || !paths.every(syncOne)) withOpen(root, syncfs);
}

/** @returns false when it may not be opened, only changed */
function syncOne(path: ByteString): boolean {
  try {
    withOpen(path, fsyncSync);
  } catch (error) {
    if (errnoOf(error) === 'EACCES') return false;
    if (!NOTHING_TO_SYNC.has(errnoOf(error) ?? '')) throw error;
  }
  return true;
}

/** It went with the folder it was in, or a symlink or a fifo took its place. */
const NOTHING_TO_SYNC = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO', 'EINVAL']);

function withOpen(path: ByteString, use: (fd: number) => void): void {
  const fd = openSync(toFsPath(path), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    use(fd);
  } finally {
    closeSync(fd);
  }
}

class Work {
  readonly result: CarriedOut = { kept: [], failed: [], refused: [] };
  readonly #target: ByteString;
  readonly #staging: ByteString;
  /** Directories that are known to be directories, and no symlinks to somewhere else. */
  readonly #real = new Set<ByteString>(['']);

  constructor(target: ByteString, staging: ByteString) {
    this.#target = target;
    this.#staging = staging;
  }

  attempt(step: Step): void {
    try {
      const parent = parentPath(step.path);
      if (!this.#isRealDir(parent)) this.#missing(step);
      else if (step.op === 'remove') this.#remove(step);
      else if (step.op === 'dir') this.#makeDir(step);
      else this.#put(step);
    } catch (error) {
      this.#fail(step.path, error);
    }
  }

  describeDirs({ dirs, owner }: Pick<Journal, 'dirs' | 'owner'>): void {
    for (const { path, attributes } of dirs) {
      if (!this.#isRealDir(path)) continue; // something else took its place
      const node = { ...attributes, type: 'dir' as const, sizeBytes: 0 };
      const onRefused = (_: ByteString, what: string): void => void this.result.refused.push(`${path}: ${what}`);
      try {
        applyAttributes(this.#place(path), node, { owner, onRefused });
      } catch (error) {
        this.#fail(path, error);
      }
    }
  }

  describeRoot({ dirs, owner }: Pick<Journal, 'dirs' | 'owner'>): void {
    this.describeDirs({ dirs: dirs.filter(({ path }) => path === ''), owner });
  }

  #remove({ path, expected }: Step & { op: 'remove' }): void {
    const found = this.#look(path);
    if (found === undefined) return;
    if (expected.type === 'dir' && found.type === 'dir') this.#removeDir(path);
    else if (isSame(found, expected)) unlinkSync(toFsPath(this.#place(path)));
    else this.result.kept.push(path);
  }

  #removeDir(path: ByteString): void {
    try {
      rmdirSync(toFsPath(this.#place(path)));
      this.#forgetDirs();
    } catch (error) {
      if (errnoOf(error) !== 'ENOTEMPTY') throw error; // it holds files that no checkpoint holds
    }
  }

  #makeDir({ path, expected }: Step & { op: 'dir' }): void {
    const found = this.#look(path);
    if (found?.type === 'dir') return;
    if (found !== undefined && !isSame(found, expected)) return void this.result.kept.push(path);
    if (found !== undefined) unlinkSync(toFsPath(this.#place(path)));
    mkdirSync(toFsPath(this.#place(path)), 0o700);
  }

  #put({ path, from, expected }: Step & { op: 'put' }): void {
    const staged = `${this.#staging}/${from}`;
    if (lookAt(staged) === undefined) return; // it is in its place already
    const found = this.#look(path);
    if (found?.type === 'dir' && expected?.type === 'dir') {
      rmdirSync(toFsPath(this.#place(path))); // what it held has been removed already
      this.#forgetDirs();
    } else if (found !== undefined && !isSame(found, expected)) {
      return void this.result.kept.push(path);
    }
    renameSync(toFsPath(staged), toFsPath(this.#place(path)));
  }

  /** Of a parent that is gone, nothing is left to remove. */
  #missing({ op, path }: Step): void {
    if (op !== 'remove') this.result.kept.push(path);
  }

  #fail(path: ByteString, error: unknown): void {
    this.result.failed.push(`${toText(path)}: ${error instanceof Error ? error.message : String(error)}`);
  }

  #isRealDir(path: ByteString): boolean {
    if (this.#real.has(path)) return true;
    if (!this.#isRealDir(parentPath(path)) || this.#look(path)?.type !== 'dir') return false;
    this.#real.add(path);
    return true;
  }

  #forgetDirs(): void {
    this.#real.clear();
    this.#real.add('');
  }

  #look(path: ByteString): Expected | undefined {
    return lookAt(this.#place(path));
  }

  #place(path: ByteString): ByteString {
    return path === '' ? this.#target : `${this.#target}/${path}`;
  }
}

function lookAt(place: ByteString): Expected | undefined {
  const stat = lstatSync(toFsPath(place), { bigint: true, throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  const { mtimeSec, mtimeNsec, sizeBytes } = stampOf(stat);
  const type = typeOf(stat) ?? 'whiteout'; // a socket: nothing that was ever planned for
  return { type, sizeBytes: type === 'file' ? sizeBytes : 0, mtimeSec, mtimeNsec };
}

function isSame(found: Expected, expected: Expected | undefined): boolean {
  return (
    expected !== undefined &&
    found.type === expected.type &&
    found.sizeBytes === expected.sizeBytes &&
    found.mtimeSec === expected.mtimeSec &&
    found.mtimeNsec === expected.mtimeNsec
  );
}
