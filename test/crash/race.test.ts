import test from 'ava';

import { race } from './race.ts';

const [SEED = 3] = (process.env['BENTO_RANDOM_SEEDS'] ?? '3').split(',').map(Number);
const DURATION_MS = 8_000;

test('eight processes that save, fork, open and collect in one store at once lose nothing', async (t) => {
  const { commandCount, savedCount } = await race({ seed: SEED, durationMs: DURATION_MS, opensAll: false });
  t.log(`${commandCount} commands, ${savedCount} checkpoints`);
  t.true(savedCount > 2, 'somebody saved');
});
