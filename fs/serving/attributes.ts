import type { EntryType } from '../../store/entry.ts';
import { type Attr, encodeRdev, type EntryOut } from '../protocol/attr.ts';
import type { Session } from './handlers.ts';
import type { ServedNode } from './served-tree.ts';

/** The tree never changes, so the kernel may remember everything: a year. */
export const FOREVER_SEC = 31_536_000;
/** How long what may change is believed. */
export const GROWING_SEC = 1;

/** What `stat` calls the best size for reading, and the unit in which files take room. */
export const BLOCK_BYTES = 4096;
/** The unit of `st_blocks`. */
const SECTORS_PER_BLOCK = BLOCK_BYTES / 512;
/** ext4 keeps shorter targets in the inode. */
const INLINE_LINK_BYTES = 60;
const S_IFREG = 0o100000;

/** S_IF* (linux/stat.h). Hard links are files; overlayfs knows a whiteout by its being the device 0/0. */
const TYPE_BITS: Readonly<Record<EntryType, number>> = {
  file: S_IFREG,
  hardlink: S_IFREG,
  dir: 0o040000,
  symlink: 0o120000,
  char: 0o020000,
  whiteout: 0o020000,
  block: 0o060000,
  fifo: 0o010000,
};

export function modeOf({ type, mode }: ServedNode): number {
  return TYPE_BITS[type] | mode;
}

/**
 * What `stat` shows. Sizes are those of the same tree on a fresh ext4, so that `du` says the same there and here: contents
 * in whole blocks, and a block for each directory.
 */
export function attrOf(node: ServedNode): Attr {
  const { ino, mtimeSec, mtimeNsec, nlink, uid, gid, rdev } = node;
  return {
    ino,
    sizeBytes: node.type === 'dir' ? BLOCK_BYTES : node.sizeBytes,
    blocks: blocksOf(node) * SECTORS_PER_BLOCK,
    atimeSec: mtimeSec,
    atimeNsec: mtimeNsec,
    mtimeSec,
    mtimeNsec,
    ctimeSec: mtimeSec,
    ctimeNsec: mtimeNsec,
    mode: modeOf(node),
    nlink,
    uid,
    gid,
    rdev: rdev === undefined ? 0 : encodeRdev(rdev.major, rdev.minor),
    blksizeBytes: BLOCK_BYTES,
  };
}

function blocksOf({ type, sizeBytes }: ServedNode): number {
  if (type === 'dir') return 1;
  if (type === 'symlink' && sizeBytes < INLINE_LINK_BYTES) return 0;
  return Math.ceil(sizeBytes / BLOCK_BYTES);
}

/**
 * What is said of a name in a directory. The attributes of one that grows are asked for again, wherever it lies: when its
 * modification time changed, the kernel drops the listing that it keeps because OPENDIR said ENOSYS.
 */
export function entryOf(session: Session, parent: number, node: ServedNode): EntryOut {
  const { nodeId, type } = node;
  const entryValidSec = session.mayGrow(parent) ? GROWING_SEC : FOREVER_SEC;
  const attrValidSec = type === 'dir' && session.mayGrow(nodeId) ? GROWING_SEC : entryValidSec;
  return { nodeId, entryValidSec, attrValidSec, attr: attrOf(node) };
}
