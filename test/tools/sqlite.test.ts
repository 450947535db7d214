import { fileURLToPath } from 'node:url';

import { runTool, testInForks, type Place } from './tool-runs.ts';

const CLIENT = fileURLToPath(new URL('sqlite-client.js', import.meta.url));
const ROWS = 300;

async function client(place: Place, ...args: (string | number)[]): Promise<string> {
  return await runTool(place, process.execPath, [CLIENT, ...args.map(String)]);
}

testInForks('an SQLite database in WAL mode under two writers and a reader stays whole', [], {
  prepare: async (place) => {
    await client(place, 'write', 'old.db', 'before', 50);
    await client(place, 'check', 'old.db');
  },
  work: async (place) => {
    const all: string[] = [];
    for (const db of ['old.db', 'new.db']) {
      await client(place, 'make', db);
      const writers = [1, 2].map(async (id) => await client(place, 'write', db, `writer-${id}`, ROWS));
      await Promise.all([...writers, client(place, 'read', db, 2 * ROWS)]);
      all.push(await client(place, 'check', db));
    }
    return all.join('');
  },
  ignore: ['old.db', 'new.db'], // pages come in the order of who was first
});
