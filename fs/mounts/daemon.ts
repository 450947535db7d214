import { chmodSync, existsSync, mkdirSync, rmSync, writeSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { Worker } from 'node:worker_threads';

import { pino } from 'pino';

import { IndexDatabase, isDamage } from '../../index/database.ts';
import { fromText } from '../../store/byte-string.ts';
import type { Digest } from '../../store/digest.ts';
import { BentoError } from '../../store/errors.ts';
import { tryLockFile, type Lock } from '../../store/lock.ts';
import { Store } from '../../store/store.ts';
import { openTree, treeSource, type TreeSource } from '../tree/index-checkpoint.ts';
import { encodeError, lineReader, type ControlReply, type ControlRequest } from './control.ts';
import { fuseAvailability, mountAsRoot, mountAsUser, raiseReadAhead, unmount } from './dev-fuse.ts';
import { MountTable } from './mount-table.ts';
import { mountedAt } from './mountinfo.ts';
import { runtimeDir, type RuntimeDir } from './runtime-dir.ts';
import type { ServeWorkerData, ServeWorkerMessage } from './serve-worker.ts';

export const DAEMON_VERSION = '0.1.0';

/** How long the daemon stays without anything mounted, in milliseconds. */
const IDLE_MS = Number(process.env['BENTO_DAEMON_IDLE_MS'] ?? 60_000);
const IDLE_CHECK_MS = 5_000;
const READ_AHEAD_KIB = 1024;
/** The descriptor on which whoever started the daemon waits for one line. */
const READY_FD = 3;

const log = pino({ base: { pid: process.pid } }, pino.destination({ fd: 1, sync: true }));

/**
 * The mount daemon of one store. As root it mounts the tree of all checkpoints once, in its runtime folder; bind and
 * overlay mounts made from it by others share its cache. Each FUSE connection is served by a thread that blocks on it.
 */
class Daemon {
  readonly #source: TreeSource;
  readonly #runtime: RuntimeDir;
  readonly #table: MountTable;
  readonly #lock: Lock;
  readonly #server: Server;
  /** Mount point -> the thread that serves it. */
  readonly #serving = new Map<string, Worker>();
  readonly #hasTree: boolean;
  #busyAt = Date.now();
  #stopping = false;

  private constructor(source: TreeSource, runtime: RuntimeDir, lock: Lock) {
    this.#source = source;
    this.#runtime = runtime;
    this.#table = new MountTable(source.store);
    this.#lock = lock;
    this.#server = createServer((socket) => this.#converse(socket));
    this.#hasTree = fuseAvailability().usable === 'root';
  }

  static async start(storeRoot: string): Promise<void> {
    const store = new Store(storeRoot);
    const runtime = runtimeDir(storeRoot);
    const lock = await tryLockFile(runtime.lock);
    if (lock === undefined) throw new BentoError('LOCKED', `another daemon serves ${storeRoot}`);
    const daemon = new Daemon(treeSource(store, await IndexDatabase.open(store.cacheDir)), runtime, lock);
    daemon.#mountTree();
    await daemon.#listen();
    setInterval(() => void daemon.#checkIdle(), IDLE_CHECK_MS).unref();
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => daemon.#stop());
    log.info({ store: storeRoot, tree: runtime.tree }, 'ready');
  }

  #mountTree(): void {
    if (!this.#hasTree) return;
    const { tree } = this.#runtime;
    while (mountedAt(tree) !== undefined) unmount(fromText(tree), { lazy: true }); // left by a daemon that was killed
    mkdirSync(tree, { recursive: true });
    this.#serve(tree, mountAsRoot({ target: fromText(tree) }), undefined);
    const mounted = mountedAt(tree);
    if (mounted !== undefined) raiseReadAhead(mounted.deviceMajor, mounted.deviceMinor, READ_AHEAD_KIB);
  }

  /** Starts the thread that answers one connection; it ends by itself when the last use of the mount does. */
  #serve(target: string, fd: number, manifest: Digest | undefined): void {
    const data: ServeWorkerData = { fd, storeRoot: this.#source.store.root, ...(manifest && { manifest }) };
    const worker = new Worker(new URL('./serve-worker.js', import.meta.url), {
      workerData: data,
      trackUnmanagedFds: false,
    });
    worker.on('message', (message: ServeWorkerMessage) => log.error(message, 'request failed'));
    worker.on('error', (error) => log.error({ target, error: error.message }, 'serving failed'));
    worker.on('exit', () => {
      log.info({ target }, 'no longer mounted');
      if (this.#serving.get(target) === worker) this.#serving.delete(target);
      if (this.#stopping && this.#serving.size === 0) this.#exit();
    });
    this.#serving.set(target, worker);
  }

  async #listen(): Promise<void> {
    rmSync(this.#runtime.socket, { force: true });
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#runtime.socket, resolve);
    });
    chmodSync(this.#runtime.socket, 0o600);
  }

  #converse(socket: Socket): void {
    socket.on('error', (error) => log.warn({ error: error.message }, 'control connection broke'));
    const onPiece = lineReader((line) => void this.#answer(socket, line));
    socket.on('data', (piece: Buffer) => {
      try {
        onPiece(piece);
      } catch (error) {
        log.warn({ error: String(error) }, 'control message refused');
        socket.destroy();
      }
    });
  }

  async #answer(socket: Socket, line: string): Promise<void> {
    let reply: ControlReply;
    try {
      reply = await this.#handle(JSON.parse(line) as ControlRequest);
    } catch (error) {
      log.warn({ error: String(error) }, 'control request failed');
      reply = encodeError(error);
    }
    socket.write(`${JSON.stringify(reply)}\n`);
  }

  async #handle(request: ControlRequest): Promise<ControlReply> {
    this.#busyAt = Date.now();
    if (this.#stopping)
      throw new BentoError('DAEMON_FAILED', 'the mount daemon is stopping', { hint: 'run the command again' });
    if (request.op === 'prepare' || request.op === 'serve') await this.#prepare(request.manifest);
    if (request.op === 'serve')
      this.#serve(
        request.target,
        mountAsUser({ target: fromText(request.target), allowOther: false }),
        request.manifest,
      );
    if (request.op === 'release') unmount(fromText(request.target), { lazy: request.lazy });
    if (request.op === 'stop') setImmediate(() => this.#stop());
    return {
      ok: true,
      pid: process.pid,
      version: DAEMON_VERSION,
      tree: this.#hasTree ? this.#runtime.tree : undefined,
    };
  }

  async #prepare(manifest: Digest): Promise<void> {
    try {
      if (this.#source.trees.find(manifest) !== undefined) return;
      await openTree(this.#source, await this.#source.store.loadCheckpoint(manifest));
    } catch (error) {
      if (!isDamage(error)) throw error;
      this.#stop(); // makes way for a daemon with a new index; what is mounted stays with this one
      throw new BentoError('INDEX_BROKEN', `the index of ${this.#source.store.root} was damaged while it was in use`, {
        hint: 'run the command again; `bento mounts --restore` mends mounts that no longer answer',
        cause: error,
      });
    }
  }

  async #checkIdle(): Promise<void> {
    const records = await this.#table.list();
    const isUsed = records.some((record) => record.mounted && record.engine !== 'copy');
    if (isUsed || (!this.#hasTree && this.#serving.size > 0)) this.#busyAt = Date.now();
    if (Date.now() - this.#busyAt >= IDLE_MS) this.#stop();
  }

  /**
   * Takes the daemon's own mount away, lets new commands start a fresh daemon, and serves what is still in use somewhere
   * (a mount in another namespace, a shell standing in it) until the kernel says that the last use is over.
   */
  #stop(): void {
    if (this.#stopping) return;
    this.#stopping = true;
    log.info('stopping');
    this.#server.close();
    rmSync(this.#runtime.socket, { force: true });
    if (this.#hasTree && mountedAt(this.#runtime.tree) !== undefined)
      unmount(fromText(this.#runtime.tree), { lazy: true });
    this.#lock.release();
    if (this.#serving.size === 0) this.#exit();
  }

  #exit(): void {
    log.info('stopped');
    this.#source.index.close();
    process.exit(0);
  }
}

/** Tells whoever started us, if anybody did, that commands can be sent, or why not. */
function tellStarter(line: string): void {
  if (process.env['BENTO_DAEMON_READY'] === undefined || !existsSync(`/proc/self/fd/${READY_FD}`)) return;
  writeSync(READY_FD, `${line}\n`);
}

/** Runs the daemon of the store at `storeRoot`; returns when it is ready, and ends with the process. */
export async function runDaemon(storeRoot: string): Promise<void> {
  try {
    await Daemon.start(storeRoot);
    tellStarter(JSON.stringify({ ok: true }));
  } catch (error) {
    log.error({ error: String(error) }, 'could not start');
    tellStarter(JSON.stringify(encodeError(error)));
    process.exit(1);
  }
}

const [storeRoot] = process.argv.slice(2);
if (storeRoot !== undefined) await runDaemon(storeRoot);
