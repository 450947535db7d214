import { rmSync } from 'node:fs';
import path from 'node:path';

import { fileMountsBelow } from '../fs/mounts/mountinfo.ts';
import { makeManyFiles } from '../test/fixtures/many-files.ts';
import { CLI_PATH, Sandbox } from '../test/fixtures/sandbox.ts';
import { dropCaches, run } from './measure.ts';
import { makeReadingTree, PART, type ReadingTree } from './reading-tree.ts';

/** Files of the two checkpoints that are mounted against the clock. */
export const MANY = 100_000;
export const FEW = 100;
const LARGE_BIND_WAIT_MS = 10_000;

/** The trees on disk, their checkpoints in one store, and a mount and a fork of the one that is read. */
export class Subject {
  readonly sandbox = new Sandbox();
  readonly tree: ReadingTree;
  /** The tree on ext4. */
  readonly dir = this.sandbox.path('ws', 'tree');
  readonly many = this.sandbox.path('many');
  readonly few = this.sandbox.path('few');
  readonly other = this.sandbox.path('other');
  readonly target = this.sandbox.makeFolder('mount');
  readonly fork = this.sandbox.path('fork');
  largeIsOnItsOwn = false;

  constructor(fileCount: number) {
    process.stderr.write('making and saving trees\n');
    this.tree = makeReadingTree(this.dir, fileCount);
    this.#save(this.sandbox.workspace);
    for (const [dir, count] of [
      [this.many, MANY],
      [this.few, FEW],
      [this.other, 1],
    ] as const) {
      makeManyFiles(dir, { fileCount: count });
      this.#save(dir);
      rmSync(path.join(dir, 'node_modules'), { recursive: true, force: true }); // it is in the store
    }
  }

  #save(dir: string): void {
    this.bento('init', '--dir', dir);
    this.bento('save', '--dir', dir);
  }

  bento(...args: string[]): string {
    return run(process.execPath, [CLI_PATH, ...args], { cwd: '/', env: this.sandbox.env });
  }

  /** Mounts what is saved of a directory. */
  mount(dir: string, target: string): void {
    this.bento('mount', 'latest', target, '--dir', dir);
  }

  unmountAll(): void {
    this.bento('unmount', '--all', '--dir', this.sandbox.workspace);
  }

  /** A daemon that has served something else only. */
  freshDaemon(): void {
    this.unmountAll();
    this.mount(this.other, this.sandbox.makeFolder('other-mount'));
  }

  /** The mount as after the first look at the checkpoint on a machine: nothing of it is unpacked. */
  mountUnread(): void {
    this.unmountAll();
    rmSync(path.join(this.sandbox.storePath, 'cache'), { recursive: true, force: true });
    this.mount(this.sandbox.workspace, this.target);
    dropCaches();
  }

  /** Reads the large file once, after which the daemon gives it a faster way, if this kernel has one. */
  settle(): void {
    shell(`cat ${PART.large} | wc -c`, path.join(this.target, 'tree'));
    const endMs = Date.now() + LARGE_BIND_WAIT_MS;
    while (!this.largeIsOnItsOwn && Date.now() < endMs) {
      this.largeIsOnItsOwn = fileMountsBelow(this.target).length > 0;
      run('sleep', ['0.1']);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sandbox.dispose();
  }
}

/** Runs a line of shell with few variables. @returns what it printed @throws Error when it fails */
export function shell(command: string, cwd: string): string {
  return run('sh', ['-c', command], { cwd, env: { PATH: process.env['PATH'] ?? '', LC_ALL: 'C' } });
}
