import { writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { MessageChannel, Worker, type Transferable } from 'node:worker_threads';

import { pino } from 'pino';

import { isDamage } from '../../../index/database.ts';
import { toFsPath } from '../../../store/byte-string.ts';
import type { Digest } from '../../../store/digest.ts';
import { BentoError } from '../../../store/errors.ts';
import { eventfd, recvFd, setNonBlocking, wake } from '../../../store/syscalls.ts';
import { packError, unpackError } from '../../../store/thread-error.ts';
import { isIndexed, openTree } from '../../tree/index-checkpoint.ts';
import { newVerifiedMemory } from '../../contents/verified-stamps.ts';
import { newReadLogMemory, ReadLog } from '../../serving/read-log.ts';
import type { LargeFile, Prepared, ServerEvent, ServerRequest } from './connection.ts';
import { FirstReadsKeeper } from './first-reads-keeper.ts';
import type { IndexWorkerData } from './index-worker.ts';
import type {
  ConnectionToServe,
  NotSwitchedMessage,
  ServeWorkerData,
  ServeWorkerMessage,
  ServeWorkerOrder,
  SwitchedMessage,
} from './serve-worker.ts';
import type { SettleWorkerData } from './settle-worker.ts';
import { tellStale } from './tell-stale.ts';
import { openServing, type Serving } from './served-trees.ts';
import type { SlowWorkerData, SlowWorkerMessage, SlowWorkerOrder } from './slow-worker.ts';

/** The socket on which the supervisor sends descriptors. */
const DESCRIPTORS_FD = 3;
/** When memory runs out, this process goes before those of the user: it can be started again. */
const OOM_SCORE = '500';

/** What a request leaves behind is gone with it, so a small young generation will do. */
const THREAD_LIMITS = { maxYoungGenerationSizeMb: 4 };

const log = pino({ base: { pid: process.pid } }, pino.destination({ fd: 1, sync: true }));

/**
 * The process that answers FUSE requests. It holds nothing that cannot be lost: the supervisor has the connections, and
 * node ids come from the index, so when it dies another goes on in the middle of a read.
 *
 * A connection to a tree of checkpoints has a thread of its own; all others share one. What takes long is handed to the
 * slow lane. An error that no thread expected ends the process at once: a successor that is asked again is better than a
 * caller that is never answered.
 */
class Server {
  readonly #serving: Serving;
  readonly #connections = new Set<string>();
  readonly #slow: Worker;
  readonly #verified: SharedArrayBuffer;
  readonly #reads = newReadLogMemory();
  readonly #firstReads: FirstReadsKeeper;
  #polled: { worker: Worker; wakeFd: number } | undefined;
  /** Descriptors of connections that share a thread, by their mount points. */
  readonly #polledFds = new Map<string, number>();
  readonly #switching = new Map<
    string,
    { resolve: (message: SwitchedMessage) => void; reject: (error: Error) => void }
  >();

  constructor(serving: Serving, verified: SharedArrayBuffer) {
    this.#serving = serving;
    this.#verified = verified;
    this.#firstReads = new FirstReadsKeeper(serving, new ReadLog(this.#reads));
    const data: SlowWorkerData = { storeRoot: serving.store.root, verified };
    this.#slow = this.#startWorker('./slow-worker.js', data, []);
    this.#slow.on('message', (message: SlowWorkerMessage) => this.#hearSlow(message));
  }

  async obey(request: ServerRequest): Promise<void> {
    switch (request.op) {
      case 'ping':
        tell({ event: 'pong' });
        this.#keepFirstReads();
        return;
      case 'serve':
        this.#serve({ ...request.connection, fd: recvFd(DESCRIPTORS_FD) });
        return;
      case 'backings':
        for (const backing of request.backings) this.#slow.postMessage({ backing } satisfies SlowWorkerOrder);
        return;
      case 'prepare':
        await report(request.id, async () => await this.#prepare(request.manifest));
        return;
      case 'settle': {
        const data: SettleWorkerData = { storeRoot: this.#serving.store.root, shows: request.shows };
        await report(request.id, async () => await runToEnd('./settle-worker.js', data));
        return;
      }
      case 'switch':
        await report(request.id, async () => await this.#switch(request.target, request.manifest));
        return;
      case 'large-files':
        await report(request.id, async () => await this.#largeFiles(request.manifest));
    }
  }

  get isIdle(): boolean {
    return this.#connections.size === 0;
  }

  #serve(connection: ConnectionToServe): void {
    this.#connections.add(connection.target);
    this.#slow.postMessage({ connection } satisfies SlowWorkerOrder);
    if (connection.shows.kind === 'tree') this.#startServing({ only: connection });
    else this.#poll(connection);
  }

  /** The thread that serves a workspace switches it, between two requests; the kernel is told from here. */
  async #switch(target: string, manifest: Digest): Promise<void> {
    const fd = this.#polledFds.get(target);
    if (fd === undefined || this.#polled === undefined)
      throw new BentoError('NOT_MOUNTED', `no workspace on ${target}`);
    const done = new Promise<SwitchedMessage>((resolve, reject) => this.#switching.set(target, { resolve, reject }));
    this.#tellPolled({ switch: target, manifest });
    this.#spread(target, await done);
  }

  /** Tells the kernel what changed, and throws away what is left. */
  #spread(target: string, { stale, trash }: SwitchedMessage): void {
    const fd = this.#polledFds.get(target);
    if (fd !== undefined) tellStale(fd, stale);
    if (trash !== undefined)
      void rm(toFsPath(trash), { recursive: true, force: true }).catch((error: unknown) => log.warn(String(error)));
  }

  #tellPolled(order: ServeWorkerOrder): void {
    if (this.#polled === undefined) return;
    this.#polled.worker.postMessage(order);
    wake(this.#polled.wakeFd);
  }

  #poll(connection: ConnectionToServe): void {
    if (this.#polled === undefined) {
      const wakeFd = eventfd();
      this.#polled = { worker: this.#startServing({ wakeFd }), wakeFd };
    }
    setNonBlocking(connection.fd);
    this.#polledFds.set(connection.target, connection.fd);
    this.#tellPolled({ serve: connection });
  }

  #startServing(data: Pick<ServeWorkerData, 'only' | 'wakeFd'>): Worker {
    const { port1, port2 } = new MessageChannel();
    const { wakeFd } = data;
    this.#slow.postMessage({ requests: port2, ...(wakeFd !== undefined && { wakeFd }) } satisfies SlowWorkerOrder, [
      port2,
    ]);
    const { root } = this.#serving.store;
    const all: ServeWorkerData = {
      ...data,
      storeRoot: root,
      verified: this.#verified,
      reads: this.#reads,
      slow: port1,
    };
    const worker = this.#startWorker('./serve-worker.js', all, [port1]);
    worker.on('message', (message: ServeWorkerMessage) => {
      if ('error' in message) log.error(message, 'request failed');
      else if ('ended' in message) this.#end(message.ended);
      else this.#hearSwitched(message);
    });
    return worker;
  }

  #startWorker(file: string, workerData: object, transferList: readonly Transferable[]): Worker {
    const worker = new Worker(new URL(file, import.meta.url), {
      workerData,
      transferList: [...transferList],
      trackUnmanagedFds: false,
      resourceLimits: THREAD_LIMITS,
    });
    worker.on('error', (error) => fail(`thread ${file}: ${error.stack ?? error.message}`));
    return worker;
  }

  #hearSlow(message: SlowWorkerMessage): void {
    if ('backing' in message) tell({ event: 'backing', backing: message.backing });
    else if ('cached' in message) tell({ event: 'cached' });
    else if ('note' in message) log.warn(message.note);
    else log.error(message, 'request failed');
  }

  #hearSwitched(message: SwitchedMessage | NotSwitchedMessage): void {
    const waiting = this.#switching.get(message.target);
    this.#switching.delete(message.target);
    if ('failed' in message) waiting?.reject(unpackError(message.failed));
    else if (waiting !== undefined) waiting.resolve(message);
    else this.#spread(message.target, message);
  }

  #end(target: string): void {
    this.#polledFds.delete(target);
    this.#connections.delete(target);
    this.#slow.postMessage({ ended: target } satisfies SlowWorkerOrder);
    this.#keepFirstReads();
    tell({ event: 'ended', target });
    endIfUnused(this);
  }

  /** Nobody's work depends on it. */
  #keepFirstReads(): void {
    try {
      this.#firstReads.collect();
    } catch (error) {
      log.warn(`what was read first cannot be noted: ${String(error)}`);
    }
  }

  async #prepare(manifest: Digest): Promise<Prepared> {
    const { layers } = await this.#openTree(manifest);
    this.#slow.postMessage({ fetchRest: manifest } satisfies SlowWorkerOrder);
    return {
      hasXattrs: layers.some((layer) => layer.hasXattrs),
      hasOwners: layers.some((layer) => layer.hasOwners),
    };
  }

  async #largeFiles(manifest: Digest): Promise<LargeFile[]> {
    const { cache } = this.#serving;
    return (await this.#openTree(manifest))
      .largeFiles()
      .map(({ id, path, digest }) => ({ id, path, isCached: digest !== undefined && cache.has(digest) }));
  }

  async #openTree(manifest: Digest): ReturnType<typeof openTree> {
    const { store } = this.#serving;
    try {
      const checkpoint = await store.loadCheckpoint(manifest);
      if (!isIndexed(this.#serving, checkpoint)) await indexOnThread({ storeRoot: store.root, manifest });
      return await openTree(this.#serving, checkpoint);
    } catch (error) {
      if (!isDamage(error)) throw error;
      throw new BentoError('INDEX_BROKEN', `the index of ${store.root} was damaged while it was in use`, {
        hint: 'run the command again; `bento mounts --restore` mends mounts that no longer answer',
        cause: error,
      });
    }
  }
}

/** A thread for one long piece of work. @throws what it throws */
async function runToEnd(file: string, workerData: object): Promise<void> {
  const worker = new Worker(new URL(file, import.meta.url), { workerData, trackUnmanagedFds: false });
  await new Promise<void>((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', () => resolve());
  });
}

/** What goes wrong there goes wrong again, and is told, when the tree is opened here. */
async function indexOnThread(workerData: IndexWorkerData): Promise<void> {
  const worker = new Worker(new URL('./index-worker.js', import.meta.url), { workerData, trackUnmanagedFds: false });
  await new Promise((resolve) => {
    worker.once('error', resolve);
    worker.once('exit', resolve);
  });
}

function tell(event: ServerEvent): void {
  if (process.connected) process.send?.(event);
}

async function report(id: number, work: () => Promise<unknown>): Promise<void> {
  try {
    tell({ event: 'done', id, result: await work() });
  } catch (error) {
    tell({ event: 'failed', id, error: packError(error) });
  }
}

/** `process.exit()` would wait for threads that wait for the kernel. */
function fail(reason: string): never {
  log.fatal(reason);
  process.kill(process.pid, 'SIGKILL');
  throw new Error(reason);
}

async function main(storeRoot: string): Promise<void> {
  const verified = newVerifiedMemory();
  const serving = await openServing(storeRoot, verified);
  await serving.cache.trim(); // its cap may be lower than when it was filled
  const server = new Server(serving, verified);
  process.on('message', (request: ServerRequest) => {
    server.obey(request).catch((error: unknown) => fail(`${request.op}: ${String(error)}`));
  });
  process.on('disconnect', () => endIfUnused(server));
  process.on('uncaughtException', (error) => fail(error.stack ?? error.message));
}

/** Without a supervisor it goes on as long as somebody uses what it serves. */
function endIfUnused(server: Server): void {
  if (!process.connected && server.isIdle) process.kill(process.pid, 'SIGKILL');
}

try {
  writeFileSync('/proc/self/oom_score_adj', OOM_SCORE);
} catch {
  // Where it may not be set, it stays as it is.
}
process.umask(0); // what is made in a workspace gets the permissions that its maker asked for
void main(process.argv[2] ?? '');
