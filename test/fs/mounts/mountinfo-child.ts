import { mountedAt, mountedFileSystems } from '../../../fs/mounts/mountinfo.ts';

/** Prints what is mounted at a path, and how many mounts that path has. */
const target = process.argv[2] ?? '';
const count = mountedFileSystems().filter((mounted) => mounted.target === target).length;
process.stdout.write(JSON.stringify({ count, mounted: mountedAt(target) }));
