import { IndexDatabase } from '../../index/database.ts';
import { takeNumbers } from '../../index/layer-index.ts';

/** A process that opens the index and takes numbers from it; prints them and whether it replaced the file. */
const [, , cacheDir = '', count = '0'] = process.argv;
const index = await IndexDatabase.open(cacheDir);
const numbers = Array.from({ length: Number(count) }, () =>
  index.db.transaction(() => takeNumbers(index, 1)).immediate(),
);
index.close();
process.stdout.write(JSON.stringify({ replaced: index.replaced, numbers }));
