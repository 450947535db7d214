import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';

import { WRITING_ENGINES } from '../fixtures/fork-engines.ts';
import { Random } from '../fixtures/random.ts';
import { crash, describeMoment, learn, type Learned, type Moment, type Scenario } from './crash-engine.ts';
import { CrashWorld } from './crash-world.ts';
import { cutPower } from './power-cut.ts';
import { COPIED_FOLDER, IMAGE_DISK } from './power-disk.ts';
import { race } from './race.ts';
import { soakReading } from './reading-kills.ts';
import { missingForReading } from './reading-world.ts';
import { SCENARIOS } from './scenarios.ts';
import { soakWriting } from './writing-kills.ts';

/**
 * Kills commands at random for as long as one likes, lets eight processes loose on one store, and kills the process that
 * serves mounts while programs read and write in them; and cuts the power under forks:
 *
 *     node dist/test/crash/soak.js [--runs 1000] [--minutes 60] [--seed 1] [--jobs 2] [--race-seconds 60]
 *                                  [--reading-seconds 120] [--writing-seconds 240] [--power-seconds 60]
 *
 * Ends at the first failure with status 1, and says how to see it again; what is killed by the clock need not fail again.
 */
const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '1000' },
    minutes: { type: 'string', default: '60' },
    seed: { type: 'string', default: String(1 + (Date.now() % 1_000_000)) },
    jobs: { type: 'string', default: String(availableParallelism()) },
    'race-seconds': { type: 'string', default: '60' },
    'reading-seconds': { type: 'string', default: '120' },
    'writing-seconds': { type: 'string', default: '240' },
    'power-seconds': { type: 'string', default: '60' },
  },
});
const RUNS = number('runs', values.runs);
const SEED = number('seed', values.seed);
const JOBS = number('jobs', values.jobs);
const RACE_SECONDS = number('race-seconds', values['race-seconds']);
const READING_SECONDS = number('reading-seconds', values['reading-seconds']);
const WRITING_SECONDS = number('writing-seconds', values['writing-seconds']);
const POWER_SECONDS = number('power-seconds', values['power-seconds']);
const DEADLINE_MS = Date.now() + number('minutes', values.minutes) * 60_000;
/** A world's runs build on each other; a failure is seen again by running its world from the start. */
const RUNS_PER_WORLD = 25;
/** Any seed will do, but always the same: which steps there are must not depend on the seed that is soaked. */
const LEARNING_SEED = 1;
const SNAPSHOTS_PER_WORLD = 6;

let startedRuns = 0;
let endedRuns = 0;
let killedRuns = 0;
let failed = false;

function number(name: string, value: string): number {
  const parsed = Number(value);
  if (!Number.isFinite(parsed) || parsed < 0) throw new TypeError(`--${name} is a number, not ${value}`);
  return parsed;
}

async function learnAll(): Promise<Map<Scenario, Learned>> {
  await using world = await CrashWorld.create(new Random(LEARNING_SEED));
  const learned = new Map<Scenario, Learned>();
  for (const scenario of SCENARIOS) learned.set(scenario, await learn(world, scenario));
  return learned;
}

function chooseMoment({ points }: Learned, random: Random): Moment {
  const names = [...new Set(points)].sort();
  if (names.length === 0 || random.chance(0.5)) return { kind: 'random' };
  const name = random.pick(names);
  const count = points.filter((point) => point === name).length;
  return { kind: 'point', fault: `${name}:${1 + random.below(count)}` };
}

/** @throws Error with all that is known about a run that failed */
async function soakWorld(seed: number, runs: number, learned: ReadonlyMap<Scenario, Learned>): Promise<void> {
  const random = new Random(seed);
  await using world = await CrashWorld.create(random);
  for (let run = 1; run <= runs && !failed && Date.now() < DEADLINE_MS; run += 1) {
    const scenario = random.pick(SCENARIOS);
    const known = learned.get(scenario);
    if (known === undefined) throw new TypeError(`${scenario.name} was not learned`);
    const moment = chooseMoment(known, random);
    try {
      if (await crash(world, scenario, { moment, durationMs: known.durationMs })) killedRuns += 1;
    } catch (cause) {
      const again = `node dist/test/crash/soak.js --seed ${seed} --runs ${run} --jobs 1 --race-seconds 0 --reading-seconds 0 --writing-seconds 0 --power-seconds 0`;
      const what = `world ${seed}, run ${run}: ${scenario.name}, killed at ${describeMoment(moment)}`;
      throw new Error(`${what}\nagain: ${again}`, { cause });
    }
    endedRuns += 1;
    if (endedRuns % 50 === 0) console.log(`${endedRuns} of ${RUNS} runs, ${killedRuns} of them killed`);
  }
}

