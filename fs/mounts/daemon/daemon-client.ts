import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';

import { BentoError, errnoOf } from '../../../store/errors.ts';
import { lockFile } from '../../../store/lock.ts';
import type { Store } from '../../../store/store.ts';
import { isNewer, programVersion } from '../../../store/version.ts';
import { decodeError, lineReader, type ControlReply, type ControlRequest } from './control.ts';
import { findRuntimeDir, runtimeDir, type RuntimeDir } from './runtime-dir.ts';
import { SMALL_HEAP, SMALL_MALLOC } from './small-process.ts';

/** How long a daemon may take to start, and a request to be answered (a first mount may read a whole layer). */
const START_TIMEOUT_MS = 20_000;
const REPLY_TIMEOUT_MS = 600_000;

const SUPERVISOR = fileURLToPath(new URL('./supervisor.js', import.meta.url));

/** How often, and how long apart, a command asks again when the daemon went away. */
const LOST_TRIES = 20;
const LOST_PAUSE_MS = 100;

/** The daemon ended, or was replaced, before it answered. */
class DaemonLost extends BentoError {
  constructor(cause?: Error) {
    super('DAEMON_FAILED', 'the mount daemon went away while it was asked', {
      hint: 'run the command again',
      ...(cause && { cause }),
    });
  }
}

export type DaemonReply = Extract<ControlReply, { ok: true }>;

/** A connection to a store's mount daemon. */
export class DaemonClient {
  readonly #socket: Socket;
  #waiting: { resolve: (reply: ControlReply) => void; reject: (error: Error) => void } | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on(
      'data',
      lineReader((line) => this.#waiting?.resolve(JSON.parse(line) as ControlReply)),
    );
    socket.on('error', (error) => this.#waiting?.reject(new DaemonLost(error)));
    socket.on('close', () => this.#waiting?.reject(new DaemonLost()));
  }

  /** Sends one request and waits for its reply. One at a time. */
  async ask(request: ControlRequest): Promise<DaemonReply> {
    const timer = setTimeout(() => this.#socket.destroy(), REPLY_TIMEOUT_MS);
    try {
      const reply = await new Promise<ControlReply>((resolve, reject) => {
        this.#waiting = { resolve, reject };
        this.#socket.write(`${JSON.stringify(request)}\n`);
      });
      if (!reply.ok) throw decodeError(reply);
      return reply;
    } finally {
      clearTimeout(timer);
      this.#waiting = undefined;
    }
  }

  /** Waits until the other side is gone, at most so long. */
  async closed(timeoutMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      this.#socket.once('close', () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Connects to the store's daemon if one runs. */
export async function findDaemon(store: Store): Promise<DaemonClient | undefined> {
  const runtime = findRuntimeDir(store.root);
  return runtime && (await tryConnect(runtime));
}

/** Connects to the store's daemon, starting it when none runs, and letting one of this version take over from an older. */
export async function connectDaemon(store: Store): Promise<DaemonClient> {
  return await retryLost(async () => await connectOnce(store));
}

/** Asks the store's daemon, once more when it makes way for another meanwhile. For what does no harm when it is done twice. */
export async function askDaemon(store: Store, request: ControlRequest): Promise<DaemonReply> {
  return await retryLost(async () => {
    using client = await connectOnce(store);
    return await client.ask(request);
  });
}

/** A daemon that stops, or hands over to another, is gone in a moment. */
async function retryLost<Result>(attempt: () => Promise<Result>): Promise<Result> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof DaemonLost) || tries === LOST_TRIES) throw error;
      await sleep(LOST_PAUSE_MS);
    }
  }
}

async function connectOnce(store: Store): Promise<DaemonClient> {
  const runtime = runtimeDir(store.root);
  const running = await tryConnect(runtime);
  if (running !== undefined) return await upToDate(running, runtime);
  using _lock = await lockFile(join(runtime.dir, 'start.lock')); // of many commands at once, one starts it
  const started = await tryConnect(runtime);
  if (started !== undefined) return started;
  await startDaemon(store, runtime);
  const client = await tryConnect(runtime);
  if (client === undefined)
    throw new BentoError('DAEMON_FAILED', 'the mount daemon ended at once', { hint: `see ${runtime.log}` });
  return client;
}

async function upToDate(client: DaemonClient, runtime: RuntimeDir): Promise<DaemonClient> {
  const { health } = await client.ask({ op: 'hello' });
  if (!isNewer(programVersion(), health.version)) return client;
  await client.ask({ op: 'upgrade', program: SUPERVISOR });
  client.close();
  const successor = await tryConnect(runtime);
  if (successor === undefined)
    throw new BentoError('DAEMON_FAILED', 'the mount daemon ended while it was upgraded', {
      hint: `see ${runtime.log}; \`bento mounts\` shows what is still mounted`,
    });
  return successor;
}

async function tryConnect(runtime: RuntimeDir): Promise<DaemonClient | undefined> {
  return await new Promise((resolve, reject) => {
    const socket = connect(runtime.socket);
    socket.once('connect', () => {
      socket.removeAllListeners('error');
      resolve(new DaemonClient(socket));
    });
    socket.once('error', (error) => {
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ECONNREFUSED') resolve(undefined);
      else reject(error);
    });
  });
}

/** The daemon outlives this process and its terminal; what it writes goes to its log. */
async function startDaemon(store: Store, runtime: RuntimeDir): Promise<void> {
  const log = openSync(runtime.log, 'a', 0o600);
  const child = spawn(process.execPath, [...SMALL_HEAP, SUPERVISOR, store.root], {
    cwd: '/',
    detached: true,
    stdio: ['ignore', log, log, 'pipe'],
    // a fault is for the command under test
    env: { ...process.env, ...SMALL_MALLOC, BENTO_FAULT: undefined, BENTO_DAEMON_READY: '1' },
  });
  closeSync(log);
  const ready = child.stdio[3] as Socket | null;
  try {
    const reply = await new Promise<ControlReply>((resolve, reject) => {
      const fail = (why: string): void => reject(new BentoError('DAEMON_FAILED', why, { hint: `see ${runtime.log}` }));
      setTimeout(
        () => fail(`the mount daemon was not ready within ${START_TIMEOUT_MS / 1000} s`),
        START_TIMEOUT_MS,
      ).unref();
      ready?.on(
        'data',
        lineReader((line) => resolve(JSON.parse(line) as ControlReply)),
      );
      child.once('error', (error) => fail(`the mount daemon did not start: ${error.message}`));
      child.once('exit', (code) => fail(`the mount daemon ended with status ${code ?? 'unknown'}`));
    });
    if (!reply.ok) throw decodeError(reply);
  } finally {
    ready?.destroy();
    child.unref();
  }
}

/** How long the daemon may take to be gone after the last mount, in milliseconds. */
const STOP_TIMEOUT_MS = 5_000;

/** Ends the daemon, if one runs, and waits until it is gone or serves only what somebody still uses. */
export async function stopDaemon(store: Store): Promise<void> {
  using client = await findDaemon(store);
  if (client === undefined) return;
  await client.ask({ op: 'stop' });
  await client.closed(STOP_TIMEOUT_MS);
}
