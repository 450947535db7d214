import type { ByteString } from '../../store/byte-string.ts';
import { toBytes } from '../../store/byte-string.ts';
import type { EntryType, Xattrs } from '../../store/entry.ts';
import {
  type Attr,
  encodeAttrOut,
  encodeEntryOut,
  encodeNegativeEntry,
  encodeRdev,
  type EntryOut,
} from '../protocol/attr.ts';
import { ERRNO, type InitFlag, OPCODE, OPEN_FLAG, PROTOCOL_MAJOR, PROTOCOL_MINOR } from '../protocol/constants.ts';
import { encodeDirent, encodeDirentPlus } from '../protocol/dirent.ts';
import { REPLY_HEADER_BYTES, type Request, REQUEST_HEADER_BYTES } from '../protocol/header.ts';
import { decodeInitIn, encodeInitOut, type InitIn } from '../protocol/init.ts';
import { encodeOpenOut } from '../protocol/open.ts';
import { decodeReadIn } from '../protocol/read.ts';
import { encodeStatfs } from '../protocol/statfs.ts';
import { decodeGetxattrIn, decodeListxattrIn, encodeGetxattrOut } from '../protocol/xattr.ts';
import { decodeName } from '../protocol/wire.ts';
import type { ServedDirent, ServedNode, ServedTree } from './served-tree.ts';

/**
 * One handler per request of a read-only mount, named like the system call behind it.
 *
 * A handler writes the reply's body and returns its size in bytes, or a negated errno. What it throws becomes an errno
 * in the serve loop.
 */
export type Handler = (session: Session, request: Request) => Outcome;
export type Outcome = number | 'no reply';

/** What was agreed with the kernel at INIT: plain data, for a successor who will see no INIT. */
export interface Negotiated {
  minor: number;
  maxWriteBytes: number;
  flags: InitFlag[];
}

/** What the handlers of one mount share. */
export interface Session {
  tree: ServedTree;
  /** Undefined before INIT. */
  negotiated: Negotiated | undefined;
  /** Header and body of the reply under construction. */
  reply: Buffer;
  /** Directories in the middle of being listed. */
  listings: Map<number, readonly ServedDirent[]>;
  mayGrow: (nodeId: number) => boolean;
  onInit: (negotiated: Negotiated) => void;
}

/** Largest READ reply and WRITE request, in bytes: 256 pages of 4 KiB. */
export const TRANSFER_MAX_BYTES = 1_048_576;
const TRANSFER_MAX_PAGES = 256;

/** The tree never changes, so the kernel may remember everything: a year. */
const FOREVER_SEC = 31_536_000;

const NAME_MAX_BYTES = 255;
const BLOCK_BYTES = 4096;
const SECTOR_BYTES = 512;
const BODY = REPLY_HEADER_BYTES;

// INIT

/**
 * Without READDIRPLUS_AUTO the kernel always asks for attributes along with names. Left to choose, it stops doing so after
 * the first page of a listing unless the names were looked up meanwhile: for 5,000 files listed and then read, 4,808
 * LOOKUPs instead of none, 0.11 s instead of 0.03; what is only listed costs 6 microseconds a name more.
 */
const WANTED_FLAGS: ReadonlySet<InitFlag> = new Set([
  'ASYNC_READ',
  'BIG_WRITES',
  'DO_READDIRPLUS',
  'PARALLEL_DIROPS',
  'MAX_PAGES',
  'CACHE_SYMLINKS',
  'NO_OPEN_SUPPORT',
  'NO_OPENDIR_SUPPORT',
  'INIT_EXT',
  'HAS_RESEND',
]);

/** Since 7.23 (Linux 3.15) the reply is as long as the one we send. */
const OLDEST_MINOR = 23;
const MAX_BACKGROUND = 16;
const CONGESTION_THRESHOLD = 12;

/** EPROTO for a kernel from before 2014; a major newer than ours gets our number back and asks again. */
function init(session: Session, request: Request): Outcome {
  const offer = decodeInitIn(request.bytes);
  if (offer.major < PROTOCOL_MAJOR || (offer.major === PROTOCOL_MAJOR && offer.minor < OLDEST_MINOR)) {
    return -ERRNO.EPROTO;
  }
  const negotiated: Negotiated = {
    minor: Math.min(offer.minor, PROTOCOL_MINOR),
    maxWriteBytes: TRANSFER_MAX_BYTES,
    flags: offer.flags.filter((flag) => WANTED_FLAGS.has(flag)),
  };
  if (offer.major === PROTOCOL_MAJOR) {
    session.negotiated = negotiated;
    session.onInit(negotiated);
  }
  return encodeAgreement(session, offer, negotiated);
}

