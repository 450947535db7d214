import { strict as assert } from 'node:assert';

import { Random } from '../fixtures/random.ts';
import type { CommandResult } from '../fixtures/sandbox.ts';
import { ReadingWorld } from './reading-world.ts';

export interface KillCounts {
  /** How often the serving process was killed. */
  killCount: number;
  /** How many commands ended well meanwhile. */
  commandCount: number;
}

/** Mostly a new server is killed while it starts or soon after; sometimes it lives for a while. */
const SOON_MS = 500;
const LATER_MS = 4_000;
/** For so long after the caches were dropped the server is never idle. */
const BUSY_MS = 40;
/** A command that mounts or unmounts needs a server for some time in the end. */
const KILLS_PER_COMMAND_MAX = 3;
/** How many of the commands read in the mount of the whole store as well. */
const COMMANDS_IN_ALL = 2;
const LOOP_KILLS = 6;
/** Of a soak, how long one world is read, how often something is mounted in it, and how many large files it has. */
const SOAK_READING_MS = 30_000;
const SOAK_MOUNT_TIMES = 3;
const SOAK_LARGE_COUNT = 3;
/** Without a cache of contents, with one that holds a part of the large files, and with all in it. */
const SOAK_CACHES = ['0', '100M', '10G'];
const POLL_MS = 20;
const WAIT_MAX_MS = 30_000;

/**
 * All that follows, in one world after another.
 *
 * @throws Error with what failed, and with which seed to see it again
 */
export async function soakReading({ seed, durationMs }: { seed: number; durationMs: number }): Promise<KillCounts> {
  const total = { killCount: 0, commandCount: 0 };
  const endMs = Date.now() + durationMs;
  for (let worldSeed = seed; Date.now() < endMs; worldSeed += 1) {
    const random = new Random(worldSeed);
    const cacheMax = random.pick(SOAK_CACHES);
    await using world = await ReadingWorld.create(random, { largeCount: SOAK_LARGE_COUNT, cacheMax });
    try {
      const read = await killWhileReading(world, { random, durationMs: SOAK_READING_MS, killCountMin: 1 });
      const mounted = await killWhileMounting(world, { random, times: SOAK_MOUNT_TIMES });
      await crashLoop(world);
      await killSupervisor(world);
      total.killCount += read.killCount + mounted.killCount;
      total.commandCount += read.commandCount + mounted.commandCount;
    } catch (cause) {
      const again = `node dist/test/crash/soak.js --runs 0 --race-seconds 0 --reading-seconds 1 --writing-seconds 0 --power-seconds 0 --seed ${worldSeed}`;
      throw new Error(`reading in world ${worldSeed}\nagain: ${again}`, { cause });
    }
  }
  return total;
}

/**
 * Reads with all programs at once, again and again, while the serving process is killed at random moments: so long, and so
 * often at least.
 */
export async function killWhileReading(
  world: ReadingWorld,
  { random, durationMs, killCountMin }: { random: Random; durationMs: number; killCountMin: number },
): Promise<KillCounts> {
  const counts = { killCount: 0, commandCount: 0 };
  const endMs = Date.now() + durationMs;
  const over = new AbortController();
  const jobs = [
    ...world.commands.map((command) => ({ command, target: world.target })),
    ...world.commands.slice(0, COMMANDS_IN_ALL).map((command) => ({ command, target: world.inAll })),
  ];
  const readers = jobs.map(async ({ command, target }) => {
    do {
      await world.assertReads(command, target);
      counts.commandCount += 1;
    } while (!over.signal.aborted);
  });
  const killer = (async (): Promise<void> => {
    while ((Date.now() < endMs || counts.killCount < killCountMin) && !over.signal.aborted) {
      await sleep(random.below(random.chance(0.8) ? SOON_MS : LATER_MS));
      if (random.chance(0.7)) {
        world.dropCaches();
        await sleep(random.below(BUSY_MS)); // now everybody asks the server
      }
      if ((await world.killServer()) !== undefined) counts.killCount += 1;
    }
    over.abort();
  })();
  await allEnded([...readers, killer], over);
  await world.assertUnharmed();
  return counts;
}

