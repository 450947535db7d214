import { readSync, writeSync } from 'node:fs';

import { negotiate, type Negotiated, type Wishes } from '../../serving/negotiate.ts';

/** INIT with room for what later kernels add. */
const INIT_MAX_BYTES = 1_052_672;

/**
 * Answers the first request of a connection that was just mounted. Whoever mounts does it, so that whoever serves can always
 * be replaced: an agreement that died with a server could not be made again.
 *
 * @param fd - of a mounted `/dev/fuse`; the request is there when mount(2) returns
 * @throws what reading or writing the device throws
 */
export function shakeHands(fd: number, wishes: Wishes): Negotiated {
  const input = Buffer.allocUnsafe(INIT_MAX_BYTES);
  for (;;) {
    const request = input.subarray(0, readSync(fd, input, 0, input.length, null));
    const { negotiated, reply } = negotiate(request, wishes);
    writeSync(fd, reply);
    if (negotiated !== undefined) return negotiated; // a kernel of a later major version asks again
  }
}
