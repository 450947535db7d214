import type { ByteString } from '../../store/byte-string.ts';
import { toBytes } from '../../store/byte-string.ts';
import type { Xattrs } from '../../store/entry.ts';
import type { FilePart } from '../contents/content-not-here.ts';
import { encodeAttrOut, encodeEntryOut, encodeNegativeEntry } from '../protocol/attr.ts';
import { ERRNO, type InitFlag, OPCODE, OPEN_FLAG } from '../protocol/constants.ts';
import { REPLY_HEADER_BYTES, type Request, REQUEST_HEADER_BYTES } from '../protocol/header.ts';
import { encodeOpenOut } from '../protocol/open.ts';
import { decodeReadIn } from '../protocol/read.ts';
import { encodeStatfs } from '../protocol/statfs.ts';
import { decodeGetxattrIn, decodeListxattrIn, encodeGetxattrOut } from '../protocol/xattr.ts';
import { decodeName } from '../protocol/wire.ts';
import { attrOf, BLOCK_BYTES, entryOf, FOREVER_SEC, GROWING_SEC } from './attributes.ts';
import { readdir, readdirplus } from './listing.ts';
import { type Negotiated, negotiate, TRANSFER_MAX_BYTES, type Wishes } from './negotiate.ts';
import type { ServedDirent, ServedTree } from './served-tree.ts';

export { negotiate, TRANSFER_MAX_BYTES, type Negotiated } from './negotiate.ts';

/**
 * One handler per request of a read-only mount, named like the system call behind it.
 *
 * A handler writes the reply's body and returns its size in bytes, or a negated errno; `slow` when somebody with more time
 * must make the reply. What it throws becomes an errno in the serve loop.
 */
export type Handler = (session: Session, request: Request) => Outcome;
export type Outcome = number | 'no reply' | 'slow';

/** What the handlers of one mount share. */
export interface Session {
  tree: ServedTree;
  /** How each request is answered. */
  handlers: ReadonlyMap<number, Handler>;
  /** Undefined before INIT. */
  negotiated: Negotiated | undefined;
  /** Header and body of the reply under construction. */
  reply: Buffer;
  /** Directories in the middle of being listed. */
  listings: Map<number, readonly ServedDirent[]>;
  /** False: nothing has extended attributes, and the kernel is told to stop asking. */
  xattrs: boolean;
  /** Whether entries of a directory may come and go while it is mounted. */
  mayGrow: (nodeId: number) => boolean;
  /**
   * Asked at each OPEN where those are answered: which file of ours, registered under this number, the kernel shall read
   * by itself. While any descriptor of a file is open, the answer must stay the same, else the kernel says EIO.
   */
  opener: ((nodeId: number) => { backingId: number } | 'slow' | undefined) | undefined;
  /** What to ask for at INIT; by default, what `opener` needs. */
  wanted: Wishes | undefined;
  onInit: (negotiated: Negotiated) => void;
  /** What the last request that was `slow` could not do without: then it is answered again. */
  missing?: FilePart | undefined;
}

const NAME_MAX_BYTES = 255;
const BODY = REPLY_HEADER_BYTES;

// INIT

/** EPROTO for a kernel from before 2014; a major newer than ours gets our number back and asks again. */
function init(session: Session, request: Request): Outcome {
  const passthrough = session.opener !== undefined;
  const { negotiated, reply } = negotiate(request.bytes, session.wanted ?? { passthrough, openless: !passthrough });
  if (negotiated !== undefined) {
    session.negotiated = negotiated;
    session.onInit(negotiated);
  }
  return reply.copy(session.reply, BODY, BODY);
}

function agreedOn(session: Session, flag: InitFlag): boolean {
  return session.negotiated?.flags.includes(flag) ?? false;
}

// Names and attributes

/** ENAMETOOLONG over 255 bytes. A missing name is a success with nodeId 0, which the kernel remembers. */
function lookup(session: Session, { nodeId, bytes }: Request): Outcome {
  const name = decodeName(bytes, REQUEST_HEADER_BYTES);
  if (name.length > NAME_MAX_BYTES) return -ERRNO.ENAMETOOLONG;
  const node = session.tree.lookup(nodeId, name);
  if (node === 'slow') return 'slow';
  if (node !== undefined) return encodeEntryOut(session.reply, BODY, entryOf(session, nodeId, node));
  if (session.mayGrow(nodeId)) return -ERRNO.ENOENT;
  return encodeNegativeEntry(session.reply, BODY, FOREVER_SEC);
}

