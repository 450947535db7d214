import { nameProcess } from '../fs/mounts/exec/processes.ts';
import { runCommand, type CommandEnd } from '../fs/mounts/exec/run-command.ts';
import type { SignalRelay } from '../fs/mounts/exec/signal-relay.ts';
import { newPlace, removePlace } from '../fs/mounts/exec/place.ts';
import { removeFork } from '../fs/mounts/fork.ts';
import { userOverlayObstacle } from '../fs/mounts/exec/user-overlay.ts';
import { fuseAvailability } from '../fs/mounts/dev-fuse.ts';
import { MountTable, type CheckpointRecord, type ForkEngine, type ProcessName } from '../fs/mounts/mount-table.ts';
import type { UserFork } from '../fs/mounts/exec/user-fork.ts';
import { BentoError, type ErrorCode } from '../store/errors.ts';
import type { Store } from '../store/store.ts';
import type { Context } from './command.ts';
import { forkRequest, makeForks, type ForkOrigin } from './make-forks.ts';
import { loadWorkspace } from './open-store.ts';

export interface ExecOptions {
  message: string;
  engine: ForkEngine | undefined;
  /** Leave it here. */
  keep: string | undefined;
  relay: SignalRelay;
}

export interface SavedFork {
  saved: boolean;
  tag: string | null;
  digest: string | null;
}

/** A fork that is there for a command. */
export interface ExecFork {
  dir: string;
  run(command: readonly string[], env: NodeJS.ProcessEnv): Promise<CommandEnd>;
  save(message: string, env: NodeJS.ProcessEnv): Promise<SavedFork>;
  /** Makes it a fork like any other, since what is in it could not be saved. @returns how to go on */
  leave(): Promise<string>;
  /** Throws it away. */
  close(): Promise<void>;
}

export async function makeExecFork(
  store: Store,
  origin: ForkOrigin,
  options: ExecOptions,
  ctx: Context,
): Promise<ExecFork> {
  const { engine, keep } = options;
  const isUsers = fuseAvailability().usable === 'user' && keep === undefined;
  if (!isUsers || (engine !== undefined && engine !== 'overlay')) return await mountedFork(store, origin, options, ctx);
  try {
    return await userFork(store, origin, options);
  } catch (error) {
    const isAboutTheEngine = error instanceof BentoError && ['MOUNT_FAILED', 'FUSE_UNAVAILABLE'].includes(error.code);
    if (!isAboutTheEngine || engine === 'overlay') throw error;
    return await mountedFork(store, origin, options, ctx);
  }
}

/** The fork of an ordinary user that only the command sees. It is tried with a command that does nothing. */
async function userFork(store: Store, origin: ForkOrigin, { message, relay }: ExecOptions): Promise<ExecFork> {
  const obstacle = userOverlayObstacle();
  if (obstacle !== undefined) throw new BentoError('MOUNT_FAILED', obstacle);
  const { UserFork: Fork } = await import('../fs/mounts/exec/user-fork.ts');
  const request = forkRequest(store, origin, { message, exec: ownProcess() });
  const fork = await Fork.make(store, await newPlace(), request);
  const run = { relay, onStart: () => undefined };
  try {
    await fork.run(['true'], { ...run, env: process.env });
  } catch (error) {
    await fork.close();
    throw error;
  }
  return {
    dir: fork.record.target,
    run: async (command, env) =>
      await fork.run(command, {
        ...run,
        env,
        onStart: async (pid) => await fork.note([...ownProcess(), ...named(pid)]),
      }),
    save: async (text, env) => await saveInside(fork, text, { ...run, env }),
    leave: async () => {
      await fork.leave();
      const { target } = fork.record;
      return `the fork stays: bento mounts --restore ${target} shows it, bento close --discard ${target} ends it`;
    },
    close: async () => await fork.close(),
  };
}

/** Where nobody else sees the fork, another bento saves it, as the command saw it. */
async function saveInside(
  fork: UserFork,
  message: string,
  options: Parameters<UserFork['run']>[1],
): Promise<SavedFork> {
  const program = [process.execPath, process.argv[1] ?? ''];
  const command = [...program, 'save', '--json', '-m', message, '--dir', fork.record.target];
  const { exitCode, stdout, stderr } = await fork.run(command, { ...options, isHeard: true });
  if (exitCode === 0) return JSON.parse(stdout) as SavedFork;
  throw errorIn(stderr);
}

/** What `--json` printed of an error, as if it had happened here. */
function errorIn(stderr: string): BentoError {
  try {
    const { error } = JSON.parse(stderr.trim().split('\n').at(-1) ?? '') as { error: ReportedError };
    return new BentoError(error.code, error.message, error.hint === undefined ? {} : { hint: error.hint });
  } catch {
    return new BentoError('FAILED', `the fork could not be saved: ${stderr.trim()}`);
  }
}

interface ReportedError {
  code: ErrorCode;
  message: string;
  hint?: string;
}

/** A fork like those of `bento fork`. */
async function mountedFork(
  store: Store,
  origin: ForkOrigin,
  { message, engine, keep, relay }: ExecOptions,
  ctx: Context,
): Promise<ExecFork> {
  const place = keep ?? (await newPlace());
  const exec = keep === undefined ? ownProcess() : undefined;
  const [made] = await makeForks(store, origin, [place], { message, engine, exec }, ctx).catch(
    async (error: unknown) => {
      if (keep === undefined) await removePlace(place);
      throw error;
    },
  );
  if (made === undefined) throw new RangeError('one fork was asked for');
  const { record, copiedBecause } = made;
  if (copiedBecause !== undefined) ctx.note(`note: the command runs in a plain copy: ${copiedBecause}`);
  const cwd = record.target;
  const onStart = async (pid: number): Promise<void> => {
    if (exec !== undefined) await new MountTable(store).add({ ...record, exec: [...exec, ...named(pid)] });
  };
  return {
    dir: cwd,
    run: async (command, env) => await runCommand(command, { cwd, env, relay, onStart }),
    save: async (text) => await saveHere(cwd, text, ctx),
    leave: async () => {
      const { exec: _exec, ...kept } = record;
      await new MountTable(store).add(kept);
      return `the fork stays in ${cwd}: save it from there, or bento close --discard ${cwd}`;
    },
    close: async () => await closeMounted(store, record),
  };
}

async function closeMounted(store: Store, record: CheckpointRecord): Promise<void> {
  const status = await new MountTable(store).at(record.target);
  if (status !== undefined) await removeFork(store, status, true); // what the command left running loses it
}

async function saveHere(dir: string, message: string, ctx: Context): Promise<SavedFork> {
  const { saveWorkspace } = await import('../fs/workspace/save.ts');
  const { saved, tags, digest } = await saveWorkspace(await loadWorkspace(dir, ctx), { message });
  return { saved, tag: tags[0] ?? null, digest: digest ?? null };
}

function ownProcess(): ProcessName[] {
  return named(process.pid);
}

function named(pid: number): ProcessName[] {
  return [nameProcess(pid)].flatMap((name) => name ?? []);
}
