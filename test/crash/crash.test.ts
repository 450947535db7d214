import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import test from 'ava';

import { Random } from '../fixtures/random.ts';
import { whatIsMissing } from '../fixtures/machine.ts';
import { chooseFaults, crash, describeMoment, learn, type Moment, type Scenario } from './crash-engine.ts';
import { CrashWorld } from './crash-world.ts';
import { SCENARIOS } from './scenarios.ts';

const [SEED = 5] = (process.env['BENTO_RANDOM_SEEDS'] ?? '5').split(',').map(Number);
/** How often each command is killed at a random moment, besides at each of its steps. */
const RANDOM_MOMENTS = 1;
/** A step may not come every time, as when there was nothing to write. */
const TRIES_MAX = 5;
/** Steps of what is rare: there other tests kill. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  'gc.forgotten': 'test/cli/gc-crash.test.ts',
  'lazy.whole': 'test/cli/lazy-crash.test.ts',
  'lazy.renamed': 'test/cli/lazy-crash.test.ts',
  ...(whatIsMissing({ root: true, fuse: true }) === undefined
    ? {}
    : Object.fromEntries(
        ['dirs-made', 'recorded', 'mounted', 'described'].map((step) => [`fork.${step}`, 'no fork here']),
      )),
};

const passed = new Set<string>();

for (const scenario of SCENARIOS) {
  test.serial(`${scenario.name}, killed at each of its steps and at random moments, loses nothing`, async (t) => {
    await using world = await CrashWorld.create(new Random(SEED));
    const { points, durationMs } = await learn(world, scenario);
    for (const point of points) passed.add(point);
    const faults = scenario.sameSteps === true ? [] : chooseFaults(points, world.random);
    for (const fault of faults) await crashAt(world, scenario, fault);
    for (let i = 0; i < RANDOM_MOMENTS; i += 1) {
      await named(scenario, { kind: 'random' }, async (moment) => await crash(world, scenario, { moment, durationMs }));
    }
    t.log(`killed at ${faults.length} steps and ${RANDOM_MOMENTS} random moment`);
    t.pass();
  });
}

test.serial('every step that the code names is one of those at which a command is killed', (t) => {
  const named = new Set(['store', 'index', 'fs', 'cli'].flatMap(faultsNamedIn));
  t.true(named.size > 20, 'they are found at all');
  t.deepEqual(
    [...named].filter((name) => !passed.has(name) && ELSEWHERE[name] === undefined),
    [],
  );
});

async function crashAt(world: CrashWorld, scenario: Scenario, fault: string): Promise<void> {
  await named(scenario, { kind: 'point', fault }, async (moment) => {
    for (let i = 0; i < TRIES_MAX; i += 1) if (await crash(world, scenario, { moment, durationMs: 0 })) return;
    throw new Error('this step did not come');
  });
}

async function named(scenario: Scenario, moment: Moment, run: (moment: Moment) => Promise<unknown>): Promise<void> {
  try {
    await run(moment);
  } catch (cause) {
    throw new Error(`${scenario.name}, killed at ${describeMoment(moment)}: ${String(cause)}`, { cause });
  }
}

/** The names in the compiled files of a folder. */
function faultsNamedIn(folder: string): string[] {
  const dir = fileURLToPath(new URL(`../../${folder}`, import.meta.url));
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.js'))
    .flatMap((name) => [...readFileSync(path.join(dir, name), 'utf8').matchAll(/faultPoint\('([^']+)'\)/g)])
    .map((match) => match[1] ?? '');
}