function encodeAgreement(session: Session, offer: InitIn, { minor, maxWriteBytes, flags }: Negotiated): number {
  return encodeInitOut(session.reply, BODY, {
    major: PROTOCOL_MAJOR,
    minor,
    maxReadaheadBytes: offer.maxReadaheadBytes,
    flags,
    maxBackground: MAX_BACKGROUND,
    congestionThreshold: CONGESTION_THRESHOLD,
    maxWriteBytes,
    timeGranNsec: 1,
    maxPages: TRANSFER_MAX_PAGES,
  });
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
  if (node !== undefined) return encodeEntryOut(session.reply, BODY, entryOf(node));
  if (session.mayGrow(nodeId)) return -ERRNO.ENOENT;
  return encodeNegativeEntry(session.reply, BODY, FOREVER_SEC);
}

/** ESTALE for a nodeId that the tree does not know. */
function getattr(session: Session, { nodeId }: Request): Outcome {
  const node = session.tree.getattr(nodeId);
  if (node === undefined) return -ERRNO.ESTALE;
  return encodeAttrOut(session.reply, BODY, { attrValidSec: FOREVER_SEC, attr: attrOf(node) });
}

/** EINVAL for what is no symlink. */
function readlink(session: Session, { nodeId }: Request): Outcome {
  const target = session.tree.readlink(nodeId);
  return target === undefined ? -ERRNO.EINVAL : copyBody(session, target);
}

function entryOf(node: ServedNode): EntryOut {
  return { nodeId: node.nodeId, entryValidSec: FOREVER_SEC, attrValidSec: FOREVER_SEC, attr: attrOf(node) };
}

function attrOf(node: ServedNode): Attr {
  return {
    ino: node.ino,
    sizeBytes: node.sizeBytes,
    blocks: Math.ceil(node.sizeBytes / SECTOR_BYTES),
    atimeSec: node.mtimeSec,
    atimeNsec: node.mtimeNsec,
    mtimeSec: node.mtimeSec,
    mtimeNsec: node.mtimeNsec,
    ctimeSec: node.mtimeSec,
    ctimeNsec: node.mtimeNsec,
    mode: modeOf(node),
    nlink: node.nlink,
    uid: node.uid,
    gid: node.gid,
    rdev: node.rdev === undefined ? 0 : encodeRdev(node.rdev.major, node.rdev.minor),
    blksizeBytes: BLOCK_BYTES,
  };
}

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

function modeOf({ type, mode }: ServedNode): number {
  return TYPE_BITS[type] | mode;
}

// Content

/** EINVAL for more than we agreed to send. Past the end of the file: no bytes, and no error. */
function read(session: Session, { nodeId, bytes }: Request): Outcome {
  const { offset, sizeBytes } = decodeReadIn(bytes);
  if (sizeBytes > TRANSFER_MAX_BYTES) return -ERRNO.EINVAL;
  return session.tree.read(nodeId, offset, session.reply.subarray(BODY, BODY + sizeBytes));
}

/** ENOSYS where the kernel takes that to mean "there is no need to open": then it keeps its caches and stops asking. */
function open(session: Session): Outcome {
  if (agreedOn(session, 'NO_OPEN_SUPPORT')) return -ERRNO.ENOSYS;
  return encodeOpenOut(session.reply, BODY, { fh: 0, openFlags: OPEN_FLAG.KEEP_CACHE, backingId: 0 });
}

function opendir(session: Session): Outcome {
  if (agreedOn(session, 'NO_OPENDIR_SUPPORT')) return -ERRNO.ENOSYS;
  const openFlags = OPEN_FLAG.KEEP_CACHE | OPEN_FLAG.CACHE_DIR;
  return encodeOpenOut(session.reply, BODY, { fh: 0, openFlags, backingId: 0 });
}

// Directories

/** What `..` is said to have for an ino; nobody looks, and 0 would make C libraries skip it. */
const UNKNOWN_INO = 0xffff_ffff;

