import { parseArgs } from 'node:util';

import { Sandbox } from '../../fixtures/sandbox.ts';
import { runAtRandom } from './random-runs.ts';
import { ENGINES } from './suite/engines.ts';
import { endPartner } from './suite/partner.ts';

/**
 * Random operations on files and trees for as long as one likes, on every engine in turn:
 *
 *     node dist/test/conformance/posix/soak.js [--minutes 10] [--seed 1] [--steps 3000] [--engine cow]
 *
 * Ends at the first failure with status 1, and names the seed to see it again.
 */
const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    seed: { type: 'string', default: String(1 + (Date.now() % 1_000_000)) },
    steps: { type: 'string', default: '3000' },
    engine: { type: 'string' },
  },
});
const RUNS_PER_FORK = 5;
const engines = ENGINES.filter(({ name }) => values.engine === undefined || name === values.engine);
const deadlineMs = Date.now() + Number(values.minutes) * 60_000;

try {
  for (let seed = Number(values.seed); Date.now() < deadlineMs; seed += RUNS_PER_FORK) {
    for (const engine of engines) {
      await using sandbox = new Sandbox();
      await runAtRandom(sandbox, { engine, seed, runs: RUNS_PER_FORK, steps: Number(values.steps) });
      console.log(`${engine.name}: seeds ${seed} to ${seed + RUNS_PER_FORK - 1}, ${values.steps} steps each`);
    }
  }
} finally {
  endPartner();
}
