import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import type { Digest } from '../../store/digest.ts';
import { headOf, temporaryFiles, workspaceId } from '../fixtures/command-checks.ts';
import { isRoot, missingFuse } from '../fixtures/machine.ts';
import { Random } from '../fixtures/random.ts';
import { CLI_PATH, Sandbox } from '../fixtures/sandbox.ts';
import { factsOnDisk, withoutDirTimes, type TreeFacts } from '../fixtures/tree-facts.ts';
import { assertEqual, OWN_FILES } from './crash-world.ts';

export interface RaceOptions {
  seed: number;
  durationMs: number;
  /** Opens every checkpoint at the end; otherwise some. */
  opensAll: boolean;
}

export interface RaceResult {
  commandCount: number;
  /** Different checkpoints that were reported as saved. */
  savedCount: number;
}

const PROCESS_COUNT = 8;
/** Two workspaces, of which the first has five directories: saves of the same one wait for each other. */
const DIRS = ['a-0', 'a-1', 'a-2', 'a-3', 'a-4', 'b-0', 'b-1', 'b-2'];
const OPENED_AT_END = 6;
/** A killed command ends somewhere in this time. */
const KILL_WITHIN_MS = 400;

const WEIGHTS = {
  save: 6,
  killedSave: 1,
  openInPlace: 2,
  undo: 1,
  openNew: 2,
  fork: 2,
  gc: 2,
  tag: 1,
  diff: 1,
  verify: 0.3,
};

interface Saved {
  workspace: string;
  digest: Digest;
  facts: TreeFacts;
}

/**
 * Eight processes that save, fork, open and collect at random in one store, each in a directory of its own. Then every
 * checkpoint that any of them reported as saved has to be there, to open, and to be what was saved.
 *
 * @throws AssertionError, or Error when a command fails
 */
export async function race(options: RaceOptions): Promise<RaceResult> {
  await using racers = await Racers.create(options);
  await racers.run();
  await racers.assertAllThere();
  return { commandCount: racers.commandCount, savedCount: racers.saved.size };
}

class Racers {
  commandCount = 0;
  readonly saved = new Map<Digest, Saved>();
  readonly #sandbox = new Sandbox();
  readonly #options: RaceOptions;
  readonly #canFork = isRoot() && missingFuse() === undefined;
  #changeCount = 0;

  private constructor(options: RaceOptions) {
    this.#options = options;
  }

  static async create(options: RaceOptions): Promise<Racers> {
    const racers = new Racers(options);
    try {
      for (const name of DIRS) await racers.#makeDir(name);
      return racers;
    } catch (error) {
      await racers[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #makeDir(name: string): Promise<void> {
    const dir = this.#sandbox.makeFolder(name);
    const first = this.#sandbox.path(`${name.slice(0, 1)}-0`);
    if (dir === first) {
      await this.#bento(['init', '--dir', dir]);
      writeFileSync(path.join(dir, '.bentoignore'), '');
      this.#change(dir, new Random(1));
      await this.#save(dir);
    } else {
      await this.#bento(['open', '--copy', 'cp-1', dir, '--dir', first]);
    }
  }

  async run(): Promise<void> {
    const endMs = Date.now() + this.#options.durationMs;
    let failed = false;
    const racing = DIRS.slice(0, PROCESS_COUNT).map(async (name, at) => {
      const random = new Random(this.#options.seed * PROCESS_COUNT + at);
      while (Date.now() < endMs && !failed) {
        await this.#step(this.#sandbox.path(name), random).catch((error: unknown) => {
          failed = true;
          throw error;
        });
      }
    });
    for (const result of await Promise.allSettled(racing)) if (result.status === 'rejected') throw result.reason;
  }

  async #step(dir: string, random: Random): Promise<void> {
    const bento = async (...args: string[]): Promise<unknown> => await this.#bento([...args, '--dir', dir]);
    const some = (): Saved => this.#some(dir, random);
    const actions: Record<keyof typeof WEIGHTS, () => Promise<unknown>> = {
      save: async () => {
        this.#change(dir, random);
        await this.#save(dir);
      },
      killedSave: async () => {
        this.#change(dir, random);
        await this.#killedSave(dir, random);
      },
      openInPlace: async () => await this.#openInPlace(dir, some()),
      undo: async () => await this.#openAndUndo(dir, some(), random),
      openNew: async () => await this.#openNew(dir, some()),
      fork: async () => await (this.#canFork ? this.#forkAndSave(dir, some(), random) : this.#openNew(dir, some())),
      gc: async () => await bento('gc'),
      tag: async () => await bento('tag', some().digest, `t-${random.below(5)}`),
      diff: async () => await bento('diff', some().digest, 'head'),
      verify: async () => await bento('verify', '--quick'),
    };
    await actions[random.weighted(WEIGHTS)]();
  }

  /** A few files in a few directories, some with what others have too, so that processes write the same blobs. */
  #change(dir: string, random: Random): void {
    for (let i = 0; i < 3; i += 1) {
      const folder = path.join(dir, random.pick(['', 'src', 'node_modules/p', '.claude']));
      const content = random.chance(0.5) ? `${random.below(3)}` : `${dir} ${this.#changeCount++}`;
      mkdirSync(folder, { recursive: true });
      writeFileSync(path.join(folder, `f${random.below(4)}`), content.repeat(1 + random.below(500)));
    }
    if (random.chance(0.3)) rmSync(path.join(dir, 'src'), { recursive: true, force: true });
  }

