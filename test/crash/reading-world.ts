import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import path from 'node:path';

import type { DaemonHealth } from '../../fs/mounts/daemon/control.ts';
import { findDaemon } from '../../fs/mounts/daemon/daemon-client.ts';
import { Store } from '../../store/store.ts';
import { writeFiles } from '../fixtures/command-checks.ts';
import { compareByWalk } from '../fixtures/compare-trees.ts';
import { whatIsMissing, type Missing } from '../fixtures/machine.ts';
import type { Random } from '../fixtures/random.ts';
import { Sandbox, type CommandResult } from '../fixtures/sandbox.ts';
import { commandsFor, makeReadTree, type ReadingCommand } from './reading-commands.ts';

export interface ReadingWorldOptions {
  /** Files large enough for a way of their own; with none, nothing takes long. */
  largeCount: number;
  /** `BENTO_CACHE_MAX` of the daemon. Default: what bento does without it. */
  cacheMax?: string | undefined;
}

/** What reading while the server is killed cannot do without, if it is missing here. */
export function missingForReading(): Missing {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const asksAgain = major > 6 || (major === 6 && minor >= 9);
  return (
    whatIsMissing({ root: true, fuse: true, tools: ['git', 'sha256sum', 'cmp'] }) ??
    (asksAgain ? undefined : `Linux ${release()} cannot ask a new server again, 6.9 and newer can`)
  );
}

/** Whatever takes longer than this hangs. */
const COMMAND_TIMEOUT_MS = 90_000;
const COMMIT_COUNT = 4;
const OWN_FILES = ['bento.yaml', '.bentoignore'];

/**
 * A saved tree, a mount of it, and programs that read it: what each must print is known from the saved tree itself. Every
 * method that begins with `assert` throws an AssertionError.
 */
export class ReadingWorld {
  readonly sandbox = new Sandbox();
  /** A mount of the checkpoint. */
  readonly target = this.sandbox.makeFolder('mount');
  /** A mount of the whole store, which has a connection of another kind. */
  readonly all = this.sandbox.makeFolder('all');
  readonly commands: readonly ReadingCommand[];
  readonly #expected = new Map<string, string>();
  readonly #cacheMax: string | undefined;
  #inAll = '';
  #supervisor = 0;
  #mountLine = '';

  private constructor(random: Random, { largeCount, cacheMax }: ReadingWorldOptions) {
    this.#cacheMax = cacheMax;
    const large = Array.from({ length: largeCount }, (_, at) => `large-${at}.bin`);
    makeReadTree(this.saved, { random, large });
    this.commands = commandsFor(this.saved, large);
  }

  /** A tree that was just mounted, of which nothing was read through the mount but its names. */
  static async create(random: Random, options: ReadingWorldOptions): Promise<ReadingWorld> {
    const world = new ReadingWorld(random, options);
    try {
      await world.#saveAndMount();
      return world;
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The tree on disk. */
  get saved(): string {
    return this.sandbox.workspace;
  }

  /** The same checkpoint in the mount of the whole store. */
  get inAll(): string {
    return this.#inAll;
  }

  async #saveAndMount(): Promise<void> {
    await this.#makeRepository();
    (await this.bento('init')).ok();
    writeFileSync(path.join(this.saved, '.bentoignore'), '');
    (await this.bento('save')).ok();
    (await this.bento('mount', 'cp-1', this.target)).ok();
    (await this.bento('mount', '--all', this.all)).ok();
    const [workspace = ''] = readdirSync(this.all);
    this.#inAll = path.join(this.all, workspace, 'cp-1');
    for (const command of this.commands) {
      const known = command.printsInodes === true ? [this.target, this.inAll] : [this.saved];
      for (const root of known) this.#expected.set(`${command.name} in ${root}`, await this.#run(command, root));
    }
    this.#mountLine = this.#mountinfo();
    this.#supervisor = (await this.health()).pid;
  }

  async #makeRepository(): Promise<void> {
    const cwd = path.join(this.saved, 'repo');
    const git = async (...args: string[]): Promise<string> =>
      await this.#run({ name: `git ${args.join(' ')}`, program: 'git', args, cwd: 'repo' }, this.saved);
    const who = ['-c', 'user.name=b', '-c', 'user.email=b@b', '-c', 'gc.auto=0'];
    await git('init', '-q');
    for (let at = 0; at < COMMIT_COUNT; at += 1) {
      writeFiles(cwd, { [`src/changes-${at % 2}.js`]: `// ${at}\n`.repeat(50 + at) });
      await git('add', '-A');
      await git(...who, 'commit', '-q', '-m', `change ${at}`);
    }
  }

  async bento(...args: string[]): Promise<CommandResult> {
    const env = { BENTO_CACHE_MAX: this.#cacheMax };
    return await this.sandbox.bento(args, { env, timeoutMs: COMMAND_TIMEOUT_MS });
  }

  /** How the daemon is doing. @throws Error when none answers */
  async health(): Promise<DaemonHealth> {
    using daemon = await this.#findDaemon();
    if (daemon === undefined) throw new Error('no daemon answers');
    return (await daemon.ask({ op: 'hello' })).health;
  }

  /** Of the runtime folder the client knows by the environment alone. */
  #findDaemon(): ReturnType<typeof findDaemon> {
    const before = process.env['XDG_RUNTIME_DIR'];
    process.env['XDG_RUNTIME_DIR'] = this.sandbox.runtimeDir;
    try {
      return findDaemon(new Store(this.sandbox.storePath)); // reads it before its first wait
    } finally {
      if (before === undefined) delete process.env['XDG_RUNTIME_DIR'];
      else process.env['XDG_RUNTIME_DIR'] = before;
    }
  }

