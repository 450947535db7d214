import test from 'ava';

import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { newSandbox } from '../fixtures/sandbox.ts';
import { runAtRandom } from './posix/random-runs.ts';
import { ENGINES } from './posix/suite/engines.ts';
import { endPartner } from './posix/suite/partner.ts';

const testForks = testSerialNeeding({ root: true, fuse: true });

test.after.always(endPartner);

for (const engine of ENGINES) {
  testForks(`${engine.name}: random operations on files and trees end as on ext4`, async (t) => {
    await t.notThrowsAsync(runAtRandom(newSandbox(t), { engine, seed: 1, runs: 3, steps: 600 }));
  });
}
