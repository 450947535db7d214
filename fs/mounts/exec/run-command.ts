import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { errnoOf } from '../../../store/errors.ts';
import { exitCodeOf, type SignalRelay } from './signal-relay.ts';

/** How a command ended, in the exit codes of shells. */
export interface CommandEnd {
  exitCode: number;
  /** Why it did not start. */
  problem?: string;
}

export interface RunOptions {
  cwd: string;
  env: NodeJS.ProcessEnv;
  relay: SignalRelay;
  /** Told the number of its process. */
  onStart: (pid: number) => void | Promise<void>;
}

/** Runs a command in a directory, with our own input and output. */
export async function runCommand(
  [program = '', ...args]: readonly string[],
  { cwd, env, relay, onStart }: RunOptions,
): Promise<CommandEnd> {
  const child = spawn(program, args, { cwd, env, stdio: 'inherit' });
  try {
    await once(child, 'spawn');
  } catch (error) {
    return notStarted(program, error);
  }
  const ended = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  relay.sendTo((signal) => child.kill(signal));
  if (relay.early !== undefined) child.kill(relay.early);
  await onStart(child.pid ?? 0);
  const [code, signal] = await ended;
  relay.sendTo(undefined);
  return { exitCode: exitCodeOf(code, signal) };
}

function notStarted(program: string, error: unknown): CommandEnd {
  switch (errnoOf(error)) {
    case 'ENOENT':
    case 'ENOTDIR':
      return { exitCode: 127, problem: `${program}: command not found` };
    case 'EACCES':
    case 'ENOEXEC':
    case 'EISDIR':
      return { exitCode: 126, problem: `${program} cannot be executed` };
    default:
      throw error;
  }
}