  /** Kills the process that answers for the mounts, if one does at the moment. @returns its id */
  async killServer(): Promise<number | undefined> {
    const { serverPid, pid } = await this.health();
    assert.notEqual(serverPid, pid, 'the process that holds the mounts serves none');
    if (serverPid === undefined) return undefined;
    process.kill(serverPid, 'SIGKILL');
    return serverPid;
  }

  /** Makes whoever reads next ask us again. */
  dropCaches(): void {
    writeFileSync('/proc/sys/vm/drop_caches', '3');
  }

  /** A command in the mount succeeds, complains of nothing, and prints what it prints in the saved tree. */
  async assertReads(command: ReadingCommand, target = this.target): Promise<void> {
    const printed = await this.#run(command, target);
    const expected = this.#expected.get(`${command.name} in ${command.printsInodes === true ? target : this.saved}`);
    if (expected === undefined) return; // of another mount nobody knows the inodes
    if (printed !== expected) throw new assert.AssertionError({ message: describe(command, printed, expected) });
  }

  async assertReadsAll(target = this.target): Promise<void> {
    await Promise.all(this.commands.map(async (command) => await this.assertReads(command, target)));
  }

  /** The mount is the very same, of the same daemon, works, and shows what was saved. */
  async assertUnharmed(): Promise<void> {
    assert.equal((await this.health()).pid, this.#supervisor, 'the same supervisor');
    assert.equal(this.#mountinfo(), this.#mountLine, 'the same mount');
    this.dropCaches(); // so that the server has to answer, after a pause if it died often
    await this.assertSameTree(this.target);
    await this.assertMounted([]);
  }

  /** `bento mounts` lists the mounts of this world and just these others, and all work. */
  async assertMounted(others: readonly string[]): Promise<void> {
    const listed = (await this.bento('mounts', '--json')).ok().json<{ target: string; state: string }[]>();
    const expected = [this.target, this.all, ...others].map((target) => `${target}: mounted`);
    assert.deepEqual(listed.map(({ target, state }) => `${target}: ${state}`).sort(), expected.sort());
  }

  /** A mount shows what was saved. Programs look first: they can be given up when they hang, this process cannot. */
  async assertSameTree(target: string): Promise<void> {
    await this.assertReadsAll(target);
    assert.deepEqual(compareByWalk(this.saved, target, { ignore: ['.', ...OWN_FILES] }), []);
  }

  /** The kernel's line about the mount, with the numbers of mount and device. @see proc_pid_mountinfo(5) */
  #mountinfo(): string {
    const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
    const found = lines.filter((line) => line.split(' ')[4] === this.target);
    assert.equal(found.length, 1, `mounted once: ${found.join('; ')}`);
    return found[0] ?? '';
  }

  /** @returns what it prints @throws Error when it fails, complains or hangs */
  async #run({ name, program, args, cwd }: ReadingCommand, root: string): Promise<string> {
    const env = { ...this.sandbox.env, LC_ALL: 'C', GIT_CONFIG_NOSYSTEM: '1', GIT_OPTIONAL_LOCKS: '0' };
    const child = spawn(program, args, { cwd: path.join(root, cwd), env, stdio: ['ignore', 'pipe', 'pipe'] });
    const out: Buffer[] = [];
    const complaints: Buffer[] = [];
    child.stdout.on('data', (piece: Buffer) => out.push(piece));
    child.stderr.on('data', (piece: Buffer) => complaints.push(piece));
    const failure = await new Promise<string | undefined>((resolve, reject) => {
      // one that waits for the kernel does not even end by a signal
      const timer = setTimeout(() => resolve(`does not end within ${COMMAND_TIMEOUT_MS / 1000} s`), COMMAND_TIMEOUT_MS);
      child.once('error', reject);
      child.once('close', (code, signal) => {
        clearTimeout(timer);
        resolve(code === 0 && complaints.length === 0 ? undefined : `exits with ${code ?? signal ?? 'nothing'}`);
      });
    });
    if (failure !== undefined)
      throw new Error(`${name} in ${root} ${failure}\n${Buffer.concat(complaints).toString()}`);
    return Buffer.concat(out).toString('latin1');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sandbox.dispose();
  }
}

/** The lines that differ, and no more: all would be thousands. */
function describe({ name }: ReadingCommand, printed: string, expected: string): string {
  const [got, wanted] = [printed.split('\n'), expected.split('\n')];
  const differing = got.flatMap((line, at) =>
    line === wanted[at] ? [] : [`${line}\n  instead of ${wanted[at] ?? 'nothing'}`],
  );
  return `${name} prints ${got.length} lines, where ${wanted.length} are right:\n${differing.slice(0, 10).join('\n')}`;
}