/** ESTALE for a nodeId that the tree does not know. */
function getattr(session: Session, { nodeId }: Request): Outcome {
  const node = session.tree.getattr(nodeId);
  if (node === undefined) return -ERRNO.ESTALE;
  const attrValidSec = session.mayGrow(nodeId) ? GROWING_SEC : FOREVER_SEC;
  return encodeAttrOut(session.reply, BODY, { attrValidSec, attr: attrOf(node) });
}

/** ESTALE for what is no symlink, or no more: the kernel then looks its name up again. */
function readlink(session: Session, { nodeId }: Request): Outcome {
  const target = session.tree.readlink(nodeId);
  return target === undefined ? -ERRNO.ESTALE : copyBody(session, target);
}

// Content

/** EINVAL for more than we agreed to send. Past the end of the file: no bytes, and no error. */
function read(session: Session, { nodeId, bytes }: Request): Outcome {
  const { offset, sizeBytes } = decodeReadIn(bytes);
  if (sizeBytes > TRANSFER_MAX_BYTES) return -ERRNO.EINVAL;
  return session.tree.read(nodeId, offset, session.reply.subarray(BODY, BODY + sizeBytes));
}

/** ENOSYS where the kernel takes that to mean "there is no need to open": then it keeps its caches and stops asking. */
function open(session: Session, { nodeId }: Request): Outcome {
  if (agreedOn(session, 'NO_OPEN_SUPPORT')) return -ERRNO.ENOSYS;
  const opened = agreedOn(session, 'PASSTHROUGH') ? session.opener?.(nodeId) : undefined;
  if (opened === 'slow') return 'slow';
  return encodeOpenOut(session.reply, BODY, {
    fh: 0,
    openFlags: opened === undefined ? OPEN_FLAG.KEEP_CACHE : OPEN_FLAG.PASSTHROUGH, // never both: the kernel says EIO
    backingId: opened?.backingId ?? 0,
  });
}

function opendir(session: Session, { nodeId }: Request): Outcome {
  if (agreedOn(session, 'NO_OPENDIR_SUPPORT')) return -ERRNO.ENOSYS;
  const openFlags = session.mayGrow(nodeId) ? 0 : OPEN_FLAG.KEEP_CACHE | OPEN_FLAG.CACHE_DIR;
  return encodeOpenOut(session.reply, BODY, { fh: 0, openFlags, backingId: 0 });
}

// Extended attributes

/** overlayfs keeps its own marks there; shown through us, they would make an overlay on top obey them. */
const HIDDEN_XATTRS = ['trusted.overlay.', 'user.overlay.'];

/** ENODATA when there is no such attribute, ERANGE when the caller has too little room; ENOSYS where nothing has any. */
function getxattr(session: Session, { nodeId, bytes }: Request): Outcome {
  if (!session.xattrs) return -ERRNO.ENOSYS;
  const { name, sizeBytes } = decodeGetxattrIn(bytes);
  const value = isHidden(name) ? undefined : session.tree.xattrs(nodeId)?.get(name);
  return value === undefined ? -ERRNO.ENODATA : answerXattr(session, sizeBytes, value);
}

/** ERANGE when the caller has too little room; ENOSYS where nothing has any. */
function listxattr(session: Session, { nodeId, bytes }: Request): Outcome {
  if (!session.xattrs) return -ERRNO.ENOSYS;
  const sizeBytes = decodeListxattrIn(bytes);
  return answerXattr(session, sizeBytes, namesOf(session.tree.xattrs(nodeId)));
}

function namesOf(xattrs: Xattrs | undefined): Buffer {
  const names = [...(xattrs?.keys() ?? [])].filter((name) => !isHidden(name));
  return toBytes(names.map((name) => `${name}\0`).join(''));
}

function isHidden(name: ByteString): boolean {
  return HIDDEN_XATTRS.some((prefix) => name.startsWith(prefix));
}

