import { ioctl } from '../../../store/syscalls.ts';

/** FUSE_DEV_IOC_BACKING_OPEN (linux/fuse.h); struct fuse_backing_map: descriptor i32, flags u32, padding u64. */
const BACKING_OPEN = 0x4010_e501;
const BACKING_MAP_BYTES = 16;
/** FUSE_DEV_IOC_BACKING_CLOSE: the number, u32. */
const BACKING_CLOSE = 0x4004_e502;
const map = Buffer.alloc(BACKING_MAP_BYTES);
const closing = Buffer.alloc(4);

/**
 * Lets the kernel read and write a file by itself in a connection.
 *
 * @param connectionFd - of the FUSE device
 * @param contentFd - may be closed afterwards
 * @returns the number to answer OPEN with, which outlives this process
 * @throws what ioctl(2) throws: EPERM without CAP_SYS_ADMIN, ELOOP where file systems are stacked too high
 */
export function registerBacking(connectionFd: number, contentFd: number): number {
  map.fill(0);
  map.writeInt32LE(contentFd, 0);
  return ioctl(connectionFd, BACKING_OPEN, map);
}

/** Files that are open under the number stay so. @throws what ioctl(2) throws */
export function releaseBacking(connectionFd: number, backingId: number): void {
  closing.writeUInt32LE(backingId, 0);
  ioctl(connectionFd, BACKING_CLOSE, closing);
}
