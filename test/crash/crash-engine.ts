import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';

import type { Random } from '../fixtures/random.ts';
import { CLI_PATH } from '../fixtures/sandbox.ts';
import { readFaultLog, type CrashWorld } from './crash-world.ts';

/** When a command is killed: at a named step, at some moment of its usual duration, or never. */
export type Moment = { kind: 'never' } | { kind: 'point'; fault: string } | { kind: 'random' };

/** How a command ended, and what it wrote to stdout until then. */
export interface Outcome {
  killed: boolean;
  stdout: string;
}

/** A command that is about to be killed. */
export interface Attempt {
  args: readonly string[];
  /** Where it runs; default: the workspace. */
  cwd?: string;
  /** Tags that it may move, make or take away; all others must be as before. */
  mayMove: (tag: string) => boolean;
  /** What was prepared is damage, which the command mends: until it has, nothing can be asked of the store. */
  isDamaged?: boolean;
  /** What is checked right after it ended, before any other command has run. */
  check?: (outcome: Outcome) => Promise<void> | void;
  /** The next commands, which have to work, and what must be true then. */
  settle: () => Promise<void>;
}

export interface Scenario {
  name: string;
  /** Passes the steps of another one: killed at random moments only when time is short. */
  sameSteps?: boolean;
  prepare: (world: CrashWorld) => Promise<Attempt> | Attempt;
}

/** What a scenario does when nobody kills it. */
export interface Learned {
  /** The steps it passes, in order, with repetitions. */
  points: string[];
  durationMs: number;
}

const COMMAND_TIMEOUT_MS = 60_000;

/** Runs a scenario unharmed, with every check, to learn what there is to kill. */
export async function learn(world: CrashWorld, scenario: Scenario): Promise<Learned> {
  const log = world.sandbox.path('faults');
  rmSync(log, { force: true });
  let durationMs = 0;
  await runScenario(world, scenario, async (attempt) => {
    const startMs = performance.now();
    const outcome = await run(world, attempt, { BENTO_FAULT: `log:${log}` });
    durationMs = performance.now() - startMs;
    return outcome;
  });
  return { points: readFaultLog(log), durationMs };
}

/**
 * Kills a scenario's command with SIGKILL and checks that nothing is lost: the store is whole, every earlier checkpoint is
 * what it was, the next command works, and gc clears away what was left.
 *
 * @returns whether it was killed: at a random moment it may have been done, and a step need not come every time
 * @throws AssertionError
 */
export async function crash(
  world: CrashWorld,
  scenario: Scenario,
  options: { moment: Moment; durationMs: number },
): Promise<boolean> {
  const { moment, durationMs } = options;
  const { killed } = await runScenario(world, scenario, async (attempt) => {
    switch (moment.kind) {
      case 'never':
        return await run(world, attempt, {});
      case 'point':
        return await run(world, attempt, { BENTO_FAULT: moment.fault });
      case 'random':
        return await run(world, attempt, {}, world.random.next() * durationMs);
    }
  });
  return killed;
}

async function runScenario(
  world: CrashWorld,
  scenario: Scenario,
  runIt: (attempt: Attempt) => Promise<Outcome>,
): Promise<Outcome> {
  const attempt = await scenario.prepare(world);
  const before = await world.tags();
  const outcome = await runIt(attempt);
  if (attempt.isDamaged !== true) await world.assertVerified();
  const after = await world.tags();
  for (const tag of new Set([...before.keys(), ...after.keys()])) {
    if (!attempt.mayMove(tag)) assert.equal(after.get(tag), before.get(tag), `tag ${tag}`);
  }
  await attempt.check?.(outcome);
  if (attempt.isDamaged !== true) await world.assertCheckpoints();
  await attempt.settle();
  await world.assertCollects();
  await world.assertWhole();
  return outcome;
}

/** @throws Error when it fails by itself */
async function run(
  world: CrashWorld,
  attempt: Attempt,
  env: Record<string, string>,
  killAfterMs = COMMAND_TIMEOUT_MS,
): Promise<Outcome> {
  const child = spawn(process.execPath, [CLI_PATH, ...attempt.args], {
    cwd: attempt.cwd ?? world.sandbox.workspace,
    env: { ...world.sandbox.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = { stdout: '', stderr: '' };
  child.stdout.on('data', (piece: Buffer) => (output.stdout += piece.toString()));
  child.stderr.on('data', (piece: Buffer) => (output.stderr += piece.toString()));
  const timer = setTimeout(() => child.kill('SIGKILL'), killAfterMs);
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  clearTimeout(timer);
  const killed = signal === 'SIGKILL';
  assert.ok(killed || code === 0, `${attempt.args.join(' ')}: ${String(code ?? signal)} ${output.stderr}`);
  return { killed, stdout: output.stdout };
}

/** Which steps to kill at: each once, one that comes often at one of its times. */
export function chooseFaults(points: readonly string[], random: Random): string[] {
  return [...new Set(points)].map((name) => {
    const count = points.filter((point) => point === name).length;
    return `${name}:${1 + random.below(count)}`;
  });
}

export function describeMoment(moment: Moment): string {
  switch (moment.kind) {
    case 'never':
      return 'no moment';
    case 'point':
      return moment.fault;
    case 'random':
      return 'a random moment';
  }
}
