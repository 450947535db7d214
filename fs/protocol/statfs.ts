import { expectSize, readU64, writeU64 } from './wire.ts';

// struct fuse_statfs_out (linux/fuse.h): 80 bytes.
export const STATFS_OUT_BYTES = 80;
const BLOCKS = 0; // u64, of frsize bytes
const BLOCKS_FREE = 8; // u64
const BLOCKS_AVAILABLE = 16; // u64, to ordinary users
const FILES = 24; // u64
const FILES_FREE = 32; // u64
const BLOCK_BYTES = 40; // u32
const NAME_MAX_BYTES = 44; // u32
const FRAGMENT_BYTES = 48; // u32

/** What `df` shows. */
export interface Statfs {
  /** Units of `fragmentBytes`, as the free and the available ones. */
  blocks: number;
  blocksFree: number;
  blocksAvailable: number;
  files: number;
  filesFree: number;
  blockBytes: number;
  nameMaxBytes: number;
  fragmentBytes: number;
}

export function encodeStatfs(out: Buffer, at: number, statfs: Statfs): number {
  out.fill(0, at, at + STATFS_OUT_BYTES);
  writeU64(out, at + BLOCKS, statfs.blocks);
  writeU64(out, at + BLOCKS_FREE, statfs.blocksFree);
  writeU64(out, at + BLOCKS_AVAILABLE, statfs.blocksAvailable);
  writeU64(out, at + FILES, statfs.files);
  writeU64(out, at + FILES_FREE, statfs.filesFree);
  out.writeUInt32LE(statfs.blockBytes, at + BLOCK_BYTES);
  out.writeUInt32LE(statfs.nameMaxBytes, at + NAME_MAX_BYTES);
  out.writeUInt32LE(statfs.fragmentBytes, at + FRAGMENT_BYTES);
  return STATFS_OUT_BYTES;
}

/** @throws ProtocolError when `body` is not 80 bytes long */
export function decodeStatfs(body: Buffer): Statfs {
  expectSize(body, STATFS_OUT_BYTES, 'statfs_out');
  return {
    blocks: readU64(body, BLOCKS),
    blocksFree: readU64(body, BLOCKS_FREE),
    blocksAvailable: readU64(body, BLOCKS_AVAILABLE),
    files: readU64(body, FILES),
    filesFree: readU64(body, FILES_FREE),
    blockBytes: body.readUInt32LE(BLOCK_BYTES),
    nameMaxBytes: body.readUInt32LE(NAME_MAX_BYTES),
    fragmentBytes: body.readUInt32LE(FRAGMENT_BYTES),
  };
}
