import { REQUEST_HEADER_BYTES } from './header.ts';
import { encodeName, expectAtLeast, expectSize, ProtocolError, readU64, writeU64 } from './wire.ts';

/**
 * Requests that make, move or take away names (linux/fuse.h). The header's node is the directory; fixed fields come first,
 * then one or two names, each ended by a NUL. Names have one code unit (U+0000 to U+00FF) for each byte.
 */

const BODY = REQUEST_HEADER_BYTES;

/** @throws ProtocolError unless exactly `count` names end the request */
function decodeNames(request: Buffer, at: number, count: number): string[] {
  expectAtLeast(request, at + count, 'names');
  const names = request.toString('latin1', at, request.length - 1).split('\0');
  const isWhole = request[request.length - 1] === 0 && names.length === count && names.every((name) => name !== '');
  if (isWhole) return names;
  throw new ProtocolError(`not ${count} names in ${request.length - at} bytes at the end of the request`);
}

function encodeNames(out: Buffer, at: number, names: readonly string[]): number {
  return names.reduce((end, name) => end + encodeName(out, end, name), at) - at;
}

/** UNLINK, RMDIR and REMOVEXATTR are a name alone. @throws ProtocolError */
export function decodeOnlyName(request: Buffer): string {
  return decodeNames(request, BODY, 1)[0] ?? '';
}

export function encodeOnlyName(out: Buffer, at: number, name: string): number {
  return encodeNames(out, at, [name]);
}

/** The name of the link, then where it leads. @throws ProtocolError */
export function decodeSymlink(request: Buffer): { name: string; target: string } {
  const [name = '', target = ''] = decodeNames(request, BODY, 2);
  return { name, target };
}

export function encodeSymlink(out: Buffer, at: number, { name, target }: { name: string; target: string }): number {
  return encodeNames(out, at, [name, target]);
}

// struct fuse_mknod_in: 16 bytes.
const MKNOD_BYTES = 16;
const MKNOD_MODE = 0; // u32, with the type's bits
const MKNOD_RDEV = 4; // u32, as encodeRdev packs it
const MKNOD_UMASK = 8; // u32

export interface MknodIn {
  mode: number;
  rdev: number;
  umask: number;
  name: string;
}

/** @throws ProtocolError */
export function decodeMknodIn(request: Buffer): MknodIn {
  const [name = ''] = decodeNames(request, BODY + MKNOD_BYTES, 1);
  return {
    mode: request.readUInt32LE(BODY + MKNOD_MODE),
    rdev: request.readUInt32LE(BODY + MKNOD_RDEV),
    umask: request.readUInt32LE(BODY + MKNOD_UMASK),
    name,
  };
}

export function encodeMknodIn(out: Buffer, at: number, { mode, rdev, umask, name }: MknodIn): number {
  out.fill(0, at, at + MKNOD_BYTES);
  out.writeUInt32LE(mode, at + MKNOD_MODE);
  out.writeUInt32LE(rdev, at + MKNOD_RDEV);
  out.writeUInt32LE(umask, at + MKNOD_UMASK);
  return MKNOD_BYTES + encodeNames(out, at + MKNOD_BYTES, [name]);
}

// struct fuse_mkdir_in: 8 bytes.
const MKDIR_BYTES = 8;
const MKDIR_MODE = 0; // u32, permissions alone
const MKDIR_UMASK = 4; // u32

export type MkdirIn = Omit<MknodIn, 'rdev'>;

/** @throws ProtocolError */
export function decodeMkdirIn(request: Buffer): MkdirIn {
  const [name = ''] = decodeNames(request, BODY + MKDIR_BYTES, 1);
  return {
    mode: request.readUInt32LE(BODY + MKDIR_MODE),
    umask: request.readUInt32LE(BODY + MKDIR_UMASK),
    name,
  };
}

export function encodeMkdirIn(out: Buffer, at: number, { mode, umask, name }: MkdirIn): number {
  out.writeUInt32LE(mode, at + MKDIR_MODE);
  out.writeUInt32LE(umask, at + MKDIR_UMASK);
  return MKDIR_BYTES + encodeNames(out, at + MKDIR_BYTES, [name]);
}

// struct fuse_link_in: 8 bytes; the header's node is the directory of the new name.
const LINK_BYTES = 8;

export interface LinkIn {
  /** What gets another name. */
  nodeId: number;
  name: string;
}

/** @throws ProtocolError */
export function decodeLinkIn(request: Buffer): LinkIn {
  const [name = ''] = decodeNames(request, BODY + LINK_BYTES, 1);
  return { nodeId: readU64(request, BODY), name };
}

export function encodeLinkIn(out: Buffer, at: number, { nodeId, name }: LinkIn): number {
  writeU64(out, at, nodeId);
  return LINK_BYTES + encodeNames(out, at + LINK_BYTES, [name]);
}

