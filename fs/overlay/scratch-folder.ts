import { closeSync, constants, existsSync, mkdirSync, openSync, readdirSync, rmSync } from 'node:fs';

import { toFsPath, type ByteString } from '../../store/byte-string.ts';
import {
  makeNode,
  makeWhiteout,
  openFile,
  closeFile,
  rename,
  RENAME_WHITEOUT,
  seek,
  SEEK_DATA,
  statfsOf,
  unlink,
  writeAt,
} from '../../store/file-calls.ts';

import type { CowNode } from './cow-node.ts';
import { succeed } from './errno-error.ts';

/** File systems on which a hole stays a hole and data stays data, zeros too; linux/magic.h. */
const KEEPS_HOLES = new Set([0xef53, 0x58465342, 0x9123683e, 0x01021994]);
const PROBE_BYTES = 1 << 20;

const PARTS_NAME = 'parts';

/** Where a fork has it. */
export function scratchIn(forkDir: ByteString): ByteString {
  return `${forkDir}/cow`;
}

/** Whether an upper directory may hold what the kernel's overlayfs does not understand. */
export function mustBeSettled(forkDir: ByteString): boolean {
  return existsSync(toFsPath(`${scratchIn(forkDir)}/${PARTS_NAME}`));
}

/**
 * Beside a fork's upper directory, on the same file system: what is not to be seen yet, and what is not to be seen any more
 * but still is in use. Empty when nothing is mounted.
 */
export class ScratchFolder {
  readonly #dir: ByteString;
  #next = 0;
  /** rename(2) can leave a whiteout behind in the same step. */
  readonly canLeaveWhiteouts: boolean;
  /** Files may lie in the upper directory in parts. */
  readonly keepsHoles: boolean;

  /** @param dir - absolute; made when it is missing */
  constructor(dir: ByteString) {
    this.#dir = dir;
    for (const name of ['', '/tmp', '/orphans']) mkdirSync(toFsPath(`${dir}${name}`), { recursive: true, mode: 0o700 });
    this.#empty('tmp');
    this.canLeaveWhiteouts = this.#probeWhiteouts();
    this.keepsHoles = this.#probeHoles();
  }

  /** A path at which there is nothing. */
  newPath(): ByteString {
    this.#next += 1;
    return `${this.#dir}/tmp/${process.pid}-${this.#next}`;
  }

  /** Makes a whiteout that is to be moved where it is needed. @throws ErrnoError */
  newWhiteout(): ByteString {
    const path = this.newPath();
    succeed(makeWhiteout(path));
    return path;
  }

  /** Some file in the upper directory may be there in parts. */
  get mayHaveParts(): boolean {
    return existsSync(toFsPath(this.#partsNote));
  }

  /** To be called before the first such file is to be seen. */
  noteParts(): void {
    if (!this.mayHaveParts) closeSync(openSync(toFsPath(this.#partsNote), 'w', 0o600));
  }

  /** No file is there in parts any more. */
  forgetParts(): void {
    rmSync(toFsPath(this.#partsNote), { force: true });
  }

  get #partsNote(): ByteString {
    return `${this.#dir}/${PARTS_NAME}`;
  }

  orphanPath(name: number | string): ByteString {
    return `${this.#dir}/orphans/${name}`;
  }

  orphans(): ByteString[] {
    return readdirSync(toFsPath(`${this.#dir}/orphans`), { encoding: 'latin1' });
  }

  /** Nobody refers to what was kept for a node any more. */
  release(node: CowNode): void {
    if (node.orphan !== undefined) this.releaseId(node);
  }

  /** As `release`, also of what a process before this one kept. */
  releaseId(node: CowNode): void {
    unlink(this.orphanPath(node.id));
    node.orphan = undefined;
  }

  /** What was in use when the workspace was last mounted is in use no more. */
  clearOrphans(): void {
    this.#empty('orphans');
  }

  #empty(name: string): void {
    const dir = `${this.#dir}/${name}`;
    if (!existsSync(toFsPath(dir))) return; // the fork is closed already
    for (const found of readdirSync(toFsPath(dir), { encoding: 'latin1' }))
      rmSync(toFsPath(`${dir}/${found}`), { recursive: true, force: true });
  }

  #probeWhiteouts(): boolean {
    const [from, to] = [this.newPath(), this.newPath()];
    makeNode(from, constants.S_IFREG | 0o600);
    const works = rename(from, to, RENAME_WHITEOUT) === 0;
    unlink(from);
    unlink(to);
    return works;
  }

  #probeHoles(): boolean {
    const kind = statfsOf(this.#dir);
    if (typeof kind === 'number' || !KEEPS_HOLES.has(kind.type)) return false;
    const path = this.newPath();
    const fd = openFile(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
    if (fd < 0) return false;
    const isTold = writeAt(fd, Buffer.alloc(1), PROBE_BYTES) === 1 && seek(fd, 0, SEEK_DATA) > 0;
    closeFile(fd);
    unlink(path);
    return isTold;
  }
}
