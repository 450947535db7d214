import { SignalRelay, exitCodeOf } from '../../fs/mounts/exec/signal-relay.ts';
import { removeAbandoned } from '../../fs/mounts/exec/throw-away.ts';
import { shareBlobs } from '../../store/blob-lock.ts';
import { shortDigest, type Digest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { defineCommand, type Context } from '../command.ts';
import type { ExecFork, ExecOptions } from '../exec-fork.ts';
import { findOrigin, type WantedOrigin } from '../fork-origin.ts';
import { ENGINE_OPTION, parseEngine, type ForkOrigin } from '../make-forks.ts';

const COMMAND_CHARS_MAX = 200;

export const exec = defineCommand({
  name: 'exec',
  summary: 'Run a command in a throw-away fork',
  usage: 'bento exec <ref> [--save [-m <message>]] [--keep <dir>] [--engine <engine>] -- <command>...',
  details:
    'The command starts in a writable fork of the checkpoint, or of a workspace as it is now (`bento exec . -- make`), and\n' +
    'has its path in BENTO_WORKSPACE, the reference in BENTO_REF and the digest in BENTO_CHECKPOINT. Its exit code is passed\n' +
    'on: 128 and the number of the signal that ended it, 127 when it is not found, 126 when it cannot be executed. The fork\n' +
    'is gone afterwards. With --save, what the command changed becomes a checkpoint if it exits with 0; else nothing is\n' +
    'saved. Nothing but the output of the command goes to stdout, so there is no --json.',
  args: { min: 1, max: 1 },
  takesRest: true,
  handlesSignals: true,
  options: {
    save: { type: 'boolean', help: 'when the command succeeds, save what it changed' },
    message: { type: 'string', short: 'm', value: 'message', help: 'with --save: what this checkpoint is' },
    keep: { type: 'string', value: 'dir', help: 'leave the fork in this new or empty directory, until `bento close`' },
    engine: ENGINE_OPTION,
  },

  async run(ctx) {
    const [written = ''] = ctx.args;
    const { save, message, keep } = ctx.options;
    refuseMisuse(ctx);
    const relay = new SignalRelay();
    const engine = parseEngine(ctx.options.engine);
    const wanted = await findOrigin(written, ctx);
    await removeAbandoned(wanted.store);
    const title = `exec: ${ctx.rest.join(' ')}`.slice(0, COMMAND_CHARS_MAX);
    const { fork, origin } = await makeFork(wanted, { message: title, engine, keep, relay }, ctx);
    let isNeeded = keep !== undefined;
    try {
      if (relay.early !== undefined) return { exitCode: exitCodeOf(null, relay.early) };
      const env = environment(fork, origin);
      const { exitCode, problem } = await fork.run(ctx.rest, env);
      if (problem !== undefined) ctx.note(`bento: ${problem}`);
      if (!save) return { exitCode };
      isNeeded = true; // until it is saved
      await saveIfGood(fork, { exitCode, message: message ?? title, env }, ctx);
      isNeeded = keep !== undefined;
      return { exitCode };
    } finally {
      if (!isNeeded) await fork.close();
      else ctx.note(keep === undefined ? `note: ${await fork.leave()}` : `Kept in ${fork.dir}`);
    }
  },

  render: () => '',
  exitCode: ({ exitCode }) => exitCode,
});

function refuseMisuse({
  rest,
  json,
  options,
}: Pick<Context, 'rest' | 'json'> & { options: { save: boolean; message: string | undefined } }): void {
  if (json) throw new BentoError('USAGE', 'exec has no --json: stdout is for the command');
  if (options.message !== undefined && !options.save) throw new BentoError('USAGE', '-m says what --save saves');
  if (rest.length > 0 && rest[0] !== '') return;
  throw new BentoError('USAGE', 'there is no command to run', { hint: `Usage: ${exec.usage}` });
}

/** gc is kept away until the fork is on record, not while the command runs. */
async function makeFork(
  { store, load }: WantedOrigin,
  options: ExecOptions,
  ctx: Context,
): Promise<{ fork: ExecFork; origin: ForkOrigin }> {
  const { makeExecFork } = await import('../exec-fork.ts');
  using _blobs = await shareBlobs(store.root, () => ctx.note('waiting for a garbage collection...'));
  const origin = await load();
  return { fork: await makeExecFork(store, origin, options, ctx), origin };
}

function environment({ dir }: ExecFork, { label, checkpoint }: ForkOrigin): NodeJS.ProcessEnv {
  return { ...process.env, PWD: dir, BENTO_WORKSPACE: dir, BENTO_REF: label, BENTO_CHECKPOINT: checkpoint.digest };
}

async function saveIfGood(
  fork: ExecFork,
  { exitCode, message, env }: { exitCode: number; message: string; env: NodeJS.ProcessEnv },
  ctx: Pick<Context, 'note'>,
): Promise<void> {
  if (exitCode !== 0) {
    ctx.note(`note: nothing is saved, for the command ended with ${exitCode}`);
    return;
  }
  const { saved, tag, digest } = await fork.save(message, env);
  ctx.note(
    saved
      ? `Saved ${tag ?? ''} (${shortDigest(digest as Digest)})`
      : 'The command changed nothing, so nothing is saved.',
  );
}
