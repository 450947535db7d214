import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { compareByWalk } from '../fixtures/compare-trees.ts';
import { askDaemon } from '../fixtures/daemon.ts';
import { forkWith, type WritingEngine } from '../fixtures/fork-engines.ts';
import { Sandbox } from '../fixtures/sandbox.ts';
import { GIT_ENV, type Workload, type WritingCommand } from './writing-workloads.ts';

/** Whatever takes longer than this hangs. */
const COMMAND_TIMEOUT_MS = 180_000;
const OWN_FILES = ['.', 'bento.yaml', '.bentoignore'];

/**
 * A saved tree, in a fork of which programs write, and the same tree in which they wrote without a daemon: the fork must come
 * out equal. Every method that begins with `assert` throws an AssertionError.
 */
export class WritingWorld {
  readonly sandbox = new Sandbox();
  /** Where programs write, first on the disk and then in forks: the same path. */
  readonly dir = this.sandbox.path('work');
  readonly #control = this.sandbox.path('control');
  readonly #workload: Workload;
  readonly #printed = new Map<string, string>();

  private constructor(makeWorkload: (outside: string) => Workload) {
    this.#workload = makeWorkload(this.sandbox.makeFolder('outside'));
  }

  /** @param makeWorkload - gets a folder for what is read from elsewhere */
  static async create(makeWorkload: (outside: string) => Workload): Promise<WritingWorld> {
    const world = new WritingWorld(makeWorkload);
    try {
      await world.#prepare();
      return world;
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #prepare(): Promise<void> {
    const { workspace } = this.sandbox;
    const outside = this.sandbox.path('outside');
    this.#workload.prepare(workspace, outside);
    const finish = { name: 'prepare', folder: '.', program: 'sh', args: ['-euc', this.#workload.finish] };
    await this.#run(finish, outside);
    (await this.sandbox.bento(['init'])).ok();
    writeFileSync(path.join(workspace, '.bentoignore'), '');
    (await this.sandbox.bento(['save'])).ok();
    await this.#run({ name: 'cp', folder: '.', program: 'cp', args: ['-a', workspace, this.dir] }, this.sandbox.root);
    await this.write();
    for (const check of this.#workload.checks) this.#printed.set(check.name, await this.#run(check));
    renameSync(this.dir, this.#control);
  }

  /** A new fork, in which nothing was written. */
  async fork(engine: WritingEngine): Promise<void> {
    await forkWith(this.sandbox, engine, { target: this.dir });
  }

  async close(): Promise<void> {
    (await this.sandbox.bento(['close', '--discard', this.dir])).ok();
  }

  /** Runs all programs at once. @returns how many ended @throws Error when one fails */
  async write(): Promise<number> {
    const running = this.#workload.commands.map(async (command) => await this.#run(command));
    for (const result of await Promise.allSettled(running)) if (result.status === 'rejected') throw result.reason;
    return running.length;
  }

  /** Kills the process that answers for the fork, if one does at the moment. @returns whether one did */
  async killServer(): Promise<boolean> {
    const { serverPid, pid } = (await askDaemon(this.sandbox, { op: 'hello' })).health;
    assert.notEqual(serverPid, pid, 'the process that holds the mounts serves none');
    if (serverPid === undefined) return false;
    try {
      process.kill(serverPid, 'SIGKILL');
      return true;
    } catch {
      return false; // it was dying already
    }
  }

  /** Makes whoever reads next ask us again; it says nothing of what is not written yet. */
  dropCaches(): void {
    writeFileSync('/proc/sys/vm/drop_caches', '3');
  }

  /** The fork is what the same work makes of a plain directory, also for who comes later, and can be saved and opened. */
  async assertAsOnDisk(): Promise<void> {
    this.dropCaches();
    for (const check of this.#workload.checks)
      assert.equal(await this.#run(check), this.#printed.get(check.name), check.name);
    const ignore = [...OWN_FILES, ...this.#workload.ignore];
    this.#assertSame(this.#control, { ignore, ignoreAttributes: ['mtimeNs'] });
    const opened = this.sandbox.path('opened');
    (await this.sandbox.bento(['save', '--dir', this.dir])).ok();
    (await this.sandbox.bento(['open', '--copy', 'head', opened, '--dir', this.dir])).ok();
    this.#assertSame(opened, { ignore: OWN_FILES });
    await this.#run({ name: 'rm', folder: '.', program: 'rm', args: ['-r', opened] }, this.sandbox.root);
  }

  #assertSame(expected: string, options: Parameters<typeof compareByWalk>[2]): void {
    const differences = compareByWalk(expected, this.dir, options);
    const shown = differences.slice(0, 20).join('\n');
    assert.equal(differences.length, 0, `${differences.length} differences to ${path.basename(expected)}:\n${shown}`);
  }

  /** @returns what it prints @throws Error when it fails or hangs */
  async #run({ name, folder, program, args }: WritingCommand, root = this.dir): Promise<string> {
    const cwd = path.join(root, folder);
    const env = { ...this.sandbox.env, ...GIT_ENV, LC_ALL: 'C', PYTHONDONTWRITEBYTECODE: '1' };
    const child = spawn(program, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
    const out: Buffer[] = [];
    const said: Buffer[] = [];
    child.stdout.on('data', (piece: Buffer) => out.push(piece));
    child.stderr.on('data', (piece: Buffer) => said.push(piece));
    const failure = await new Promise<string | undefined>((resolve, reject) => {
      // one that waits for the kernel does not even end by a signal
      const timer = setTimeout(() => resolve(`does not end within ${COMMAND_TIMEOUT_MS / 1000} s`), COMMAND_TIMEOUT_MS);
      child.once('error', reject);
      child.once('close', (code, signal) => {
        clearTimeout(timer);
        resolve(code === 0 ? undefined : `exits with ${code ?? signal ?? 'nothing'}`);
      });
    });
    if (failure !== undefined) throw new Error(`${name} in ${cwd} ${failure}\n${Buffer.concat(said).toString()}`);
    return Buffer.concat(out).toString('latin1');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sandbox.dispose();
  }
}
