import { constants } from 'node:fs';

import type { ByteString } from '../../store/byte-string.ts';
import { changeMode, closeFile, openFile, statOf } from '../../store/file-calls.ts';
import { ERRNO } from '../protocol/constants.ts';
import type { CowNode } from './cow-node.ts';
import type { CowTree } from './cow-tree.ts';
import { ErrnoError, need, succeed } from './errno-error.ts';

const OWNER_MAY_ALL = 0o600;

/** A descriptor of a file in the upper directory; `close`: the caller has to. */
export interface UpperFile {
  fd: number;
  close: boolean;
}

/** Kept while the file is open, made for the occasion otherwise. @throws ErrnoError */
export function openUpper(tree: CowTree, node: CowNode): UpperFile {
  if (node.fd >= 0) return { fd: node.fd, close: false };
  const fd = openForBoth(tree.path(node));
  if (node.opens === 0) return { fd, close: true };
  node.fd = fd;
  return { fd, close: false };
}

/**
 * Whoever has it open had the right to; the kernel has seen to that, and we need not be asked again.
 *
 * @throws ErrnoError EINVAL for what is no file: a symlink or a device would lead out of the workspace
 */
export function openForBoth(path: ByteString): number {
  const { mode } = need(statOf(path));
  if ((mode & constants.S_IFMT) !== constants.S_IFREG) throw new ErrnoError('EINVAL');
  const fd = openFile(path, constants.O_RDWR);
  if (fd !== -ERRNO.EACCES) return succeed(fd);
  succeed(changeMode(path, (mode & 0o7777) | OWNER_MAY_ALL));
  const opened = openFile(path, constants.O_RDWR);
  succeed(changeMode(path, mode & 0o7777));
  return succeed(opened);
}

/** Does something with a descriptor of the file, and closes it unless it is kept. @throws ErrnoError */
export function withUpper<Result>(tree: CowTree, node: CowNode, use: (fd: number) => Result): Result {
  const { fd, close } = openUpper(tree, node);
  try {
    return use(fd);
  } finally {
    if (close) closeFile(fd);
  }
}
