import { lockFile } from '../../store/lock.ts';

/** A process that holds a lock until it is killed. */
await lockFile(process.argv[2] ?? '');
process.stdout.write('locked');
setInterval(() => undefined, 1000);
