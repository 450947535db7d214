import { lockBlobs, shareBlobs } from '../../store/blob-lock.ts';

/** Holds the lock on a store's blobs, says so, and lets go when its stdin ends. */
const [kind, root] = process.argv.slice(2);
const lock = await (kind === 'alone' ? lockBlobs : shareBlobs)(root ?? '');
process.stdout.write('held\n');
process.stdin.resume().on('end', () => {
  lock.release();
});
