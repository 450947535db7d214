import { constants } from 'node:fs';

import {
  allocate,
  closeFile,
  copyRange,
  FALLOC_KEEP_SIZE,
  FALLOC_PUNCH_HOLE,
  FALLOC_ZERO_RANGE,
  fstatOf,
  openFile,
  readAt,
  seek,
  SEEK_DATA,
  SEEK_HOLE,
  syncFile,
  writeAt,
} from '../../store/file-calls.ts';
import { ERRNO } from '../protocol/constants.ts';
import { copyUp } from './copy-up.ts';
import type { CowNode } from './cow-node.ts';
import type { CowTree } from './cow-tree.ts';
import { ErrnoError, need, succeed } from './errno-error.ts';
import { killSetuid, truncate } from './set-attributes.ts';
import { openUpper, withUpper } from './upper-file.ts';

const { O_TRUNC } = constants;
const O_ACCMODE = 3;
const SETUID_BITS = 0o6000;
/** No more is copied at once. */
const COPY_BYTES_MAX = 16 << 20;

/** Makes the kernel read and write a file by itself, where it can. */
export interface Passthrough {
  /** @returns the number under which it does; 0 when it cannot */
  register(fd: number): number;
  release(backingId: number): void;
}

export interface OpenFlags {
  flags: number;
  killsSetuid: boolean;
}

/**
 * The files of a workspace that are open. All that have one file open have it open in the same way: the kernel takes no
 * second one.
 */
export class OpenFiles {
  readonly #tree: CowTree;
  readonly #passthrough: Passthrough | undefined;

  constructor(tree: CowTree, passthrough: Passthrough | undefined) {
    this.#tree = tree;
    this.#passthrough = passthrough;
  }

  /** To be counted by `count`. Only who may write makes a copy. @throws ErrnoError */
  prepare(node: CowNode, { flags, killsSetuid }: OpenFlags): void {
    const cuts = (flags & O_TRUNC) !== 0;
    if ((flags & O_ACCMODE) === constants.O_RDONLY && !cuts) return;
    copyUp(this.#tree, node, !cuts);
    if (!cuts) return;
    truncate(this.#tree, node, 0);
    if (killsSetuid) killSetuid(this.#tree, node);
  }

  /**
   * How the file is to be opened: the number under which the kernel reads and writes it by itself, or 0. Writes to a file with
   * setuid bits have to come to us, who take these away.
   *
   * @param how.mode - of the file, where it is known
   */
  backingFor(node: CowNode, { flags, mode }: { flags: number; mode?: number }): number {
    if (node.opens > 0) return node.backingId;
    if (this.#passthrough === undefined || !node.inUpper || node.partial !== undefined) return 0;
    if ((flags & O_ACCMODE) !== constants.O_RDONLY && ((mode ?? this.#tree.stat(node).mode) & SETUID_BITS) !== 0)
      return 0;
    const { fd, close } = openUpper(this.#tree, node);
    const backingId = this.#passthrough.register(fd);
    if (close) node.fd = fd;
    return backingId;
  }

  /** One more has it open. */
  count(node: CowNode, backingId: number): void {
    node.opens += 1;
    node.backingId = backingId;
    if (backingId !== 0) node.wasPassedThrough = true;
  }

  /** One less has it open; the last one leaves nothing behind. */
  release(node: CowNode): void {
    if (node.opens === 0) return;
    node.opens -= 1;
    if (node.opens > 0) return;
    if (node.fd >= 0) closeFile(node.fd);
    node.fd = -1;
    if (node.backingId !== 0) this.#passthrough?.release(node.backingId);
    node.backingId = 0;
    if (node.orphan === undefined) return;
    const stat = this.#tree.stat(node);
    this.#tree.scratch.release(node);
    node.lastStat = stat;
  }

  // Contents

  /** @returns how many bytes; 'slow' when somebody with more time has to get them @throws ErrnoError */
  read(node: CowNode, offset: number, out: Buffer): number | 'slow' {
    const { partial } = node;
    if (node.inUpper) {
      return withUpper(this.#tree, node, (fd) =>
        partial === undefined
          ? succeed(readAt(fd, out, offset))
          : partial.read(fd, out, offset, need(fstatOf(fd)).sizeBytes),
      );
    }
    if (node.lower === undefined) throw new ErrnoError('ESTALE');
    // Who has more time knows a file by its node id alone.
    if (node.lower !== node.id) return this.#tree.lower.read(node.lower, offset, out);
    return this.#tree.lower.readNow(node.lower, offset, out);
  }

  /** @returns how many bytes were written @throws ErrnoError */
  write(node: CowNode, bytes: Buffer, { offset, killsSetuid }: { offset: number; killsSetuid: boolean }): number {
    copyUp(this.#tree, node);
    const written = withUpper(this.#tree, node, (fd) =>
      node.partial === undefined ? succeed(writeAt(fd, bytes, offset)) : node.partial.write(fd, bytes, offset),
    );
    if (killsSetuid) killSetuid(this.#tree, node);
    return written;
  }

  /** @throws ErrnoError */
  sync(node: CowNode, dataOnly: boolean): void {
    if (!node.inUpper || node.isGone) return;
    if (!node.isDir) {
      withUpper(this.#tree, node, (fd) => succeed(syncFile(fd, dataOnly)));
      return;
    }
    const fd = succeed(openFile(this.#tree.path(node), constants.O_RDONLY | constants.O_DIRECTORY));
    try {
      succeed(syncFile(fd, dataOnly));
    } finally {
      closeFile(fd);
    }
  }

  /** @throws ErrnoError EOPNOTSUPP for what FUSE has no words for */
  allocate(node: CowNode, { mode, offset, lengthBytes }: { mode: number; offset: number; lengthBytes: number }): void {
    if ((mode & ~(FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE)) !== 0) throw new ErrnoError('EOPNOTSUPP');
    copyUp(this.#tree, node);
    if ((mode & (FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE)) !== 0) this.#tree.complete(node); // a hole must not show what is below
    withUpper(this.#tree, node, (fd) => succeed(allocate(fd, mode, offset, lengthBytes)));
  }

  /** Where data or a hole begins. @throws ErrnoError ENXIO past the end */
  seek(node: CowNode, offset: number, whence: number): number {
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) throw new ErrnoError('EINVAL');
    if (node.inUpper && node.partial === undefined)
      return withUpper(this.#tree, node, (fd) => succeed(seek(fd, offset, whence)));
    const { sizeBytes } = this.#tree.stat(node);
    if (offset >= sizeBytes) throw new ErrnoError('ENXIO');
    return whence === SEEK_DATA ? offset : sizeBytes;
  }

  /** @returns how many bytes were copied @throws ErrnoError EOPNOTSUPP where the kernel has to do it by reading */
  copy(from: { node: CowNode; offset: number }, to: { node: CowNode; offset: number }, lengthBytes: number): number {
    const isWhole = ({ inUpper, partial }: CowNode): boolean => inUpper && partial === undefined;
    if (!isWhole(from.node) || !isWhole(to.node)) throw new ErrnoError('EOPNOTSUPP');
    return withUpper(this.#tree, from.node, (fd) =>
      withUpper(this.#tree, to.node, (toFd) => {
        const pieceBytes = Math.min(lengthBytes, COPY_BYTES_MAX); // others wait meanwhile; the caller asks for the rest
        const done = copyRange({ fd, offset: from.offset }, { fd: toFd, offset: to.offset }, pieceBytes);
        if (done === -ERRNO.EXDEV || done === -ERRNO.ENOSYS) throw new ErrnoError('EOPNOTSUPP');
        return succeed(done);
      }),
    );
  }
}
