import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import type { Digest } from '../../../store/digest.ts';
import { BentoError } from '../../../store/errors.ts';
import { sendFd, socketpair } from '../../../store/syscalls.ts';
import { unpackError } from '../../../store/thread-error.ts';
import type { Backing, ConnectionKind, ConnectionSpec, ServerEvent, ServerRequest } from './connection.ts';
import type { DaemonHealth } from './control.ts';
import { SMALL_HEAP, SMALL_MALLOC } from './small-process.ts';

/** A FUSE connection with the description that keeps it alive. */
export interface HeldConnection extends ConnectionSpec {
  fd: number;
}

/** A server that lives shorter than this has not recovered. */
const HEALTHY_MS = 5_000;
/** The first death costs no pause; then each in a row doubles it, up to the last. */
const PAUSE_FIRST_MS = 50;
const PAUSE_MAX_MS = 10_000;
/** After so many deaths in a row people are told. */
const FAILING_COUNT = 5;

/** A server that leaves so many pings in a row unanswered is stuck, and replaced. */
const PING_MS = 5_000;
const MISSED_MAX = 6;
const POLL_MS = 20;
/** So many servers are asked the same. */
const ASKED_MAX = 5;

export interface ServerListener {
  /** A connection was unmounted. */
  onEnded: (target: string) => void;
  /** Some large file's content is in the cache now. */
  onCached: () => void;
  onLog: (level: 'info' | 'warn', line: string) => void;
}

/** What `ask` asks; it adds the number that the answer comes back with. */
type Question =
  | { op: 'prepare' | 'large-files'; manifest: Digest }
  | { op: 'switch'; target: string; manifest: Digest }
  | { op: 'settle'; shows: Extract<ConnectionKind, { kind: 'workspace' }> };

interface Pending {
  request: ServerRequest;
  /** How many servers were asked. */
  askedCount: number;
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
}

/**
 * Keeps one server process running: gives it the connections, and gives them to a new one when it dies. What was asked and
 * not answered is asked again.
 */
export class ServerProcess {
  readonly #storeRoot: string;
  readonly #listener: ServerListener;
  readonly #connections = new Map<string, HeldConnection>();
  readonly #backings = new Map<number, Backing>();
  readonly #pending = new Map<number, Pending>();
  #running: { child: ChildProcess; descriptors: number; startedMs: number } | undefined;
  #nextId = 1;
  #deathsInRow = 0;
  #restartCount = 0;
  #lastDeath: string | undefined;
  #restartTimer: NodeJS.Timeout | undefined;
  #missedPings = 0;
  #stopped = false;