// struct fuse_rename_in: 8 bytes; struct fuse_rename2_in: 16 bytes.
const RENAME_BYTES = 8;
const RENAME2_BYTES = 16;
const RENAME_FLAGS = 8; // u32

export interface RenameIn {
  /** The directory of the new name. */
  newDir: number;
  /** `RENAME_*` of renameat2(2). */
  flags: number;
  name: string;
  newName: string;
}

/** What RENAME sends, which has no flags. @throws ProtocolError */
export function decodeRenameIn(request: Buffer): RenameIn {
  const [name = '', newName = ''] = decodeNames(request, BODY + RENAME_BYTES, 2);
  return { newDir: readU64(request, BODY), flags: 0, name, newName };
}

/** What RENAME2 sends. @throws ProtocolError */
export function decodeRename2In(request: Buffer): RenameIn {
  const [name = '', newName = ''] = decodeNames(request, BODY + RENAME2_BYTES, 2);
  return { newDir: readU64(request, BODY), flags: request.readUInt32LE(BODY + RENAME_FLAGS), name, newName };
}

export function encodeRename2In(out: Buffer, at: number, { newDir, flags, name, newName }: RenameIn): number {
  out.fill(0, at, at + RENAME2_BYTES);
  writeU64(out, at, newDir);
  out.writeUInt32LE(flags, at + RENAME_FLAGS);
  return RENAME2_BYTES + encodeNames(out, at + RENAME2_BYTES, [name, newName]);
}

// struct fuse_create_in: 16 bytes. CREATE and TMPFILE send it with a name, which for TMPFILE means nothing.
const CREATE_BYTES = 16;
const CREATE_FLAGS = 0; // u32, as open(2) has them
const CREATE_MODE = 4; // u32, with the type's bits
const CREATE_UMASK = 8; // u32

export interface CreateIn {
  flags: number;
  mode: number;
  umask: number;
  name: string;
}

/** @throws ProtocolError */
export function decodeCreateIn(request: Buffer): CreateIn {
  return { ...decodeTmpfileIn(request), name: decodeNames(request, BODY + CREATE_BYTES, 1)[0] ?? '' };
}

/** @throws ProtocolError when the request is cut off */
export function decodeTmpfileIn(request: Buffer): Omit<CreateIn, 'name'> {
  expectAtLeast(request, BODY + CREATE_BYTES, 'create_in');
  return {
    flags: request.readUInt32LE(BODY + CREATE_FLAGS),
    mode: request.readUInt32LE(BODY + CREATE_MODE),
    umask: request.readUInt32LE(BODY + CREATE_UMASK),
  };
}

export function encodeCreateIn(out: Buffer, at: number, { flags, mode, umask, name }: CreateIn): number {
  out.fill(0, at, at + CREATE_BYTES);
  out.writeUInt32LE(flags, at + CREATE_FLAGS);
  out.writeUInt32LE(mode, at + CREATE_MODE);
  out.writeUInt32LE(umask, at + CREATE_UMASK);
  return CREATE_BYTES + encodeNames(out, at + CREATE_BYTES, [name]);
}

// struct fuse_forget_in: 8 bytes; struct fuse_batch_forget_in: 8 bytes, then struct fuse_forget_one, 16 bytes each.
const FORGET_BYTES = 8;
const BATCH_BYTES = 8;
const FORGET_ONE_BYTES = 16;
const FORGET_ONE_COUNT = 8; // u64

export interface Forget {
  nodeId: number;
  /** How many lookups the kernel gives back. */
  count: number;
}

/** @throws ProtocolError when the request is not exactly this long */
export function decodeForgetIn(request: Buffer): number {
  expectSize(request, BODY + FORGET_BYTES, 'forget_in');
  return readU64(request, BODY);
}

/** @throws ProtocolError when there are not as many as it says */
export function decodeBatchForgetIn(request: Buffer): Forget[] {
  expectAtLeast(request, BODY + BATCH_BYTES, 'batch_forget_in');
  const count = request.readUInt32LE(BODY);
  expectAtLeast(request, BODY + BATCH_BYTES + count * FORGET_ONE_BYTES, 'batch_forget_in');
  return Array.from({ length: count }, (_, i) => {
    const at = BODY + BATCH_BYTES + i * FORGET_ONE_BYTES;
    return { nodeId: readU64(request, at), count: readU64(request, at + FORGET_ONE_COUNT) };
  });
}

export function encodeBatchForgetIn(out: Buffer, at: number, forgets: readonly Forget[]): number {
  out.fill(0, at, at + BATCH_BYTES);
  out.writeUInt32LE(forgets.length, at);
  forgets.forEach(({ nodeId, count }, i) => {
    writeU64(out, at + BATCH_BYTES + i * FORGET_ONE_BYTES, nodeId);
    writeU64(out, at + BATCH_BYTES + i * FORGET_ONE_BYTES + FORGET_ONE_COUNT, count);
  });
  return BATCH_BYTES + forgets.length * FORGET_ONE_BYTES;
}
