import { chmodSync, existsSync, mkdirSync, rmSync, writeSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { isAbsolute, join } from 'node:path';
import { Worker } from 'node:worker_threads';

import { pino } from 'pino';

import { fromText, toText, type ByteString } from '../../../store/byte-string.ts';
import { hexOf, type Digest } from '../../../store/digest.ts';
import { BentoError } from '../../../store/errors.ts';
import { adoptLock, tryLockFile, type FileLock } from '../../../store/lock.ts';
import { Store } from '../../../store/store.ts';
import { mount, MS_PRIVATE } from '../../../store/syscalls.ts';
import { programVersion } from '../../../store/version.ts';
import { cacheCapBytes } from '../../contents/cache-cap.ts';
import type { BindWorkerMessage, FileBind } from './bind-worker.ts';
import type { Backing, ConnectionKind, ConnectionSpec, LargeFile, Prepared } from './connection.ts';
import {
  encodeError,
  lineReader,
  type ControlReply,
  type ControlRequest,
  type ServeWish,
  type TreeWish,
  type WorkspaceWish,
} from './control.ts';
import { fuseAvailability, mountAsRoot, mountAsUser, raiseReadAhead, unmount } from '../dev-fuse.ts';
import { shakeHands } from './handshake.ts';
import { SessionLog } from '../../overlay/session-log.ts';
import { largeFileName } from '../../serving/large-tree.ts';
import type { Wishes } from '../../serving/negotiate.ts';
import { MountTable, type MountStatus } from '../mount-table.ts';
import { mountedAt, mountedFileSystems } from '../mountinfo.ts';
import { isAloneInNamespace } from '../namespaces.ts';
import { runtimeDir, sessionLogOf, type RuntimeDir } from './runtime-dir.ts';
import { ServerProcess } from './server-process.ts';
import { READY_FD, receiveLegacy, startSuccessor } from './take-over.ts';

/** How long the daemon stays without anything mounted, in milliseconds. */
const IDLE_MS = Number(process.env['BENTO_DAEMON_IDLE_MS'] ?? 60_000);
const IDLE_CHECK_MS = 5_000;
const READ_AHEAD_KIB = 1024;
/** No more files of one mount than this get a mount of their own; the largest first. */
const LARGE_BINDS_MAX = 32;
/** How long a server may take to answer when the daemon is to stop, in milliseconds. */
const STOP_ANSWER_MS = 5_000;
const LARGE_DIR = 'large';

const log = pino({ base: { pid: process.pid } }, pino.destination({ fd: 1, sync: true }));

/**
 * The mount daemon of one store: it holds the FUSE connections, so that they outlive whoever answers for them, and answers
 * nothing itself. As root it mounts trees of all checkpoints in its runtime folder; bind and overlay mounts made from them
 * by others share their cache.
 */
class Supervisor {
  readonly #store: Store;
  readonly #runtime: RuntimeDir;
  readonly #table: MountTable;
  readonly #lock: FileLock;
  readonly #server: ServerProcess;
  readonly #isRoot = fuseAvailability().usable === 'root';
  #control: Server | undefined;
  #busyAt = Date.now();
  #stopping = false;
  #isHandedOver = false;
  #handingOver: Promise<void> | undefined;
  #binding: Promise<void> = Promise.resolve();
  /** Mounts that are going away: nothing is mounted inside them any more. */
  readonly #unmounting = new Set<string>();

  private constructor(store: Store, runtime: RuntimeDir, lock: FileLock) {
    this.#store = store;
    this.#runtime = runtime;
    this.#table = new MountTable(store);
    this.#lock = lock;
    this.#server = new ServerProcess(store.root, {
      onEnded: (target) => this.#onEnded(target),
      onCached: () => this.#bindLargeFiles(),
      onLog: (level, line) => log[level](line),
    });
  }

  static async start(storeRoot: string): Promise<void> {
    const store = new Store(storeRoot);
    cacheCapBytes(store.cacheDir); // a wrong setting is for whoever starts the daemon
    const runtime = runtimeDir(storeRoot);
    const lock = await tryLockFile(runtime.lock);
    if (lock === undefined) throw new BentoError('LOCKED', `another daemon serves ${storeRoot}`);
    const supervisor = new Supervisor(store, runtime, lock);
    supervisor.#clearRuntime();
    await supervisor.#run([]);
  }

  /** Goes on where a predecessor of another version stopped: nothing is unmounted, calls wait a moment. */
  static async takeOver(storeRoot: string): Promise<void> {
    const { legacy, lockFd, fds } = receiveLegacy();
    const supervisor = new Supervisor(new Store(storeRoot), runtimeDir(storeRoot), adoptLock(lockFd));
    legacy.connections.forEach((connection, at) => supervisor.#server.serve({ ...connection, fd: fds[at] ?? -1 }));
    await supervisor.#run(legacy.backings);
  }

  async #run(backings: readonly Backing[]): Promise<void> {
    this.#server.start(backings);
    await this.#listen();
    setInterval(() => void this.#checkIdle(), IDLE_CHECK_MS).unref();
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => this.#stop());
    log.info({ store: this.#store.root, version: programVersion() }, 'ready');
  }

  /** What a daemon that was killed left mounted goes out of the way; who uses it still is served by what is left of it. */
  #clearRuntime(): void {
    const isOurs = (target: string): boolean => target.startsWith(`${this.#runtime.dir}/`);
    for (const { target } of mountedFileSystems().filter((mounted) => isOurs(mounted.target)))
      unmount(fromText(target), { lazy: true });
  }

  // Control

  async #listen(): Promise<void> {
    rmSync(this.#runtime.socket, { force: true });
    const control = createServer((socket) => this.#converse(socket));
    await new Promise<void>((resolve, reject) => {
      control.once('error', reject);
      control.listen(this.#runtime.socket, resolve);
    });
    this.#control = control;
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
    if (this.#stopping) {
      socket.destroy(); // whoever asks finds the next daemon
      return;
    }
    const reply = await this.#reply(line);
    socket.write(`${JSON.stringify(reply)}\n`, this.#isHandedOver ? () => process.exit(0) : undefined);
  }

  async #reply(line: string): Promise<ControlReply> {
    try {
      const request = JSON.parse(line) as ControlRequest;
      const folder = await this.#handle(request);
      return { ok: true, health: this.#health, ...(folder !== undefined && { folder }) };
    } catch (error) {
      log.warn({ error: String(error) }, 'control request failed');
      if (error instanceof BentoError && error.code === 'INDEX_BROKEN') this.#stop(); // makes way for one with a new index
      return encodeError(error);
    }
  }

  get #health(): Extract<ControlReply, { ok: true }>['health'] {
    return { pid: process.pid, version: programVersion(), ...this.#server.health };
  }

  /** @returns the folder to mount from, for who asked for one */
  async #handle(request: ControlRequest): Promise<string | undefined> {
    this.#busyAt = Date.now();
    switch (request.op) {
      case 'hello':
        return undefined;
      case 'ready':
        if (this.#isRoot) this.#ensure('tree', { kind: 'tree', xattrs: false, keepOwners: false });
        return undefined;
      case 'stop':
        this.#stop();
        return undefined;
      case 'prepare':
        return await this.#prepare(request);
      case 'mounted':
        this.#unmounting.delete(request.target);
        this.#bindLargeFiles();
        return undefined;
      case 'unmounting':
        this.#unmounting.add(request.target);
        await this.#binding;
        return undefined;
      case 'serve':
        this.#connect(request.target, await this.#whatToShow(request.wish), request.allowOther);
        return undefined;
      case 'switch':
        await this.#switch(request.target, request.manifest);
        return undefined;
      case 'settle':
        await this.#settle(request);
        return undefined;
      case 'release':
        unmount(fromText(request.target), { lazy: request.lazy });
        return undefined;
      case 'upgrade':
        await (this.#handingOver ??= this.#handOver(request.program).finally(() => (this.#handingOver = undefined)));
        return undefined;
    }
  }

  // Connections

  async #whatToShow(wish: ServeWish): Promise<ConnectionKind> {
    if (wish.kind === 'all') return wish;
    const { hasXattrs, hasOwners } = await this.#server.ask<Prepared>({ op: 'prepare', manifest: wish.manifest });
    if (wish.kind === 'workspace') return wish;
    return { ...wish, xattrs: hasXattrs, keepOwners: wish.keepOwners && hasOwners };
  }

  async #settle({ manifest, keepOwners, fork, userxattr }: WorkspaceWish): Promise<void> {
    await this.#server.ask<Prepared>({ op: 'prepare', manifest });
    await this.#server.ask({ op: 'settle', shows: { kind: 'workspace', manifest, keepOwners, fork, userxattr } });
  }

  async #switch(target: string, manifest: Digest): Promise<void> {
    const isServed = this.#server.connections.some(
      (connection) => connection.target === target && connection.shows.kind === 'workspace',
    );
    if (!isServed) throw new BentoError('NOT_MOUNTED', `this daemon serves no workspace on ${target}`);
    await this.#server.ask<Prepared>({ op: 'prepare', manifest });
    await this.#server.ask({ op: 'switch', target, manifest });
    this.#server.switched(target, manifest);
  }

  async #prepare({ manifest, keepOwners }: TreeWish): Promise<string | undefined> {
    const prepared = await this.#server.ask<Prepared>({ op: 'prepare', manifest });
    if (!this.#isRoot) return undefined;
    const owners = keepOwners && prepared.hasOwners;
    const name = ['tree', ...(prepared.hasXattrs ? ['x'] : []), ...(owners ? ['o'] : [])].join('-');
    return join(this.#ensure(name, { kind: 'tree', xattrs: prepared.hasXattrs, keepOwners: owners }), hexOf(manifest));
  }

  /** A connection in the runtime folder, made when it is first needed. */
  #ensure(name: string, shows: ConnectionKind): string {
    const target = join(this.#runtime.dir, name);
    if (this.#server.connections.some((connection) => connection.target === target)) return target;
    mkdirSync(target, { recursive: true });
    this.#connect(target, shows, true);
    return target;
  }

  #connect(target: string, shows: ConnectionKind, allowOther: boolean): void {
    const isWorkspace = shows.kind === 'workspace';
    // Into root's fork its modes decide who gets, as in any other directory of root's.
    const mayOthers = allowOther || (isWorkspace && this.#isRoot);
    const options = { target: fromText(target), allowOther: mayOthers, readOnly: !isWorkspace };
    const fd = this.#isRoot ? mountAsRoot(options) : mountAsUser(options);
    if (shows.kind === 'workspace') SessionLog.clear(sessionLogOf(this.#runtime, shows.fork));
    const negotiated = shakeHands(fd, wishesFor(shows, this.#isRoot));
    this.#server.serve({ target, shows, negotiated, fd });
    if (isShared(shows)) makePrivate(fromText(target));
    const mounted = mountedAt(target);
    if (mounted !== undefined) raiseReadAhead(mounted.deviceMajor, mounted.deviceMinor, READ_AHEAD_KIB);
  }

  #onEnded(target: string): void {
    log.info({ target }, 'no longer mounted');
    this.#exitIfDone();
  }

  // Large files

  /** Mounts large files whose content is in the cache over themselves, so that the kernel reads them without us. */
  #bindLargeFiles(): void {
    if (!this.#isRoot || this.#stopping) return;
    this.#binding = this.#binding
      .then(() => this.#bindMissing())
      .catch((error: unknown) => {
        log.warn({ error: String(error) }, 'large files stay as they are');
      });
  }

  async #bindMissing(): Promise<void> {
    const records = (await this.#table.list()).filter(({ mounted, engine }) => mounted && engine === 'bind');
    for (const target of this.#unmounting) {
      if (!records.some((record) => record.target === target)) this.#unmounting.delete(target);
    }
    for (const record of records) {
      const missing = await this.#missingBinds(record);
      if (missing.length === 0 || this.#unmounting.has(record.target)) continue;
      const failures = await bindFiles(missing);
      for (const failure of failures) log.warn(failure);
      log.info({ target: record.target, count: missing.length - failures.length }, 'large files mounted on their own');
    }
  }

  async #missingBinds({ target, manifest, keepOwners = false }: MountStatus): Promise<FileBind[]> {
    if (manifest === undefined) return [];
    const files = await this.#server.ask<LargeFile[]>({ op: 'large-files', manifest });
    const cached = files.filter((file) => file.isCached).slice(0, LARGE_BINDS_MAX);
    if (cached.length === 0) return [];
    const bound = new Set(mountedFileSystems().map((mounted) => mounted.target));
    const folder = this.#ensure(LARGE_DIR, { kind: 'large' });
    const isPassing = this.#server.connections.some(
      (connection) => connection.target === folder && connection.negotiated.flags.includes('PASSTHROUGH'),
    );
    if (!isPassing) return []; // an older kernel: nothing would be gained
    return cached
      .map(({ id, path }) => ({
        source: fromText(join(folder, largeFileName(id, keepOwners))),
        target: `${fromText(target)}/${path}`,
      }))
      .filter((bind) => !bound.has(toText(bind.target)));
  }

  // The end

  async #checkIdle(): Promise<void> {
    const { serverPid } = this.#server.health;
    if (isAloneInNamespace([process.pid, ...(serverPid === undefined ? [] : [serverPid])])) {
      this.#stop();
      return;
    }
    const records = await this.#table.list();
    const isUsed = records.some((record) => record.mounted && record.engine !== 'copy');
    if (isUsed || this.#server.connections.some(({ shows }) => !isShared(shows))) this.#busyAt = Date.now();
    if (Date.now() - this.#busyAt >= IDLE_MS) this.#stop();
  }

  /**
   * Takes the daemon's own mounts away, lets new commands start a fresh daemon, and stays for what is still in use somewhere
   * (a mount in another namespace, a shell standing in it) until the kernel says that the last use is over.
   */
  #stop(): void {
    if (this.#stopping) return;
    this.#stopping = true;
    log.info('stopping');
    this.#control?.close();
    rmSync(this.#runtime.socket, { force: true });
    for (const { target, shows } of this.#server.connections) {
      if (isShared(shows) && mountedAt(target) !== undefined) unmount(fromText(target), { lazy: true });
    }
    this.#lock.release();
    void this.#abandonIfStuck().then(() => this.#exitIfDone());
  }

  /** Who still uses a mount that nobody can answer for gets an error rather than nothing. */
  async #abandonIfStuck(): Promise<void> {
    if (await this.#server.answers(STOP_ANSWER_MS)) return;
    log.warn('nobody answers any more, so what is still in use is given up');
    await this.#server.halt();
    for (const { target } of this.#server.connections) this.#server.abandon(target);
  }

  #exitIfDone(): void {
    if (!this.#stopping || this.#server.connections.length > 0) return;
    log.info('stopped');
    void this.#server.halt().then(() => setImmediate(() => process.exit(0))); // after a reply that is on its way
  }

  /** Lets the daemon of another program go on with what this one holds; when it cannot, all stays as it is. */
  async #handOver(program: string): Promise<void> {
    if (!isAbsolute(program) || !existsSync(program))
      throw new BentoError('DAEMON_FAILED', `${program} is no program to hand the mounts to`);
    log.info({ program }, 'handing over');
    await this.#server.halt();
    this.#control?.close();
    try {
      await startSuccessor(program, this.#store.root, {
        legacy: { connections: this.#server.connections.map(specOf), backings: [...this.#server.backings] },
        fds: [this.#lock.fd, ...this.#server.connections.map(({ fd }) => fd)],
      });
      this.#isHandedOver = true;
    } catch (error) {
      this.#server.start();
      await this.#listen();
      throw new BentoError('DAEMON_FAILED', `the mounts could not be handed over: ${(error as Error).message}`, {
        hint: `they stay with version ${programVersion()}; see ${this.#runtime.log}`,
        cause: error,
      });
    }
  }
}

/** What files are read or written by the kernel itself needs OPEN, which others do without. */
function wishesFor({ kind }: ConnectionKind, isRoot: boolean): Wishes {
  switch (kind) {
    case 'large':
      return { passthrough: true, openless: false };
    case 'workspace':
      return { passthrough: isRoot, openless: false, writable: true };
    default:
      return { passthrough: false, openless: true };
  }
}

/** One that lies in the runtime folder and is there for mounts made from it. */
function isShared(shows: ConnectionKind): boolean {
  return shows.kind === 'tree' || shows.kind === 'large';
}

/** Mounts inside it, made by whoever uses it, must not appear in copies of it elsewhere. */
function makePrivate(target: ByteString): void {
  mount('none', target, undefined, MS_PRIVATE);
}

function specOf({ target, shows, negotiated }: ConnectionSpec): ConnectionSpec {
  return { target, shows, negotiated };
}

async function bindFiles(binds: FileBind[]): Promise<BindWorkerMessage> {
  const worker = new Worker(new URL('./bind-worker.js', import.meta.url), { workerData: binds });
  return await new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}

/** Tells whoever started us, if anybody did, that commands can be sent, or why not. */
function tellStarter(line: string): void {
  if (process.env['BENTO_DAEMON_READY'] === undefined || !existsSync(`/proc/self/fd/${READY_FD}`)) return;
  writeSync(READY_FD, `${line}\n`);
}

/** Runs the daemon of the store at `storeRoot`; returns when it is ready, and ends with the process. */
async function main(storeRoot: string): Promise<void> {
  try {
    if (process.env['BENTO_DAEMON_TAKE_OVER'] === undefined) await Supervisor.start(storeRoot);
    else await Supervisor.takeOver(storeRoot);
    tellStarter(JSON.stringify({ ok: true }));
  } catch (error) {
    log.error({ error: String(error) }, 'could not start');
    tellStarter(JSON.stringify(encodeError(error)));
    process.exit(1);
  }
}

const [storeRoot] = process.argv.slice(2);
if (storeRoot !== undefined) void main(storeRoot);
