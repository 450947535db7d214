/**
 * How the daemon's processes are started: they stay for days, so garbage is collected early and memory given back at once.
 * Measured after reading a tree of 30,000 files and a file of 500 MB: 182 MB instead of 307 MB in the serving process.
 */
export const SMALL_HEAP = ['--max-semi-space-size=1'];
export const SMALL_MALLOC = {
  MALLOC_ARENA_MAX: '2',
  MALLOC_MMAP_THRESHOLD_: '65536',
  MALLOC_TRIM_THRESHOLD_: '131072',
};
