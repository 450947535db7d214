import { NOTIFY } from './constants.ts';
import { encodeNotification } from './header.ts';
import { encodeName, writeI64, writeU64 } from './wire.ts';

/**
 * Messages that make the kernel forget what it was told, or ask again (linux/fuse.h, fuse_notify_*_out).
 *
 * Written to the device like a reply. The kernel answers ENOENT when it does not know the object: that is success. Send
 * them while owing no reply about the same object, else the thread waits for itself.
 */

// struct fuse_notify_inval_inode_out: 24 bytes.
const INODE_BYTES = 24;
const INODE_OFFSET = 8; // i64, below 0: attributes only
const INODE_LENGTH = 16; // i64, 0 or below: to the end

// struct fuse_notify_inval_entry_out: 16 bytes, the name and a NUL that its length does not count.
const ENTRY_NAME_BYTES = 8; // u32
const ENTRY_NAME = 16;

/** Drops an object's attributes and cached content, which for a directory is its listing. */
export function encodeInvalInode(nodeId: number): Buffer {
  const body = Buffer.alloc(INODE_BYTES);
  writeU64(body, 0, nodeId);
  writeI64(body, INODE_OFFSET, 0);
  writeI64(body, INODE_LENGTH, 0);
  return encodeNotification(NOTIFY.INVAL_INODE, body);
}

/** Drops what a name means, or that it means nothing. */
export function encodeInvalEntry(parent: number, name: string): Buffer {
  const body = Buffer.alloc(ENTRY_NAME + name.length + 1);
  writeU64(body, 0, parent);
  body.writeUInt32LE(name.length, ENTRY_NAME_BYTES);
  encodeName(body, ENTRY_NAME, name);
  return encodeNotification(NOTIFY.INVAL_ENTRY, body);
}

/** Makes the kernel ask again for every name that it knows, when it next comes by; needs interface 7.44. */
export function encodeIncEpoch(): Buffer {
  return encodeNotification(NOTIFY.INC_EPOCH);
}

/** Asks for every request that was read but not answered, after a predecessor died; needs HAS_RESEND. */
export function encodeResend(): Buffer {
  return encodeNotification(NOTIFY.RESEND);
}