/** `.` and `..` are records 0 and 1; entry i of the tree is record i + 2. */
const DOT_RECORDS = 2;

/** How many directories may be in the middle of being listed before the oldest is asked for again. */
const LISTING_COUNT_MAX = 64;

type EncodeRecord = (out: Buffer, at: number, position: number, entry: ServedDirent) => number;

/** ESTALE for a nodeId that is no directory of the tree. */
function readdir(session: Session, request: Request): Outcome {
  return listDirectory(session, request, (out, at, position, { name, node }) =>
    encodeDirent(out, at, { ino: node.ino, nextOffset: position + 1, mode: modeOf(node), name }),
  );
}

/** As readdir, with all that a lookup of each name would answer. */
function readdirplus(session: Session, request: Request): Outcome {
  return listDirectory(session, request, (out, at, position, { name, node }) => {
    const entry = position < DOT_RECORDS ? undefined : entryOf(node);
    return encodeDirentPlus(out, at, entry, { ino: node.ino, nextOffset: position + 1, mode: modeOf(node), name });
  });
}

/** A record's cookie is the next one's position, so that a listing goes on even after we were restarted. */
function listDirectory(session: Session, { nodeId, bytes }: Request, encode: EncodeRecord): Outcome {
  const { offset, sizeBytes } = decodeReadIn(bytes);
  if (sizeBytes > TRANSFER_MAX_BYTES) return -ERRNO.EINVAL;
  const entries = listingOf(session, nodeId, offset);
  if (entries === undefined) return -ERRNO.ESTALE;
  const out = session.reply.subarray(0, BODY + sizeBytes);
  const end = encodeRecords(out, offset, { entries, encode, dots: () => dotsOf(session, nodeId) });
  if (end === BODY) session.listings.delete(nodeId); // an empty reply ends the listing
  return end - BODY;
}

interface Listing {
  entries: readonly ServedDirent[];
  encode: EncodeRecord;
  dots: () => readonly ServedDirent[];
}

/** Encodes records from `position` until `out` is full or all are written; returns where it stopped writing. */
function encodeRecords(out: Buffer, position: number, { entries, encode, dots }: Listing): number {
  let at = BODY;
  for (; ; position += 1) {
    const entry = position < DOT_RECORDS ? dots()[position] : entries[position - DOT_RECORDS];
    const sizeBytes = entry === undefined ? 0 : encode(out, at, position, entry);
    if (sizeBytes === 0) return at;
    at += sizeBytes;
  }
}

function dotsOf({ tree }: Session, nodeId: number): ServedDirent[] {
  const node = tree.getattr(nodeId);
  if (node === undefined) return [];
  return [
    { name: '.', node },
    { name: '..', node: { ...node, ino: UNKNOWN_INO } },
  ];
}

/** A long listing takes many requests; the tree is asked once. */
function listingOf({ tree, listings }: Session, nodeId: number, offset: number): readonly ServedDirent[] | undefined {
  const known = offset === 0 ? undefined : listings.get(nodeId);
  if (known !== undefined) return known;
  const entries = tree.readdir(nodeId);
  if (entries === undefined) return undefined;
  const [oldest] = listings.keys();
  if (listings.size >= LISTING_COUNT_MAX && oldest !== undefined) listings.delete(oldest);
  listings.set(nodeId, entries);
  return entries;
}

// Extended attributes

/** overlayfs keeps its own marks there; shown through us, they would make an overlay on top obey them. */
const HIDDEN_XATTRS = ['trusted.overlay.', 'user.overlay.'];

/** ENODATA when there is no such attribute, ERANGE when the caller has too little room. */
function getxattr(session: Session, { nodeId, bytes }: Request): Outcome {
  const { name, sizeBytes } = decodeGetxattrIn(bytes);
  const value = isHidden(name) ? undefined : session.tree.xattrs(nodeId)?.get(name);
  return value === undefined ? -ERRNO.ENODATA : answerXattr(session, sizeBytes, value);
}

/** ERANGE when the caller has too little room. */
function listxattr(session: Session, { nodeId, bytes }: Request): Outcome {
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

function statfs(session: Session): Outcome {
  const { totalBytes, fileCount } = session.tree.statfs();
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
/** What we do is over in microseconds: the original request gets its answer. */
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
