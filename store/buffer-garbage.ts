import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/**
 * zlib's output lies outside V8's heap, and V8 hardly feels it: left alone, a thread that inflates or deflates keeps 60 MB of
 * it around. A thread that stays says once how much garbage it allows, and those who make it say how much they made.
 */
let allowedBytes: number | undefined;
let garbageBytes = 0;
let collect: ((options?: { type: 'minor' }) => void) | undefined;
let isMinor = false;

/**
 * From now on garbage is collected whenever so much of it was made, on this thread.
 *
 * @param kind - `minor` where no buffer outlives its job; `major` where a cache holds some for a while
 */
export function allowGarbage(bytes: number, kind: 'minor' | 'major'): void {
  setFlagsFromString('--expose-gc');
  collect = runInNewContext('globalThis.gc') as typeof collect;
  allowedBytes = bytes;
  isMinor = kind === 'minor';
}

/** Says that buffers of so many bytes will not be needed any more, at once or soon. */
export function noteGarbage(bytes: number): void {
  garbageBytes += bytes;
  if (allowedBytes === undefined || garbageBytes < allowedBytes) return;
  garbageBytes = 0;
  if (isMinor) collect?.({ type: 'minor' });
  else collect?.();
}
