import { setTimeout as sleep } from 'node:timers/promises';

import { WRITING_ENGINES, type WritingEngine } from '../fixtures/fork-engines.ts';
import { missingNpmPackages } from '../fixtures/npm-project.ts';
import { Random } from '../fixtures/random.ts';
import type { KillCounts } from './reading-kills.ts';
import { filesWorkload, npmWorkload } from './writing-workloads.ts';
import { WritingWorld } from './writing-world.ts';

export interface KillOptions {
  engine: WritingEngine;
  random: Random;
  /** After so many, the rest of the work is done in peace. */
  killCountMax: number;
}

/** Mostly a new server is killed while it starts or soon after; sometimes it lives for a while. */
const SOON_MS = 400;
const LATER_MS = 3_000;
/** After so many deaths in a row the daemon makes pauses, which grow until a server has lived for this long. */
const KILLS_IN_ROW = 5;
const HEALTHY_MS = 5_500;
const SOAK_SIZE = { untarFiles: 10_000, rounds: 1_500, sqliteRows: 900 };
const SOAK_KILLS = 60;

/**
 * Lets programs write in a new fork, all at once, while the process that serves it is killed at random moments; then what
 * they left is compared with what they left on the disk. None of them may fail.
 *
 * @throws Error or AssertionError, when anything differs
 */
export async function killWhileWriting(
  world: WritingWorld,
  { engine, random, killCountMax }: KillOptions,
): Promise<KillCounts> {
  await world.fork(engine);
  const ended = new AbortController();
  const isOver = (): boolean => ended.signal.aborted;
  const written = world.write().finally(() => ended.abort());
  written.catch(() => undefined); // it is awaited below
  const rest = async (ms: number): Promise<void> => {
    await sleep(ms, undefined, { signal: ended.signal }).catch(() => undefined); // all is written: no need to wait
  };
  let killCount = 0;
  while (!isOver() && killCount < killCountMax) {
    await rest(random.below(random.chance(0.8) ? SOON_MS : LATER_MS));
    if (random.chance(0.2)) world.dropCaches();
    if (isOver() || !(await world.killServer())) continue;
    killCount += 1;
    if (killCount % KILLS_IN_ROW === 0) await rest(HEALTHY_MS);
  }
  const commandCount = await written;
  await world.assertAsOnDisk();
  await world.close();
  return { killCount, commandCount };
}

/** All of it again and again, in forks of every engine in turn. @throws Error with the seed to see it again */
export async function soakWriting({ seed, durationMs }: { seed: number; durationMs: number }): Promise<KillCounts> {
  const total = { killCount: 0, commandCount: 0 };
  const endMs = Date.now() + durationMs;
  const worlds = [await WritingWorld.create((outside) => filesWorkload(outside, SOAK_SIZE))];
  try {
    if (missingNpmPackages() === undefined) worlds.push(await WritingWorld.create(npmWorkload));
    for (let roundSeed = seed; Date.now() < endMs; roundSeed += 1) {
      for (const engine of WRITING_ENGINES) {
        for (const world of worlds) {
          const options = { engine, random: new Random(roundSeed), killCountMax: SOAK_KILLS };
          const counts = await killWhileWriting(world, options).catch((cause: unknown) => {
            const again = `node dist/test/crash/soak.js --runs 0 --race-seconds 0 --reading-seconds 0 --writing-seconds 1 --power-seconds 0 --seed ${roundSeed}`;
            throw new Error(`writing in a fork (${engine}), round ${roundSeed}\nagain: ${again}`, { cause });
          });
          total.killCount += counts.killCount;
          total.commandCount += counts.commandCount;
        }
      }
    }
  } finally {
    for (const world of worlds) await world[Symbol.asyncDispose]();
  }
  return total;
}