/** Takes worlds one after the other until there have been enough runs. */
async function job(learned: ReadonlyMap<Scenario, Learned>): Promise<void> {
  while (startedRuns < RUNS && !failed && Date.now() < DEADLINE_MS) {
    const seed = SEED + Math.floor(startedRuns / RUNS_PER_WORLD);
    const runs = Math.min(RUNS_PER_WORLD, RUNS - startedRuns);
    startedRuns += runs;
    await soakWorld(seed, runs, learned).catch((error: unknown) => {
      failed = true;
      throw error;
    });
  }
}

async function soak(): Promise<void> {
  console.log(`seed ${SEED}, ${RUNS} runs, ${JOBS} at a time`);
  if (RUNS > 0) {
    const learned = await learnAll();
    const jobs = await Promise.allSettled(Array.from({ length: JOBS }, async () => await job(learned)));
    for (const { reason } of jobs.filter((result) => result.status === 'rejected')) throw reason;
    console.log(`${endedRuns} runs, ${killedRuns} of them killed: nothing was lost`);
  }
  if (RACE_SECONDS > 0) await soakRace();
  if (READING_SECONDS > 0) await soakMounts();
  if (WRITING_SECONDS > 0) await soakForks();
  if (POWER_SECONDS > 0) await soakPower();
}

async function soakRace(): Promise<void> {
  console.log(`eight processes in one store for ${RACE_SECONDS} s`);
  const { commandCount, savedCount } = await race({ seed: SEED, durationMs: RACE_SECONDS * 1000, opensAll: true });
  console.log(`${commandCount} commands, ${savedCount} checkpoints: all there, and what was saved`);
}

async function soakMounts(): Promise<void> {
  const missing = missingForReading();
  if (missing !== undefined) {
    console.log(`no mounts are read: ${missing}`);
    return;
  }
  console.log(`programs read in mounts whose server is killed for ${READING_SECONDS} s`);
  const { killCount, commandCount } = await soakReading({ seed: SEED, durationMs: READING_SECONDS * 1000 });
  console.log(`${killCount} kills, ${commandCount} commands: none failed, no byte differed`);
}

async function soakForks(): Promise<void> {
  const missing = missingForReading();
  if (missing !== undefined) {
    console.log(`nothing is written in forks: ${missing}`);
    return;
  }
  console.log(`programs write in forks whose server is killed for ${WRITING_SECONDS} s`);
  const { killCount, commandCount } = await soakWriting({ seed: SEED, durationMs: WRITING_SECONDS * 1000 });
  console.log(`${killCount} kills, ${commandCount} commands: none failed, and they left what they leave on the disk`);
}

async function soakPower(): Promise<void> {
  const kinds = [IMAGE_DISK, COPIED_FOLDER].filter((kind) => missingForReading() === undefined && !kind.missing());
  if (kinds.length === 0) {
    console.log(`no power is cut: ${missingForReading() ?? COPIED_FOLDER.missing() ?? ''}`);
    return;
  }
  console.log(`the power is cut under forks for ${POWER_SECONDS} s`);
  let promiseCount = 0;
  const endMs = Date.now() + POWER_SECONDS * 1000;
  for (let seed = SEED; Date.now() < endMs; seed += 1) {
    for (const kind of kinds)
      for (const engine of WRITING_ENGINES)
        promiseCount += await cutPower(kind, { engine, random: new Random(seed), snapshotCount: SNAPSHOTS_PER_WORLD });
  }
  console.log(`${promiseCount} times something was on the disk for good: it was`);
}

// Only an exit takes away what the sandboxes have mounted.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));

try {
  await soak();
} catch (error) {
  console.error(error);
  console.error(`failed with seed ${SEED}`);
  process.exitCode = 1;
}
