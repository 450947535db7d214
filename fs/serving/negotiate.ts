import { type InitFlag, OPCODE, PROTOCOL_MAJOR, PROTOCOL_MINOR } from '../protocol/constants.ts';
import { decodeRequest, encodeReplyHeader, REPLY_HEADER_BYTES } from '../protocol/header.ts';
import { decodeInitIn, encodeInitOut, INIT_OUT_BYTES, type InitIn } from '../protocol/init.ts';
import { ProtocolError } from '../protocol/wire.ts';

/** What was agreed with the kernel at INIT: plain data, for a successor who will see no INIT. */
export interface Negotiated {
  minor: number;
  maxWriteBytes: number;
  flags: InitFlag[];
}

/** What a connection is for. */
export interface Wishes {
  /** Some files are to be read by the kernel itself, from files of ours. Rests on OPEN being answered. */
  passthrough: boolean;
  /** OPEN is answered once, with ENOSYS, and then no more: the kernel opens files by itself and keeps their pages. */
  openless: boolean;
  /** Things are changed through it. */
  writable?: boolean;
}

export interface InitAnswer {
  /** Undefined: the kernel speaks a later major version and, told ours, asks again. */
  negotiated: Negotiated | undefined;
  /** All of the reply. */
  reply: Buffer;
}

/** Largest READ reply and WRITE request, in bytes: 256 pages of 4 KiB. */
export const TRANSFER_MAX_BYTES = 1_048_576;
const TRANSFER_MAX_PAGES = 256;

/** Since 7.23 (Linux 3.15) the reply is as long as the one we send. */
const OLDEST_MINOR = 23;
const MAX_BACKGROUND = 16;
const CONGESTION_THRESHOLD = 12;
/** What lies below may itself be an overlay, as the root of most containers is. Nothing is stacked on us in such a connection. */
const PASSTHROUGH_STACK_DEPTH = 2;

/**
 * Without READDIRPLUS_AUTO the kernel always asks for attributes along with names. Left to choose, it stops doing so after
 * the first page of a listing unless the names were looked up meanwhile: for 5,000 files listed and then read, 4,808
 * LOOKUPs instead of none, 0.11 s instead of 0.03; what is only listed costs 6 microseconds a name more.
 */
const WANTED_FLAGS: readonly InitFlag[] = [
  'ASYNC_READ',
  'BIG_WRITES',
  'DO_READDIRPLUS',
  'PARALLEL_DIROPS',
  'MAX_PAGES',
  'CACHE_SYMLINKS',
  'NO_OPENDIR_SUPPORT',
  'INIT_EXT',
  'HAS_RESEND',
];

/**
 * Makes the answer to INIT, the first request of a connection.
 *
 * @param requestBytes - exactly what one read(2) of the device returned
 * @throws ProtocolError when it is no INIT, is cut off (EINVAL), or comes from a kernel from before 2014 (EPROTO)
 */
export function negotiate(requestBytes: Buffer, wishes: Wishes): InitAnswer {
  const { opcode, bytes } = decodeRequest(requestBytes);
  if (opcode !== OPCODE.INIT) throw new ProtocolError(`the first request is opcode ${opcode}, not INIT`, 'EPROTO');
  const offer = decodeInitIn(bytes);
  const { major, minor } = offer;
  if (major < PROTOCOL_MAJOR || (major === PROTOCOL_MAJOR && minor < OLDEST_MINOR)) {
    throw new ProtocolError(
      `the kernel speaks FUSE ${major}.${minor}, which is older than 7.${OLDEST_MINOR}`,
      'EPROTO',
    );
  }
  const wanted = wantedFlags(wishes);
  const negotiated: Negotiated = {
    minor: Math.min(minor, PROTOCOL_MINOR),
    maxWriteBytes: TRANSFER_MAX_BYTES,
    flags: offer.flags.filter((flag) => wanted.has(flag)),
  };
  const reply = encodeReply(requestBytes, offer, negotiated);
  return { negotiated: major === PROTOCOL_MAJOR ? negotiated : undefined, reply };
}

/**
 * What a file system that is written to needs: it truncates while it opens, applies the umask unless a directory has default
 * ACLs, enforces ACLs, and takes setuid bits away when somebody else writes.
 */
const WRITING_FLAGS: readonly InitFlag[] = [
  'ATOMIC_O_TRUNC',
  'DONT_MASK',
  'POSIX_ACL',
  'HANDLE_KILLPRIV_V2',
  'SETXATTR_EXT',
];

function wantedFlags({ passthrough, openless, writable = false }: Wishes): ReadonlySet<InitFlag> {
  const wanted = new Set(writable ? [...WANTED_FLAGS, ...WRITING_FLAGS] : WANTED_FLAGS);
  if (passthrough) wanted.add('PASSTHROUGH');
  if (openless) wanted.add('NO_OPEN_SUPPORT');
  return wanted;
}

function encodeReply(requestBytes: Buffer, offer: InitIn, { minor, maxWriteBytes, flags }: Negotiated): Buffer {
  const reply = Buffer.alloc(REPLY_HEADER_BYTES + INIT_OUT_BYTES);
  encodeReplyHeader(reply, requestBytes, INIT_OUT_BYTES, 0);
  encodeInitOut(reply, REPLY_HEADER_BYTES, {
    major: PROTOCOL_MAJOR,
    minor,
    maxReadaheadBytes: offer.maxReadaheadBytes,
    flags,
    maxBackground: MAX_BACKGROUND,
    congestionThreshold: CONGESTION_THRESHOLD,
    maxWriteBytes,
    timeGranNsec: 1,
    maxPages: TRANSFER_MAX_PAGES,
    maxStackDepth: flags.includes('PASSTHROUGH') ? PASSTHROUGH_STACK_DEPTH : 0,
  });
  return reply;
}