function answerXattr(session: Session, roomBytes: number, value: Buffer): Outcome {
  if (roomBytes === 0) return encodeGetxattrOut(session.reply, BODY, value.length);
  return value.length > roomBytes ? -ERRNO.ERANGE : copyBody(session, value);
}

function copyBody({ reply }: Session, value: Buffer): Outcome {
  if (value.length > reply.length - BODY) return -ERRNO.EIO;
  return value.copy(reply, BODY);
}

// The filesystem as a whole

function statfs(session: Session, { nodeId }: Request): Outcome {
  const { totalBytes, fileCount } = session.tree.statfs(nodeId);
  return encodeStatfs(session.reply, BODY, {
    blocks: Math.ceil(totalBytes / BLOCK_BYTES),
    blocksFree: 0,
    blocksAvailable: 0,
    files: fileCount,
    filesFree: 0,
    blockBytes: BLOCK_BYTES,
    nameMaxBytes: NAME_MAX_BYTES,
    fragmentBytes: BLOCK_BYTES,
  });
}

// Requests that one answer fits

/** nodeIds come from stable data, so there is nothing to forget. A reply would be an error. */
const forget: Handler = () => 'no reply';
/** What is done here is over in microseconds; of what takes longer, the serve loop knows. */
const interrupt: Handler = () => 'no reply';
const done: Handler = () => 0;
const readOnly: Handler = () => -ERRNO.EROFS;
const notTty: Handler = () => -ERRNO.ENOTTY;
/** For most requests the kernel then stops asking, and does what a plain filesystem would. */
export const notImplemented: Handler = () => -ERRNO.ENOSYS;

/** Opcode -> handler; what is not here is not implemented. */
export const HANDLERS: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [OPCODE.INIT, init],
  [OPCODE.LOOKUP, lookup],
  [OPCODE.GETATTR, getattr],
  [OPCODE.READLINK, readlink],
  [OPCODE.OPEN, open],
  [OPCODE.READ, read],
  [OPCODE.OPENDIR, opendir],
  [OPCODE.READDIR, readdir],
  [OPCODE.READDIRPLUS, readdirplus],
  [OPCODE.GETXATTR, getxattr],
  [OPCODE.LISTXATTR, listxattr],
  [OPCODE.STATFS, statfs],

  [OPCODE.FORGET, forget],
  [OPCODE.BATCH_FORGET, forget],
  [OPCODE.INTERRUPT, interrupt],
  [OPCODE.NOTIFY_REPLY, forget],
  [OPCODE.RELEASE, done],
  [OPCODE.RELEASEDIR, done],
  [OPCODE.DESTROY, done],
  [OPCODE.IOCTL, notTty],

  [OPCODE.SETATTR, readOnly],
  [OPCODE.SYMLINK, readOnly],
  [OPCODE.MKNOD, readOnly],
  [OPCODE.MKDIR, readOnly],
  [OPCODE.UNLINK, readOnly],
  [OPCODE.RMDIR, readOnly],
  [OPCODE.RENAME, readOnly],
  [OPCODE.RENAME2, readOnly],
  [OPCODE.LINK, readOnly],
  [OPCODE.WRITE, readOnly],
  [OPCODE.SETXATTR, readOnly],
  [OPCODE.REMOVEXATTR, readOnly],
  [OPCODE.CREATE, readOnly],
  [OPCODE.TMPFILE, readOnly],
  [OPCODE.FALLOCATE, readOnly],
  [OPCODE.COPY_FILE_RANGE, readOnly],
  [OPCODE.COPY_FILE_RANGE_64, readOnly],

  // Named although the default would do: FLUSH, FSYNC, FSYNCDIR (then success), ACCESS (then allowed), LSEEK and STATX
  // (then the kernel's own answer) are asked once and never again.
  [OPCODE.FLUSH, notImplemented],
  [OPCODE.FSYNC, notImplemented],
  [OPCODE.FSYNCDIR, notImplemented],
  [OPCODE.ACCESS, notImplemented],
  [OPCODE.LSEEK, notImplemented],
  [OPCODE.STATX, notImplemented],
]);
