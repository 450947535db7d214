import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import type { Readable } from 'node:stream';

import { BentoError } from '../../../store/errors.ts';
import type { Store } from '../../../store/store.ts';
import { connectDaemon } from '../daemon/daemon-client.ts';
import { isOnPath } from '../dev-fuse.ts';
import { MountTable, type CheckpointRecord } from '../mount-table.ts';
import { exitCodeOf } from './signal-relay.ts';
import type { CommandEnd, RunOptions } from './run-command.ts';

/**
 * What the shell does as root of a user namespace and a mount namespace of its own: it lays a kernel overlay over the
 * checkpoint, says so on descriptor 3, and becomes the command, under the user's own number where a second user namespace
 * can be had. Until then its complaints are ours to read; descriptor 4 is where the command's go.
 */
const SCRIPT = `
cd "$1" && mount -t overlay -o "$2" bento "$3" && cd "$3" || exit 1
as="unshare --user --map-user=$4 --map-group=$5 --"
shift 5
$as true 2>/dev/null || as=
echo >&3
exec 2>&4 3>&- 4>&-
command -v "$1" >/dev/null || { echo "bento: $1: command not found" >&2; exit 127; }
exec $as "$@"
`;

/** Relative to the fork's folder, where the shell is: no path of the user's has to be quoted for mount(8). */
const OVERLAY_OPTIONS = 'userxattr,metacopy=off,index=off,xino=auto,lowerdir=lower,upperdir=upper,workdir=work';

/** Why an ordinary user cannot have a kernel overlay here, as far as that can be told without trying. */
export function userOverlayObstacle(): string | undefined {
  const missing = ['unshare', 'mount', 'sh'].find((tool) => !isOnPath(tool));
  return missing === undefined ? undefined : `${missing} is not installed`;
}

/** Has the daemon show the checkpoint for a fork's overlay. @throws BentoError as any mount */
export async function serveLower(store: Store, record: CheckpointRecord): Promise<string> {
  const lower = new MountTable(store).lowerDir(record);
  await mkdir(lower, { mode: 0o700 });
  using daemon = await connectDaemon(store);
  const wish = { kind: 'checkpoint', manifest: record.manifest, keepOwners: false } as const;
  await daemon.ask({ op: 'serve', target: lower, allowOther: false, wish });
  return lower;
}

export interface UserRunOptions extends RunOptions {
  /** With `lower` (served), `upper` and `work`. */
  forkDir: string;
  /** What it prints is for us, not for the user. */
  isHeard?: boolean;
}

/** What a command printed is empty when it was not for us. */
export interface UserCommandEnd extends CommandEnd {
  stdout: string;
  stderr: string;
}

/**
 * Runs a command in a fork that only it sees mounted: the kernel's overlay over the checkpoint, without any privilege.
 *
 * @throws BentoError MOUNT_FAILED when the kernel does not allow it; then nothing has run
 */
export async function runInUserOverlay(
  command: readonly string[],
  { forkDir, cwd, env, relay, onStart, isHeard = false }: UserRunOptions,
): Promise<UserCommandEnd> {
  const [uid, gid] = [String(process.getuid?.() ?? 0), String(process.getgid?.() ?? 0)];
  const inner = ['sh', '-c', SCRIPT, 'bento-exec', forkDir, OVERLAY_OPTIONS, cwd, uid, gid, ...command];
  const child = spawn('unshare', ['--user', '--map-root-user', '--mount', '--', ...inner], {
    cwd: '/',
    env,
    stdio: ['inherit', isHeard ? 'pipe' : 'inherit', 'pipe', 'pipe', isHeard ? 'pipe' : 2],
  });
  const ended = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
  const complaint = textOf(child.stderr);
  const output = { stdout: textOf(child.stdout), stderr: textOf(child.stdio[4] as Readable | null) };
  relay.sendTo((signal) => child.kill(signal));
  const isMounted = await saysSomething(child);
  if (!isMounted) {
    await ended;
    throw notAllowed(complaint());
  }
  if (relay.early !== undefined) child.kill(relay.early);
  await onStart(child.pid ?? 0);
  const [code, signal] = await ended;
  relay.sendTo(undefined);
  return { exitCode: exitCodeOf(code, signal), stdout: output.stdout(), stderr: output.stderr() };
}

function textOf(stream: Readable | null): () => string {
  const pieces: Buffer[] = [];
  stream?.on('data', (piece: Buffer) => pieces.push(piece));
  return () => Buffer.concat(pieces).toString('utf8');
}

/** @returns false when it ended, or closed the descriptor, without a word */
async function saysSomething(child: ChildProcess): Promise<boolean> {
  const ready = child.stdio[3] as Readable;
  return await new Promise((resolve, reject) => {
    ready.once('data', () => resolve(true));
    ready.once('close', () => resolve(false));
    ready.resume();
    child.once('error', reject);
  });
}

function notAllowed(complaint: string): BentoError {
  const [line = ''] = complaint.trim().split('\n');
  return new BentoError('MOUNT_FAILED', `no kernel overlay for an ordinary user here: ${line || 'the mount failed'}`);
}