  async #save(dir: string): Promise<void> {
    const facts = factsOf(dir);
    const { saved, digest } = (await this.#bento(['save', '--json', '--dir', dir])).json<{
      saved: boolean;
      digest: Digest;
    }>();
    assert.equal(headOf(dir), digest, `${dir} is where its save put it`);
    if (saved) this.saved.set(digest, { workspace: workspaceId(this.#sandbox, dir), digest, facts });
  }

  async #killedSave(dir: string, random: Random): Promise<void> {
    this.commandCount += 1;
    const child = spawn(process.execPath, [CLI_PATH, 'save', '--dir', dir], {
      env: this.#sandbox.env,
      stdio: 'ignore',
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), random.below(KILL_WITHIN_MS));
    await once(child, 'exit');
    clearTimeout(timer);
    await this.#save(dir);
  }

  async #openInPlace(dir: string, wanted: Saved): Promise<void> {
    await this.#save(dir);
    await this.#bento(['open', wanted.digest, '--dir', dir]);
    assertEqual(wanted.facts, factsOf(dir), `${wanted.digest} opened in ${dir}`);
  }

  /** What was not saved comes back out of the undo slot, whatever gc did meanwhile. */
  async #openAndUndo(dir: string, wanted: Saved, random: Random): Promise<void> {
    await this.#save(dir);
    if (wanted.digest === headOf(dir)) return;
    writeFileSync(path.join(dir, `f${random.below(4)}`), `not saved ${this.#changeCount++}`);
    const unsaved = factsOf(dir);
    await this.#bento(['open', wanted.digest, '--dir', dir]);
    await this.#bento(['open', 'undo', '--dir', dir]);
    assertEqual(unsaved, factsOf(dir), `undone in ${dir}`);
  }

  async #openNew(dir: string, wanted: Saved): Promise<void> {
    const target = `${dir}-new-${this.#changeCount++}`;
    await this.#bento(['open', '--copy', wanted.digest, target, '--dir', dir]);
    assertEqual(wanted.facts, factsOf(target), `${wanted.digest} opened in ${target}`);
    rmSync(target, { recursive: true });
  }

  async #forkAndSave(dir: string, wanted: Saved, random: Random): Promise<void> {
    const target = `${dir}-fork-${this.#changeCount++}`;
    await this.#bento(['fork', wanted.digest, target, '--dir', dir]);
    assertEqual(wanted.facts, factsOf(target), `${wanted.digest} forked to ${target}`);
    this.#change(target, random);
    await this.#save(target);
    await this.#bento(['close', target]);
    assert.equal(existsSync(target), false);
  }

  /** Any checkpoint of the workspace that a directory belongs to. */
  #some(dir: string, random: Random): Saved {
    const workspace = workspaceId(this.#sandbox, dir);
    return random.pick([...this.saved.values()].filter((saved) => saved.workspace === workspace));
  }

  async #bento(args: readonly string[]): ReturnType<Sandbox['bento']> {
    this.commandCount += 1;
    return (await this.#sandbox.bento(args, { cwd: '/' })).ok();
  }

  async assertAllThere(): Promise<void> {
    const dir = this.#sandbox.path('a-0');
    await this.#bento(['verify', '--dir', dir]);
    const before = await this.#listed();
    await this.#bento(['gc', '--dir', dir]);
    assert.deepEqual(await this.#listed(), before, 'gc without a rule deletes no checkpoint');
    assert.deepEqual(temporaryFiles(this.#sandbox.storePath), [], 'litter after gc');
    for (const { digest } of this.saved.values()) assert.ok(before.includes(digest), `${digest} is listed`);
    const random = new Random(this.#options.seed);
    const all = [...this.saved.values()];
    const opened = this.#options.opensAll ? all : Array.from({ length: OPENED_AT_END }, () => random.pick(all));
    for (const saved of opened) await this.#openNew(dir, saved);
    await this.#bento(['verify', '--dir', dir]);
  }

  async #listed(): Promise<string[]> {
    const lists = await Promise.all(
      ['a-0', 'b-0'].map(async (name) => {
        const listed = await this.#bento(['list', '--json', '--dir', this.#sandbox.path(name)]);
        return listed.json<{ digest: string }[]>().map(({ digest }) => digest);
      }),
    );
    return lists.flat().sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sandbox.dispose();
  }
}

function factsOf(dir: string): TreeFacts {
  return withoutDirTimes(factsOnDisk(dir, OWN_FILES));
}