  constructor(storeRoot: string, listener: ServerListener) {
    this.#storeRoot = storeRoot;
    this.#listener = listener;
    setInterval(() => this.#ping(), PING_MS).unref();
  }

  get connections(): readonly HeldConnection[] {
    return [...this.#connections.values()];
  }

  get backings(): readonly Backing[] {
    return [...this.#backings.values()];
  }

  get health(): Omit<DaemonHealth, 'pid' | 'version'> {
    const { child, startedMs = Date.now() } = this.#running ?? {};
    const isFailing = this.#deathsInRow >= FAILING_COUNT && Date.now() - startedMs < HEALTHY_MS;
    const state = isFailing ? 'failing' : child === undefined ? 'restarting' : 'serving';
    return { serverPid: child?.pid, state, restartCount: this.#restartCount, lastDeath: this.#lastDeath };
  }

  start(backings: readonly Backing[] = []): void {
    for (const backing of backings) this.#backings.set(backing.nodeId, backing);
    this.#stopped = false;
    this.#launch();
  }

  /** From now on the server answers for this connection. */
  serve(connection: HeldConnection): void {
    this.#connections.set(connection.target, connection);
    this.#hand(connection);
  }

  /** A workspace shows another checkpoint now: so it does when another server takes over. */
  switched(target: string, manifest: Digest): void {
    const connection = this.#connections.get(target);
    if (connection?.shows.kind === 'workspace') connection.shows = { ...connection.shows, manifest };
  }

  /** Whether the server answers within a few seconds: one that is stuck, or dies again and again, does not. */
  async answers(withinMs: number): Promise<boolean> {
    if (this.health.state !== 'serving') return false;
    const before = this.#missedPings;
    this.#send({ op: 'ping' });
    this.#missedPings = before + 1;
    const end = Date.now() + withinMs;
    while (this.#missedPings > 0 && Date.now() < end) await sleep(POLL_MS);
    return this.#missedPings === 0;
  }

  /** Waits as long as it takes, over restarts. @throws what the server could not do */
  async ask<Result>(question: Question): Promise<Result> {
    const id = this.#nextId;
    this.#nextId += 1;
    const request: ServerRequest = { ...question, id };
    const answered = new Promise((resolve, reject) =>
      this.#pending.set(id, { request, askedCount: 1, resolve, reject }),
    );
    this.#send(request);
    return (await answered) as Result;
  }

  /** Ends the process; the connections stay, and calls in them wait. */
  async halt(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#restartTimer);
    const { child } = this.#running ?? {};
    if (child === undefined) return;
    await new Promise((resolve) => {
      child.once('exit', resolve);
      child.kill('SIGKILL');
    });
  }

  /** Gives a connection up: whoever still waits in it gets ENOTCONN once nobody else holds it. */
  abandon(target: string): void {
    const connection = this.#connections.get(target);
    if (connection === undefined) return;
    this.#connections.delete(target);
    closeSync(connection.fd);
    if (connection.shows.kind === 'large') this.#backings.clear(); // its numbers went with it
  }

  /** Counted, not timed: a machine that slept is no server that did not answer. */
  #ping(): void {
    if (this.#running === undefined) return;
    if (this.#missedPings >= MISSED_MAX) {
      this.#listener.onLog('warn', 'the server does not answer any more');
      this.#running.child.kill('SIGKILL');
      return;
    }
    this.#missedPings += 1;
    this.#send({ op: 'ping' });
  }

  #launch(): void {
    const { ours, theirs } = socketpair();
    const server = fileURLToPath(new URL('./server.js', import.meta.url));
    const child = spawn(process.execPath, [...SMALL_HEAP, server, this.#storeRoot], {
      cwd: '/',
      stdio: ['ignore', 1, 2, theirs, 'ipc'],
      env: { ...process.env, ...SMALL_MALLOC },
    });
    closeSync(theirs);
    this.#running = { child, descriptors: ours, startedMs: Date.now() };
    this.#missedPings = 0;
    child.on('message', (event: ServerEvent) => this.#hear(event));
    child.once('error', (error) => {
      if (child.pid === undefined) this.#bury(`no start: ${error.message}`); // then there is no exit
    });
    child.once('exit', (code, signal) => this.#bury(signal ?? `status ${code}`));
    this.#send({ op: 'backings', backings: this.backings });
    for (const connection of this.#connections.values()) this.#hand(connection);
    this.#askAgain();
  }

  /** A question that several servers died of is not asked for ever. */
  #askAgain(): void {
    for (const [id, pending] of this.#pending) {
      pending.askedCount += 1;
      if (pending.askedCount <= ASKED_MAX) this.#send(pending.request);
      else {
        this.#pending.delete(id);
        pending.reject(
          new BentoError('DAEMON_FAILED', `the server died ${ASKED_MAX} times while it was asked`, {
            hint: 'the log of the mount daemon says why; `bento mounts` says how it is',
          }),
        );
      }
    }
  }

  /** The descriptor first: the server takes it from the socket when it hears of it. */
  #hand({ fd, ...connection }: HeldConnection): void {
    if (this.#running === undefined) return; // it gets all when it starts
    try {
      sendFd(this.#running.descriptors, fd);
    } catch {
      return; // it is dying; its successor gets it
    }
    this.#send({ op: 'serve', connection });
  }

  #send(request: ServerRequest): void {
    this.#running?.child.send(request, () => undefined); // one that dies meanwhile has a successor
  }

  #hear(event: ServerEvent): void {
    switch (event.event) {
      case 'pong':
        this.#missedPings = 0;
        return;
      case 'ended':
        this.abandon(event.target);
        this.#listener.onEnded(event.target);
        return;
      case 'backing':
        this.#backings.set(event.backing.nodeId, event.backing);
        this.#send({ op: 'backings', backings: [event.backing] });
        return;
      case 'cached':
        this.#listener.onCached();
        return;
      case 'done':
        this.#pending.get(event.id)?.resolve(event.result);
        this.#pending.delete(event.id);
        return;
      case 'failed':
        this.#pending.get(event.id)?.reject(unpackError(event.error));
        this.#pending.delete(event.id);
    }
  }

  #bury(reason: string): void {
    const { startedMs = 0, descriptors } = this.#running ?? {};
    if (descriptors !== undefined) closeSync(descriptors);
    this.#running = undefined;
    if (this.#stopped) return;
    const livedMs = Date.now() - startedMs;
    this.#deathsInRow = livedMs > HEALTHY_MS ? 1 : this.#deathsInRow + 1;
    this.#restartCount += 1;
    this.#lastDeath = `${new Date().toISOString()}: ${reason}`;
    this.#listener.onLog('warn', `the server ended with ${reason} after ${livedMs} ms, starting another`);
    this.#abandonThoseWithoutResend();
    const pauseMs = this.#deathsInRow < 2 ? 0 : Math.min(PAUSE_FIRST_MS * 2 ** (this.#deathsInRow - 2), PAUSE_MAX_MS);
    if (pauseMs === 0) this.#launch();
    else this.#restartTimer = setTimeout(() => this.#launch(), pauseMs);
  }

  /** Before Linux 6.9 what the dead server had read is lost: better an error than callers that wait for ever. */
  #abandonThoseWithoutResend(): void {
    for (const { target, negotiated } of this.connections) {
      if (negotiated.flags.includes('HAS_RESEND')) continue;
      this.#listener.onLog('warn', `this kernel cannot ask again, so ${target} is lost`);
      this.abandon(target);
      this.#listener.onEnded(target);
    }
  }
}