/** Kills the serving process while a command mounts, and while another takes the mount away; both succeed all the same. */
export async function killWhileMounting(
  world: ReadingWorld,
  { random, times }: { random: Random; times: number },
): Promise<KillCounts> {
  const counts = { killCount: 0, commandCount: 0 };
  const survive = async (command: Promise<CommandResult>): Promise<void> => {
    counts.killCount += await killWhile(world, { command, random });
    counts.commandCount += 1;
  };
  for (let at = 0; at < times; at += 1) {
    const target = world.sandbox.makeFolder(`mounted-while-killing-${at}`);
    await survive(world.bento('mount', 'cp-1', target));
    await world.assertSameTree(target);
    await world.assertMounted([target]);
    await survive(world.bento('unmount', target));
    assert.ok(!world.sandbox.mounts().includes(target), `${target} is no longer mounted`);
  }
  await world.assertUnharmed();
  return counts;
}

/** @returns how often the serving process was killed while the command ran, which succeeded @throws Error when it failed */
async function killWhile(
  world: ReadingWorld,
  { command, random }: { command: Promise<CommandResult>; random: Random },
): Promise<number> {
  const ended = new AbortController();
  const result = command.finally(() => ended.abort());
  result.catch(() => undefined); // it is awaited below
  let killCount = 0;
  for (let at = 0; at < KILLS_PER_COMMAND_MAX && !ended.signal.aborted; at += 1) {
    await sleep(random.below(SOON_MS / 2));
    if ((await world.killServer()) !== undefined) killCount += 1;
  }
  (await result).ok();
  return killCount;
}

/** Kills each serving process right after it is started: that is told, and all is well when it ends. */
export async function crashLoop(world: ReadingWorld): Promise<void> {
  const { restartCount } = await world.health();
  world.dropCaches();
  const read = world.assertReadsAll();
  read.catch(() => undefined); // it is awaited below
  for (let at = 0, before = 0; at < LOOP_KILLS; at += 1) {
    before = await waitFor('a new server', async () => {
      const { serverPid } = await world.health();
      return serverPid === before ? undefined : serverPid;
    });
    await world.killServer();
  }
  const health = await waitFor('the last death to be noticed', async () => {
    const now = await world.health();
    return now.restartCount >= restartCount + LOOP_KILLS ? now : undefined;
  });
  assert.equal(health.state, 'failing');
  assert.match(health.lastDeath ?? '', /SIGKILL/);
  const listed = (await world.bento('mounts')).ok();
  assert.match(listed.stderr, /failing/, 'bento mounts says so too');
  await read;
  world.dropCaches();
  await world.assertReadsAll();
  await world.assertUnharmed();
}

/**
 * Kills the process that holds the mounts, while all programs read. Who reads goes on reading; the next mount starts another
 * daemon; and of the old one nothing is left when its last mount is gone.
 */
export async function killSupervisor(world: ReadingWorld): Promise<void> {
  const { pid } = await world.health();
  world.dropCaches();
  const read = world.assertReadsAll();
  process.kill(pid, 'SIGKILL');
  await read;
  world.dropCaches();
  await world.assertReadsAll();
  await world.assertMounted([]);

  const target = world.sandbox.makeFolder('mounted-after-the-death');
  (await world.bento('mount', 'cp-1', target)).ok();
  const { pid: successor, serverPid } = await world.health();
  assert.notEqual(successor, pid);
  world.dropCaches();
  await Promise.all([world.assertReadsAll(), world.assertReadsAll(target)]);
  await world.assertMounted([target]);
  await world.assertSameTree(target);

  for (const mounted of [world.target, world.all]) (await world.bento('unmount', mounted)).ok();
  await waitFor('the orphaned server to end', async () => {
    const left = world.sandbox.processes().filter((id) => id !== successor && id !== serverPid);
    return await Promise.resolve(left.length === 0 ? true : undefined);
  });
  world.dropCaches();
  await world.assertReadsAll(target);
}

/** @throws the first error of any of them, after all ended */
async function allEnded(running: readonly Promise<void>[], over: AbortController): Promise<void> {
  const watched = running.map(async (one) => {
    await one.catch((error: unknown) => {
      over.abort();
      throw error;
    });
  });
  for (const result of await Promise.allSettled(watched)) if (result.status === 'rejected') throw result.reason;
}

/** Asks until there is an answer. @throws Error when there is none for a long time */
async function waitFor<Answer>(what: string, ask: () => Promise<Answer | undefined>): Promise<Answer> {
  const endMs = Date.now() + WAIT_MAX_MS;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() > endMs) throw new Error(`waited in vain for ${what}`);
    await sleep(POLL_MS);
  }
}

async function sleep(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}
